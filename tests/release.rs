//! Releasing files from the detector's ramdisk (SPEC 1.10), with the real daemons.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use ppu_uringd::model::file_version::Hash;
use support::mount::run;
use support::oracle::{check_staging_empty, check_sum, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

/// What was written last under each path.
#[derive(Default)]
struct Manifest(BTreeMap<PathBuf, Hash>);

impl Manifest {
    fn write(&mut self, rig: &Rig, path: impl AsRef<Path>, bytes: &[u8]) {
        write(rig.source(0), path.as_ref(), bytes);
        self.0.insert(path.as_ref().to_owned(), Hash::of(bytes));
    }

    /// Every file's newest version is stored.
    #[track_caller]
    fn check_stored(&self, rig: &Rig) {
        let differing = || {
            let is_there = |(path, hash): &(&PathBuf, &Hash)| {
                std::fs::read(rig.stored(0).join(path)).is_ok_and(|bytes| Hash::of(&bytes) == **hash)
            };
            self.0.iter().find(|entry| !is_there(entry)).map(|(path, _)| path.clone())
        };
        let mut found = None;
        wait_until("the newest version of every file is stored", || {
            found = differing();
            found.is_none()
        });
        assert_eq!(found, None);
    }

    /// ... and nothing is left on the detector; nothing was lost.
    #[track_caller]
    fn check_released(&self, rig: &Rig) {
        self.check_stored(rig);
        wait_until("the detector's ramdisk is empty", || names(rig.source(0)).is_empty());
        wait_until("nothing is pending", || rig.counts().pending == 0);
        check_sum(rig);
        assert_eq!(rig.counts().lost, 0);
        check_detector_staging_empty(rig);
        check_staging_empty(rig);
    }
}

#[track_caller]
fn check_detector_staging_empty(rig: &Rig) {
    // A place for the next one is kept.
    let taken = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with("note-");
    let staging = rig.source(0).join(".ppu-uringd");
    wait_until("the detector's staging is empty", || {
        std::fs::read_dir(&staging).map_or(true, |entries| entries.flatten().filter(taken).count() == 0)
    });
}

fn options(release: &str) -> Options {
    Options { detector_extra: release.to_owned(), ..Options::default() }
}

fn released(rig: &Rig) -> u64 {
    rig.status().map_or(0, |status| status.detectors[0].released.files)
}

#[test]
fn stored_files_leave_and_are_not_lost() {
    if !is_root("stored_files_leave_and_are_not_lost") {
        return;
    }
    let rig = Rig::start(options("release = \"stored\""));
    let mut manifest = Manifest::default();
    for n in 0..500u64 {
        manifest.write(&rig, format!("run/{}/{n}", n % 7), &content(n, 20_000));
    }
    manifest.check_released(&rig);
    wait_until("the status says so", || released(&rig) == 500);
    assert_eq!(rig.status().unwrap().detectors[0].released.bytes, 500 * 20_000);
    assert_eq!(rig.counts().produced, 500);
    assert_eq!(names(&rig.landing(0)).len(), 500, "the PPU's ramdisk keeps them");
    assert!(rig.source(0).join("run/6").is_dir(), "directories stay for the detector's software");
    // A name may be used again.
    manifest.write(&rig, "run/0/0", b"again");
    manifest.check_released(&rig);
    assert_eq!(rig.counts().produced, 501);
}

/// Under `stored` nothing leaves while it is only landed; under `landed` it does.
#[test]
fn with_the_storage_away_only_landed_releases() {
    if !is_root("with_the_storage_away_only_landed_releases") {
        return;
    }
    for (policy, leaves) in [("stored", false), ("landed", true)] {
        let mut rig = Rig::prepare(options(&format!("release = {policy:?}")));
        rig.storage.unmount();
        rig.start_detector(0);
        rig.start_ppu();
        rig.wait_linked();
        let mut manifest = Manifest::default();
        for n in 0..30u64 {
            manifest.write(&rig, n.to_string(), &content(n, 50_000));
        }
        wait_until("they have landed", || names(&rig.landing(0)).len() == 30);
        if leaves {
            wait_until("they have left", || names(rig.source(0)).is_empty());
        } else {
            // Both daemons have had every occasion by then.
            manifest.write(&rig, "later", b"later");
            wait_until("a later file has landed", || rig.landing(0).join("later").exists());
            assert_eq!(names(rig.source(0)).len(), 31);
            assert_eq!(released(&rig), 0);
        }
        rig.storage.mount_image();
        std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
        manifest.check_released(&rig);
        let warned = rig.detectors[0].as_ref().unwrap().log().contains("a PPU that reboots");
        assert_eq!(warned, leaves, "the risk is said at the start");
    }
}

/// Above the mark the oldest go, down to the mark.
#[test]
fn above_the_mark_the_oldest_leave() {
    if !is_root("above_the_mark_the_oldest_leave") {
        return;
    }
    let release = "release = \"stored\"\nrelease_above = 0.5";
    let rig = Rig::start(Options { detector_ramdisk: "size=64m", ..options(release) });
    let mut manifest = Manifest::default();
    for n in 0..14u64 {
        manifest.write(&rig, format!("{n:02}"), &content(n, 2 << 20));
    }
    manifest.check_stored(&rig);
    wait_until("nothing is pending", || rig.counts().pending == 0);
    assert_eq!(names(rig.source(0)).len(), 14, "28 of 64 MB: below the mark");
    for n in 14..24u64 {
        manifest.write(&rig, format!("{n:02}"), &content(n, 2 << 20));
    }
    manifest.check_stored(&rig);
    wait_until("the mark is reached", || names(rig.source(0)).len() <= 16);
    wait_until("nothing is pending", || rig.counts().pending == 0);
    let mut left = names(rig.source(0));
    left.sort();
    assert!((15..=16).contains(&left.len()), "no more than needed: {left:?}");
    let expected: Vec<PathBuf> = (24 - left.len()..24).map(|n| format!("{n:02}").into()).collect();
    assert_eq!(left, expected, "the oldest have left");
}

/// A file that was written again after it was sent stays until the newer version is stored, whatever the daemon has missed.
#[test]
fn what_was_written_again_stays_until_it_is_stored_anew() {
    if !is_root("what_was_written_again_stays_until_it_is_stored_anew") {
        return;
    }
    let rig = Rig::start(options("release = \"stored\""));
    let mut manifest = Manifest::default();
    let detector = || rig.detectors[0].as_ref().unwrap();
    for round in 0..15u64 {
        for n in 0..20u64 {
            manifest.write(&rig, format!("in_place/{n}"), &content(1000 * round + n, 30_000));
            // By another file, under the same name.
            let replaced = rig.source(0).join(format!("tmp{n}"));
            std::fs::write(&replaced, content(2000 * round + n, 10_000)).unwrap();
            std::fs::create_dir_all(rig.source(0).join("replaced")).unwrap();
            std::fs::rename(replaced, rig.source(0).join(format!("replaced/{n}"))).unwrap();
            manifest.0.insert(format!("replaced/{n}").into(), Hash::of(&content(2000 * round + n, 10_000)));
            if n % 7 == 3 {
                detector().signal(Signal::SIGSTOP);
            }
            if n % 7 == 6 {
                detector().signal(Signal::SIGCONT);
            }
        }
        detector().signal(Signal::SIGCONT);
    }
    // tmpN may have been seen, sent and even released before it was renamed.
    manifest.check_stored(&rig);
    wait_until("the detector's ramdisk is empty", || names(rig.source(0)).is_empty());
    manifest.check_stored(&rig);
    wait_until("nothing is pending", || rig.counts().pending == 0);
    check_sum(&rig);
    check_detector_staging_empty(&rig);
}

/// Somebody has a file open for writing, or mapped: it stays, also if nothing is written.
#[test]
fn what_is_open_for_writing_stays() {
    if !is_root("what_is_open_for_writing_stays") {
        return;
    }
    let mut rig = Rig::prepare(options("release = \"stored\""));
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    let mut manifest = Manifest::default();
    for n in 0..20u64 {
        manifest.write(&rig, n.to_string(), &content(n, 30_000));
    }
    wait_until("they have landed", || names(&rig.landing(0)).len() == 20);
    let mut held = File::options().append(true).open(rig.source(0).join("7")).unwrap();
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("the others have left", || names(rig.source(0)) == [PathBuf::from("7")]);
    held.write_all(b"more").unwrap();
    drop(held);
    manifest.0.insert("7".into(), Hash::of(&[&content(7, 30_000)[..], b"more"].concat()));
    manifest.check_released(&rig);
}

/// Both daemons are killed while files leave: what was out of sight comes back, and nothing is lost.
#[test]
fn killed_in_the_middle() {
    if !is_root("killed_in_the_middle") {
        return;
    }
    let mut rig = Rig::start(options("release = \"stored\""));
    let mut manifest = Manifest::default();
    for round in 0..8u64 {
        for n in 0..150u64 {
            manifest.write(&rig, format!("{round}/{n}"), &content(1000 * round + n, 10_000));
        }
        let left = names(rig.source(0)).len();
        wait_until("some have left", || names(rig.source(0)).len() < left.saturating_sub(20).max(1));
        rig.detectors[0].take().unwrap().kill();
        if round % 3 == 2 {
            rig.ppu.take().unwrap().kill();
            rig.start_ppu();
        }
        rig.start_detector(0);
    }
    manifest.check_released(&rig);
    assert_eq!(rig.counts().produced, 8 * 150, "none of them travelled as a new one");
}

/// The link breaks again and again.
#[test]
fn broken_links() {
    if !is_root("broken_links") {
        return;
    }
    let rig = Rig::start(options("release = \"stored\""));
    let mut manifest = Manifest::default();
    for n in 0..600u64 {
        manifest.write(&rig, n.to_string(), &content(n, 50_000));
        if n % 100 == 60 {
            run(Command::new("ss").args(["-K", "dport", "=", &rig.ports[0].to_string()]));
        }
    }
    manifest.check_released(&rig);
    assert_eq!(rig.counts().produced, 600);
}

/// After a restart nothing leaves on the strength of what an earlier process knew.
#[test]
fn a_restart_waits_for_the_ppus_word() {
    if !is_root("a_restart_waits_for_the_ppus_word") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    let mut manifest = Manifest::default();
    for n in 0..20u64 {
        manifest.write(&rig, n.to_string(), &content(n, 10_000));
    }
    manifest.check_stored(&rig);
    wait_until("nothing is pending", || rig.counts().pending == 0);
    rig.ppu.take().unwrap().kill();
    rig.detectors[0].take().unwrap().kill();
    rig.options.detector_extra = "release = \"stored\"".to_owned();
    rig.write_detector_config(0);
    rig.start_detector(0);
    wait_until("the detector listens", || std::net::TcpStream::connect(("127.0.0.1", rig.ports[0])).is_ok());
    assert_eq!(names(rig.source(0)).len(), 20, "nobody has said that they are stored");
    rig.start_ppu();
    manifest.check_released(&rig);
    assert_eq!(rig.counts().produced, 20);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 0, "nothing travelled again");
}

/// What has left its detector is history for the PPU: a restart takes it for nothing else, though it is still on the ramdisk.
#[test]
fn a_restarted_ppu_does_not_count_released_files_again() {
    if !is_root("a_restarted_ppu_does_not_count_released_files_again") {
        return;
    }
    let mut rig = Rig::start(options("release = \"stored\""));
    let mut manifest = Manifest::default();
    for n in 0..50u64 {
        manifest.write(&rig, n.to_string(), &content(n, 10_000));
    }
    manifest.check_released(&rig);
    for round in 0..2 {
        rig.ppu.take().unwrap().kill();
        rig.start_ppu();
        rig.wait_linked();
        manifest.write(&rig, format!("later{round}"), &content(100 + round, 1000));
        manifest.check_released(&rig);
        assert_eq!(rig.counts().produced, 51 + round);
    }
}
