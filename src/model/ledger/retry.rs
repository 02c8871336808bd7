//! What had failed is taken up again (SPEC 3.7).

use super::{CopyState, Ledger, Order, Version};
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::path::RelPath;
use crate::model::record::Record;
use crate::model::shift::ShiftId;

/// Which copies are meant; what is not given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this storage.
    pub storage: Option<StorageIndex>,
    /// Of this shift.
    pub shift: Option<ShiftId>,
    /// At or below one of these.
    pub paths: Vec<Place>,
}

/// A file or a directory, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Below a detector's source.
    Detector(RelPath),
    /// Below the PPU's ramdisk; `None`: all of it.
    Ramdisk(Option<RelPath>),
    /// Below a storage's target; `None`: all of it.
    Storage(Option<RelPath>),
}

/// What was queued again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Copies, each of one file to one storage.
    pub copies: u64,
    /// Their files.
    pub files: u64,
}

impl Ledger {
    /// The shift that people name by its start: as in messages and file names (20260131-235959), or in milliseconds since the epoch;
    /// or `current`.
    pub fn shift_named(&self, name: &str) -> Option<ShiftId> {
        if name == "current" {
            return Some(self.current.id);
        }
        self.shifts.keys().copied().find(|id| id.stamp() == name || id.0.to_string() == name)
    }

    /// Queues failed copies again, with all their tries.
    pub fn retry(&mut self, selection: &Selection, out: &mut Vec<Order>) -> Retried {
        let chosen: Vec<VersionId> = self
            .versions
            .iter()
            .filter(|(_, version)| version.copies.iter().any(|copy| copy.state == CopyState::Failed))
            .filter(|(_, version)| selection.shift.is_none_or(|shift| shift == version.shift))
            .filter(|(_, version)| {
                selection.paths.is_empty() || selection.paths.iter().any(|place| self.is_at(version, place))
            })
            .map(|(id, _)| id)
            .collect();
        let mut retried = Retried::default();
        for id in chosen {
            let before = retried.copies;
            for index in 0..self.storages.len() {
                let storage = StorageIndex(index as u16);
                let meant = selection.storage.is_none_or(|only| only == storage);
                if meant && self.retry_copy(id, storage) {
                    self.record(Record::Requeued { version: id, storage }, out);
                    retried.copies += 1;
                }
            }
            retried.files += u64::from(retried.copies > before);
        }
        retried
    }

    fn is_at(&self, version: &Version, place: &Place) -> bool {
        let is_at = |path: &RelPath, wanted: &RelPath| path == wanted || path.below(wanted).is_some();
        let (at, to) = self.places(version);
        match place {
            Place::Detector(wanted) => is_at(&version.path, wanted),
            Place::Ramdisk(None) | Place::Storage(None) => true,
            Place::Ramdisk(Some(wanted)) => at.is_some_and(|at| is_at(&at, wanted)),
            Place::Storage(Some(wanted)) => to.is_some_and(|to| is_at(&to, wanted)),
        }
    }
}
