//! What must be where: every file of the manifest, identical, on the PPU's ramdisk and on the storage.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ppu_uringd::model::file_version::Hash;

use super::rig::{GID, Rig, UID};
use super::{PATIENCE, wait_until};

/// One file as the detector has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub size: u64,
    pub mtime: (i64, i64),
    pub hash: Hash,
}

/// Every regular file below `root`, by its path there; not those that are removed meanwhile. Our staging directory does not count.
pub fn tree(root: &Path) -> BTreeMap<OsString, Entry> {
    let mut files = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&below)) else { continue };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && entry.file_name() != ".ppu-uringd" {
                directories.push(path);
            } else if kind.is_file()
                && let Ok(content) = std::fs::read(root.join(&path))
                && let Ok(meta) = entry.metadata()
            {
                let mtime = (meta.mtime(), meta.mtime_nsec());
                let entry = Entry { size: meta.len(), mtime, hash: Hash::of(&content) };
                files.insert(path.into_os_string(), entry);
            }
        }
    }
    files
}

/// Writes `content` under `path` in place, making directories.
pub fn write(root: &Path, path: impl AsRef<Path>, content: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Waits until everything that the detectors have now is stored, then compares every byte, owner, mode and time, on the ramdisk
/// and on the storage. Answers how many files there are.
#[track_caller]
pub fn check_all_stored(rig: &Rig) -> usize {
    let sources: Vec<_> = (0..rig.options.detectors).map(|d| tree(rig.source(d))).collect();
    // A close that the detector has not noticed yet is in no count: only the files themselves tell.
    let all_there = |d: usize| [rig.landing(d), rig.stored(d)].iter().all(|place| tree(place) == sources[d]);
    // Many files take their time on a slow disk: patience ends when nothing moves any more.
    let (mut moved, mut before) = (Instant::now(), rig.counts());
    let mut pause = Duration::from_millis(5);
    while moved.elapsed() < PATIENCE {
        let counts = rig.counts();
        if counts != before {
            (moved, before) = (Instant::now(), counts);
        }
        let enough = |d: usize| names(&rig.stored(d)).len() >= sources[d].len();
        let detectors = || 0..sources.len();
        if counts.pending == 0 && counts.produced > 0 && detectors().all(enough) && detectors().all(all_there)
        {
            break;
        }
        // To ask costs the processor that is waited for.
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    assert_eq!(rig.counts().pending, 0, "nothing is pending");
    for (detector, source) in sources.iter().enumerate() {
        compare(source, &tree(&rig.landing(detector)), "the ramdisk");
        compare(source, &tree(&rig.stored(detector)), "the storage");
        check_owners(&rig.landing(detector));
        check_owners(&rig.stored(detector));
    }
    check_sum(rig);
    check_staging_empty(rig);
    sources.iter().map(BTreeMap::len).sum()
}

/// pending + stored + failed + superseded + lost = produced.
#[track_caller]
pub fn check_sum(rig: &Rig) {
    let c = rig.counts();
    assert_eq!(c.pending + c.copied + c.failed + c.superseded + c.lost, c.produced, "{c:?}");
}

#[track_caller]
fn compare(source: &BTreeMap<OsString, Entry>, there: &BTreeMap<OsString, Entry>, place: &str) {
    for (path, entry) in source {
        let found = there.get(path);
        assert_eq!(found, Some(entry), "{} on {place}", OsStr::from_bytes(path.as_bytes()).display());
    }
    let extra: Vec<_> = there.keys().filter(|path| !source.contains_key(*path)).collect();
    assert!(extra.is_empty(), "{place} has files that the detector has not: {extra:?}");
}

#[track_caller]
fn check_owners(root: &Path) {
    for path in names(root) {
        let meta = std::fs::symlink_metadata(root.join(&path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (UID, GID), "{}", root.join(&path).display());
        assert_eq!(meta.permissions().mode() & 0o7000, 0, "{}", root.join(&path).display());
    }
}

/// No temporary file is left over, but for the note that a living keeper writes to.
#[track_caller]
pub fn check_staging_empty(rig: &Rig) {
    for root in [rig.ppu_ramdisk.path().to_owned(), rig.storage.path().join("data")] {
        let staging = root.join(".ppu-uringd");
        wait_until("staging is empty", || {
            let is_file = |entry: &std::fs::DirEntry| !entry.file_name().as_bytes().starts_with(b"note-");
            std::fs::read_dir(&staging).map_or(true, |entries| entries.flatten().filter(is_file).count() == 0)
        });
    }
}

/// Everything that has a name below `roots`, our staging directories included.
pub fn everything_below(roots: &[&Path]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut directories: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(directory) = directories.pop() {
        // What was removed meanwhile is gone.
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

/// Regular files' paths below `root`, without reading them.
pub fn names(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&below)) else { continue };
        for entry in entries.flatten() {
            let path = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && entry.file_name() != ".ppu-uringd" => directories.push(path),
                Ok(kind) if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    files
}
