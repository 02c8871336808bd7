//! The live file versions: those that their detector may still have, and those with a copy to make.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use hashbrown::HashTable;

use crate::model::file_version::{DetectorIndex, Hash, Identity, OfferId, VersionId};
use crate::model::job::Local;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// One landed version.
#[derive(Debug, Clone)]
pub struct Version {
    /// From where.
    pub detector: DetectorIndex,
    /// Whose.
    pub shift: ShiftId,
    /// Below the detector's source.
    pub path: RelPath,
    /// On the detector.
    pub identity: Identity,
    /// See PROTOCOL.md.
    pub settled: bool,
    /// Of the content.
    pub hash: Hash,
    /// Permission bits.
    pub mode: u32,
    /// On the ramdisk; `None`: no longer there, or not as it landed.
    pub local: Option<Local>,
    /// The offer by which the present session knows it.
    pub offer: Option<OfferId>,
    /// The detector has this version, as far as we know.
    pub on_detector: bool,
    /// The manifest in which it was last named.
    pub seen: u64,
    /// When its detector closed it, if that was seen by this process.
    pub closed: Option<Instant>,
    /// One per storage.
    pub copies: Box<[Copy]>,
}

impl Version {
    /// There is a storage that it can be read from.
    pub(super) fn is_durable_somewhere(&self) -> bool {
        self.copies.iter().any(|copy| copy.state.is_durable())
    }
}

/// A version's copy on one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// How far it is.
    pub state: CopyState,
    /// Failed tries.
    pub tries: u32,
}

/// See [`Copy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// To be made.
    Queued,
    /// A storage's thread has it.
    Flying,
    /// Durable; the journal has not said so yet.
    Written,
    /// Durable, and the journal knows.
    Stored,
    /// Given up for now.
    Failed,
    /// A newer version landed first.
    Superseded,
}

impl CopyState {
    /// Nothing more will happen by itself, and nothing more is wished.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stored | Self::Superseded)
    }

    /// It is on the storage, whole.
    pub(super) fn is_durable(self) -> bool {
        matches!(self, Self::Written | Self::Stored)
    }
}

/// The table of live versions. Boxed, because a hash table's spare room should not be versions.
#[derive(Default)]
pub(super) struct Versions {
    by_id: HashMap<VersionId, Box<Version>>,
    /// The newest version under each path. Holds numbers only: the paths are in `by_id`.
    newest: HashTable<VersionId>,
    /// Older ones that still matter, likewise: of one path, there may be several.
    older: HashTable<VersionId>,
    hasher: RandomState,
    next: u64,
}

impl Versions {
    pub(super) fn get(&self, id: VersionId) -> Option<&Version> {
        self.by_id.get(&id).map(|v| &**v)
    }

    pub(super) fn get_mut(&mut self, id: VersionId) -> Option<&mut Version> {
        self.by_id.get_mut(&id).map(|v| &mut **v)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VersionId, &Version)> {
        self.by_id.iter().map(|(id, v)| (*id, &**v))
    }

    pub(super) fn newest(&self, detector: DetectorIndex, path: &RelPath) -> Option<VersionId> {
        let by_id = &self.by_id;
        let is_it = |id: &VersionId| by_id.get(id).is_some_and(|v| v.detector == detector && v.path == *path);
        self.newest.find(self.hasher.hash_one((detector, path)), is_it).copied()
    }

    /// All under that path, the newest first.
    pub(super) fn under(
        &self,
        detector: DetectorIndex,
        path: &RelPath,
    ) -> impl Iterator<Item = (VersionId, &Version)> {
        let older = self.older.iter_hash(self.hasher.hash_one((detector, path))).copied();
        let all = self.newest(detector, path).into_iter().chain(older);
        let version = |id| self.get(id).map(|version| (id, version));
        all.filter_map(version).filter(move |(_, v)| v.detector == detector && v.path == *path)
    }

    /// A new version, the newest of its path.
    pub(super) fn insert(&mut self, version: Version) -> VersionId {
        let id = VersionId(self.next.max(1));
        self.insert_with(id, version);
        id
    }

    /// A version with its number; of one path, they must come in order.
    pub(super) fn insert_with(&mut self, id: VersionId, version: Version) {
        self.next = self.next.max(id.0 + 1);
        let older = self.newest(version.detector, &version.path);
        let hash = self.hash(&version);
        self.by_id.insert(id, Box::new(version));
        let (by_id, hasher) = (&self.by_id, &self.hasher);
        let rehash = |id: &VersionId| by_id.get(id).map_or(0, |v| hasher.hash_one((v.detector, &v.path)));
        if let Some(older) = older
            && let Ok(entry) = self.newest.find_entry(hash, |other| *other == older)
        {
            entry.remove();
            self.older.insert_unique(hash, older, rehash);
        }
        self.newest.insert_unique(hash, id, rehash);
    }

    /// Numbers below are taken.
    pub(super) fn start_at(&mut self, next: VersionId) {
        self.next = self.next.max(next.0);
    }

    /// The detector no longer has this version.
    pub(super) fn retire(&mut self, id: VersionId) {
        if let Some(version) = self.get_mut(id) {
            version.on_detector = false;
            version.offer = None;
        }
    }

    /// Forgets a version that is neither on its detector nor has a copy to make; the journal keeps its history.
    pub(super) fn forget_if_done(&mut self, id: VersionId) {
        let done = |v: &&Version| !v.on_detector && v.copies.iter().all(|copy| copy.state.is_final());
        if self.get(id).filter(done).is_some() {
            self.remove(id);
        }
    }

    pub(super) fn remove(&mut self, id: VersionId) -> Option<Version> {
        let hash = self.hash(self.get(id)?);
        for table in [&mut self.newest, &mut self.older] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == id) {
                entry.remove();
            }
        }
        self.by_id.remove(&id).map(|version| *version)
    }

    fn hash(&self, version: &Version) -> u64 {
        self.hasher.hash_one((version.detector, &version.path))
    }
}
