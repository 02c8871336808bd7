//! Clocks that are wrong, or jump (FAULTS 40, 51), with libfaketime.

use std::path::{Path, PathBuf};

use ppu_uringd::model::message::Code;

use crate::support::daemon::Daemon;
use crate::support::oracle::write;
use crate::support::rig::{Options, Rig, UID};
use crate::support::{content, is_root, wait_until};
use crate::{check_user, list, pass_a_while, settled, start};

/// A detector's clock is three hours late: people are told, and no file is misplaced by it, neither by marks, nor where the link was down,
/// nor by a scan.
#[test]
fn row_51_a_clock_that_is_hours_off() {
    if !is_root("row_51_a_clock_that_is_hours_off") {
        return;
    }
    let Some(library) = faketime() else {
        eprintln!("SKIPPED: row_51_a_clock_that_is_hours_off needs libfaketime (package faketime)");
        return;
    };
    let mut rig = Rig::prepare(Options::default());
    let start_late = |rig: &mut Rig| {
        let late = Daemon::start_with("detector", &rig.detector_config(0), |command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME", "-3h").env("DONT_FAKE_MONOTONIC", "1");
        });
        rig.detectors[0] = Some(late);
    };
    start_late(&mut rig);
    rig.start_ppu();
    rig.wait_linked();
    wait_until("people are told of the clock", || {
        let status = rig.status().unwrap();
        status.detectors[0].clock_offset_ms.is_some_and(|ms| (-10_900_000.0..-10_700_000.0).contains(&ms))
            && status.messages.iter().any(|told| told.message.code == Code::ClockOffset)
    });
    let mut expected = Vec::new();
    for user in 501..505_u32 {
        start(&rig, &["-u", &user.to_string()]);
        pass_a_while();
        for n in 0..30 {
            if n == 10 && user == 502 {
                rig.detectors[0].take().unwrap().kill();
            }
            write(rig.source(0), format!("{user}/{n}"), &content(n, 2000));
        }
        pass_a_while();
        // The shift after this one begins while the detector is not there.
        if user == 503 {
            start_late(&mut rig);
            rig.wait_linked();
        }
        expected.push((user, (0..30).map(|n| format!("{user}/{n}")).collect::<Vec<_>>()));
    }
    settled(&rig, 120);
    for (user, files) in expected {
        check_user(&rig, &format!("{user}_{user}"), (user, user), files);
    }
}

/// The wall clocks of both machines jump two years, forwards and back, while shifts begin, and over restarts: shifts keep their order, and files
/// their shift.
#[test]
fn row_40_wall_clocks_jump_two_years() {
    if !is_root("row_40_wall_clocks_jump_two_years") {
        return;
    }
    let Some(library) = faketime() else {
        eprintln!("SKIPPED: row_40_wall_clocks_jump_two_years needs libfaketime (package faketime)");
        return;
    };
    let mut rig = Rig::prepare(Options::default());
    let clock = |rig: &Rig, role: &str| rig.dir.path().join(format!("{role}.clock"));
    // Read again at every look at the clock.
    let set = |rig: &Rig, role: &str, offset: &str| {
        let (at, new) = (clock(rig, role), rig.dir.path().join("clock.new"));
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, at).unwrap();
    };
    let begin = |rig: &Rig, role: &str, config: &Path| {
        let at = clock(rig, role);
        Daemon::start_with(role, config, |command| {
            command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", at);
            command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        })
    };
    for role in ["detector", "ppu"] {
        set(&rig, role, "+0");
    }
    rig.detectors[0] = Some(begin(&rig, "detector", &rig.detector_config(0)));
    rig.ppu = Some(begin(&rig, "ppu", &rig.ppu_config()));
    rig.wait_linked();
    let offset =
        |rig: &Rig| rig.status().and_then(|status| status.detectors[0].clock_offset_ms).unwrap_or(0.0);
    const YEAR_MS: f64 = 365.0 * 86_400_000.0;
    // The PPU's clock and the detector's, in years.
    let jumps = [(0, 0), (2, 0), (2, -2), (0, -2), (-2, 2), (0, 0)];
    let mut expected = Vec::new();
    for (n, (ppu, detector)) in jumps.into_iter().enumerate() {
        set(&rig, "ppu", &format!("{ppu:+}y"));
        set(&rig, "detector", &format!("{detector:+}y"));
        let years = f64::from(detector - ppu);
        wait_until("the jump is seen", || (offset(&rig) / YEAR_MS - years).abs() < 0.1);
        let user = 601 + n as u32;
        start(&rig, &["-u", &user.to_string()]);
        pass_a_while();
        for file in 0..10 {
            write(rig.source(0), format!("{user}/{file}"), &content(file, 2000));
        }
        if n == 2 || n == 4 {
            rig.ppu.take().unwrap().kill();
            write(rig.source(0), format!("{user}/10"), b"while the PPU is dead");
            rig.ppu = Some(begin(&rig, "ppu", &rig.ppu_config()));
        } else {
            write(rig.source(0), format!("{user}/10"), b"while nothing is the matter");
        }
        if n == 3 {
            rig.detectors[0].take().unwrap().kill();
            write(rig.source(0), format!("{user}/11"), b"while the detector is dead");
            rig.detectors[0] = Some(begin(&rig, "detector", &rig.detector_config(0)));
        }
        rig.wait_linked();
        pass_a_while();
        expected.push((
            user,
            (0..11 + u64::from(n == 3)).map(|file| format!("{user}/{file}")).collect::<Vec<_>>(),
        ));
    }
    settled(&rig, 67);
    for (user, files) in expected {
        check_user(&rig, &format!("{user}_{user}"), (user, user), files);
    }
    let shifts = list(&rig);
    assert_eq!(shifts.iter().map(|shift| shift.uid).collect::<Vec<_>>(), [UID, 601, 602, 603, 604, 605, 606]);
    assert!(shifts.is_sorted_by_key(|shift| shift.start_ms), "{shifts:?}");
    assert_eq!(rig.status().unwrap().detectors[0].held, 0);
}

fn faketime() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let library = |place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketime.so.1"));
    places.into_iter().map(library).find(|library| library.exists())
}
