//! Pauses left to a detector (SPEC 1.9), seen from outside: when files become visible.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::oracle::{check_all_stored, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

fn rig_with(pauses: &str) -> Rig {
    let mut rig = Rig::prepare(Options::default());
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let config = config.replace("streams = 2\n", &format!("streams = 2\n{pauses}\n"));
    assert!(config.contains(pauses));
    std::fs::write(rig.ppu_config(), config).unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    rig
}

/// When each file got its last attribute on the PPU, ns, in order.
fn landings(root: &Path) -> Vec<i64> {
    let ctime = |name| {
        let meta = std::fs::metadata(root.join(name)).unwrap();
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec()
    };
    let mut times: Vec<i64> = names(root).iter().map(ctime).collect();
    times.sort_unstable();
    times
}

/// With `min_pause_ms` files come in rounds that keep their distance.
#[test]
fn rounds_keep_their_distance() {
    if !is_root("rounds_keep_their_distance") {
        return;
    }
    const PAUSE_NS: i64 = 400_000_000;
    let rig = rig_with("min_pause_ms = 400");
    let began = Instant::now();
    let mut written = 0;
    wait_until("a file was written every 20 ms for 2 s", || {
        if began.elapsed() >= Duration::from_millis(20) * written {
            write(rig.source(0), format!("run/{written}"), &content(written.into(), 1000));
            written += 1;
        }
        began.elapsed() > Duration::from_secs(2)
    });
    assert_eq!(check_all_stored(&rig), written as usize);
    let times = landings(&rig.landing(0));
    let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let rounds = 1 + gaps.iter().filter(|gap| **gap > PAUSE_NS / 2).count();
    let span = times[times.len() - 1] - times[0];
    assert!(rounds >= 4, "they came in rounds: {gaps:?}");
    assert!((rounds as i64 - 1) * PAUSE_NS <= span + PAUSE_NS / 2, "{rounds} rounds in {span} ns: {gaps:?}");
}

/// With `interrun_pause_ms` a file that follows a run waits.
#[test]
fn a_run_is_followed_by_quiet() {
    if !is_root("a_run_is_followed_by_quiet") {
        return;
    }
    let rig = rig_with("interrun_pause_ms = 1500");
    for n in 0..20 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_until("the run has landed", || names(&rig.landing(0)).len() == 20);
    // And the PPU knows: what comes before that is still the same run.
    wait_until("the run is over", || {
        let detector = &rig.status().unwrap().detectors[0];
        (detector.landed.files, detector.backlog.files, detector.in_flight) == (20, 0, 0)
    });
    let run_over = *landings(&rig.landing(0)).last().unwrap();
    write(rig.source(0), "next", b"next");
    check_all_stored(&rig);
    let pause = landings(&rig.landing(0)).last().unwrap() - run_over;
    assert!(pause >= 1_400_000_000, "the next file came {pause} ns after the run");
}
