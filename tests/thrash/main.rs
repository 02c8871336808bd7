//! FAULTS.md, row 52: faults of every kind, in an order that a seed gives, against the real daemons, while simulated detectors write,
//! rewrite, extend, rename and delete files, shifts begin, and ramdisk and internal storage are too small for what comes, so that files leave
//! them all the time. In the end all is healed, and every byte must be where it belongs: under its shift, with its owner, on every storage.
//!
//! | file | what |
//! |---|---|
//! | `detector` | a detector's software |
//! | `beam` | who had the beam when |
//! | `chaos` | what is broken and healed |
//! | `truth` | what must be where |
//!
//! `scripts/thrash --seconds N --seed S` runs it for longer than the few seconds that it takes among the other tests.
#![allow(missing_docs, clippy::unwrap_used)]

mod beam;
mod chaos;
mod detector;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod truth;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use beam::Beam;
use chaos::Chaos;
use detector::Detector;
use random::{Random, is_whole};
use support::is_root;
use support::rig::Rig;

const DETECTORS: usize = 2;
/// Internal, external, optional.
const STORAGES: usize = 3;

/// Logs, journal, and what lies where, for whoever wants to know why it failed: in the directory `THRASH_KEEP`.
fn keep(rig: &Rig) {
    let Some(to) = std::env::var_os("THRASH_KEEP") else { return };
    let _ = Command::new("cp").arg("-a").arg(rig.dir.path()).arg(&to).status();
    let places = [rig.ppu_ramdisk.path(), rig.storage.path()];
    let sources = (0..DETECTORS).map(|detector| rig.source(detector));
    let all = places.into_iter().chain(sources).chain(rig.others.iter().map(|other| other.path()));
    let listed = Command::new("ls").arg("-lARi").args(["--time-style=full-iso"]).args(all).output();
    let _ =
        std::fs::write(PathBuf::from(to).join("listing"), listed.map_or(Vec::new(), |listed| listed.stdout));
}

fn say(what: &str) {
    println!("{} {what}", clock());
}

/// Seconds since the first word.
fn clock() -> String {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    format!("{:7.3}", BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn row_52_everything_at_random() {
    if !is_root("row_52_everything_at_random") {
        return;
    }
    let seed = number("SEED").unwrap_or(52);
    let seconds = number("THRASH_SECONDS").unwrap_or(8);
    println!("seed {seed}, {seconds} s");
    let canary = tempfile::tempdir().unwrap();
    std::fs::write(canary.path().join("canary"), b"untouched").unwrap();
    let beam = Arc::new(Beam::default());
    let mut chaos = Chaos::new(seed, &beam);
    for detector in 0..DETECTORS {
        // Nothing is to follow it.
        std::os::unix::fs::symlink(canary.path(), chaos.rig.source(detector).join("outside")).unwrap();
        support::oracle::write(&chaos.rig.landing(detector), truth::USERS_OWN, b"a user's own");
    }
    let stop = AtomicBool::new(false);
    let landings: Vec<PathBuf> =
        (0..DETECTORS).map(|detector| chaos.rig.landing(detector).parent().unwrap().to_owned()).collect();
    let mut detectors: Vec<Detector> =
        (0..DETECTORS).map(|detector| Detector::new(&chaos.rig, &beam, seed, detector)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let torn = std::thread::scope(|scope| {
        let stop_writing = &stop;
        for detector in &mut detectors {
            scope.spawn(move || {
                while !stop_writing.load(Ordering::Relaxed) {
                    detector.step();
                    detector.random.pause(1, 12);
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut random = Random::new(seed, 99);
            let mut torn = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let root = &landings[random.below(DETECTORS as u64) as usize];
                // Also by links, to wherever a file has gone.
                for path in truth::paths(root) {
                    let is_image = !path.iter().any(|part| part == "master" || part == truth::USERS_OWN);
                    if is_image && std::fs::read(root.join(&path)).is_ok_and(|bytes| !is_whole(&bytes)) {
                        torn.push(path);
                    }
                }
                random.pause(1, 50);
            }
            torn
        });
        // Also when a step fails: the others must not run for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end {
                chaos.step();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        reader.join().unwrap()
    });
    assert!(torn.is_empty(), "seed {seed}: torn: {torn:?}");
    say(&format!("all is healed, after {} shifts", beam.count()));
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        truth::check(&mut chaos, &mut detectors, &beam);
    }));
    if let Err(panic) = checked {
        keep(&chaos.rig);
        std::panic::resume_unwind(panic);
    }
    let kept = std::fs::read_dir(canary.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["canary"]);
    assert_eq!(std::fs::read(canary.path().join("canary")).unwrap(), b"untouched");
}
