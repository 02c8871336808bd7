//! Whole ways: from the detector's ramdisk over TCP to the PPU's ramdisk and onto a real file system.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ppu_uringd::model::file_version::{Identity, OfferId, TransferId};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::wire::control::{Coming, FromDetector, FromPpu, Offered};
use support::daemon::Daemon;
use support::impostor::Impostor;
use support::oracle::{check_all_stored, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

/// Names that programs like to trip over.
const ODD_NAMES: &[&[u8]] = &[
    b"plain.cbf",
    b"with space.cbf",
    b"new\nline",
    b"colon:name",
    b"\xff\xfe not utf-8",
    b"-rf",
    b"~",
    b"*?[a]",
    b"\"quotes'`$(id)",
    b"%2e%2e",
    b".hidden",
    b"tab\tname",
    b"...",
];

fn odd_tree(rig: &Rig, detector: usize) {
    let root = rig.source(detector);
    for (n, name) in ODD_NAMES.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        write(root, name, &content(n as u64, 1000 + n));
        write(root, Path::new("dir").join(name).join("file"), &content(n as u64, 10));
    }
    write(root, "x".repeat(255), b"longest name");
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 60).collect();
    write(root, deep.join("bottom"), b"deep");
    std::fs::create_dir_all(root.join("empty/directory")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
}

fn sizes(rig: &Rig) {
    let sizes = [0, 1, 4095, 4096, 4097, 65_536, 100_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 6_200_000];
    for (n, size) in sizes.into_iter().enumerate() {
        write(rig.source(0), format!("sizes/{size}"), &content(n as u64, size));
    }
    for size in [(16 << 20) - 1, 16 << 20, (16 << 20) + 1, 100_000_001] {
        write(rig.source(0), format!("large/{size}"), &content(size as u64, size));
    }
}

fn odd_names_and_sizes(engine: &'static str, storage: &'static str) {
    if !is_root("odd_names_and_sizes") {
        return;
    }
    let rig = Rig::start(Options { engine, storage, detectors: 2, ..Options::default() });
    odd_tree(&rig, 0);
    sizes(&rig);
    write(rig.source(1), "run/a_001.cbf", &content(7, 2_400_000));
    let mode = std::fs::Permissions::from_mode(0o4755);
    write(rig.source(1), "setuid", b"no");
    std::fs::set_permissions(rig.source(1).join("setuid"), mode).unwrap();
    let files = check_all_stored(&rig);
    assert_eq!(files, 2 * ODD_NAMES.len() + 2 + 11 + 4 + 2);
    assert!(!rig.landing(0).join("empty").exists(), "empty directories are not transferred");
    assert!(rig.landing(0).join("link").symlink_metadata().is_err(), "symlinks are not transferred");
    let status = rig.status().unwrap();
    assert!(status.detectors[0].skipped >= 3, "skipped things are counted: {:?}", status.detectors[0]);
}

#[test]
fn odd_names_and_sizes_uring_ext4() {
    odd_names_and_sizes("uring", "ext4");
}

#[test]
fn odd_names_and_sizes_syscall_xfs() {
    odd_names_and_sizes("syscall", "xfs");
}

#[test]
fn twenty_thousand_small_files() {
    if !is_root("twenty_thousand_small_files") {
        return;
    }
    let rig = Rig::start(Options::default());
    for n in 0..20_000u64 {
        write(rig.source(0), format!("run{}/{n}", n % 7), &content(n, 500 + n as usize % 100));
    }
    assert_eq!(check_all_stored(&rig), 20_000);
    let counts = rig.counts();
    assert_eq!((counts.produced, counts.copied), (20_000, 20_000), "{counts:?}");
}

#[test]
fn one_gigabyte() {
    if !is_root("one_gigabyte") {
        return;
    }
    let rig = Rig::start(Options { storage: "xfs", storage_megabytes: 4096, ..Options::default() });
    write(rig.source(0), "big", &content(3, (1 << 30) + 12_345));
    assert_eq!(check_all_stored(&rig), 1);
}

#[test]
fn a_newer_version_replaces_the_older_one() {
    if !is_root("a_newer_version_replaces_the_older_one") {
        return;
    }
    let rig = Rig::start(Options::default());
    for version in 0..30 {
        write(rig.source(0), "master.h5", &content(version, 10_000 + version as usize));
        write(rig.source(0), "same_size", &content(version, 10_000));
        if version % 10 == 0 {
            check_all_stored(&rig);
        }
    }
    assert_eq!(check_all_stored(&rig), 2);
}

#[test]
fn a_close_without_change_is_not_a_new_version() {
    if !is_root("a_close_without_change_is_not_a_new_version") {
        return;
    }
    let rig = Rig::start(Options::default());
    write(rig.source(0), "a", &content(1, 50_000));
    check_all_stored(&rig);
    let before = rig.status().unwrap().detectors[0].landed;
    for _ in 0..10 {
        drop(std::fs::File::options().write(true).open(rig.source(0).join("a")).unwrap());
    }
    // A later file has passed through: so have the closes before it.
    write(rig.source(0), "b", b"later");
    check_all_stored(&rig);
    let landed = rig.status().unwrap().detectors[0].landed;
    assert_eq!(landed.files, before.files + 1, "only the later file travelled");
}

#[test]
fn files_that_were_there_before_anybody_looked() {
    if !is_root("files_that_were_there_before_anybody_looked") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    for n in 0..500 {
        write(rig.source(0), format!("early/{n}"), &content(n, 3000));
    }
    rig.start_ppu();
    rig.start_detector(0);
    rig.wait_linked();
    assert_eq!(check_all_stored(&rig), 500);
}

#[test]
fn a_file_open_for_writing_is_not_sent() {
    if !is_root("a_file_open_for_writing_is_not_sent") {
        return;
    }
    use std::io::Write;
    let rig = Rig::start(Options::default());
    let path = rig.source(0).join("growing");
    let mut first = std::fs::File::create(&path).unwrap();
    first.write_all(b"one ").unwrap();
    // One descriptor closes; the other still writes.
    drop(std::fs::File::options().write(true).open(&path).unwrap());
    write(rig.source(0), "marker", b"m");
    wait_until("the marker has landed", || rig.landing(0).join("marker").exists());
    assert!(!rig.landing(0).join("growing").exists());
    first.write_all(b"two").unwrap();
    drop(first);
    wait_until("the file has landed", || rig.landing(0).join("growing").exists());
    assert_eq!(std::fs::read(rig.landing(0).join("growing")).unwrap(), b"one two");
    assert_eq!(check_all_stored(&rig), 2);
}

#[test]
fn source_limits_what_is_taken() {
    if !is_root("source_limits_what_is_taken") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    std::fs::write(rig.ppu_config(), config.replacen("target = \"", "source = \"/images\"\ntarget = \"", 1))
        .unwrap();
    write(rig.source(0), "other/no", b"no");
    write(rig.source(0), "images/run/yes", b"yes");
    rig.start_detector(0);
    rig.start_ppu();
    wait_until("the file has landed", || rig.landing(0).join("run/yes").exists());
    write(rig.source(0), "other/no2", b"no");
    write(rig.source(0), "images/yes2", b"yes");
    wait_until("the second file has landed", || rig.landing(0).join("yes2").exists());
    assert_eq!(names(&rig.landing(0)).len(), 2);
}

/// The nice value of each thread, and whether it runs in real time, by name.
fn priorities(daemon: &Daemon) -> BTreeMap<String, (i32, bool)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let of = |stat: String| {
        let (name, rest) = stat.rsplit_once(") ").unwrap();
        // proc_pid_stat(5): fields 19 and 41; the third is the first after the name.
        let field = |n: usize| rest.split(' ').nth(n - 3).unwrap();
        (name.split_once(" (").unwrap().1.to_owned(), (field(19).parse().unwrap(), field(41) == "1"))
    };
    stats.map(of).collect()
}

fn may_run_in_real_time() -> bool {
    let may = std::thread::spawn(|| ppu_uring::sys::set_real_time(nix::unistd::gettid(), true).is_ok());
    let may = may.join().unwrap();
    if !may {
        eprintln!("SKIPPED in part: no thread may run in real time here");
    }
    may
}

fn keeps_processors_awake(daemon: &Daemon) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .any(|file| file == Path::new("/dev/cpu_dma_latency"))
}

#[test]
fn what_an_image_waits_for_goes_first() {
    if !is_root("what_an_image_waits_for_goes_first") {
        return;
    }
    for wanted in [true, false] {
        let mut options = Options::default();
        if !wanted {
            options.detector_extra = "low_latency = false".to_owned();
            options.ppu_extra = "low_latency = false".to_owned();
        }
        let rig = Rig::start(options);
        let (detector, ppu) = (rig.detectors[0].as_ref().unwrap(), rig.ppu.as_ref().unwrap());
        assert!(!keeps_processors_awake(detector) && !keeps_processors_awake(ppu), "nothing flows");
        write(rig.source(0), "image", &content(1, 100_000));
        wait_until("it is stored", || rig.counts().copied == 1);
        for daemon in [detector, ppu] {
            if Path::new("/dev/cpu_dma_latency").exists() {
                assert_eq!(keeps_processors_awake(daemon), wanted);
            } else {
                eprintln!("SKIPPED in part: this kernel has no /dev/cpu_dma_latency");
            }
        }
        let (detector, ppu) = (priorities(detector), priorities(ppu));
        let first = (-10, wanted && may_run_in_real_time());
        for (threads, name, priority) in [
            (&detector, "watch", first),
            (&detector, "ppu-uringd", first),
            (&detector, "send", (0, first.1)),
            (&ppu, "ppu-uringd", first),
            (&ppu, "ledger", first),
            (&ppu, "land", first),
            (&ppu, "journal", (0, false)),
            (&ppu, "store internal", (10, false)),
        ] {
            assert_eq!(threads.get(name), Some(&priority), "{name}: {threads:?}");
        }
    }
}

/// An image that comes alone waits for nobody's word (PROTOCOL.md, "Grants").
#[test]
fn what_comes_alone_travels_unasked() {
    if !is_root("what_comes_alone_travels_unasked") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let loud = |command: &mut std::process::Command| {
        command.env("RUST_LOG", "info,ppu_uringd::model::catalog=debug");
    };
    rig.detectors[0] = Some(Daemon::start_with("detector", &rig.detector_config(0), loud));
    rig.start_ppu();
    rig.wait_linked();
    let mut written = 0;
    wait_until("one has travelled unasked", || {
        write(rig.source(0), format!("run/{written}"), &content(written, 300_000));
        written += 1;
        wait_until("it has landed", || rig.landing(0).join(format!("run/{}", written - 1)).exists());
        rig.detectors[0].as_ref().unwrap().log().contains("comes unasked")
    });
    assert_eq!(check_all_stored(&rig) as u64, written);
}

fn comes(impostor: &Impostor, transfer: TransferId, offer: u64, name: &str, identity: Identity) -> Coming {
    let path = RelPath::new(name.as_bytes()).unwrap();
    let (offer, shift) = (OfferId(offer), impostor.shift);
    let file = Offered { offer, path, identity, shift, closed_us_ago: 0, fresh: true, superseded: 0 };
    Coming { transfer, shifts_heard: impostor.shifts_heard, file }
}

/// What comes ahead of its offer has no name before it is known; what cannot be taken as it comes is discarded, and asked for.
#[test]
fn what_comes_ahead_of_its_offer_waits_for_it() {
    if !is_root("what_comes_ahead_of_its_offer_waits_for_it") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() });
    let listener = TcpListener::bind(("127.0.0.1", rig.ports[0])).unwrap();
    rig.start_ppu();
    let mut impostor = Impostor::connect(&listener, 2);
    let image = content(1, 3_000_000);
    let identity = Identity { size: image.len() as u64, mtime_ns: 7, ino: 8, ctime_ns: 9 };
    let taken = || nix::sys::statvfs::statvfs(rig.ppu_ramdisk.path()).unwrap().blocks_free();
    let before = taken();

    let [first, second] = impostor.grants[..2] else { panic!("two grants at least") };
    impostor.send(0, first, identity, &image);
    wait_until("its content is there", || (before - taken()) * 4096 >= identity.size);
    assert!(names(&rig.landing(0)).is_empty(), "and has no name");
    let coming = comes(&impostor, first, 1, "run/first", identity);
    impostor.say(&FromDetector::Coming { files: vec![coming] });
    let landed = rig.landing(0).join("run/first");
    wait_until("it has its name", || landed.exists());
    assert_eq!(std::fs::read(&landed).unwrap(), image);

    // A detector that may not have heard of a shift: its file is not taken as it comes.
    let mut stale = comes(&impostor, second, 2, "run/stale", Identity { ino: 10, ..identity });
    stale.shifts_heard -= 1;
    impostor.send(1, second, stale.file.identity, &image);
    impostor.say(&FromDetector::Coming { files: vec![stale] });
    let (mut not_taken, mut wanted) = (None, BTreeMap::new());
    while wanted.is_empty() {
        match impostor.hear() {
            FromPpu::NotTaken { transfer } => not_taken = Some(transfer),
            FromPpu::Want { wants } => wanted.extend(wants.iter().map(|want| (want.offer, want.transfer))),
            _ => {}
        }
    }
    assert_eq!(not_taken, Some(second));
    assert!(!rig.landing(0).join("run/stale").exists());
    impostor.send(0, wanted[&OfferId(2)], Identity { ino: 10, ..identity }, &image);
    wait_until("it has landed", || rig.landing(0).join("run/stale").exists());
}
