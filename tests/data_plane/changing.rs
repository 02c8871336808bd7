//! Files that change while they are sent are never published torn (FAULTS 15 and 16).

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::pair::*;
use ppu_uringd::model::file_version::Identity;
use ppu_uringd::model::send::{SendJob, SendOutcome};

const ROUNDS: u64 = 4;

/// Lets `change` loose on the file from the moment its payload begins to travel; every round must end with a verdict, and only
/// `whole` versions may be published. What the streams found under the name afterwards.
fn check(
    size: usize,
    whole: impl Fn(&Path) -> Vec<Vec<u8>>,
    change: impl Fn(&Path) + Send + Sync + 'static,
) -> Vec<Option<Identity>> {
    let mut found = Vec::new();
    let change = Arc::new(change);
    let changed = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        for (sender, receiver) in [(URING, URING), (SYSCALL, SYSCALL)] {
            let room = Room::new();
            room.put("x", &content(size, 1));
            room.put("next", &content(MIB_AND_MORE, 2));
            let path = room.source.join("x");
            let jobs: [SendJob; 2] = [room.job(1, "x"), room.job(2, "next")];
            let path_to_change: PathBuf = path.clone();
            let (change, changes) = (Arc::clone(&change), Arc::clone(&changed));
            let writer = std::sync::Mutex::new(None);
            let writer = Arc::new(writer);
            let started = Arc::clone(&writer);
            let on_begin = Box::new(move |header: &ppu_uringd::wire::data::FileHeader| {
                if header.transfer.0 == 1 {
                    let (change, path) = (Arc::clone(&change), path_to_change.clone());
                    let thread = std::thread::spawn(move || change(&path));
                    started.lock().unwrap().replace(thread);
                }
                Ok(())
            });
            let options = Options { on_begin, ..Options::default() };
            let outcome = Pair::start(&room, &jobs, sender, receiver, options).finish();
            if let Some(thread) = writer.lock().unwrap().take() {
                thread.join().unwrap();
            }
            assert_eq!(outcome.broken, (None, None), "round {round}: the connection must survive");
            assert!(
                outcome.landed[&jobs[1].transfer].is_ok(),
                "the next file is not touched by it: {outcome:?}"
            );
            match (&outcome.sent[&jobs[0].transfer], &outcome.landed[&jobs[0].transfer]) {
                (SendOutcome::Sent { .. }, _) => {}
                (SendOutcome::Changed { identity }, Err(_)) => {
                    found.push(*identity);
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                (SendOutcome::Failed(_), Err(_)) => {
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
            let versions: HashMap<_, _> =
                [("x".into(), whole(&path)), ("next".into(), vec![content(MIB_AND_MORE, 2)])].into();
            assert_sound(&room, &versions, "changing");
        }
    }
    assert!(changed.load(Ordering::Relaxed) > 0, "no change was ever seen: this test tests nothing");
    found
}

const MIB_AND_MORE: usize = 1_200_000;
const LARGE: usize = 40 << 20;

fn original(_: &Path) -> Vec<Vec<u8>> {
    vec![content(LARGE, 1)]
}

#[test]
fn overwritten_in_place() {
    check(LARGE, original, |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&content(LARGE / 2, 9), LARGE as u64 / 4).unwrap();
    });
}

#[test]
fn truncated() {
    check(LARGE, original, |path| {
        File::options().write(true).open(path).unwrap().set_len(LARGE as u64 / 2 + 777).unwrap();
    });
}

#[test]
fn truncated_to_nothing_and_refilled() {
    check(LARGE, original, |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&content(LARGE, 9), 0).unwrap();
    });
}

#[test]
fn extended() {
    check(LARGE, original, |path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(b"one more", LARGE as u64).unwrap();
    });
}

#[test]
fn unlinked_or_replaced() {
    check(LARGE, original, |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, content(1000, 5)).unwrap();
    });
}

/// The catalog must not take it for lost.
#[test]
fn renamed_over() {
    let found = check(LARGE, original, |path| {
        let other = path.with_file_name("other");
        std::fs::write(&other, content(1000, 5)).unwrap();
        std::fs::rename(other, path).unwrap();
    });
    assert!(found.iter().all(|found| found.is_some_and(|found| found.size == 1000)), "{found:?}");
}

#[test]
fn small_files_under_a_writer_that_never_rests() {
    let room = Room::new();
    let stop = Arc::new(AtomicBool::new(false));
    let versions: Vec<Vec<u8>> = (0..4).map(|v| content(90_000, v)).collect();
    room.put("x", &versions[0]);
    let writer = std::thread::spawn({
        let (stop, path, versions) = (Arc::clone(&stop), room.source.join("x"), versions.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                for version in &versions {
                    // Each version is written in place, in two steps, and closed.
                    let file = File::options().write(true).open(&path).unwrap();
                    file.write_all_at(&version[..40_000], 0).unwrap();
                    file.write_all_at(&version[40_000..], 40_000).unwrap();
                }
            }
        }
    });
    let known: HashMap<_, _> = [("x".into(), versions)].into();
    let mut landed = 0;
    for round in 0..300 {
        let outcome = transfer(&room, &[room.job(round, "x")], URING, URING);
        assert_eq!(outcome.broken, (None, None));
        landed += outcome.landed.values().filter(|l| l.is_ok()).count();
        assert_sound(&room, &known, "never rests");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    eprintln!("{landed} of 300 rounds found the file at rest");
}
