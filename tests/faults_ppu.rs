//! FAULTS.md, rows about the PPU's machine: its storage, its journal, its kernel, a second daemon. The number in each test's name is its row.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use ppu_uringd::model::status::{Health, Journal};
use support::mount::{Frozen, Mount};
use support::oracle::{check_all_stored, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

/// Row 26: the storage is full; landing goes on; it resumes by itself.
#[test]
fn row_26_storage_full() {
    if !is_root("row_26_storage_full") {
        return;
    }
    let rig = Rig::start(Options { storage: "xfs", storage_megabytes: 320, ..Options::default() });
    let ballast = rig.storage.path().join("ballast");
    let free = nix::sys::statvfs::statvfs(rig.storage.path()).unwrap();
    let bytes = free.blocks_available() * free.fragment_size() - (30 << 20);
    let file = File::create(&ballast).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    drop(file);
    for n in 0..60u64 {
        write(rig.source(0), format!("{n}"), &content(n, 2_000_000));
    }
    wait_until("everything has landed", || names(&rig.landing(0)).len() == 60);
    wait_until("the storage is reported full", || {
        matches!(rig.status().unwrap().storages[0].health, Health::Full { .. })
    });
    assert_eq!(rig.counts().failed, 0, "a full storage is no fault of a file");
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(check_all_stored(&rig), 60);
}

/// Row 35: a storage that is not mounted at start, comes, goes while running, also lazily, and comes back.
#[test]
fn row_35_storage_not_mounted() {
    if !is_root("row_35_storage_not_mounted") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    let bare = rig.storage.path().to_owned();
    let unavailable = |rig: &Rig| {
        wait_until("the storage is reported", || {
            rig.status().is_some_and(|s| matches!(s.storages[0].health, Health::Unavailable { .. }))
        });
        assert_eq!(std::fs::read_dir(&bare).unwrap().count(), 0, "nothing below the bare mount point");
    };
    write(rig.source(0), "first", &content(1, 100_000));
    wait_until("it has landed", || rig.landing(0).join("first").exists());
    unavailable(&rig);
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    check_all_stored(&rig);

    rig.storage.unmount_lazily();
    for n in 0..20u64 {
        write(rig.source(0), format!("second/{n}"), &content(n, 100_000));
    }
    wait_until("they have landed", || names(&rig.landing(0)).len() == 21);
    unavailable(&rig);
    let copied = rig.counts().copied;
    assert_eq!(copied, 1, "nothing is called stored on a file system that is no longer there");
    rig.storage.mount_image();
    assert_eq!(check_all_stored(&rig), 21);
}

/// Row 38: io_uring is refused; the daemon says so and what to do, and works.
#[test]
fn row_38_io_uring_refused() {
    if !is_root("row_38_io_uring_refused") {
        return;
    }
    let mut rig = Rig::prepare(Options { engine: "uring", ..Options::default() });
    let strace = |config: &Path, role: &str| {
        let log = config.with_extension("strace");
        Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=io_uring_setup",
                "-e",
                "inject=io_uring_setup:error=EPERM",
                "-o",
            ])
            .arg(log)
            .args([support::daemon::BINARY, role, "--config"])
            .arg(config)
            .output()
            .unwrap()
    };
    let output = strace(&rig.ppu_config(), "ppu");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("io_uring") && error.contains("engine"), "{error}");

    rig.options.engine = "auto";
    rig.write_ppu_config();
    rig.write_detector_config(0);
    rig.start_detector(0);
    let config = rig.ppu_config();
    let traced = TracedPpu::start(&config);
    rig.wait_linked();
    assert_eq!(rig.status().unwrap().daemon.engine, "syscall");
    write(rig.source(0), "a", &content(1, 3_000_000));
    assert_eq!(check_all_stored(&rig), 1);
    drop(traced);
}

/// The PPU's daemon under strace. Ends with it.
struct TracedPpu(std::process::Child);

impl TracedPpu {
    fn start(config: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-e",
            "trace=io_uring_setup",
            "-e",
            "inject=io_uring_setup:error=EPERM",
            "-o",
        ]);
        command.arg(config.with_extension("strace")).args([support::daemon::BINARY, "ppu", "--config"]);
        let log = File::create(config.with_extension("log")).unwrap();
        Self(command.arg(config).stderr(log).spawn().unwrap())
    }
}

impl Drop for TracedPpu {
    fn drop(&mut self) {
        // strace passes SIGTERM on to nobody; its children end with SIGKILL of the traced one.
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            if let Ok(pid) = child.parse() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.0.wait();
    }
}

/// Row 49: a second daemon on the same state is refused, and the first goes on.
#[test]
fn row_49_a_second_daemon() {
    if !is_root("row_49_a_second_daemon") {
        return;
    }
    let rig = Rig::start(Options::default());
    for (role, config) in [("ppu", rig.ppu_config()), ("detector", rig.detector_config(0))] {
        let output =
            Command::new(support::daemon::BINARY).args([role, "--config"]).arg(config).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("another") && error.contains("running"), "{role}: {error}");
    }
    write(rig.source(0), "a", b"still alive");
    assert_eq!(check_all_stored(&rig), 1);
}

/// Row 50: the journal's disk is full: landing and copying go on, nothing is called stored, and it heals.
#[test]
fn row_50_journal_disk_full() {
    if !is_root("row_50_journal_disk_full") {
        return;
    }
    let state = Mount::tmpfs("size=3m");
    let mut rig = Rig::prepare(Options::default());
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let old = format!("state_dir = {:?}", rig.dir.path().join("ppu.state"));
    let new = format!("state_dir = {:?}", state.path());
    std::fs::write(rig.ppu_config(), config.replace(&old, &new)).unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "before", &content(1, 1000));
    check_all_stored(&rig);
    let ballast = state.path().join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // More than fits into what the write-ahead log has already.
    for n in 0..5000u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 100));
    }
    wait_until("everything has landed and is copied", || names(&rig.stored(0)).len() == 5001);
    wait_until("the journal's trouble is reported", || {
        matches!(rig.status().unwrap().journal, Journal::Error { .. })
    });
    assert!(rig.counts().pending > 0, "what is not in the journal is not stored: {:?}", rig.counts());
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(check_all_stored(&rig), 5001);
}

/// Row 50: the journal's disk hangs: likewise, and everything is stored when it answers.
#[test]
fn row_50_journal_disk_hangs() {
    if !is_root("row_50_journal_disk_hangs") {
        return;
    }
    let state = Mount::image("ext4", 64);
    let mut rig = Rig::prepare(Options::default());
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let old = format!("state_dir = {:?}", rig.dir.path().join("ppu.state"));
    std::fs::write(rig.ppu_config(), config.replace(&old, &format!("state_dir = {:?}", state.path())))
        .unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "before", b"before");
    check_all_stored(&rig);
    let frozen = Frozen::new(state.path());
    for n in 0..200u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_until("everything has landed and is copied", || names(&rig.stored(0)).len() == 201);
    wait_until("the journal's trouble is reported", || {
        matches!(rig.status().unwrap().journal, Journal::Error { .. })
    });
    let counts = rig.counts();
    assert_eq!((counts.copied, counts.pending), (1, 200), "what is not in the journal is not stored");
    drop(frozen);
    assert_eq!(check_all_stored(&rig), 201);
    assert_eq!(rig.status().unwrap().journal, Journal::Ok);
    drop(rig);
    drop(state);
}

/// A user may chmod or link a landed image before it is stored: the content is the same, so it is stored.
#[test]
fn a_chmod_before_storing_does_no_harm() {
    if !is_root("a_chmod_before_storing_does_no_harm") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::prepare(Options::default());
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    for n in 0..5u64 {
        write(rig.source(0), format!("{n}"), &content(n, 100_000));
    }
    wait_until("they have landed", || names(&rig.landing(0)).len() == 5);
    for n in 0..5 {
        let path = rig.landing(0).join(n.to_string());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    assert_eq!(check_all_stored(&rig), 5);
}

/// Row 47: the journal is gone. What lies on the ramdisk tells what it is; nothing is sent twice.
#[test]
fn row_47_a_lost_journal_is_rebuilt() {
    if !is_root("row_47_a_lost_journal_is_rebuilt") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    for n in 0..50u64 {
        write(rig.source(0), format!("a/{n}"), &content(n, 10_000));
    }
    check_all_stored(&rig);
    rig.ppu.take().unwrap().kill();
    remove_journal(&rig);
    rig.start_ppu();
    write(rig.source(0), "later", b"later");
    assert_eq!(check_all_stored(&rig), 51);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 1, "only the later file travelled");
    assert_eq!(rig.counts().produced, 51);
}

/// Row 47: what a user has changed on the ramdisk is not what its brand says. It is fetched again, not stored as the image.
#[test]
fn row_47_what_was_changed_is_not_taken_for_the_image() {
    if !is_root("row_47_what_was_changed_is_not_taken_for_the_image") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    for n in 0..3u64 {
        write(rig.source(0), format!("{n}"), &content(n, 10_000));
    }
    check_all_stored(&rig);
    rig.ppu.take().unwrap().kill();
    remove_journal(&rig);
    let changed = rig.landing(0).join("1");
    File::options().write(true).open(&changed).unwrap().write_all(b"not the image").unwrap();
    rig.start_ppu();
    assert_eq!(check_all_stored(&rig), 3);
    wait_until("the image has its name again", || std::fs::read(&changed).unwrap() == content(1, 10_000));
}

fn remove_journal(rig: &Rig) {
    let state = rig.dir.path().join("ppu.state");
    for file in names(&state) {
        if file.to_string_lossy().starts_with("journal.db") {
            std::fs::remove_file(state.join(file)).unwrap();
        }
    }
}

/// What is still to be stored of a shift stays its user's, also over a restart in the next one, which a changed configuration does not end.
#[test]
fn what_is_to_be_stored_stays_its_shifts() {
    if !is_root("what_is_to_be_stored_stays_its_shifts") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    write(rig.source(0), "old", b"old");
    wait_until("it has landed", || rig.landing(0).join("old").exists());
    let mut start = Command::new(support::daemon::BINARY);
    start.args(["shift", "start", "-u", "23456:54321", "--config"]).arg(rig.ppu_config());
    support::mount::run(&mut start);
    assert!(rig.ppu.take().unwrap().stop().success());
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    std::fs::write(rig.ppu_config(), config.replace("uid = 12345", "uid = 34567")).unwrap();
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "new", b"new");
    let of_new = |root: &Path| root.join("d0/23456_54321/new");
    wait_until("the new file has landed", || of_new(rig.ppu_ramdisk.path()).exists());
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("both are stored", || rig.counts().copied == 2);
    assert_eq!(rig.status().unwrap().shifts.len(), 2);
    assert_eq!(std::fs::read(rig.stored(0).join("old")).unwrap(), b"old");
    assert_eq!(std::fs::read(of_new(&rig.storage.path().join("data"))).unwrap(), b"new");
}
