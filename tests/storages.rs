//! Several storages, against the real daemons: each at its own speed, each with its own trouble (SPEC 3; FAULTS 26 to 33, 37).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ppu_uringd::model::message::Code;
use support::mount::{Frozen, Mount, run};
use support::oracle::{check_sum, names, tree, write};
use support::rig::{Options, Other, Rig};
use support::{content, is_root, wait_at_most, wait_until};

const QUICK: &str =
    "hung_after_ms = 500\nslow_after_ms = 1000\nretry_pause_ms = 50\nretry_pause_max_ms = 200\n";

fn three() -> Options {
    Options {
        storage_megabytes: 512,
        storage_extra: QUICK.to_owned(),
        others: vec![Other::ext4("external", QUICK), Other::ext4("optional", QUICK)],
        ..Options::default()
    }
}

/// Everything that the detector has is on that storage, byte for byte.
#[track_caller]
fn wait_stored_on(rig: &Rig, storage: usize) {
    let source = tree(rig.source(0));
    wait_until("everything is stored", || {
        names(&rig.stored_on(storage, 0)).len() == source.len()
            && tree(&rig.stored_on(storage, 0)) == source
            && rig.counts_on(storage).pending == 0
    });
    let c = rig.counts_on(storage);
    assert_eq!(c.pending + c.copied + c.failed + c.superseded + c.lost, c.produced, "{c:?}");
}

/// SPEC 3.1: all of them, in parallel; owner, mode and time as they are on the ramdisk.
#[test]
fn every_storage_gets_everything() {
    if !is_root("every_storage_gets_everything") {
        return;
    }
    let rig = Rig::start(three());
    for n in 0..60u64 {
        write(rig.source(0), format!("run{}/{n}", n % 3), &content(n, 100_000 + n as usize));
    }
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
        assert_eq!(rig.health(storage), "ok");
        for name in names(&rig.landing(0)) {
            let (landed, stored) = (rig.landing(0).join(&name), rig.stored_on(storage, 0).join(&name));
            let (landed, stored) = (landed.metadata().unwrap(), stored.metadata().unwrap());
            assert_eq!((landed.uid(), landed.gid()), (stored.uid(), stored.gid()));
            assert_eq!(
                (landed.mode(), landed.modified().unwrap()),
                (stored.mode(), stored.modified().unwrap())
            );
        }
    }
    check_sum(&rig);
}

/// Row 32: a storage hangs. Landing and the others go on, the status answers and says so; it goes on by itself.
#[test]
fn row_32_a_storage_hangs() {
    if !is_root("row_32_a_storage_hangs") {
        return;
    }
    let rig = Rig::start(three());
    write(rig.source(0), "first", b"everything works");
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    let frozen = Frozen::new(rig.others[1].path());
    for n in 0..100u64 {
        write(rig.source(0), format!("{n}"), &content(n, 50_000));
    }
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
    wait_until("the storage is reported as hung", || {
        let began = Instant::now();
        let hung = rig.health(2) == "hung";
        assert!(began.elapsed() < Duration::from_secs(5), "the status answers");
        hung
    });
    assert!(rig.messages().contains(&(Code::StorageUnavailable, "optional2".to_owned())));
    let status = rig.status().unwrap();
    assert!(
        status.storages[2].since_ms.is_some() && status.storages[2].pending == 100,
        "{:?}",
        status.storages[2]
    );
    drop(frozen);
    wait_stored_on(&rig, 2);
    assert_eq!(rig.health(2), "ok");
}

/// Row 32, the end: the daemon does what it can and goes; the next one takes over.
#[test]
fn row_32_the_end_does_not_wait_for_a_storage_that_hangs() {
    if !is_root("row_32_the_end_does_not_wait_for_a_storage_that_hangs") {
        return;
    }
    let mut rig = Rig::start(three());
    let frozen = Frozen::new(rig.others[0].path());
    for n in 0..20u64 {
        write(rig.source(0), format!("{n}"), &content(n, 50_000));
    }
    wait_stored_on(&rig, 0);
    wait_until("the storage is reported as hung", || rig.health(1) == "hung");
    let old = rig.ppu.take().unwrap();
    old.signal(nix::sys::signal::Signal::SIGTERM);
    // The kernel does not let a process go whose thread is inside the frozen file system; but it is over.
    wait_at_most(Duration::from_secs(20), "it has given up waiting", || {
        old.log().contains("a storage hangs; leaving it")
    });
    rig.start_ppu();
    wait_until("the next one runs", || rig.status().is_some_and(|status| status.daemon.pid != old.pid()));
    rig.wait_linked();
    write(rig.source(0), "later", b"later");
    wait_stored_on(&rig, 0);
    drop(frozen);
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
    }
    drop(old);
}

/// Row 31: a storage turns read-only by an error; it is unavailable, and catches up once it was repaired.
#[test]
fn row_31_a_storage_turns_read_only() {
    if !is_root("row_31_a_storage_turns_read_only") {
        return;
    }
    let rig = Rig::start(three());
    write(rig.source(0), "first", b"first");
    wait_stored_on(&rig, 1);
    run(Command::new("mount").args(["-o", "remount,errors=remount-ro"]).arg(rig.others[0].path()));
    std::fs::write(error_trigger(rig.others[0].path()), "a test's error").unwrap();
    for n in 0..20u64 {
        write(rig.source(0), format!("{n}"), &content(n, 50_000));
    }
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 2);
    wait_until("it is reported", || rig.health(1) == "unavailable");
    assert_eq!(rig.counts_on(1).failed, 0, "no file is to blame");
    // Repaired: unmounted, checked, mounted again.
    rig.others[0].unmount_lazily();
    wait_until("nobody holds it any more", || rig.others[0].is_free());
    rig.others[0].mount_image();
    wait_stored_on(&rig, 1);
}

/// Where writing makes ext4 believe that it has found an error.
fn error_trigger(mountpoint: &Path) -> std::path::PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == mountpoint.to_str()).unwrap();
    let device = Path::new(line.split(' ').next().unwrap()).file_name().unwrap();
    Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error")
}

/// Row 28: the disk fails when it is written. It is quarantined, no file is blamed, nothing is called stored; it catches up when it works.
#[test]
fn row_28_errors_of_the_disk() {
    if !is_root("row_28_errors_of_the_disk") {
        return;
    }
    let mut rig = Rig::prepare(three());
    let (bad, backing) = Mount::bad_disk("ext4", 200, 24);
    std::fs::create_dir(bad.path().join("data")).unwrap();
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let old = rig.others[1].path().display().to_string();
    std::fs::write(rig.ppu_config(), config.replace(&old, &bad.path().display().to_string())).unwrap();
    rig.others[1] = bad;
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..40u64 {
        write(rig.source(0), format!("{n}"), &content(n, 1_000_000));
    }
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
    wait_until("it is quarantined, or gave up writing", || {
        matches!(rig.health(2).as_str(), "quarantined" | "unavailable")
    });
    let called_stored = rig.counts_on(2).copied;
    assert!(called_stored < 40);
    // The disk is replaced: the same image, with room for all of it. ext4 may have turned read-only meanwhile.
    run(Command::new("mount").args(["-o", "remount,size=300m"]).arg(backing.path()));
    rig.others[1].unmount_lazily();
    wait_until("nobody holds it any more", || rig.others[1].is_free());
    let _ = Command::new("e2fsck").args(["-p", "-f"]).arg(backing.path().join("image")).output();
    rig.others[1].mount_image();
    let _ = rig.command(&["retry"]);
    wait_stored_on(&rig, 2);
    let _ = std::fs::remove_file(backing.path().join("nothing"));
    drop(rig);
    drop(backing);
}

/// Row 33: a storage is a hundred times slower than the others, and slows nobody but itself.
#[test]
fn row_33_a_slow_storage() {
    if !is_root("row_33_a_slow_storage") {
        return;
    }
    let Some(throttle) = Throttle::new() else { return };
    let rig = Rig::start(three());
    throttle.limit(rig.ppu.as_ref().unwrap().pid(), rig.others[1].path(), 1_000_000);
    for n in 0..50u64 {
        write(rig.source(0), format!("{n}"), &content(n, 200_000));
    }
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
    let behind = rig.counts_on(2);
    assert!(behind.pending > 10, "it is slow: {behind:?}");
    wait_until("it is reported as slow", || rig.health(2) == "slow");
    throttle.lift(rig.ppu.as_ref().unwrap().pid());
    wait_stored_on(&rig, 2);
    wait_until("it keeps up", || rig.health(2) == "ok");
}

/// A cgroup of blkio (version 1), which limits what is written to a device.
struct Throttle(std::path::PathBuf);

impl Throttle {
    fn new() -> Option<Self> {
        let at = Path::new("/sys/fs/cgroup/blkio").join(format!("ppu-uringd-test-{}", std::process::id()));
        if std::fs::create_dir(&at).is_err() || !at.join("blkio.throttle.write_bps_device").exists() {
            eprintln!("SKIPPED: no blkio cgroup to slow a disk down with");
            return None;
        }
        Some(Self(at))
    }

    fn limit(&self, pid: u32, mountpoint: &Path, bytes_per_s: u64) {
        let device = mountpoint.metadata().unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let rule = format!("{major}:{minor} {bytes_per_s}");
        std::fs::write(self.0.join("blkio.throttle.write_bps_device"), rule).unwrap();
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn lift(&self, pid: u32) {
        std::fs::write("/sys/fs/cgroup/blkio/cgroup.procs", pid.to_string()).unwrap();
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        wait_until("nobody is in the cgroup", || {
            std::fs::read_to_string(self.0.join("cgroup.procs")).map_or(true, |procs| procs.is_empty())
        });
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// SPEC 3.5: what is no longer on the ramdisk is copied from the internal storage, byte for byte, with its time and owner.
#[test]
fn a_pending_copy_reads_from_another_storage() {
    if !is_root("a_pending_copy_reads_from_another_storage") {
        return;
    }
    let mut rig = Rig::prepare(three());
    rig.others[1].unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..20u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 300_000 + n as usize));
    }
    write(rig.source(0), "large", &content(77, 20_000_000));
    write(rig.source(0), "empty", b"");
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
    // Whoever takes them away; the internal storage's is damaged for one, the external's for another.
    std::fs::remove_dir_all(rig.landing(0)).unwrap();
    flip_a_byte(&rig.stored_on(0, 0).join("run/3"));
    flip_a_byte(&rig.stored_on(1, 0).join("run/4"));
    rig.others[1].mount_image();
    std::fs::create_dir_all(rig.others[1].path().join("data")).unwrap();
    wait_stored_on(&rig, 2);
    let of = |path: std::path::PathBuf| {
        let meta = path.metadata().unwrap();
        (meta.uid(), meta.gid(), meta.mode(), meta.modified().unwrap())
    };
    for name in names(&rig.stored_on(2, 0)) {
        assert_eq!(
            of(rig.stored_on(2, 0).join(&name)),
            of(rig.stored_on(1, 0).join(&name)),
            "{}",
            name.display()
        );
    }
    assert_eq!(of(rig.stored_on(2, 0).join("run")).0, support::rig::UID);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 22, "nothing travelled again");
}

fn flip_a_byte(path: &Path) {
    let meta = path.metadata().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
}

/// SPEC 3.5, and the storage that is to be read hangs: what comes from the ramdisk goes on, and nobody else waits.
#[test]
fn a_source_that_hangs_holds_up_nobody_else() {
    if !is_root("a_source_that_hangs_holds_up_nobody_else") {
        return;
    }
    let mut rig = Rig::prepare(Options {
        others: vec![Other::ext4("optional", &format!("{QUICK}queue_depth = 1\n"))],
        ..three()
    });
    rig.others[0].unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..10u64 {
        write(rig.source(0), format!("old/{n}"), &content(n, 100_000));
    }
    wait_stored_on(&rig, 0);
    std::fs::remove_dir_all(rig.landing(0).join("old")).unwrap();
    // Reading works while it is frozen, but an access time that is to be updated does not; so it is the mount that is taken away.
    rig.storage.unmount_lazily();
    rig.others[0].mount_image();
    std::fs::create_dir_all(rig.others[0].path().join("data")).unwrap();
    for n in 0..10u64 {
        write(rig.source(0), format!("new/{n}"), &content(n, 100_000));
    }
    let new = |storage: usize| names(&rig.stored_on(storage, 0).join("new")).len();
    wait_until("what is on the ramdisk is stored", || new(1) == 10);
    assert_eq!(rig.counts_on(1).failed, 0, "a source that is away is no failure");
    assert!(rig.counts_on(1).pending >= 10);
    rig.storage.mount_image();
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
}

/// A user removes an image before it was stored anywhere: it is fetched again, without a restart, and counted once.
#[test]
fn what_was_removed_before_it_was_stored_is_fetched_again() {
    if !is_root("what_was_removed_before_it_was_stored_is_fetched_again") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage_extra: QUICK.to_owned(), ..Options::default() });
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..6u64 {
        write(rig.source(0), format!("{n}"), &content(n, 100_000));
    }
    wait_until("they have landed", || names(&rig.landing(0)).len() == 6);
    std::fs::remove_file(rig.landing(0).join("1")).unwrap();
    std::fs::write(rig.landing(0).join("2"), b"a user's idea").unwrap();
    std::fs::remove_file(rig.landing(0).join("3")).unwrap();
    // The detector does not have this one any more: it cannot be had again.
    std::fs::remove_file(rig.source(0).join("3")).unwrap();
    wait_until("the detector has said so", || {
        let log = rig.status().unwrap();
        log.detectors[0].backlog.files == 0
    });
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("1 was fetched again", || rig.landing(0).join("1").exists());
    wait_until("3 has failed", || rig.counts().failed == 1);
    assert!(rig.messages().iter().any(|(code, short)| *code == Code::CopyError && short.contains("/3")));
    // What somebody else put there is never replaced; it lands when the name is free.
    std::fs::rename(rig.landing(0).join("2"), rig.landing(0).join("mine")).unwrap();
    wait_stored_but(&rig, &["mine"]);
    let c = rig.counts();
    assert_eq!((c.produced, c.copied, c.failed), (6, 5, 1), "{c:?}");
    // Found in a backup, and put back: not the file that landed, so it stays failed, and says so again.
    std::fs::write(rig.landing(0).join("3"), content(3, 100_000)).unwrap();
    let (text, code) = rig.command(&["retry"]);
    assert_eq!((text.as_str(), code), ("Queued again: 1 copies of 1 files.\n", 0));
    wait_until("it has failed again", || rig.counts().failed == 1 && rig.counts().pending == 0);
}

fn wait_stored_but(rig: &Rig, ignored: &[&str]) {
    let source = tree(rig.source(0));
    wait_until("everything is stored", || {
        let mut stored = tree(&rig.stored(0));
        ignored.iter().for_each(|name| drop(stored.remove(std::ffi::OsStr::new(name))));
        stored == source && rig.counts().pending == 0
    });
}

/// SPEC 3.7: what was given up is said, kept, and taken up again on demand.
#[test]
fn retry_queues_what_had_failed() {
    if !is_root("retry_queues_what_had_failed") {
        return;
    }
    let rig = Rig::start(three());
    // Directories stand where files are to go.
    for name in ["a/taken", "b/taken"] {
        std::fs::create_dir_all(rig.stored_on(1, 0).join(name)).unwrap();
        write(rig.source(0), name, &content(7, 10_000));
    }
    write(rig.source(0), "free", b"free");
    wait_until("they have failed", || rig.counts_on(1).failed == 2);
    assert!(rig.messages().iter().any(|(code, short)| {
        *code == Code::CopyError && short.contains(":external1/") && short.ends_with("a/taken")
    }));
    assert_eq!(rig.command(&["retry", "--storage", "optional2"]).0, "Nothing of that has failed.\n");
    let (text, code) = rig.command(&["retry", "--storage", "extern"]);
    assert!(code == 1 && text.contains("internal, external1, optional2"), "{text}");
    for name in ["a/taken", "b/taken"] {
        std::fs::remove_dir(rig.stored_on(1, 0).join(name)).unwrap();
    }
    let a = rig.landing(0).join("a");
    let (text, code) = rig.command(&["retry", "--json", a.to_str().unwrap()]);
    assert_eq!((text.as_str(), code), ("{\"copies\":1,\"files\":1}\n", 0));
    wait_until("one is stored", || rig.counts_on(1).failed == 1 && rig.counts_on(1).pending == 0);
    let (text, code) = rig.command(&["retry", "--storage", "external1", "--shift", "current", "b/taken"]);
    assert_eq!((text.as_str(), code), ("Queued again: 1 copies of 1 files.\n", 0));
    wait_stored_on(&rig, 1);
}

/// SPEC 3.2: two detectors that share a replica root. A stored path belongs to the detector that first stored it in the shift.
#[test]
fn a_stored_path_belongs_to_the_detector_that_came_first() {
    if !is_root("a_stored_path_belongs_to_the_detector_that_came_first") {
        return;
    }
    let mut rig =
        Rig::prepare(Options { detectors: 2, storage_extra: QUICK.to_owned(), ..Options::default() });
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    std::fs::write(rig.ppu_config(), config.replace("/./d", "/d")).unwrap();
    rig.start_detector(0);
    rig.start_detector(1);
    rig.start_ppu();
    rig.wait_linked();
    let stored = rig.storage.path().join(format!("data/{}_{}", support::rig::UID, support::rig::GID));
    write(rig.source(0), "same", b"of detector 0");
    wait_until("the first is stored", || rig.counts().copied == 1);
    write(rig.source(1), "same", b"of detector 1");
    write(rig.source(1), "other", b"of detector 1");
    wait_until("the second has failed", || rig.counts().failed == 1 && rig.counts().copied == 2);
    assert_eq!(std::fs::read(stored.join("same")).unwrap(), b"of detector 0");
    assert_eq!(names(&stored).len(), 2, "nothing is set aside");
    let told = rig.status().unwrap().messages;
    let told = told.iter().find(|told| told.message.code == Code::CopyError).unwrap();
    assert!(told.message.long.contains("belongs to same of detector 0"), "{}", told.message.long);
    // The owner may replace it.
    write(rig.source(0), "same", b"of detector 0, again");
    wait_until("the newer version is stored", || {
        std::fs::read(stored.join("same")).unwrap() == b"of detector 0, again"
    });
}

/// Storages come and go with the configuration.
#[test]
fn a_storage_is_added_removed_and_added_again() {
    if !is_root("a_storage_is_added_removed_and_added_again") {
        return;
    }
    let mut rig = Rig::prepare(Options { others: vec![Other::ext4("optional", QUICK)], ..three() });
    let with = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let without = with[..with.rfind("[[storage]]").unwrap()].to_owned();
    let restart = |rig: &mut Rig, config: &str| {
        if let Some(ppu) = rig.ppu.take() {
            assert!(ppu.stop().success());
        }
        std::fs::write(rig.ppu_config(), config).unwrap();
        rig.start_ppu();
        rig.wait_linked();
    };
    rig.start_detector(0);
    restart(&mut rig, &without);
    write(rig.source(0), "before", &content(1, 10_000));
    write(rig.source(0), "evicted", &content(2, 10_000));
    wait_stored_on(&rig, 0);
    std::fs::remove_file(rig.landing(0).join("evicted")).unwrap();
    // Added: it gets what the detector still has, from wherever that is.
    restart(&mut rig, &with);
    wait_stored_on(&rig, 1);
    // Away, in the middle of work.
    rig.others[0].unmount_lazily();
    write(rig.source(0), "pending", &content(3, 10_000));
    wait_stored_on(&rig, 0);
    assert_eq!(rig.counts_on(1).pending, 1);
    restart(&mut rig, &without);
    write(rig.source(0), "meanwhile", &content(4, 10_000));
    wait_stored_on(&rig, 0);
    // Back again: what was pending there still is, and what came meanwhile is, too.
    rig.others[0].mount_image();
    restart(&mut rig, &with);
    wait_stored_on(&rig, 1);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 0, "nothing travelled again");
    assert_eq!(rig.counts_on(1).copied, 4);
}

/// What is stored is read again: damaged, missing and unreadable copies are named, and the exit code says so.
#[test]
fn verify_finds_what_is_not_as_it_was_stored() {
    if !is_root("verify_finds_what_is_not_as_it_was_stored") {
        return;
    }
    let rig = Rig::start(three());
    for n in 0..30u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 50_000));
    }
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    // An older version of a path is not looked for.
    write(rig.source(0), "run/0", &content(100, 50_000));
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    let (text, code) = rig.command(&["verify"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("30 files (1.5 MB), 30 as stored").count(), 3, "{text}");

    flip_a_byte(&rig.stored_on(1, 0).join("run/7"));
    std::fs::remove_file(rig.stored_on(2, 0).join("run/8")).unwrap();
    let (text, code) = rig.command(&["verify"]);
    assert_eq!(code, 1, "{text}");
    let line = |storage: &str, name: &str, what: &str| {
        text.lines().any(|line| line.starts_with(storage) && line.contains(name) && line.contains(what))
    };
    assert!(line("external1", "/run/7 is", "damaged: its hash is"), "{text}");
    assert!(line("optional2", "/run/8 is", "missing"), "{text}");
    assert!(line("internal", "30 files", "30 as stored"), "{text}");
    assert_eq!(rig.command(&["verify", "--storage", "internal", "--shift", "current"]).1, 0);
    let (json, code) = rig.command(&["verify", "--json", "--storage", "external1"]);
    assert_eq!(code, 1);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert!(lines[0]["finding"]["path"].as_str().unwrap().ends_with("run/7"));
    assert_eq!(lines[1]["verified"]["storages"][0]["damaged"], 1);
    let (text, code) = rig.command(&["verify", "--shift", "20200101-000000"]);
    assert!(code == 1 && text.contains("no shift 20200101-000000 is known"), "{text}");

    rig.others[0].unmount_lazily();
    let (text, code) = rig.command(&["verify", "--storage", "external1"]);
    assert!(code == 1 && text.contains("NOT COMPLETE: nothing is mounted"), "{text}");
}

/// Row 29: the disk does not give back what was written.
#[test]
fn row_29_errors_on_reading_back() {
    if !is_root("row_29_errors_on_reading_back") {
        return;
    }
    let rig = Rig::start(three());
    for n in 0..20u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 1_000_000));
    }
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    // The end of the disk is gone; the loop device fails whatever is read there.
    let image = rig.others[0].image_path();
    let blocks = |path: &Path| path.metadata().unwrap().blocks();
    assert!(blocks(&image) > 40_000);
    std::fs::File::options().write(true).open(&image).unwrap().set_len(4 << 20).unwrap();
    let (text, code) = rig.command(&["verify", "--storage", "external1"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("unreadable") || text.contains("damaged") || text.contains("NOT COMPLETE"),
        "{text}"
    );
    assert_eq!(rig.command(&["verify", "--storage", "internal"]).1, 0);
}

/// Row 27: a quota is reached: that storage waits, the rest flows, it resumes by itself.
#[test]
fn row_27_quota_exceeded() {
    if !is_root("row_27_quota_exceeded") {
        return;
    }
    if Command::new("btrfs").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no btrfs (btrfs-progs) to set a quota with");
        return;
    }
    let other = Other { kind: "optional", fs: "btrfs", megabytes: 512, extra: QUICK.to_owned() };
    let mut rig = Rig::prepare(Options { others: vec![other], ..three() });
    let at = rig.others[0].path().to_owned();
    std::fs::remove_dir(at.join("data")).unwrap();
    let btrfs = |arguments: &[&str], path: &Path| run(Command::new("btrfs").args(arguments).arg(path));
    btrfs(&["quota", "enable"], &at);
    btrfs(&["subvolume", "create"], &at.join("data"));
    btrfs(&["qgroup", "limit", "8M"], &at.join("data"));
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..20u64 {
        write(rig.source(0), format!("{n}"), &content(n, 1_000_000));
    }
    wait_stored_on(&rig, 0);
    wait_until("the quota is reported", || rig.health(1) == "full");
    assert_eq!(rig.counts_on(1).failed, 0);
    assert!(rig.messages().contains(&(Code::DiskOverflow, "optional1".to_owned())));
    btrfs(&["qgroup", "limit", "none"], &at.join("data"));
    wait_stored_on(&rig, 1);
    assert_eq!(rig.health(1), "ok");
}

/// Row 37: the kernel kills the daemon for want of memory, in the middle of everything.
#[test]
fn row_37_out_of_memory() {
    if !is_root("row_37_out_of_memory") {
        return;
    }
    let group = Path::new("/sys/fs/cgroup/memory").join(format!("ppu-uringd-test-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() || !group.join("memory.limit_in_bytes").exists() {
        eprintln!("SKIPPED: no memory cgroup (version 1)");
        return;
    }
    let mut rig = Rig::start(three());
    std::fs::write(group.join("memory.limit_in_bytes"), "64M").unwrap();
    let mut ppu = rig.ppu.take().unwrap();
    std::fs::write(group.join("cgroup.procs"), ppu.pid().to_string()).unwrap();
    // What lands is memory of the one who lands it.
    for n in 0..60u64 {
        write(rig.source(0), format!("{n}"), &content(n, 2_400_000));
    }
    let status = ppu.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status:?}");
    rig.start_ppu();
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
    }
    support::oracle::check_staging_empty(&rig);
    wait_until("the cgroup is empty", || std::fs::remove_dir(&group).is_ok());
}

/// Row 36: out of descriptors. Nothing fails, nothing is lost; it goes on when there are some.
#[test]
fn row_36_out_of_descriptors() {
    if !is_root("row_36_out_of_descriptors") {
        return;
    }
    let rig = Rig::start(three());
    write(rig.source(0), "first", b"first");
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    let ppu = rig.ppu.as_ref().unwrap();
    let limit = |files: usize| {
        run(Command::new("prlimit")
            .arg(format!("--pid={}", ppu.pid()))
            .arg(format!("--nofile={files}:{files}")));
    };
    // Enough for the links and for one question of ours, not for work.
    limit(ppu.descriptors() + 3);
    for n in 0..100u64 {
        write(rig.source(0), format!("{}/{n}", n % 5), &content(n, 50_000));
    }
    wait_until("it is said", || ppu.log().contains("Too many open files"));
    run(Command::new("prlimit").arg(format!("--pid={}", ppu.pid())).arg("--nofile=1024:1024"));
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
        assert_eq!(rig.counts_on(storage).failed, 0);
    }
    assert_eq!(rig.counts().lost, 0);
}

/// SPEC 3.3: a daemon without privileges, on a storage that does not let it change owners or groups.
#[test]
fn owners_are_left_to_the_operating_system_where_that_is_wished() {
    if !is_root("owners_are_left_to_the_operating_system_where_that_is_wished") {
        return;
    }
    use std::os::unix::fs::{PermissionsExt, chown};
    use support::rig::{GID, UID};
    let mut rig = Rig::prepare(Options {
        ppu_extra: "preserve_uid = false\npreserve_gid = false\n".to_owned(),
        storage_extra: QUICK.to_owned(),
        others: vec![],
        ..three()
    });
    rig.start_detector(0);
    let ours = [
        rig.dir.path(),
        &rig.dir.path().join("key"),
        &rig.dir.path().join("ppu.state"),
        rig.ppu_ramdisk.path(),
    ];
    for path in ours {
        chown(path, Some(UID), Some(GID)).unwrap();
    }
    // Below the storage's target everything belongs to a group that the daemon is not in.
    let data = rig.storage.path().join("data");
    chown(&data, Some(UID), Some(777)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o2775)).unwrap();
    rig.ppu = Some(support::daemon::Daemon::start_with("ppu", &rig.ppu_config(), |command| {
        std::os::unix::process::CommandExt::uid(command, UID);
        std::os::unix::process::CommandExt::gid(command, GID);
    }));
    rig.wait_linked();
    for n in 0..10u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_stored_on(&rig, 0);
    assert_eq!(rig.counts().failed, 0);
    let stored = rig.stored(0).join("run/3").metadata().unwrap();
    assert_eq!(
        (stored.uid(), stored.mtime_nsec()),
        (UID, rig.source(0).join("run/3").metadata().unwrap().mtime_nsec())
    );
}
