//! The writer on real file systems.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ppu_uring::{Choice, open_engine};

use super::testing::{Kind, LoopFs, PATIENCE, Rig, content};
use crate::model::job::{CopyOutcome, Local, Source};
use crate::rooted::mount::Place;

const KINDS: [Kind; 2] = [Kind::Ext4, Kind::Xfs];
const BYTES: u64 = 320 << 20;
const SIZES: [usize; 10] =
    [0, 1, 4095, 4096, 4097, 100_000, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 40 * 1_000_000 + 123];

/// A storage in a plain directory, for what needs no file system of its own.
fn directory(path: &Path) -> Place {
    Place { target: path.join("data"), mountpoint: None, allow_root_fs: true }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// All sizes, whole, at every depth, by every way.
#[test]
fn every_size_on_ext4_and_xfs() {
    for kind in KINDS {
        let Some(fs) = LoopFs::new(kind, BYTES) else { return };
        for (depth, direct, choice) in [
            (1, true, Choice::Auto),
            (8, true, Choice::Auto),
            (8, true, Choice::Syscall),
            (8, false, Choice::Auto),
        ] {
            let name = format!("{depth}-{direct}-{choice:?}");
            let rig = Rig::with(
                fs.place(&name),
                |settings| (settings.queue_depth, settings.direct) = (depth, direct),
                move |limits| open_engine(choice, limits).map(|opened| opened.driver),
            );
            for size in SIZES {
                rig.copy(&rig.land(&format!("d/{size}"), &content(size)));
            }
            for _ in SIZES {
                assert_eq!(rig.report().outcome, CopyOutcome::Stored, "{kind:?} {name}");
            }
            for size in SIZES {
                let stored = std::fs::read(rig.stored(&format!("d/{size}"))).unwrap();
                assert!(stored == content(size), "{kind:?} {name} {size}");
            }
            assert_eq!(rig.left(), 0);
            assert!(rig.writer.stop(Duration::from_secs(5)));
            std::fs::remove_dir_all(fs.mountpoint().join(name)).unwrap();
        }
    }
}

#[test]
fn every_size_on_tmpfs() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let rig = Rig::new(directory(temp.path()));
    for size in SIZES {
        assert_eq!(rig.store(&format!("d/{size}"), &content(size)), CopyOutcome::Stored);
        assert!(std::fs::read(rig.stored(&format!("d/{size}"))).unwrap() == content(size), "{size}");
    }
}

/// SPEC 3.3.
#[test]
fn mode_time_and_owner_of_files_and_directories() {
    let Some(fs) = LoopFs::new(Kind::Ext4, BYTES) else { return };
    for preserve in [true, false] {
        let rig = Rig::with(
            fs.place(if preserve { "as-is" } else { "os" }),
            |settings| (settings.preserve_uid, settings.preserve_gid) = (preserve, preserve),
            |limits| open_engine(Choice::Auto, limits).map(|opened| opened.driver),
        );
        let old = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let mut job = rig.land("a/b/file", b"image");
        let file = std::fs::File::open(rig.at("private/a/b/file")).unwrap();
        file.set_modified(old).unwrap();
        for (path, mode) in [("private/a/b", 0o711), ("private/a", 0o750)] {
            let path = rig.at(path);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, Some(500), Some(501)).unwrap();
            std::fs::File::open(&path).unwrap().set_modified(old).unwrap();
        }
        (job.uid, job.gid) = (500, 501);
        let meta = file.metadata().unwrap();
        let ctime_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        job.sources = vec![Source::Ramdisk(Local { ino: meta.ino(), ctime_ns })];
        if !preserve {
            // A set-group-id directory that is there already: what is made in it inherits its group.
            std::fs::create_dir_all(rig.stored("")).unwrap();
            std::os::unix::fs::chown(rig.stored(""), None, Some(777)).unwrap();
            std::fs::set_permissions(rig.stored(""), std::fs::Permissions::from_mode(0o2755)).unwrap();
        }
        assert_eq!(rig.outcome(&job), CopyOutcome::Stored);
        let (owner, setgid) = if preserve { ((500, 501), 0) } else { ((0, 777), 0o2000) };
        for (path, mode) in [("a/b/file", 0o640), ("a/b", 0o711 | setgid), ("a", 0o750 | setgid)] {
            let meta = rig.stored(path).metadata().unwrap();
            assert_eq!(meta.mode() & 0o7777, mode, "{path}");
            assert_eq!((meta.uid(), meta.gid()), owner, "{path}");
            assert_eq!(meta.modified().unwrap(), old, "{path}");
        }
    }
}

#[test]
fn the_newest_version_has_the_last_word() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(directory(temp.path()));
    assert_eq!(rig.store("f", b"first"), CopyOutcome::Stored);
    assert_eq!(rig.store("f", b"second"), CopyOutcome::Stored);
    let third = rig.land("f", b"third");
    third.superseded.store(true, Ordering::Relaxed);
    assert_eq!(rig.outcome(&third), CopyOutcome::Superseded);
    assert_eq!(std::fs::read(rig.stored("f")).unwrap(), b"second");
    assert_eq!(rig.left(), 0);
}

#[test]
fn a_source_that_is_not_the_landed_file_is_not_copied() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(directory(temp.path()));
    let lost = |outcome| matches!(outcome, CopyOutcome::SourceLost(_));
    let job = rig.land("replaced", b"ours");
    rig.land("replaced", b"another");
    assert!(lost(rig.outcome(&job)));
    let job = rig.land("changed", b"ours");
    std::fs::write(rig.at("private/changed"), b"us").unwrap();
    assert!(lost(rig.outcome(&job)));
    let job = rig.land("gone", b"ours");
    std::fs::remove_file(rig.at("private/gone")).unwrap();
    assert!(lost(rig.outcome(&job)));
    let job = rig.land("link", b"ours");
    std::fs::remove_file(rig.at("private/link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", rig.at("private/link")).unwrap();
    assert!(lost(rig.outcome(&job)));
    assert_eq!(rig.stored("").read_dir().unwrap().count(), 1, "nothing but staging");
}

/// A user truncates and rewrites the landed file while it is copied: the copy is whole, or it is refused.
#[test]
fn a_source_that_changes_meanwhile_is_never_stored_torn() {
    let Some(fs) = LoopFs::new(Kind::Xfs, BYTES) else { return };
    for direct in [true, false] {
        let rig = Rig::with(
            fs.place(""),
            |settings| settings.direct = direct,
            |limits| open_engine(Choice::Auto, limits).map(|opened| opened.driver),
        );
        let whole = content(30_000_001);
        let (mut stored, mut lost) = (0, 0);
        for n in 0..12_u32 {
            let name = format!("{direct}-{n}");
            let job = rig.land(&name, &whole);
            rig.copy(&job);
            if n % 3 > 0 {
                // Somewhere in the middle of the copy.
                wait_for("the copy has begun", || rig.left() > 0 || rig.stored(&name).exists());
                let source =
                    std::fs::File::options().write(true).open(rig.at("private").join(&name)).unwrap();
                if n % 3 == 1 {
                    source.set_len(5000).unwrap()
                } else {
                    std::os::unix::fs::FileExt::write_all_at(&source, b"x", 29_000_000).unwrap()
                }
            }
            match rig.report().outcome {
                CopyOutcome::Stored => {
                    stored += 1;
                    assert!(std::fs::read(rig.stored(&name)).unwrap() == whole);
                    std::fs::remove_file(rig.stored(&name)).unwrap();
                }
                CopyOutcome::SourceLost(_) => {
                    lost += 1;
                    assert!(!rig.stored(&name).exists());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(stored >= 4 && lost > 0, "{stored} stored, {lost} lost");
        assert_eq!(rig.left(), 0);
        assert!(rig.writer.stop(PATIENCE));
    }
}

#[test]
fn what_somebody_else_put_there_is_set_aside() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(directory(temp.path()));
    assert_eq!(rig.store("d/a", b"ours"), CopyOutcome::Stored);
    std::fs::remove_file(rig.stored("d/a")).unwrap();
    std::fs::write(rig.stored("d/a"), b"a user's").unwrap();
    assert_eq!(rig.store("d/a", b"ours again"), CopyOutcome::Stored);
    assert_eq!(std::fs::read(rig.stored("d/a")).unwrap(), b"ours again");
    let mut names: Vec<_> =
        rig.stored("d").read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 2);
    assert!(names[1].starts_with("a.~") && names[1].ends_with('~'), "{names:?}");
    assert_eq!(std::fs::read(rig.stored("d").join(&names[1])).unwrap(), b"a user's");

    std::fs::create_dir(rig.stored("d/dir")).unwrap();
    let CopyOutcome::Taken(reason) = rig.store("d/dir", b"ours") else { panic!("not refused") };
    assert!(reason.contains("/d/dir: the name is taken"), "{reason}");
}

/// FAULTS 26.
#[test]
fn a_full_storage_says_so_and_goes_on_when_there_is_room() {
    let Some(fs) = LoopFs::new(Kind::Ext4, 16 << 20) else { return };
    let rig = Rig::new(fs.place(""));
    for (n, size) in [3 << 20, 9 << 20].into_iter().enumerate() {
        let filler = fs.mountpoint().join("filler");
        std::fs::write(&filler, content(9 << 20)).unwrap();
        let name = format!("d/{n}");
        let jobs: Vec<_> = (0..5).map(|m| rig.land(&format!("{name}-{m}"), &content(size))).collect();
        jobs.iter().for_each(|job| rig.copy(job));
        let outcomes: Vec<_> = jobs.iter().map(|_| rig.report()).collect();
        let full = outcomes.iter().filter(|r| matches!(r.outcome, CopyOutcome::Full(_))).count();
        let stored = outcomes.iter().filter(|r| r.outcome == CopyOutcome::Stored).count();
        assert!(full > 0 && full + stored == 5, "{outcomes:?}");
        assert_eq!(rig.left(), 0);
        let d = rig.stored("d");
        if d.exists() {
            for entry in d.read_dir().unwrap() {
                assert!(std::fs::read(entry.unwrap().path()).unwrap() == content(size), "no partial file");
            }
            std::fs::remove_dir_all(d).unwrap();
        }
        std::fs::remove_file(filler).unwrap();
        assert_eq!(rig.outcome(&jobs[4]), CopyOutcome::Stored);
        std::fs::remove_dir_all(rig.stored("d")).unwrap();
    }
}

/// FAULTS 31.
#[test]
fn a_storage_that_turned_read_only_is_unavailable() {
    let Some(fs) = LoopFs::new(Kind::Ext4, BYTES) else { return };
    let rig = Rig::new(fs.place(""));
    assert_eq!(rig.store("a", b"a"), CopyOutcome::Stored);
    fs.remount_read_only();
    let CopyOutcome::Unavailable(reason) = rig.store("b", b"b") else { panic!("not unavailable") };
    assert!(reason.contains("Read-only file system"), "{reason}");
}

/// FAULTS 35.
#[test]
fn nothing_is_written_below_a_bare_mount_point() {
    for kind in KINDS {
        let Some(mut fs) = LoopFs::new(kind, BYTES) else { return };
        fs.unmount();
        let rig = Rig::new(fs.place("images"));
        let job = rig.land("d/a", b"image");
        let unavailable = |rig: &Rig| matches!(rig.outcome(&job), CopyOutcome::Unavailable(_));
        assert!(unavailable(&rig), "not mounted at start");
        fs.mount();
        assert_eq!(rig.outcome(&job), CopyOutcome::Stored);
        fs.unmount_lazily();
        assert!(unavailable(&rig), "lazily unmounted");
        assert_eq!(fs.mountpoint().read_dir().unwrap().count(), 0);
        fs.mount();
        assert_eq!(rig.outcome(&job), CopyOutcome::Stored);
        // An unused storage is let go.
        wait_for("it can be unmounted", || fs.try_unmount());
        assert!(unavailable(&rig), "unmounted");
        assert_eq!(fs.mountpoint().read_dir().unwrap().count(), 0);
    }
}

/// FAULTS 35, in the middle of the work: what was called stored is on the file system that was there.
#[test]
fn lazily_unmounted_in_full_flight() {
    for kind in KINDS {
        let Some(mut fs) = LoopFs::new(kind, BYTES) else { return };
        let rig = Rig::new(fs.place("images"));
        let body = content(1_000_001);
        let mut stored = Vec::new();
        let mut refused = 0;
        let copy = |numbers: std::ops::Range<u32>| {
            numbers.for_each(|n| rig.copy(&rig.land(&format!("d/{n}"), &body)));
        };
        copy(0..40);
        for n in 0..60 {
            let report = rig.report();
            match report.outcome {
                CopyOutcome::Stored => stored.push(report.version.0),
                CopyOutcome::Unavailable(_) => refused += 1,
                other => panic!("{other:?}"),
            }
            if n == 15 {
                fs.unmount_lazily();
                // However quick it is, these come too late.
                copy(40..60);
            }
        }
        assert!(stored.len() >= 15 && refused > 0, "{} stored, {refused} refused", stored.len());
        assert_eq!(fs.mountpoint().read_dir().unwrap().count(), 0);
        fs.mount();
        for n in stored {
            assert!(std::fs::read(rig.stored(&format!("d/{n}"))).unwrap() == body);
        }
        assert!(rig.writer.stop(PATIENCE));
    }
}
