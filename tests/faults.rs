//! FAULTS.md, the rows of the image path, against the real daemons. The number in each test's name is its row.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ppu_uringd::model::status::LinkState;
use support::daemon::Daemon;
use support::mount::run;
use support::oracle::{check_all_stored, check_sum, names, tree, write};
use support::proxy::Proxy;
use support::rig::{Options, Rig};
use support::{content, is_root, wait_at_most, wait_until};

/// Rows 1 to 3: both daemons are killed at random moments while files come.
#[test]
fn row_1_2_3_kill_loops() {
    if !is_root("row_1_2_3_kill_loops") {
        return;
    }
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    println!("seed {seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut rig = Rig::start(Options::default());
    for round in 0..12u64 {
        let first = round * 150;
        for n in first..first + 150 {
            let size = [100, 20_000, 300_000][n as usize % 3];
            write(rig.source(0), format!("run{round}/{n}"), &content(n, size));
            if n == first + next(150) {
                match next(3) {
                    0 => kill_ppu(&mut rig),
                    1 => kill_detector(&mut rig),
                    _ => {
                        kill_ppu(&mut rig);
                        kill_detector(&mut rig);
                    }
                }
            }
        }
        write(rig.source(0), "again", &content(round, 5000 + round as usize));
        if next(2) == 0 {
            kill_ppu(&mut rig);
        }
    }
    assert_eq!(check_all_stored(&rig), 12 * 150 + 1);
    assert_eq!(rig.counts().lost, 0);
}

fn kill_ppu(rig: &mut Rig) {
    rig.ppu.take().unwrap().kill();
    rig.start_ppu();
}

fn kill_detector(rig: &mut Rig) {
    rig.detectors[0].take().unwrap().kill();
    rig.start_detector(0);
}

/// A restart of either side sends exactly what is missing.
#[test]
fn a_restart_sends_nothing_twice() {
    if !is_root("a_restart_sends_nothing_twice") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    for n in 0..300 {
        write(rig.source(0), format!("a/{n}"), &content(n, 10_000));
    }
    check_all_stored(&rig);
    kill_ppu(&mut rig);
    kill_detector(&mut rig);
    write(rig.source(0), "b", b"new");
    wait_until("the new file has landed", || rig.landing(0).join("b").exists());
    assert_eq!(check_all_stored(&rig), 301);
    // The counter starts with the daemon.
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 1);
    assert_eq!(rig.counts().produced, 301);
}

/// Row 4: a detector that hangs is noticed; the others go on; it resumes.
#[test]
fn row_4_peer_hangs() {
    if !is_root("row_4_peer_hangs") {
        return;
    }
    let rig = Rig::start(Options { detectors: 2, ..Options::default() });
    rig.detectors[0].as_ref().unwrap().signal(Signal::SIGSTOP);
    write(rig.source(0), "a", &content(1, 1000));
    for n in 0..100 {
        write(rig.source(1), format!("{n}"), &content(n, 100_000));
    }
    wait_at_most(Duration::from_secs(10), "the other detector's files land", || {
        names(&rig.landing(1)).len() == 100
    });
    wait_until("the hanging detector is noticed", || {
        !matches!(rig.status().unwrap().detectors[0].link.state, LinkState::Connected)
    });
    rig.detectors[0].as_ref().unwrap().signal(Signal::SIGCONT);
    assert_eq!(check_all_stored(&rig), 101);
}

/// Row 5: connections are reset in the middle of everything.
#[test]
fn row_5_connection_reset() {
    if !is_root("row_5_connection_reset") {
        return;
    }
    let rig = Rig::start(Options::default());
    for n in 0..600u64 {
        write(rig.source(0), format!("{n}"), &content(n, 200_000));
        if n % 150 == 70 {
            run(Command::new("ss").args(["-K", "dport", "=", &rig.ports[0].to_string()]));
        }
    }
    assert_eq!(check_all_stored(&rig), 600);
}

/// Row 12: what accepts and never answers keeps nobody waiting but itself.
#[test]
fn row_12_a_peer_that_never_answers() {
    if !is_root("row_12_a_peer_that_never_answers") {
        return;
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut rig = Rig::prepare(Options { detectors: 2, ..Options::default() });
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    std::fs::write(
        rig.ppu_config(),
        config.replace(&format!(":{}", rig.ports[0]), &format!(":{silent_port}")),
    )
    .unwrap();
    rig.start_detector(1);
    rig.start_ppu();
    write(rig.source(1), "a", &content(1, 100_000));
    wait_until("the other detector's file has landed", || rig.landing(1).join("a").exists());
    wait_until("the silence is reported", || {
        let status = rig.status().unwrap();
        matches!(&status.detectors[0].link.state, LinkState::Connecting { reason: Some(reason) } if reason.contains("does not answer"))
    });
}

/// Row 12, the other way: clients of a detector that never say a word, and one that says nonsense.
#[test]
fn row_12_43_clients_that_never_speak() {
    if !is_root("row_12_43_clients_that_never_speak") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    rig.start_detector(0);
    wait_until("the detector listens", || std::net::TcpStream::connect(("127.0.0.1", rig.ports[0])).is_ok());
    let silent: Vec<_> =
        (0..200).map(|_| std::net::TcpStream::connect(("127.0.0.1", rig.ports[0])).unwrap()).collect();
    for n in 0..50u64 {
        let mut hostile = std::net::TcpStream::connect(("127.0.0.1", rig.ports[0])).unwrap();
        // The detector may hang up while we are still talking.
        let _ = hostile.write_all(&u32::MAX.to_le_bytes());
        let _ = hostile.write_all(&content(n, 4096));
    }
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "a", &content(1, 100_000));
    assert_eq!(check_all_stored(&rig), 1);
    drop(silent);
}

/// Row 13: a flipped bit is noticed, counted, and never published.
#[test]
fn row_13_bit_flip_on_the_wire() {
    if !is_root("row_13_bit_flip_on_the_wire") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let proxy = Proxy::start(rig.ports[0]);
    rig.options.via = Some(proxy.port);
    rig.write_ppu_config();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..5u64 {
        proxy.flip_in(3_000_000);
        write(rig.source(0), format!("{n}"), &content(n, 8_000_000));
        wait_until("a bit was flipped", || proxy.flipped() == n + 1);
        wait_until("the file has landed", || rig.landing(0).join(n.to_string()).exists());
    }
    assert_eq!(check_all_stored(&rig), 5);
    assert_eq!(rig.status().unwrap().detectors[0].integrity_errors, 5);
}

/// Rows 15 and 16: the source is overwritten, truncated, removed while it is sent.
#[test]
fn row_15_16_the_source_changes_while_it_is_sent() {
    if !is_root("row_15_16_the_source_changes_while_it_is_sent") {
        return;
    }
    let rig = Rig::start(Options::default());
    let stop = AtomicBool::new(false);
    let torn = std::thread::scope(|scope| {
        // Whoever reads what is published sees one version, whole: every file is of one byte's value throughout.
        let reader = scope.spawn(|| {
            let mut torn = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for name in names(&rig.landing(0)) {
                    if let Ok(bytes) = std::fs::read(rig.landing(0).join(&name))
                        && bytes.windows(2).any(|pair| pair[0] != pair[1])
                    {
                        torn.push(name);
                    }
                }
            }
            torn
        });
        for round in 0..40u8 {
            for file in 0..4 {
                let size = 3_000_000 + usize::from(round) * 4097;
                write(rig.source(0), format!("in_place/{file}"), &vec![round; size]);
            }
            let shrinking = rig.source(0).join(format!("shrink/{}", round % 4));
            write(rig.source(0), format!("shrink/{}", round % 4), &vec![round; 6_000_000]);
            File::options().write(true).open(&shrinking).unwrap().set_len(u64::from(round) * 1000).unwrap();
            if round % 3 == 0 {
                std::fs::remove_file(shrinking).unwrap();
            }
        }
        wait_until("everything has settled", || {
            let counts = rig.counts();
            counts.produced > 0 && counts.pending == 0
        });
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(torn.is_empty(), "torn: {torn:?}");
    check_sum(&rig);
    let landed = tree(&rig.landing(0));
    for (path, entry) in tree(rig.source(0)) {
        assert_eq!(landed.get(&path), Some(&entry), "the newest version wins");
    }
}

/// Row 17: a file that is opened again and extended is a new version (an HDF5 master).
#[test]
fn row_17_extended_after_it_was_sent() {
    if !is_root("row_17_extended_after_it_was_sent") {
        return;
    }
    let rig = Rig::start(Options::default());
    let path = rig.source(0).join("master.h5");
    write(rig.source(0), "master.h5", &content(1, 10_000));
    check_all_stored(&rig);
    for round in 0..5 {
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&content(round, 10_000)).unwrap();
        drop(file);
        check_all_stored(&rig);
    }
}

/// Row 19: more closes than the queue of inotify holds, while the detector daemon stands still.
#[test]
fn row_19_inotify_overflow() {
    if !is_root("row_19_inotify_overflow") {
        return;
    }
    let rig = Rig::start(Options::default());
    rig.detectors[0].as_ref().unwrap().signal(Signal::SIGSTOP);
    for n in 0..20_000u64 {
        write(rig.source(0), format!("{}/{n}", n % 3), &content(n, 64));
    }
    rig.detectors[0].as_ref().unwrap().signal(Signal::SIGCONT);
    assert_eq!(check_all_stored(&rig), 20_000);
}

/// Rows 20 and 21: directories that appear full, and every way to finish a file.
#[test]
fn row_20_21_directories_and_ways_to_finish() {
    if !is_root("row_20_21_directories_and_ways_to_finish") {
        return;
    }
    let rig = Rig::start(Options::default());
    let root = rig.source(0);
    for n in 0..50u64 {
        write(root, format!("{n}/a/b/c/d/instant"), &content(n, 100));
        write(root, format!("hidden{n}/x/file"), &content(n, 200));
        std::fs::rename(root.join(format!("hidden{n}")), root.join(format!("shown{n}"))).unwrap();
        write(root, format!("t/{n}.tmp"), &content(n, 300));
        std::fs::rename(root.join(format!("t/{n}.tmp")), root.join(format!("t/{n}.cbf"))).unwrap();
        std::fs::hard_link(root.join(format!("t/{n}.cbf")), root.join(format!("t/{n}.link"))).unwrap();
        link_unnamed(&root.join("t"), &format!("{n}.unnamed"), &content(n, 400));
    }
    wait_until("every file has landed", || {
        let landed = tree(&rig.landing(0));
        tree(root).iter().all(|(path, entry)| landed.get(path) == Some(entry))
    });
    check_sum(&rig);
    assert_eq!(rig.counts().lost, 0, "a renamed file is not lost");
}

/// O_TMPFILE, write, linkat.
fn link_unnamed(dir: &Path, name: &str, content: &[u8]) {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
    use std::os::fd::AsRawFd;
    let file = open(dir, OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
    let mut file = File::from(file);
    file.write_all(content).unwrap();
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, itself, CWD, dir.join(name), AtFlags::SYMLINK_FOLLOW).unwrap();
}

/// Row 23: the detector's ramdisk is unmounted and mounted again.
#[test]
fn row_23_detector_ramdisk_mounted_again() {
    if !is_root("row_23_detector_ramdisk_mounted_again") {
        return;
    }
    let rig = Rig::start(Options::default());
    write(rig.source(0), "before", &content(1, 1000));
    check_all_stored(&rig);
    rig.detector_ramdisks[0].unmount_lazily();
    rig.detector_ramdisks[0].mount_tmpfs("size=1g");
    write(rig.source(0), "after", &content(2, 1000));
    wait_until("the new file has landed", || rig.landing(0).join("after").exists());
    assert!(rig.landing(0).join("before").exists(), "nothing is removed");
}

/// Row 24: the PPU's ramdisk is full; files wait on the detector, and flow when there is room.
#[test]
fn row_24_ppu_ramdisk_full() {
    if !is_root("row_24_ppu_ramdisk_full") {
        return;
    }
    let rig = Rig::start(Options {
        ppu_ramdisk: "size=40m",
        // Nothing is evicted.
        ppu_extra: "fillstate_limit = 1.0\nfillstate_low = 0.99\nalmost_overflow = 1.0".to_owned(),
        ..Options::default()
    });
    for n in 0..30u64 {
        write(rig.source(0), format!("{n}"), &content(n, 2_400_000));
    }
    wait_until("files wait for room", || {
        let status = rig.status().unwrap();
        status.detectors[0].no_room > 0 && rig.counts().copied > 10
    });
    assert_eq!(rig.counts().failed + rig.counts().lost, 0);
    // A user makes room; what was stored stays stored.
    wait_until("everything is stored", || {
        for name in names(&rig.landing(0)) {
            if rig.stored(0).join(&name).exists() && rig.counts().pending > 0 {
                let _ = std::fs::remove_file(rig.landing(0).join(name));
            }
        }
        rig.counts().copied == 30
    });
    let stored = tree(&rig.stored(0));
    assert_eq!(stored, tree(rig.source(0)));
}

/// Row 25: out of inodes.
#[test]
fn row_25_ppu_ramdisk_out_of_inodes() {
    if !is_root("row_25_ppu_ramdisk_out_of_inodes") {
        return;
    }
    let rig = Rig::start(Options { ppu_ramdisk: "size=1g,nr_inodes=60", ..Options::default() });
    for n in 0..100u64 {
        write(rig.source(0), format!("{n}"), &content(n, 1000));
    }
    wait_until("files wait for room", || rig.status().unwrap().detectors[0].no_room > 0);
    assert_eq!(rig.counts().failed + rig.counts().lost, 0);
    run(Command::new("mount").args(["-o", "remount,nr_inodes=10000"]).arg(rig.ppu_ramdisk.path()));
    assert_eq!(check_all_stored(&rig), 100);
}

/// Row 45: a name that holds something else is never replaced; the image waits and lands when the name is free.
#[test]
fn a_foreign_file_is_never_replaced() {
    if !is_root("a_foreign_file_is_never_replaced") {
        return;
    }
    let rig = Rig::start(Options::default());
    write(rig.source(0), "first", b"1");
    check_all_stored(&rig);
    std::fs::write(rig.landing(0).join("taken"), b"a user's result").unwrap();
    write(rig.source(0), "taken", &content(1, 1000));
    write(rig.source(0), "other", &content(2, 1000));
    wait_until("the other file has landed", || rig.landing(0).join("other").exists());
    wait_until("it is reported", || {
        rig.status().unwrap().messages.iter().any(|told| told.message.short.contains("taken"))
    });
    assert_eq!(std::fs::read(rig.landing(0).join("taken")).unwrap(), b"a user's result");
    std::fs::rename(rig.landing(0).join("taken"), rig.landing(0).join("mine")).unwrap();
    wait_until("the image has landed", || rig.landing(0).join("taken").exists());
    std::fs::remove_file(rig.landing(0).join("mine")).unwrap();
    assert_eq!(check_all_stored(&rig), 3);
}

/// Neither descriptors nor memory grow with the number of files that passed, nor with broken links.
#[test]
fn nothing_leaks() {
    if !is_root("nothing_leaks") {
        return;
    }
    let rig = Rig::start(Options::default());
    let round = |n: u64| {
        for file in 0..300u64 {
            write(rig.source(0), format!("{n}/{file}"), &content(file, 5000));
        }
        check_all_stored(&rig);
        run(Command::new("ss").args(["-K", "dport", "=", &rig.ports[0].to_string()]));
        write(rig.source(0), format!("{n}/after"), b"the link is back");
        check_all_stored(&rig);
    };
    let daemons = || [rig.ppu.as_ref().unwrap(), rig.detectors[0].as_ref().unwrap()].map(Daemon::descriptors);
    round(0);
    let before = daemons();
    for n in 1..5 {
        round(n);
    }
    let mut after = daemons();
    wait_until("descriptors are as before", || {
        after = daemons();
        after[0] <= before[0] + 4 && after[1] <= before[1] + 4
    });
}

/// Daemons end on SIGTERM within seconds, also in the middle of work, and lose nothing.
#[test]
fn sigterm_in_the_middle_of_work() {
    if !is_root("sigterm_in_the_middle_of_work") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    for round in 0..4u64 {
        for n in 0..100u64 {
            write(rig.source(0), format!("{round}/{n}"), &content(n, 500_000));
        }
        let began = Instant::now();
        assert!(rig.ppu.take().unwrap().stop().success());
        assert!(rig.detectors[0].take().unwrap().stop().success());
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        rig.start_detector(0);
        rig.start_ppu();
    }
    assert_eq!(check_all_stored(&rig), 400);
}

/// Row 22: more directories than the kernel grants watches, in a user namespace with a limit of its own: it is said, and files are found
/// by listing.
#[test]
fn row_22_watch_limit() {
    if !is_root("row_22_watch_limit") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let limited = ["unshare", "--user", "--map-root-user", "sh", "-c"].map(str::to_owned);
    let script = "echo 20 > /proc/sys/user/max_inotify_watches && exec \"$@\"".to_owned();
    let before = [&limited[..], &[script, "sh".to_owned()]].concat();
    rig.detectors[0] = Some(Daemon::start_behind(&before, "detector", &rig.detector_config(0)));
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..60u64 {
        write(rig.source(0), format!("{n}/file"), &content(n, 10_000));
    }
    assert_eq!(check_all_stored(&rig), 60);
    let log = rig.detectors[0].as_ref().unwrap().log();
    assert!(log.contains("fs.inotify.max_user_watches"), "{log}");
    // A file in a directory that is not watched, and a newer version of one.
    write(rig.source(0), "59/file", &content(100, 20_000));
    write(rig.source(0), "58/later", &content(101, 20_000));
    assert_eq!(check_all_stored(&rig), 61);
}

/// Row 36, the detector: out of descriptors, it says so, loses nothing, and goes on by itself.
#[test]
fn row_36_the_detector_is_out_of_descriptors() {
    if !is_root("row_36_the_detector_is_out_of_descriptors") {
        return;
    }
    let rig = Rig::start(Options {
        detector_extra: "release = \"landed\"\nrelease_above = 0.9".to_owned(),
        ..Options::default()
    });
    write(rig.source(0), "first", b"first");
    check_all_stored(&rig);
    let detector = rig.detectors[0].as_ref().unwrap();
    let limit = |files: usize| {
        run(Command::new("prlimit")
            .arg(format!("--pid={}", detector.pid()))
            .arg(format!("--nofile={files}:")));
    };
    limit(detector.descriptors());
    for n in 0..100u64 {
        write(rig.source(0), format!("{}/{n}", n % 5), &content(n, 50_000));
    }
    wait_until("it is said", || {
        let on_ppu = rig.status().unwrap().messages;
        detector.log().contains("Too many open files")
            || on_ppu.iter().any(|told| told.message.long.contains("Too many open files"))
    });
    limit(1024);
    assert_eq!(check_all_stored(&rig), 101);
    assert_eq!(rig.counts().lost, 0);
}
