//! FAULTS.md, rows about storages, against the real daemons: landing and the other storages never notice. The number in each test's name is its row.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ppu_uringd::model::message::Code;
use support::mount::{Frozen, Mount, run};
use support::oracle::write;
use support::rig::{Options, Other, Rig};
use support::several::{QUICK, three, wait_stored_on};
use support::{content, is_root, wait_at_most, wait_until};

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
    assert!(rig.messages().contains(&(Code::StorageUnavailable, rig.others[1].path().display().to_string())));
    let status = rig.status().unwrap();
    assert!(
        status.storages[2].since_ms.is_some() && status.storages[2].pending == 100,
        "{:?}",
        status.storages[2]
    );
    drop(frozen);
    wait_stored_on(&rig, 2);
    // It is looked at twenty times a second.
    wait_until("the storage is well again", || rig.health(2) == "ok");
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
    assert!(rig.messages().contains(&(Code::DiskOverflow, rig.others[0].path().display().to_string())));
    btrfs(&["qgroup", "limit", "none", "0/256"], &at);
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
        run(Command::new("prlimit").arg(format!("--pid={}", ppu.pid())).arg(format!("--nofile={files}:")));
    };
    // Enough for the links and for one question of ours, not for work.
    limit(ppu.descriptors() + 3);
    for n in 0..100u64 {
        write(rig.source(0), format!("{}/{n}", n % 5), &content(n, 50_000));
    }
    wait_until("it is said", || ppu.log().contains("Too many open files"));
    limit(1024);
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
        assert_eq!(rig.counts_on(storage).failed, 0);
    }
    assert_eq!(rig.counts().lost, 0);
}
