//! Counts per shift and storage.

use std::collections::BTreeMap;

use super::CopyState;
use crate::model::file_version::StorageIndex;
use crate::model::shift::ShiftId;

/// How many versions are where on one storage; their sum is the number produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Landed, not yet stored.
    pub pending: u64,
    /// Durable there, and the journal knows.
    pub stored: u64,
    /// Given up for now.
    pub failed: u64,
    /// Replaced by a newer version first.
    pub superseded: u64,
    /// Gone from the detector before it had landed.
    pub lost: u64,
}

impl Tally {
    /// The count that a copy in `state` belongs to.
    pub(super) fn of(&mut self, state: CopyState) -> &mut u64 {
        match state {
            CopyState::Queued | CopyState::Flying | CopyState::Written => &mut self.pending,
            CopyState::Stored => &mut self.stored,
            CopyState::Failed => &mut self.failed,
            CopyState::Superseded => &mut self.superseded,
        }
    }
}

#[derive(Default)]
pub(super) struct Tallies(BTreeMap<(ShiftId, StorageIndex), Tally>);

impl Tallies {
    pub(super) fn get(&self, shift: ShiftId, storage: StorageIndex) -> Tally {
        self.0.get(&(shift, storage)).copied().unwrap_or_default()
    }

    /// Over all shifts.
    pub(super) fn pending(&self, storage: StorageIndex) -> u64 {
        self.0.iter().filter(|((_, of), _)| *of == storage).map(|(_, tally)| tally.pending).sum()
    }

    pub(super) fn at(&mut self, shift: ShiftId, storage: StorageIndex) -> &mut Tally {
        self.0.entry((shift, storage)).or_default()
    }

    /// A version that never landed came to an end, on every one of `storages`.
    pub(super) fn everywhere(&mut self, shift: ShiftId, storages: usize, count: impl Fn(&mut Tally)) {
        for storage in 0..storages {
            count(self.at(shift, StorageIndex(storage as u16)));
        }
    }
}
