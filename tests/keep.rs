//! What leaves the PPU's ramdisk, against the real daemons: eviction under pressure (SPEC 4.1), purge of past shifts (SPEC 2.3).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ppu_uringd::model::message::Code;
use support::daemon::BINARY;
use support::mount::run;
use support::oracle::{check_sum, names, tree, write};
use support::rig::{GID, Options, Rig, UID};
use support::{content, is_root, wait_until};

const MEGABYTE: usize = 1 << 20;

fn small() -> Options {
    Options { ppu_ramdisk: "size=32m", storage_megabytes: 512, ..Options::default() }
}

/// Files that were written by [`fill`].
fn name(n: u64) -> String {
    format!("run{}/{n:03}", n % 4)
}

/// Writes megabytes with these numbers.
fn fill(rig: &Rig, numbers: std::ops::Range<u64>) {
    for n in numbers {
        write(rig.source(0), name(n), &content(n, MEGABYTE));
    }
}

#[track_caller]
fn wait_all_stored(rig: &Rig) {
    wait_until("everything is stored", || {
        tree(&rig.stored(0)) == tree(rig.source(0)) && rig.counts().pending == 0
    });
    check_sum(rig);
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}

/// Fill ratio of the PPU's ramdisk.
fn fill_ratio(rig: &Rig) -> f64 {
    let room = rig.status().unwrap().ramdisk.room;
    1.0 - room.free_bytes as f64 / room.total_bytes as f64
}

/// Three times what the ramdisk holds passes through it; readers of the first files notice nothing.
#[test]
fn eviction_makes_room_and_readers_go_on() {
    if !is_root("eviction_makes_room_and_readers_go_on") {
        return;
    }
    let rig = Rig::start(small());
    fill(&rig, 0..4);
    wait_until("the first files have landed", || (0..4).all(|n| rig.landing(0).join(name(n)).exists()));
    let held = File::open(rig.landing(0).join(name(0))).unwrap();
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for n in 0..4 {
                    let read = fs::read(rig.landing(0).join(name(n)));
                    assert!(read.is_ok_and(|read| read == content(n, MEGABYTE)), "{n} at any time");
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        fill(&rig, 4..96);
        wait_all_stored(&rig);
        let before = rounds.load(Ordering::Relaxed);
        wait_until("read once more", || rounds.load(Ordering::Relaxed) > before + 1);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        std::io::read_to_string(&held).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::InvalidData)
    );
    assert_eq!(held.metadata().unwrap().nlink(), 0, "who had it open still reads the file itself");
    wait_until("it is below the low mark, or was never above the high one since", || {
        fill_ratio(&rig) <= 0.81
    });
    for n in 0..96 {
        let at = rig.landing(0).join(name(n));
        assert_eq!(fs::read(&at).unwrap(), content(n, MEGABYTE), "{n}");
        if is_link(&at) {
            assert_eq!(fs::read_link(&at).unwrap(), rig.stored(0).join(name(n)));
        }
    }
    assert!(is_link(&rig.landing(0).join(name(0))), "the oldest first");
    assert!(!is_link(&rig.landing(0).join(name(95))), "the newest last");
    assert!(rig.messages().iter().any(|(code, _)| *code == Code::FillstateLimit));
}

/// A large image does not fit, and the ramdisk is not so full that files leave it of themselves: as many leave as it needs.
#[test]
fn a_large_image_makes_room_below_the_mark() {
    if !is_root("a_large_image_makes_room_below_the_mark") {
        return;
    }
    let rig = Rig::start(small());
    fill(&rig, 0..20);
    wait_all_stored(&rig);
    let large = content(1000, 16 * MEGABYTE);
    write(rig.source(0), "large", &large);
    wait_until("it has landed", || rig.landing(0).join("large").exists());
    assert_eq!(fs::read(rig.landing(0).join("large")).unwrap(), large);
    assert!(is_link(&rig.landing(0).join(name(0))), "the oldest has left");
    assert!(!is_link(&rig.landing(0).join(name(19))), "and no more than had to");
    wait_all_stored(&rig);
}

/// FAULTS 18, and the newer version of what was evicted.
#[test]
fn writers_defer_eviction_and_newer_versions_replace_links() {
    if !is_root("writers_defer_eviction_and_newer_versions_replace_links") {
        return;
    }
    let rig = Rig::start(small());
    fill(&rig, 0..2);
    wait_all_stored(&rig);
    wait_until("it has landed", || rig.landing(0).join(name(0)).exists());
    let writer = File::options().append(true).open(rig.landing(0).join(name(0))).unwrap();
    fill(&rig, 2..60);
    wait_all_stored(&rig);
    wait_until("its neighbour is evicted", || is_link(&rig.landing(0).join(name(1))));
    assert!(!is_link(&rig.landing(0).join(name(0))));
    drop(writer);

    let newer = content(1000, MEGABYTE);
    write(rig.source(0), name(1), &newer);
    wait_all_stored(&rig);
    wait_until("it has landed over its link", || {
        fs::read(rig.landing(0).join(name(1))).is_ok_and(|read| read == newer)
    });
    assert!(!is_link(&rig.landing(0).join(name(1))));
    assert_eq!(fs::read(rig.stored(0).join(name(1))).unwrap(), newer);
    // It is looked at again half a second after it was last found open, and taken when room is needed then.
    let mut more = 60..;
    wait_until("what was open goes as well", || {
        let n = more.next().unwrap();
        fill(&rig, n..n + 1);
        wait_all_stored(&rig);
        is_link(&rig.landing(0).join(name(0)))
    });
}

/// A crash in the middle, and what it leaves; nothing comes twice.
#[test]
fn killed_while_evicting() {
    if !is_root("killed_while_evicting") {
        return;
    }
    let mut rig = Rig::start(Options { ppu_extra: "create_links = false".to_owned(), ..small() });
    for round in 0..4 {
        fill(&rig, round * 30..(round + 1) * 30);
        wait_until("eviction has begun", || {
            (0..(round + 1) * 30)
                .any(|n| rig.stored(0).join(name(n)).exists() && !rig.landing(0).join(name(n)).exists())
        });
        rig.ppu.take().unwrap().kill();
        rig.start_ppu();
    }
    wait_all_stored(&rig);
    let counts = rig.counts();
    assert_eq!((counts.copied, counts.produced), (120, 120), "nothing was fetched again");
    wait_until("there is room", || fill_ratio(&rig) <= 0.81);
    for (path, entry) in tree(&rig.landing(0)) {
        assert_eq!(tree(rig.source(0)).get(&path), Some(&entry));
    }
}

/// SPEC 2.3, FAULTS 46: past shifts' files go when they are stored, and nothing else does.
#[test]
fn past_shifts_leave_the_ramdisk_when_they_are_stored() {
    if !is_root("past_shifts_leave_the_ramdisk_when_they_are_stored") {
        return;
    }
    let mut rig = Rig::start(small());
    fill(&rig, 0..8);
    wait_all_stored(&rig);
    write(&rig.landing(0), "run0/processed", b"a user's");
    // SPEC 3.9: it is stored, and never purged.
    write(&rig.landing(0), "run0/extra", b"an extra file");
    let (said, code) = rig.command(&["add", "--wait", rig.landing(0).join("run0/extra").to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    rig.ppu.take().unwrap().stop();
    rig.storage.unmount();
    rig.start_ppu();
    fill(&rig, 8..12);
    wait_until("they have landed", || (8..12).all(|n| rig.landing(0).join(name(n)).exists()));
    rig.wait_linked();
    another_user(&rig);
    let left =
        |numbers: std::ops::Range<u64>| numbers.filter(|n| rig.landing(0).join(name(*n)).exists()).count();
    // What can be read nowhere else at the moment stays, be it stored or not.
    wait_until("the storage is known to be away", || rig.health(0) == "unavailable");
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| wait_until("five looks", || rig.status().unwrap().daemon.uptime_s >= 2));
        while !looks.is_finished() {
            assert_eq!((left(0..8), left(8..12)), (8, 4));
        }
    });
    rig.storage.mount_image();
    wait_until("all is stored and purged", || left(0..12) == 0);
    wait_until("they are counted", || rig.status().unwrap().ramdisk.left.purged.files == 12);
    assert_eq!(fs::read(rig.landing(0).join("run0/processed")).unwrap(), b"a user's");
    assert_eq!(fs::read(rig.landing(0).join("run0/extra")).unwrap(), b"an extra file");
    wait_until("empty directories are gone", || names_in(&rig.landing(0)) == [PathBuf::from("run0")]);
    assert_eq!(tree(&rig.stored(0)), tree(rig.source(0)));
    // Files of the current shift stay where they are.
    write(rig.source(0), "new", b"new");
    let new = rig.ppu_ramdisk.path().join(format!("d0/{}_{GID}/new", UID + 1));
    wait_until("the new one has landed", || new.exists());
    let counts = rig.counts();
    assert_eq!((counts.lost, counts.failed), (0, 0));
}

/// FAULTS 41: a user swaps a directory for a link to files of the same names and contents, over and over, while files leave it, and the daemon is
/// killed in the middle: nothing beyond the link is touched, nothing is lost, and nothing stays in staging.
#[test]
fn row_41_a_directory_is_swapped_for_a_link_while_files_leave() {
    if !is_root("row_41_a_directory_is_swapped_for_a_link_while_files_leave") {
        return;
    }
    let mut rig = Rig::start(small());
    let canary = tempfile::tempdir().unwrap();
    let victim = |n: u64| format!("victim/{n:03}");
    for n in 0..200 {
        write(rig.source(0), victim(n), &content(n, 40_000));
        write(canary.path(), format!("{n:03}"), &content(n, 40_000));
    }
    wait_all_stored(&rig);
    let untouched = tree(canary.path());
    let (place, link) = (rig.landing(0).join("victim"), rig.ppu_ramdisk.path().join("link"));
    std::os::unix::fs::symlink(canary.path(), &link).unwrap();
    let over = AtomicBool::new(false);
    let swap = || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &link, CWD, &place, RenameFlags::EXCHANGE)
    };
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !over.load(Ordering::Relaxed) && swap().is_ok() {
                swaps += 1;
                std::thread::yield_now();
            }
            swaps
        });
        fill(&rig, 0..40);
        wait_until("files leave under pressure", || rig.status().unwrap().ramdisk.left.evicted.files > 20);
        rig.ppu.take().unwrap().kill();
        rig.start_ppu();
        rig.wait_linked();
        another_user(&rig);
        wait_until("files of the past shift leave", || rig.status().unwrap().ramdisk.left.purged.files > 20);
        rig.ppu.take().unwrap().kill();
        over.store(true, Ordering::Relaxed);
        assert!(attacker.join().unwrap() > 100);
    });
    // As it was, unless all of it has left already.
    if place.is_symlink() {
        swap().unwrap();
    }
    rig.start_ppu();
    wait_until("all have left", || rig.status().is_some() && names(&rig.landing(0)).is_empty());
    wait_until("links, too", || names_in(&place).is_empty());
    assert_eq!(tree(canary.path()), untouched);
    wait_all_stored(&rig);
    let counts = rig.counts();
    assert_eq!((counts.copied, counts.produced), (240, 240));
    let staging = rig.ppu_ramdisk.path().join(".ppu-uringd");
    wait_until("staging holds nothing but notes", || {
        names_in(&staging).iter().all(|name| name.to_str().unwrap().starts_with("note-"))
    });
}

/// A new shift, of another user.
fn another_user(rig: &Rig) {
    let mut start = Command::new(BINARY);
    start.args(["shift", "start", "-u", &format!("{}:{GID}", UID + 1), "--config"]).arg(rig.ppu_config());
    run(&mut start);
}

fn names_in(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into()).collect()
}
