//! Publishing against everything that users, crashes and full disks do to names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::model::file_version::{Hash, Identity};
use crate::model::job::Brand;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// How long an attacker is given to win a race.
const ATTACK: Duration = Duration::from_millis(1500);
/// 2026-07-31 23:59:59 UTC.
const SHIFT: ShiftId = ShiftId(1_785_542_399_000);
const MTIME_NS: i64 = 1_700_000_000_123_456_789;

/// A root inside a directory of its own, beside a canary that must never change.
struct Fixture {
    temp: TempDir,
    staging: Staging,
}

impl Fixture {
    fn new() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(temp: TempDir) -> Self {
        std::fs::create_dir(temp.path().join("root")).unwrap();
        std::fs::create_dir_all(temp.path().join("canary/sub")).unwrap();
        std::fs::write(temp.path().join("canary/file"), "do not touch").unwrap();
        let staging = Staging::open(Root::open(&temp.path().join("root")).unwrap().into()).unwrap();
        Self { temp, staging }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.temp.path().join("root").join(OsStr::from_bytes(path))
    }

    fn canary(&self) -> PathBuf {
        self.temp.path().join("canary")
    }

    fn publish(&self, path: &[u8], content: &[u8]) -> Result<Published, PublishError> {
        self.publish_as(path, content, SHIFT, Occupied::Refuse)
    }

    fn publish_as(
        &self,
        path: &[u8],
        content: &[u8],
        shift: ShiftId,
        occupied: Occupied,
    ) -> Result<Published, PublishError> {
        let at = RelPath::new(path).unwrap();
        let brand = brand(&at, shift, content);
        let staged = self.staging.stage()?;
        rustix::io::write(staged.file(), content).unwrap();
        self.staging.publish(staged, &Publication { occupied, ..plain(&at, &brand) })
    }

    fn read(&self, path: &[u8]) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap()
    }

    /// Names of what is left in staging.
    fn left(&self) -> Vec<String> {
        let entries = self.at(STAGING_NAME.as_bytes()).read_dir().unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn assert_canary(&self) {
        let mut names: Vec<_> =
            self.canary().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["file", "sub"]);
        assert_eq!(std::fs::read(self.canary().join("file")).unwrap(), b"do not touch");
        assert_eq!(self.canary().join("sub").read_dir().unwrap().count(), 0);
    }
}

fn brand(path: &RelPath, shift: ShiftId, content: &[u8]) -> Brand {
    Brand {
        detector: "1MF".into(),
        shift,
        path: path.clone(),
        identity: Identity { size: content.len() as u64, mtime_ns: MTIME_NS, ino: 7, ctime_ns: 8 },
        settled: true,
        hash: Hash::of(content),
    }
}

fn plain<'a>(at: &'a RelPath, brand: &'a Brand) -> Publication<'a> {
    Publication {
        at,
        attributes: Attributes { uid: None, gid: None, mode: 0o100644, mtime_ns: MTIME_NS },
        directories: &|_| DirAttributes { uid: None, gid: None, mode: 0o755 },
        brand,
        occupied: Occupied::Refuse,
        link: None,
        just_before_rename: &|| true,
    }
}

#[test]
fn complete_with_owner_mode_time_and_brand() {
    let fixture = Fixture::new();
    let at = RelPath::new(b"500_501/run/a_001.cbf").unwrap();
    let brand = brand(&at, SHIFT, b"image");
    let root = rustix::process::geteuid().is_root();
    let (uid, gid) = if root { (Some(500), Some(501)) } else { (None, None) };
    let staged = fixture.staging.stage().unwrap();
    rustix::io::write(staged.file(), b"image").unwrap();
    let published = fixture
        .staging
        .publish(
            staged,
            &Publication {
                attributes: Attributes { uid, gid, mode: 0o104751, mtime_ns: -1 },
                directories: &|_| DirAttributes { uid, gid, mode: 0o750 },
                ..plain(&at, &brand)
            },
        )
        .unwrap();
    assert_eq!((published.new_directories, published.replaced), (2, None));
    let meta = fixture.at(at.as_bytes()).metadata().unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o751, "no setuid bit");
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-1, 999_999_999));
    assert_eq!(published.local.ino, meta.ino());
    assert_eq!(published.local.ctime_ns, meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
    for directory in [&b"500_501"[..], b"500_501/run"] {
        let meta = fixture.at(directory).metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o750);
        assert!(!root || (meta.uid(), meta.gid()) == (500, 501));
    }
    assert!(!root || (meta.uid(), meta.gid()) == (500, 501));
    let (file, _) = fixture.staging.root().open_file(&at).unwrap();
    assert_eq!(fixture.staging.brands().read(file), Some(brand));
    assert!(fixture.left().is_empty());
}

#[test]
fn odd_names_and_deep_paths() {
    let fixture = Fixture::new();
    let long = [b'n'; 255];
    let deep = [&b"d/".repeat(1900)[..], &[b'f'; 255]].concat();
    for path in [&b" "[..], b"new\nline", b"\xff\xfe/\x01", b"a:b", b"-rf/*", b"...", &long, &deep] {
        fixture.publish(path, path).unwrap();
        let at = RelPath::new(path).unwrap();
        let (_, stat) = fixture.staging.root().open_file(&at).unwrap();
        assert_eq!(stat.size, path.len() as u64);
        // A path of 4 kB may be too long for the attribute that would say whose file it is.
        let again = fixture.publish_as(path, b"newer", SHIFT, Occupied::SetAside).unwrap();
        match again.replaced {
            Some(Replaced::Older) => {}
            Some(Replaced::SetAside(_)) if path.len() > 3000 => {}
            other => panic!("{at}: {other:?}"),
        }
    }
    assert!(fixture.left().is_empty());
}

#[test]
fn a_newer_version_replaces_the_older_one_and_only_that() {
    let fixture = Fixture::new();
    let first = fixture.publish(b"d/a", b"first").unwrap();
    let reader = std::fs::File::open(fixture.at(b"d/a")).unwrap();
    std::fs::hard_link(fixture.at(b"d/a"), fixture.at(b"d/kept by a user")).unwrap();
    let second = fixture.publish(b"d/a", b"second").unwrap();
    assert_eq!(second.replaced, Some(Replaced::Older));
    assert_ne!(first.local, second.local);
    assert_eq!(fixture.read(b"d/a"), b"second");
    assert_eq!(fixture.read(b"d/kept by a user"), b"first");
    assert_eq!(std::io::read_to_string(reader).unwrap(), "first");

    // A link of one of our files under the name of another is no version of that one.
    std::fs::remove_file(fixture.at(b"d/a")).unwrap();
    fixture.publish(b"d/b", b"b").unwrap();
    std::fs::hard_link(fixture.at(b"d/b"), fixture.at(b"d/a")).unwrap();
    assert!(matches!(fixture.publish(b"d/a", b"third"), Err(PublishError::Foreign { brand: Some(_) })));
    assert_eq!(fixture.read(b"d/a"), b"b");
    assert!(fixture.left().is_empty());
}

#[test]
fn what_is_not_ours_is_left() {
    let fixture = Fixture::new();
    std::fs::write(fixture.at(b"file"), b"a user's").unwrap();
    std::fs::create_dir(fixture.at(b"dir")).unwrap();
    symlink(fixture.canary().join("file"), fixture.at(b"link")).unwrap();
    symlink("nowhere", fixture.at(b"dangling")).unwrap();
    symlink(fixture.canary(), fixture.at(b"out")).unwrap();
    fixture.publish(b"ours", b"ours").unwrap();
    let foreign = |path: &[u8], occupied| {
        let refused = fixture.publish_as(path, b"image", SHIFT, occupied);
        assert!(matches!(refused, Err(PublishError::Foreign { .. })), "{refused:?}");
    };
    foreign(b"file", Occupied::Refuse);
    for occupied in [Occupied::Refuse, Occupied::SetAside] {
        for path in [&b"dir"[..], b"link", b"dangling", b"out", b"out/file", b"file/below", b"ours/below"] {
            foreign(path, occupied);
        }
    }
    assert_eq!(fixture.read(b"file"), b"a user's");
    assert!(fixture.left().is_empty());
    fixture.assert_canary();
}

/// A link of ours, made by eviction, is an older version; any other is somebody's.
#[test]
fn our_own_link_is_replaced() {
    let fixture = Fixture::new();
    let stored = fixture.canary().join("file");
    let at = RelPath::new(b"a").unwrap();
    let brand = brand(&at, SHIFT, b"newer");
    let publication = Publication { link: Some(&stored), ..plain(&at, &brand) };
    for (text, is_ours) in [(stored.clone(), true), (fixture.canary().join("other"), false)] {
        std::fs::remove_file(fixture.at(b"a")).ok();
        symlink(&text, fixture.at(b"a")).unwrap();
        let staged = fixture.staging.stage().unwrap();
        rustix::io::write(staged.file(), b"newer").unwrap();
        match fixture.staging.publish(staged, &publication) {
            Ok(published) => assert!(is_ours && published.replaced == Some(Replaced::Older)),
            Err(PublishError::Foreign { .. }) => assert!(!is_ours),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(std::fs::symlink_metadata(fixture.at(b"a")).unwrap().is_symlink(), !is_ours);
    }
    assert!(fixture.left().is_empty());
    fixture.assert_canary();
}

#[test]
fn another_shifts_file_is_set_aside() {
    let fixture = Fixture::new();
    let later = ShiftId(SHIFT.0 + 1000);
    fixture.publish(b"a", b"old shift").unwrap();
    let refused = fixture.publish_as(b"a", b"new shift", later, Occupied::Refuse);
    assert!(matches!(refused, Err(PublishError::Foreign { brand: Some(b) }) if b.shift == SHIFT));
    let published = fixture.publish_as(b"a", b"new shift", later, Occupied::SetAside).unwrap();
    assert_eq!(published.replaced, Some(Replaced::SetAside(b"a.~20260731-235959~".to_vec())));
    assert_eq!(fixture.read(b"a.~20260731-235959~"), b"old shift");
    assert_eq!(fixture.read(b"a"), b"new shift");

    let latest = ShiftId(later.0 + 1000);
    let published = fixture.publish_as(b"a", b"overwritten", latest, Occupied::Overwrite).unwrap();
    assert_eq!((published.replaced, fixture.read(b"a")), (Some(Replaced::Older), b"overwritten".to_vec()));

    // Of unbranded files the time tells; a taken name is passed over, a long one is cut.
    let long = [b'l'; 255];
    for (n, cut) in [(0, 20), (1, 22)] {
        std::fs::remove_file(fixture.at(&long)).ok();
        std::fs::write(fixture.at(&long), b"a user's").unwrap();
        let file = std::fs::File::open(fixture.at(&long)).unwrap();
        set_mtime(&file, SHIFT.0 * 1_000_000).unwrap();
        let published = fixture.publish_as(&long, b"image", later, Occupied::SetAside).unwrap();
        let Some(Replaced::SetAside(aside)) = published.replaced else { panic!("not set aside") };
        let suffix = [".~20260731-235959~", ".~20260731-235959~1~"][n];
        assert!(aside.ends_with(suffix.as_bytes()) && aside.len() == 255, "{cut}");
        assert_eq!(fixture.read(&aside), b"a user's");
    }
    assert!(fixture.left().is_empty());
}

/// A storage that was away gets an earlier shift's file after a later one's of the same name.
#[test]
fn an_earlier_shifts_file_that_comes_later_gives_way() {
    let fixture = Fixture::new();
    let later = ShiftId(SHIFT.0 + 1000);
    fixture.publish_as(b"a", b"later shift", later, Occupied::SetAside).unwrap();
    std::fs::write(fixture.at(b"a.~20260731-235959~"), b"a user's").unwrap();
    let gave_way = Some(Replaced::GaveWay(b"a.~20260731-235959~1~".to_vec()));
    // The second time after a crash, the third with a newer version.
    for content in [b"earlier", b"earlier", b"newer  "] {
        let published = fixture.publish_as(b"a", content, SHIFT, Occupied::SetAside).unwrap();
        assert_eq!(published.replaced, gave_way);
        assert_eq!(fixture.read(b"a.~20260731-235959~1~"), content);
    }
    assert_eq!(fixture.read(b"a"), b"later shift");
    assert_eq!(fixture.read(b"a.~20260731-235959~"), b"a user's");
    let overwriting = fixture.publish_as(b"a", b"earlier", SHIFT, Occupied::Overwrite);
    assert!(matches!(overwriting, Err(PublishError::Superseded)));
    assert_eq!(fixture.read(b"a"), b"later shift");
    assert!(fixture.left().is_empty());
}

#[test]
fn a_name_belongs_to_the_shifts_first_detector() {
    let fixture = Fixture::new();
    let at = RelPath::new(b"a").unwrap();
    fixture.publish(b"a", b"first detector's").unwrap();
    let other = Brand { detector: "2MF".into(), ..brand(&at, SHIFT, b"") };
    let publication = Publication { occupied: Occupied::SetAside, ..plain(&at, &other) };
    let refused = fixture.staging.publish(fixture.staging.stage().unwrap(), &publication);
    assert!(matches!(refused, Err(PublishError::Foreign { .. })));
    assert_eq!(fixture.read(b"a"), b"first detector's");
}

#[test]
fn superseded_at_the_last_moment() {
    let fixture = Fixture::new();
    let at = RelPath::new(b"d/a").unwrap();
    let brand = brand(&at, SHIFT, b"");
    let publication = Publication { just_before_rename: &|| false, ..plain(&at, &brand) };
    let refused = fixture.staging.publish(fixture.staging.stage().unwrap(), &publication);
    assert!(matches!(refused, Err(PublishError::Superseded)));
    assert!(!fixture.at(b"d/a").exists() && fixture.left().is_empty());
}

#[test]
fn directories_that_vanish_are_made_again() {
    let fixture = Fixture::new();
    let at = RelPath::new(b"x/y/a").unwrap();
    let brand = brand(&at, SHIFT, b"");
    let calls = AtomicUsize::new(0);
    let remove = || {
        if calls.fetch_add(1, Ordering::Relaxed) < 2 {
            std::fs::remove_dir_all(fixture.at(b"x")).unwrap();
        }
        true
    };
    let publication = Publication { just_before_rename: &remove, ..plain(&at, &brand) };
    let published = fixture.staging.publish(fixture.staging.stage().unwrap(), &publication).unwrap();
    assert_eq!((calls.into_inner(), published.new_directories), (3, 2));
}

/// FAULTS 41: a user who may write in the parent swaps it for a link to elsewhere, as fast as he can.
#[test]
fn a_directory_that_is_held_serves_the_next_file_and_is_made_again_if_it_is_gone() {
    let fixture = Fixture::new();
    let held = fixture.publish(b"a/b/1", b"1").unwrap().parent;
    let publish_in = |parent, path: &[u8]| {
        let at = RelPath::new(path).unwrap();
        let brand = brand(&at, SHIFT, b"2");
        let staged = fixture.staging.stage().unwrap();
        rustix::io::write(staged.file(), b"2").unwrap();
        fixture.staging.publish_in(Some(parent), staged, &plain(&at, &brand)).unwrap()
    };
    let held = publish_in(held, b"a/b/2").parent;
    assert_eq!(fixture.read(b"a/b/2"), b"2");
    std::fs::remove_dir_all(fixture.at(b"a")).unwrap();
    let published = publish_in(held, b"a/b/3");
    assert_eq!((fixture.read(b"a/b/3"), published.new_directories), (b"2".to_vec(), 2));
}

#[test]
fn parents_swapped_for_links_lead_nowhere() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.at(b"p")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(fixture.at(b"p"), fixture.at(b"away")).unwrap();
                if symlink(fixture.canary(), fixture.at(b"p")).is_ok() {
                    std::fs::remove_file(fixture.at(b"p")).unwrap();
                }
                std::fs::rename(fixture.at(b"away"), fixture.at(b"p")).ok();
                // Whoever made the directory anew meanwhile has won this round.
                std::fs::remove_dir_all(fixture.at(b"away")).ok();
            }
        });
        let (mut published, mut refused) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < ATTACK {
            match fixture.publish(b"p/sub/file", b"image") {
                Ok(_) => published += 1,
                Err(PublishError::Foreign { .. }) => refused += 1,
                // Parents that keep vanishing: tried again later by whoever asked.
                Err(PublishError::Failed(error)) => assert_ne!(error.errno, rustix::io::Errno::ACCESS),
                Err(error) => panic!("{error}"),
            }
            let path = RelPath::new(b"p/file").unwrap();
            assert!(fixture.staging.root().open_file(&path).is_err(), "the canary is never read");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(published > 0 && refused > 0, "{published} published, {refused} refused: no race");
    });
    fixture.assert_canary();
    assert!(fixture.left().is_empty());
}

/// A user puts a file of his own under the name again and again, by rename: none of his files is ever lost.
#[test]
fn exchange_gives_back_what_is_not_ours() {
    let fixture = Fixture::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            for n in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return n;
                }
                let content = format!("user's {n}");
                std::fs::write(fixture.at(b"mine"), &content).unwrap();
                std::fs::rename(fixture.at(b"mine"), fixture.at(b"name")).unwrap();
                if n % 2 == 0 {
                    let _ = std::fs::rename(fixture.at(b"name"), fixture.at(b"back"));
                }
                // It may be in our hands for a moment, on its way back.
                let deadline = Instant::now() + Duration::from_secs(5);
                while !holds(&fixture.at(b"."), content.as_bytes()) {
                    assert!(Instant::now() < deadline, "{content} is lost");
                }
                let _ = std::fs::remove_file(fixture.at(b"name"));
            }
            0
        });
        let start = Instant::now();
        let mut published = 0;
        while start.elapsed() < ATTACK {
            match fixture.publish(b"name", b"ours") {
                Ok(_) => published += 1,
                Err(PublishError::Foreign { .. } | PublishError::Failed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(attacker.join().unwrap() > 0 && published > 0);
    });
    assert!(fixture.left().is_empty(), "{:?}", fixture.left());
}

#[test]
fn a_file_put_there_after_the_look_is_given_back() {
    let fixture = Fixture::new();
    fixture.publish(b"name", b"older").unwrap();
    std::fs::write(fixture.at(b"mine"), "a user's").unwrap();
    let at = RelPath::new(b"name").unwrap();
    let brand = brand(&at, SHIFT, b"");
    let calls = AtomicUsize::new(0);
    let attack = || {
        // The first call is before the rename that finds the name taken, the second before the exchange.
        if calls.fetch_add(1, Ordering::Relaxed) == 1 {
            std::fs::rename(fixture.at(b"mine"), fixture.at(b"name")).unwrap();
        }
        true
    };
    let publication = Publication { just_before_rename: &attack, ..plain(&at, &brand) };
    let refused = fixture.staging.publish(fixture.staging.stage().unwrap(), &publication);
    assert!(matches!(refused, Err(PublishError::Foreign { brand: None })));
    assert_eq!(fixture.read(b"name"), b"a user's");
    assert!(fixture.left().is_empty());
}

/// True where a file in `directory` has this content.
fn holds(directory: &Path, content: &[u8]) -> bool {
    let mut files = directory.read_dir().unwrap().flatten().map(|entry| entry.path());
    files.any(|path| path.is_file() && std::fs::read(path).is_ok_and(|found| found == content))
}

/// Several threads publish versions of the same name: one whole version is there at any time.
#[test]
fn rivals_publish_whole_versions() {
    let fixture = Fixture::new();
    fixture.publish(b"name", &[0; 5000]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 1..4_u8 {
            let (fixture, stop) = (&fixture, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match fixture.publish(b"name", &[n; 5000]) {
                        Ok(_) | Err(PublishError::Foreign { .. } | PublishError::Failed(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < ATTACK / 3 {
            let content = fixture.read(b"name");
            assert!(content.len() == 5000 && content.iter().all(|&b| b == content[0]));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(fixture.left().is_empty(), "{:?}", fixture.left());
}

#[test]
fn without_rename_flags_and_brands() {
    let mut fixture = Fixture::new();
    fixture.staging.degrade();
    assert_eq!(fixture.publish(b"d/a", b"first").unwrap().replaced, None);
    // The same version again, as after a crash; another one is not known for ours.
    assert_eq!(fixture.publish(b"d/a", b"first").unwrap().replaced, Some(Replaced::Older));
    assert!(matches!(fixture.publish(b"d/a", b"second, longer"), Err(PublishError::Foreign { brand: None })));
    let published = fixture.publish_as(b"d/a", b"second, longer", SHIFT, Occupied::SetAside).unwrap();
    assert!(matches!(published.replaced, Some(Replaced::SetAside(_))));
    assert!(fixture.left().is_empty());
}

/// A tmpfs of its own, unmounted when dropped.
pub(super) struct Tmpfs(TempDir);

impl Tmpfs {
    pub(super) fn new(options: &str) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        let mounted = rustix::mount::mount(
            "ppu-test",
            temp.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(options.as_c_str()),
        );
        match mounted {
            Ok(()) => Some(Self(temp)),
            Err(error) => {
                eprintln!("SKIPPED: cannot mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Tmpfs {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// FAULTS 24, 25.
#[test]
fn no_space_says_so_and_leaves_nothing() {
    let Some(tmpfs) = Tmpfs::new("size=64k,nr_inodes=10") else { return };
    let staging = Arc::new(Staging::open(Root::open(tmpfs.0.path()).unwrap().into()).unwrap());
    assert!(staging.root().file_system().unwrap().tmpfs);
    assert_eq!(staging.root().space().unwrap().bytes_total, 64 * 1024);
    let staged = staging.stage().unwrap();
    let mut full = Ok(0);
    for _ in 0..32 {
        full = rustix::io::write(staged.file(), &[0; 4096]);
        if full.is_err() {
            break;
        }
    }
    assert_eq!(full, Err(rustix::io::Errno::NOSPC));
    let mut files = vec![staged];
    let error = loop {
        match staging.stage() {
            Ok(staged) => files.push(staged),
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space(), "{error}");
    // One inode left: the file has it, its directories get none.
    files.truncate(1);
    while staging.root().space().unwrap().inodes_free > 2 {
        files.push(staging.stage().unwrap());
    }
    let at = RelPath::new(b"a/b/c/d").unwrap();
    let brand = brand(&at, SHIFT, b"");
    let refused = staging.publish(staging.stage().unwrap(), &plain(&at, &brand));
    assert!(matches!(&refused, Err(PublishError::Failed(error)) if error.is_no_space()), "{refused:?}");
    drop(files);
    assert_eq!(left_in(tmpfs.0.path()), 0);
}

fn left_in(root: &Path) -> usize {
    root.join(STAGING_NAME).read_dir().unwrap().count()
}

#[test]
fn unreadable_modes_can_be_replaced_by_us() {
    let fixture = Fixture::new();
    fixture.publish(b"a", b"1").unwrap();
    std::fs::set_permissions(fixture.at(b"a"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let published = fixture.publish(b"a", b"2");
    // Only root may read the brand of such a file.
    assert_eq!(published.is_ok(), rustix::process::geteuid().is_root());
}
