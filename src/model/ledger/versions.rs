//! The live file versions: those that their detector may still have, and those with a copy to make.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::time::Instant;

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;

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
    /// The detector has this version, as far as we know.
    pub on_detector: bool,
    /// The manifest in which it was last named.
    pub seen: u64,
    /// When its detector closed it, if that was seen by this process.
    pub closed: Option<Instant>,
    /// One per storage.
    pub copies: Copies,
}

/// One per storage; no allocation of its own for as many as people usually have.
pub type Copies = SmallVec<[Copy; 4]>;

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
    pub tries: u16,
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

/// The table of live versions. There may be millions: the indices hold places in `rows`, a place may be taken again.
#[derive(Default)]
pub(super) struct Versions {
    rows: Slab<Row>,
    by_id: HashTable<Place>,
    /// Those that the detectors' present sessions know, by their offers.
    by_offer: HashTable<Place>,
    /// The newest version under each path.
    newest: HashTable<Place>,
    /// Older ones that still matter: of one path, there may be several.
    older: HashTable<Place>,
    hasher: RandomState,
    next: u64,
}

/// Room for so many is kept while there are none.
const KEPT_ROWS: usize = 4096;

/// Half of a `usize`; more versions than it can tell apart would take 600 GB.
type Place = u32;

struct Row {
    id: VersionId,
    /// The offer by which the present session knows it; they are numbered from 1 (PROTOCOL.md).
    offer: Option<NonZeroU64>,
    version: Version,
}

impl Versions {
    pub(super) fn get(&self, id: VersionId) -> Option<&Version> {
        self.row(self.place(id)?).map(|row| &row.version)
    }

    /// Its detector and path must stay what they are.
    pub(super) fn get_mut(&mut self, id: VersionId) -> Option<&mut Version> {
        let place = self.place(id)?;
        self.rows.get_mut(place as usize).map(|row| &mut row.version)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VersionId, &Version)> {
        self.rows.iter().map(|(_, row)| (row.id, &row.version))
    }

    pub(super) fn newest(&self, detector: DetectorIndex, path: &RelPath) -> Option<VersionId> {
        let is_it = |place: &Place| self.row(*place).is_some_and(|row| row.is_under(detector, path));
        let place = self.newest.find(self.hasher.hash_one((detector, path)), is_it)?;
        self.row(*place).map(|row| row.id)
    }

    /// All under that path, the newest first.
    pub(super) fn under(
        &self,
        detector: DetectorIndex,
        path: &RelPath,
    ) -> impl Iterator<Item = (VersionId, &Version)> {
        let hash = self.hasher.hash_one((detector, path));
        let rows = self.newest.iter_hash(hash).chain(self.older.iter_hash(hash));
        let rows = rows.filter_map(|place| self.row(*place));
        rows.filter(move |row| row.is_under(detector, path)).map(|row| (row.id, &row.version))
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
        let older = self.newest(version.detector, &version.path).and_then(|older| self.place(older));
        let place = self.rows.insert(Row { id, offer: None, version }) as Place;
        let Self { rows, by_id, newest, older: others, hasher, .. } = self;
        let id_of = |place: &Place| rows.get(*place as usize).map_or(0, |row| hasher.hash_one(row.id));
        let path_of = |place: &Place| rows.get(*place as usize).map_or(0, |row| row.hash_of_path(hasher));
        by_id.insert_unique(hasher.hash_one(id), place, id_of);
        let hash = path_of(&place);
        if let Some(older) = older
            && let Ok(entry) = newest.find_entry(hash, |other| *other == older)
        {
            entry.remove();
            others.insert_unique(hash, older, path_of);
        }
        newest.insert_unique(hash, place, path_of);
    }

    /// Numbers below are taken.
    pub(super) fn start_at(&mut self, next: VersionId) {
        self.next = self.next.max(next.0);
    }

    /// The offer by which its detector's present session knows it.
    pub(super) fn offer(&self, id: VersionId) -> Option<OfferId> {
        self.row(self.place(id)?)?.offer.map(|offer| OfferId(offer.get()))
    }

    /// Which version of that detector its present session knows by that offer.
    pub(super) fn offered(&self, detector: DetectorIndex, offer: OfferId) -> Option<VersionId> {
        let is_it = |row: &Row| {
            row.offer.is_some_and(|known| known.get() == offer.0) && row.version.detector == detector
        };
        let is_there = |place: &Place| self.row(*place).is_some_and(is_it);
        let place = self.by_offer.find(self.hasher.hash_one((detector, offer)), is_there)?;
        self.row(*place).map(|row| row.id)
    }

    /// Its detector's present session knows it by that offer, and by no other any more.
    pub(super) fn link_offer(&mut self, id: VersionId, offer: OfferId) {
        self.unlink_offer(id);
        let Some(place) = self.place(id) else { return };
        let Self { rows, by_offer, hasher, .. } = self;
        let Some(row) = rows.get_mut(place as usize) else { return };
        row.offer = NonZeroU64::new(offer.0);
        let Some(hash) = row.hash_of_offer(hasher) else { return };
        let offer_of = |place: &Place| rows.get(*place as usize).and_then(|row| row.hash_of_offer(hasher));
        by_offer.insert_unique(hash, place, |place| offer_of(place).unwrap_or(0));
    }

    /// No session knows it.
    pub(super) fn unlink_offer(&mut self, id: VersionId) {
        let Some(place) = self.place(id) else { return };
        let Some(row) = self.rows.get_mut(place as usize) else { return };
        let Some(hash) = row.hash_of_offer(&self.hasher) else { return };
        row.offer = None;
        forget(&mut self.by_offer, hash, place);
    }

    /// That detector's session is over.
    pub(super) fn unlink_offers(&mut self, detector: DetectorIndex) {
        let rows = &mut self.rows;
        self.by_offer.retain(|place| {
            let row = rows.get_mut(*place as usize).filter(|row| row.version.detector == detector);
            row.is_none_or(|row| {
                row.offer = None;
                false
            })
        });
    }

    /// The detector no longer has this version.
    pub(super) fn retire(&mut self, id: VersionId) {
        self.unlink_offer(id);
        if let Some(version) = self.get_mut(id) {
            version.on_detector = false;
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
        let place = self.place(id)?;
        self.unlink_offer(id);
        let row = self.rows.try_remove(place as usize)?;
        forget(&mut self.by_id, self.hasher.hash_one(id), place);
        let hash = row.hash_of_path(&self.hasher);
        forget(&mut self.newest, hash, place);
        forget(&mut self.older, hash, place);
        if self.rows.is_empty() && self.rows.capacity() > KEPT_ROWS {
            // What a burst has taken is given back.
            *self = Self { hasher: self.hasher.clone(), next: self.next, ..Self::default() };
        }
        Some(row.version)
    }

    fn place(&self, id: VersionId) -> Option<Place> {
        let is_it = |place: &Place| self.row(*place).is_some_and(|row| row.id == id);
        self.by_id.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn row(&self, place: Place) -> Option<&Row> {
        self.rows.get(place as usize)
    }
}

impl Row {
    fn is_under(&self, detector: DetectorIndex, path: &RelPath) -> bool {
        self.version.detector == detector && self.version.path == *path
    }

    fn hash_of_offer(&self, hasher: &RandomState) -> Option<u64> {
        self.offer.map(|offer| hasher.hash_one((self.version.detector, OfferId(offer.get()))))
    }

    fn hash_of_path(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.version.detector, &self.version.path))
    }
}

fn forget(index: &mut HashTable<Place>, hash: u64, place: Place) {
    if let Ok(entry) = index.find_entry(hash, |other| *other == place) {
        entry.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> Version {
        Version {
            detector: DetectorIndex(0),
            shift: ShiftId(1),
            path: RelPath::new(name.as_bytes()).unwrap(),
            identity: Identity { size: 1, mtime_ns: 1, ino: 1, ctime_ns: 1 },
            settled: true,
            hash: Hash::of(b""),
            mode: 0o644,
            local: None,
            on_detector: true,
            seen: 0,
            closed: None,
            copies: Copies::new(),
        }
    }

    #[test]
    fn a_place_that_is_taken_again_is_another_versions() {
        let mut versions = Versions::default();
        let first = versions.insert(version("a"));
        versions.link_offer(first, OfferId(1));
        assert!(versions.remove(first).is_some());
        let second = versions.insert(version("b"));
        assert_eq!(
            (versions.get(first).is_none(), versions.offered(DetectorIndex(0), OfferId(1))),
            (true, None)
        );
        assert_eq!(versions.newest(DetectorIndex(0), &RelPath::new(b"a").unwrap()), None);
        assert_eq!(versions.newest(DetectorIndex(0), &RelPath::new(b"b").unwrap()), Some(second));
    }

    #[test]
    fn a_session_knows_a_version_by_its_newest_offer_until_it_ends() {
        let mut versions = Versions::default();
        let (here, there) = (DetectorIndex(0), DetectorIndex(1));
        let id = versions.insert(version("a"));
        let other = versions.insert(Version { detector: there, ..version("a") });
        versions.link_offer(id, OfferId(1));
        versions.link_offer(other, OfferId(1));
        versions.link_offer(id, OfferId(2));
        assert_eq!(
            (versions.offered(here, OfferId(1)), versions.offered(here, OfferId(2))),
            (None, Some(id))
        );
        versions.unlink_offers(here);
        assert_eq!((versions.offer(id), versions.offer(other)), (None, Some(OfferId(1))));
        assert_eq!(
            (versions.offered(here, OfferId(2)), versions.offered(there, OfferId(1))),
            (None, Some(other))
        );
        versions.retire(other);
        assert_eq!(versions.offer(other), None);
    }

    #[test]
    fn all_under_a_path_are_found_the_newest_first_and_a_burst_is_given_back() {
        let mut versions = Versions::default();
        let ids: Vec<VersionId> = (0..3).map(|_| versions.insert(version("a"))).collect();
        let under = |versions: &Versions| -> Vec<VersionId> {
            versions.under(DetectorIndex(0), &RelPath::new(b"a").unwrap()).map(|(id, _)| id).collect()
        };
        assert_eq!(under(&versions).len(), 3);
        assert_eq!(under(&versions)[0], ids[2]);
        versions.remove(ids[2]);
        assert_eq!(versions.newest(DetectorIndex(0), &RelPath::new(b"a").unwrap()), None);
        let many: Vec<VersionId> =
            (0..=KEPT_ROWS).map(|n| versions.insert(version(&n.to_string()))).collect();
        for id in many.into_iter().chain(under(&versions)) {
            versions.remove(id);
        }
        assert_eq!((versions.iter().count(), versions.rows.capacity()), (0, 0));
        assert!(versions.insert(version("a")) > ids[2], "numbers go on");
    }
}
