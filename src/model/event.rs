//! What happens to files, as consumers hear of it: a version becomes visible on the ramdisk, or is stored (PROTOCOL.md, "Events").

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::extra::EXTRA;
use super::file_version::{DetectorIndex, Hash, StorageIndex, VersionId};
use super::path::RelPath;
use super::record;
use super::shift::ShiftId;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It can be read on the PPU's ramdisk.
    Visible,
    /// It is durable on a storage.
    Stored,
}

/// It happened to this file version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    /// Grows from event to event of a kind, also over restarts; not without gaps.
    pub number: u64,
    /// The version's, the same in all that happens to it.
    pub version: VersionId,
    /// On the ramdisk, or on the storage; absolute.
    pub path: Box<[u8]>,
    /// From where.
    pub detector: Arc<str>,
    /// Where it is stored.
    pub storage: Option<Arc<str>>,
    /// Whose.
    pub shift: ShiftId,
    /// The shift's user.
    pub uid: u32,
    /// The shift's group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub hash: Hash,
    /// As on the detector, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// When it happened, milliseconds since the epoch.
    pub at_ms: i64,
}

/// The version that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Its number.
    pub version: VersionId,
    /// From where.
    pub detector: DetectorIndex,
    /// Whose.
    pub shift: ShiftId,
    /// The shift's user and group.
    pub owner: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub hash: Hash,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
}

impl Subject {
    /// As the journal has it.
    pub fn new(version: &record::Version, owner: (u32, u32)) -> Self {
        Self {
            version: version.version,
            detector: version.detector,
            shift: version.shift,
            owner,
            size: version.identity.size,
            hash: version.hash,
            mtime_ns: version.identity.mtime_ns,
        }
    }
}

/// Names and places by which events speak of what the ledger and the journal know by numbers.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The ramdisk, absolute.
    pub ramdisk: Vec<u8>,
    /// Ids of detectors, the configured ones first.
    pub detectors: Vec<Arc<str>>,
    /// Ids of storages, the configured ones first, and their targets. Those of former ones are not known; paths there stay relative.
    pub storages: Vec<(Arc<str>, Vec<u8>)>,
}

impl Places {
    /// It became visible at `at`, below the ramdisk. `None` for extra files, which concern nobody but their owners.
    pub fn visible(&self, number: u64, subject: Subject, at: &RelPath, at_ms: i64) -> Option<FileEvent> {
        self.event(number, subject, &self.ramdisk, at, None, at_ms)
    }

    /// It was stored at `to`, below the storage's target. `None` as before.
    pub fn stored(
        &self,
        number: u64,
        subject: Subject,
        to: &RelPath,
        storage: StorageIndex,
        at_ms: i64,
    ) -> Option<FileEvent> {
        let (id, target) = self.storages.get(usize::from(storage.0))?;
        self.event(number, subject, target, to, Some(Arc::clone(id)), at_ms)
    }

    fn event(
        &self,
        number: u64,
        subject: Subject,
        root: &[u8],
        below: &RelPath,
        storage: Option<Arc<str>>,
        at_ms: i64,
    ) -> Option<FileEvent> {
        let Subject { version, detector, shift, owner: (uid, gid), size, hash, mtime_ns } = subject;
        let detector = self.detectors.get(usize::from(detector.0)).filter(|id| ***id != *EXTRA)?;
        let between: &[u8] = if root.is_empty() || root.ends_with(b"/") { b"" } else { b"/" };
        Some(FileEvent {
            number,
            version,
            path: [root, between, below.as_bytes()].concat().into(),
            detector: Arc::clone(detector),
            storage,
            shift,
            uid,
            gid,
            size,
            hash,
            mtime_ns,
            at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_where_that_is_known_and_extra_files_are_nobodys_business() {
        let places = Places {
            ramdisk: b"/ramdisk".to_vec(),
            detectors: vec!["1MF".into(), EXTRA.into()],
            storages: vec![("internal".into(), b"/".to_vec()), ("former".into(), vec![])],
        };
        let subject = |detector| Subject {
            version: VersionId(7),
            detector: DetectorIndex(detector),
            shift: ShiftId(1),
            owner: (500, 600),
            size: 3,
            hash: Hash::of(b"abc"),
            mtime_ns: 9,
        };
        let below = RelPath::new(b"a/b\xff").unwrap();
        let visible = places.visible(5, subject(0), &below, 2).unwrap();
        assert_eq!((&*visible.path, &*visible.detector), (&b"/ramdisk/a/b\xff"[..], "1MF"));
        assert_eq!(visible.storage, None);
        let stored = |storage| places.stored(5, subject(0), &below, StorageIndex(storage), 2).unwrap();
        assert_eq!((&*stored(0).path, stored(0).storage.as_deref()), (&b"/a/b\xff"[..], Some("internal")));
        assert_eq!((&*stored(1).path, stored(1).storage.as_deref()), (&b"a/b\xff"[..], Some("former")));
        assert_eq!(places.stored(5, subject(0), &below, StorageIndex(2), 2), None);
        assert_eq!(places.visible(5, subject(1), &below, 2), None);
        assert_eq!(places.visible(5, subject(2), &below, 2), None);
    }
}
