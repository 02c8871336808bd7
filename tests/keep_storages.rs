//! What leaves the internal storage for the external one (SPEC 2.3, 4.1), and what is told of full and missing storages (FAULTS 46, 48).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ppu_uringd::model::message::Code;
use support::daemon::BINARY;
use support::mount::{Mount, run};
use support::oracle::{check_sum, tree, write};
use support::rig::{GID, Options, Other, Rig, UID};
use support::{content, is_root, wait_at_most, wait_until};

const MEGABYTE: usize = 1 << 20;
const QUICK: &str = "retry_pause_ms = 50\nretry_pause_max_ms = 200\n";

/// A small internal storage, a large external one, and a further one.
fn three(internal_megabytes: u64) -> Options {
    Options {
        storage_megabytes: internal_megabytes,
        storage_extra: QUICK.to_owned(),
        others: vec![Other::ext4("external", QUICK), Other::ext4("optional", QUICK)],
        ..Options::default()
    }
}

fn name(n: u64) -> String {
    format!("run{}/{n:03}", n % 4)
}

fn fill(rig: &Rig, numbers: std::ops::Range<u64>) {
    for n in numbers {
        write(rig.source(0), name(n), &content(n, MEGABYTE));
    }
}

#[track_caller]
fn wait_stored(rig: &Rig, storage: usize, files: u64) {
    wait_until("everything is stored", || {
        let counts = rig.counts_on(storage);
        counts.pending == 0 && counts.copied >= files
    });
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}

fn another_user(rig: &Rig) {
    let mut start = Command::new(BINARY);
    start.args(["shift", "start", "-u", &format!("{}:{GID}", UID + 1), "--config"]).arg(rig.ppu_config());
    run(&mut start);
}

fn count(rig: &Rig, code: Code, short: &Path) -> usize {
    let short = short.to_str().unwrap();
    rig.messages().iter().filter(|told| *told == &(code, short.to_owned())).count()
}

/// Three times what the internal storage holds passes through it; every file can always be read by its name there, and by its name on the
/// ramdisk, which leads there.
#[test]
fn the_internal_storage_is_evicted_to_the_external_one() {
    if !is_root("the_internal_storage_is_evicted_to_the_external_one") {
        return;
    }
    let mut rig = Rig::start(Options { ppu_ramdisk: "size=32m", ..three(64) });
    fill(&rig, 0..150);
    wait_stored(&rig, 0, 150);
    wait_stored(&rig, 1, 150);
    let readable = |rig: &Rig| {
        for n in 0..150 {
            for root in [rig.landing(0), rig.stored_on(0, 0), rig.stored_on(1, 0)] {
                let at = root.join(name(n));
                assert_eq!(fs::read(&at).ok(), Some(content(n, MEGABYTE)), "{}", at.display());
            }
        }
    };
    readable(&rig);
    let oldest = rig.stored_on(0, 0).join(name(0));
    assert_eq!(fs::read_link(&oldest).unwrap(), rig.stored_on(1, 0).join(name(0)));
    assert!(!is_link(&rig.stored_on(0, 0).join(name(149))), "the newest stays longest");
    assert!(
        (0..150).all(|n| !is_link(&rig.stored_on(1, 0).join(name(n)))),
        "nothing leaves the external one"
    );
    let status = rig.status().unwrap();
    assert!(status.storages[0].left.evicted.files >= 90, "{:?}", status.storages[0].left);
    assert_eq!(status.storages[1].left.evicted.files, 0);
    assert!(count(&rig, Code::FillstateLimit, rig.storage.path()) >= 1);
    // A newer version replaces the link, on the storage and on the ramdisk.
    let newer = content(1000, MEGABYTE);
    write(rig.source(0), name(0), &newer);
    wait_stored(&rig, 0, 151);
    wait_stored(&rig, 1, 151);
    assert!(!is_link(&oldest) && fs::read(&oldest).unwrap() == newer);
    assert_eq!(fs::read(rig.stored_on(1, 0).join(name(0))).unwrap(), newer);
    write(rig.source(0), name(0), &content(0, MEGABYTE));
    wait_stored(&rig, 0, 152);
    wait_stored(&rig, 1, 152);
    // A restart knows what has left, and fetches nothing again.
    rig.ppu.take().unwrap().kill();
    rig.start_ppu();
    rig.wait_linked();
    wait_stored(&rig, 0, 152);
    readable(&rig);
    let counts = rig.counts();
    assert_eq!((counts.produced, counts.lost, counts.failed), (152, 0, 0));
    let (said, code) = rig.command(&["verify"]);
    assert_eq!(code, 0, "{said}");
}

/// SPEC 2.3 from state, external before internal or after; SPEC 3.5: the last replica stays while a copy is pending; FAULTS 46.
#[test]
fn past_shifts_leave_the_internal_storage_when_they_are_on_the_external_one() {
    if !is_root("past_shifts_leave_the_internal_storage_when_they_are_on_the_external_one") {
        return;
    }
    let mut rig = Rig::prepare(three(512));
    // The external one is away, and so is the further one.
    rig.others.iter().for_each(|other| other.unmount());
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    fill(&rig, 0..12);
    wait_stored(&rig, 0, 12);
    write(&rig.stored_on(0, 0), "run0/result", b"a user's");
    another_user(&rig);
    let left = |root: &Path| (0..12).filter(|n| root.join(name(*n)).exists()).count();
    wait_until("the ramdisk is purged", || left(&rig.landing(0)) == 0);
    assert_eq!(left(&rig.stored_on(0, 0)), 12, "the only replica stays");
    rig.others[0].mount_image();
    wait_stored(&rig, 1, 12);
    wait_until("the internal storage is purged", || left(&rig.stored_on(0, 0)) == 0);
    assert_eq!(tree(&rig.stored_on(1, 0)), tree(rig.source(0)), "copied from there");
    assert_eq!(fs::read(rig.stored_on(0, 0).join("run0/result")).unwrap(), b"a user's");
    wait_until("directories are gone", || !rig.stored_on(0, 0).join("run1").exists());
    // What was stored nowhere else until now comes from the external one.
    rig.others[1].mount_image();
    wait_stored(&rig, 2, 12);
    assert_eq!(tree(&rig.stored_on(2, 0)), tree(rig.source(0)));

    // External before internal.
    rig.storage.unmount();
    let before = rig.status().unwrap().storages[0].left.purged.files;
    fill(&rig, 20..24);
    let now = rig.ppu_ramdisk.path().join(format!("d0/{}_{GID}", UID + 1));
    wait_until("the next ones are on the external one", || rig.counts_on(1).copied == 16);
    wait_until("it is known to be away", || rig.health(0) == "unavailable");
    another_user(&rig);
    assert!((20..24).all(|n| now.join(name(n)).exists()), "not on the internal one yet");
    rig.storage.mount_image();
    wait_stored(&rig, 0, 16);
    wait_until("they have left both", || {
        (20..24).all(|n| !now.join(name(n)).exists())
            && rig.status().unwrap().storages[0].left.purged.files == before + 4
    });
    let counts = rig.counts_on(2);
    assert_eq!((counts.copied, counts.lost, counts.failed), (16, 0, 0), "{counts:?}");
    check_sum(&rig);
}

/// The same user comes back with the same names: what had to give way on the internal storage (SPEC 2.5) leaves it like all of its shift.
#[test]
fn what_had_to_give_way_leaves_the_internal_storage_too() {
    if !is_root("what_had_to_give_way_leaves_the_internal_storage_too") {
        return;
    }
    let mut rig = Rig::prepare(three(512));
    // The external one is away: until it is back, the first shift's files must stay, under whatever name.
    rig.others[0].unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    fill(&rig, 0..4);
    wait_stored(&rig, 0, 4);
    let mut start = Command::new(BINARY);
    run(start.args(["shift", "start", "--config"]).arg(rig.ppu_config()));
    for n in 0..4 {
        write(rig.source(0), name(n), &content(100 + n, MEGABYTE));
    }
    wait_stored(&rig, 0, 8);
    let aside = |storage: usize| {
        let all: Vec<_> = tree(&rig.stored_on(storage, 0)).into_keys().collect();
        all.into_iter().filter(|name| name.to_str().unwrap().contains(".~")).count()
    };
    assert_eq!(aside(0), 4);
    rig.others[0].mount_image();
    wait_stored(&rig, 1, 8);
    wait_until("they have left", || aside(0) == 0);
    assert_eq!(tree(&rig.stored_on(0, 0)), tree(rig.source(0)), "the current shift's stay");
    assert_eq!((aside(1), tree(&rig.stored_on(1, 0)).len()), (4, 8));
    assert_eq!(rig.status().unwrap().storages[0].left.purged.files, 4);
}

/// Killed at any moment of evicting and purging, on both: nothing is lost, nothing travels twice, nothing stays in staging.
#[test]
fn killed_while_files_leave_both() {
    if !is_root("killed_while_files_leave_both") {
        return;
    }
    let mut rig = Rig::start(Options { ppu_ramdisk: "size=32m", ..three(64) });
    let mut users = 0;
    for round in 0..5 {
        fill(&rig, round * 30..(round + 1) * 30);
        wait_until("files are leaving", || {
            let status = rig.status().unwrap();
            status.ramdisk.left.evicted.files + status.ramdisk.left.purged.files > 0
        });
        if round == 2 {
            another_user(&rig);
            users += 1;
        }
        rig.ppu.take().unwrap().kill();
        rig.start_ppu();
        rig.wait_linked();
    }
    for storage in 0..3 {
        wait_stored(&rig, storage, 150);
    }
    assert_eq!(users, 1);
    check_sum(&rig);
    let counts = rig.counts();
    assert_eq!((counts.produced, counts.copied, counts.lost, counts.failed), (150, 150, 0, 0));
    let of_both = |storage: usize| {
        let root = rig.stored_on(storage, 0);
        let second = root.with_file_name(format!("{}_{GID}", UID + 1));
        let mut all = tree(&root);
        all.extend(tree(&second));
        all
    };
    for storage in [1, 2] {
        assert_eq!(of_both(storage), tree(rig.source(0)));
    }
    wait_until("the first user's files have left", || {
        tree(&rig.landing(0)).is_empty() && tree(&rig.stored_on(0, 0)).is_empty()
    });
    for root in [rig.ppu_ramdisk.path().to_owned(), rig.storage.path().join("data")] {
        wait_until("staging holds nothing but notes", || {
            let entries = fs::read_dir(root.join(".ppu-uringd")).unwrap();
            entries.flatten().all(|entry| entry.file_name().to_str().unwrap().starts_with("note-"))
        });
    }
}

/// FAULTS 48: nothing is to be copied, but links lead to a storage that is gone: that is told, and that it is back is noticed.
#[test]
fn row_48_links_whose_storage_is_gone() {
    if !is_root("row_48_links_whose_storage_is_gone") {
        return;
    }
    let rig = Rig::start(Options {
        ppu_ramdisk: "size=32m",
        storage_extra: QUICK.to_owned(),
        ..Options::default()
    });
    fill(&rig, 0..60);
    wait_stored(&rig, 0, 60);
    let oldest = rig.landing(0).join(name(0));
    wait_until("it is a link", || is_link(&oldest));
    wait_until("it is let go", || nix::mount::umount(rig.storage.path()).is_ok());
    wait_until("somebody is told", || count(&rig, Code::StorageUnavailable, rig.storage.path()) == 1);
    assert_eq!(rig.health(0), "unavailable");
    let long = rig.status().unwrap().messages;
    let long = &long.iter().find(|told| told.message.code == Code::StorageUnavailable).unwrap().message.long;
    assert!(long.contains("nothing is mounted") && long.contains("links that eviction left"), "{long}");
    let (page, _) = rig.command(&["status"]);
    assert!(page.contains("ERROR   storage internal unavailable"), "{page}");
    rig.storage.mount_image();
    wait_until("it is back", || rig.health(0) == "ok");
    assert_eq!(fs::read(&oldest).unwrap(), content(0, MEGABYTE));
}

/// SPEC 4.1: every file system that is written to is watched; told once per crossing, with its mount point.
#[test]
fn every_file_system_that_gets_full_is_told_once() {
    if !is_root("every_file_system_that_gets_full_is_told_once") {
        return;
    }
    let optional = Other { kind: "optional", fs: "tmpfs", megabytes: 40, extra: QUICK.to_owned() };
    let rig =
        Rig::start(Options { others: vec![optional], storage_extra: QUICK.to_owned(), ..Options::default() });
    let at = rig.others[0].path();
    let told =
        || [Code::FillstateLimit, Code::AlmostOverflow, Code::DiskOverflow].map(|code| count(&rig, code, at));
    fill(&rig, 0..34);
    wait_until("85 % is told", || told() == [1, 0, 0]);
    fill(&rig, 34..39);
    wait_until("97 % is told", || told() == [1, 1, 0]);
    fill(&rig, 39..50);
    wait_until("full is told", || told() == [1, 1, 1]);
    let status = rig.status().unwrap();
    assert_eq!(status.storages[1].room.total_bytes, 40 << 20);
    assert!(status.storages[1].room.free_bytes < 2 << 20);
    assert!(status.storages[0].room.free_bytes > 1 << 30);
    // Nobody evicts there.
    assert_eq!(tree(&rig.stored_on(1, 0)).len() as u64, rig.counts_on(1).copied);
}

/// A journal that cannot be written lets nothing go: what it has not committed is stored nowhere.
#[test]
fn a_journal_in_trouble_lets_nothing_go() {
    if !is_root("a_journal_in_trouble_lets_nothing_go") {
        return;
    }
    let state = Mount::tmpfs("size=32m");
    let mut rig = Rig::prepare(Options { ppu_ramdisk: "size=32m", ..Options::default() });
    let config = fs::read_to_string(rig.ppu_config()).unwrap();
    let old = format!("state_dir = {:?}", rig.dir.path().join("ppu.state"));
    fs::write(rig.ppu_config(), config.replace(&old, &format!("state_dir = {:?}", state.path()))).unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    fill(&rig, 0..10);
    wait_stored(&rig, 0, 10);
    let ballast = state.path().join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    for n in 0..3000u64 {
        write(rig.source(0), format!("small/{n}"), &content(n, 100));
    }
    wait_until("the journal's trouble is reported", || {
        rig.messages().iter().any(|(code, _)| *code == Code::JournalError)
    });
    // Above the limit, with files that are stored (and known to be) before.
    fill(&rig, 10..40);
    wait_until("it is above the limit", || count(&rig, Code::FillstateLimit, rig.ppu_ramdisk.path()) == 1);
    wait_at_most(Duration::from_secs(30), "there have been looks", || {
        assert_eq!(rig.status().unwrap().ramdisk.left.evicted.files, 0);
        rig.status().unwrap().daemon.uptime_s >= 4
    });
    fs::remove_file(ballast).unwrap();
    wait_stored(&rig, 0, 3040);
    wait_until("the oldest has left", || is_link(&rig.landing(0).join(name(0))));
    assert_eq!(tree(&rig.stored(0)), tree(rig.source(0)));
    drop(rig);
}
