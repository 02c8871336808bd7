//! What may leave the ramdisk and the internal storage, and when nothing may (SPEC 2.3, 4.1). Who takes it away asks the journal first.

use std::sync::Arc;

use super::{CopyState, Ledger, Order};
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::residents::{Home, Resident};
use crate::model::shift::Shift;

impl Ledger {
    /// A copy has become *stored*: with it, its version may be so where it must be before it leaves.
    pub(super) fn may_leave(&self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        let Some(version) = self.versions.get(id).filter(|version| !self.is_extra(version)) else { return };
        let resident = Resident { version: id, shift: version.shift };
        let settings = &self.settings.storages[storage.index()];
        if settings.internal {
            out.push(Order::MayLeave { home: Home::Ramdisk, resident });
        }
        let stored = |index: usize| version.copies[index].state == CopyState::Stored;
        let mut both = self.settings.storages.iter().enumerate().filter(|(_, s)| s.internal || s.external);
        let has_external = self.settings.storages.iter().any(|storage| storage.external);
        if has_external && (settings.internal || settings.external) && both.all(|(index, _)| stored(index)) {
            out.push(Order::MayLeave { home: Home::Internal, resident });
        }
    }

    /// What is stored there may be the only replica when others leave, and cannot be read now, or its disk is dying: then they stay.
    pub fn is_doubtful(&self, storage: StorageIndex) -> bool {
        self.storages.get(storage.index()).is_none_or(|storage| storage.health.is_doubtful())
    }

    /// Bytes that must be free on the ramdisk before every detector's next file fits; 0: none waits for room.
    pub fn room_needed(&self) -> u64 {
        let blocked = self.detectors.iter().filter(|state| state.blocked_since.is_some());
        let sizes = blocked.filter_map(|state| Some(state.offers.get(state.waiting.first()?)?.identity.size));
        let wait = sizes.filter(|size| !self.room.fits(*size));
        wait.map(|size| self.room.needed(size)).max().unwrap_or(0)
    }

    /// As [`current_shift`](Self::current_shift), to keep.
    pub fn shared_current_shift(&self) -> Arc<Shift> {
        Arc::clone(&self.current)
    }
}
