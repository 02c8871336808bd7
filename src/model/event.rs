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

/// Which events a consumer wants; what is not given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this detector.
    pub detector: Option<String>,
    /// Of this shift.
    pub shift: Option<ShiftId>,
    /// On this storage.
    pub storage: Option<String>,
}

impl Filter {
    /// Whether this one is wanted.
    pub fn takes(&self, event: &FileEvent) -> bool {
        self.detector.as_deref().is_none_or(|wanted| *wanted == *event.detector)
            && self.shift.is_none_or(|wanted| wanted == event.shift)
            && self.storage.as_deref().is_none_or(|wanted| Some(wanted) == event.storage.as_deref())
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
    /// Whether there can be such events.
    ///
    /// # Errors
    /// A name is unknown; with those that there are, for people.
    pub fn check(&self, filter: &Filter) -> Result<(), String> {
        let known = |what, wanted: &Option<String>, names: &[&str]| match wanted {
            Some(wanted) if !names.contains(&wanted.as_str()) => {
                Err(format!("there is no {what} {wanted:?}; there are: {}", names.join(", ")))
            }
            _ => Ok(()),
        };
        let detectors: Vec<&str> = self.detectors.iter().map(|id| &**id).filter(|id| *id != EXTRA).collect();
        let storages: Vec<&str> = self.storages.iter().map(|(id, _)| &**id).collect();
        known("detector", &filter.detector, &detectors)?;
        known("storage", &filter.storage, &storages)
    }

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
    fn only_what_is_wanted() {
        let event = FileEvent {
            number: 1,
            version: VersionId(1),
            path: b"/data/a".as_slice().into(),
            detector: "1MF".into(),
            storage: Some("internal".into()),
            shift: ShiftId(5),
            uid: 1,
            gid: 1,
            size: 1,
            hash: Hash::of(b""),
            mtime_ns: 0,
            at_ms: 0,
        };
        let visible = FileEvent { storage: None, ..event.clone() };
        let takes = |detector: Option<&str>, shift: Option<i64>, storage: Option<&str>| {
            let [detector, storage] = [detector, storage].map(|name| name.map(str::to_owned));
            Filter { detector, shift: shift.map(ShiftId), storage }
        };
        assert!(takes(None, None, None).takes(&event) && takes(None, None, None).takes(&visible));
        assert!(takes(Some("1MF"), Some(5), Some("internal")).takes(&event));
        assert!(!takes(Some("2MF"), Some(5), Some("internal")).takes(&event));
        assert!(!takes(Some("1MF"), Some(6), Some("internal")).takes(&event));
        assert!(!takes(Some("1MF"), Some(5), Some("external")).takes(&event));
        assert!(!takes(None, None, Some("internal")).takes(&visible));

        let places = Places {
            ramdisk: vec![],
            detectors: vec!["1MF".into(), EXTRA.into(), "former".into()],
            storages: vec![("internal".into(), vec![])],
        };
        let check = |filter| places.check(&filter);
        assert_eq!(check(takes(Some("former"), Some(9), Some("internal"))), Ok(()));
        assert_eq!(
            check(takes(Some("1mf"), None, None)),
            Err("there is no detector \"1mf\"; there are: 1MF, former".to_owned())
        );
        assert!(check(takes(Some(EXTRA), None, None)).is_err(), "nobody hears of extra files");
        assert!(check(takes(None, None, Some("nas"))).is_err());
    }

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
