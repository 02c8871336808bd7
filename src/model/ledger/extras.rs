//! Extra files: versions of one more detector, the last one, that has no link and offers nothing.

use super::{CopyState, DetectorSettings, Ledger, Now, Order, Settings, Version};
use crate::model::extra::{EXTRA, ExtraFile, ExtraPath};
use crate::model::file_version::{DetectorIndex, StorageIndex, VersionId};
use crate::model::path::RelPath;

/// How an extra file is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Copies are to be made.
    Pending,
    /// Given up on a storage, and pending nowhere.
    Failed,
    /// Stored everywhere, or unknown.
    Done,
}

impl DetectorSettings {
    /// What extra files count for; to be the last one in [`Settings`].
    pub fn extra() -> Self {
        Self { id: EXTRA.into(), address: String::new(), pauses: Default::default() }
    }

    pub(super) fn is_extra(&self) -> bool {
        *self.id == *EXTRA
    }
}

impl Settings {
    fn extra(&self) -> Option<DetectorIndex> {
        let index = self.detectors.iter().position(DetectorSettings::is_extra)?;
        Some(DetectorIndex(index as u16))
    }
}

impl Ledger {
    /// Nothing of it is ours to remove, wherever it is but on storages.
    pub fn is_extra(&self, version: &Version) -> bool {
        self.settings.detectors[version.detector.index()].is_extra()
    }

    /// Whether that is the one that extra files count for.
    pub fn counts_extra(&self, detector: DetectorIndex) -> bool {
        self.settings.extra() == Some(detector)
    }

    /// A file was handed over. It counts under the current shift.
    pub(super) fn extra(&mut self, now: Now, file: ExtraFile, out: &mut Vec<Order>) {
        let Some(detector) = self.settings.extra() else { return };
        let ExtraFile { path, identity, hash, mode, local } = file;
        let known = self.versions.newest(detector, &path).and_then(|id| Some((id, self.versions.get(id)?)));
        if let Some((id, version)) = known
            && (version.local, version.hash, version.mode) == (Some(local), hash, mode)
        {
            return self.retry_extra(id, out);
        }
        let version = Version {
            detector,
            shift: self.current.id,
            path,
            identity,
            settled: true,
            hash,
            mode,
            local: Some(local),
            on_detector: true,
            seen: 0,
            closed: None,
            copies: self.fresh_copies(),
        };
        let id = self.admit(now, version, out);
        // Nobody will ever offer it.
        self.leave_detector(id, out);
    }

    /// Handed over again while it is known: what had failed begins anew.
    fn retry_extra(&mut self, id: VersionId, out: &mut Vec<Order>) {
        for storage in (0..self.storages.len()).map(|index| StorageIndex(index as u16)) {
            if self.retry_copy(id, storage) {
                self.record(crate::model::record::Record::Requeued { version: id, storage }, out);
            }
        }
    }

    /// How the newest version of an extra file is doing.
    pub fn progress(&self, path: &RelPath) -> Progress {
        let version = self
            .settings
            .extra()
            .and_then(|detector| self.versions.newest(detector, path))
            .and_then(|id| self.versions.get(id));
        let Some(version) = version else { return Progress::Done };
        let states = || version.copies.iter().map(|copy| copy.state);
        if states().any(|state| !state.is_final() && state != CopyState::Failed) {
            Progress::Pending
        } else if states().any(|state| state == CopyState::Failed) {
            Progress::Failed
        } else {
            Progress::Done
        }
    }

    /// It changed since it was handed over and is held open still: it is to be looked at anew. Its present version ends when the new
    /// one is here.
    pub(super) fn look_again(&self, version: &Version, out: &mut Vec<Order>) {
        out.push(Order::LookAgain { path: version.path.clone() });
    }

    /// As `places`: below `/`, and below a storage's target.
    pub(super) fn extra_places(version: &Version) -> (Option<RelPath>, Option<RelPath>) {
        ExtraPath::decode(&version.path).map_or((None, None), |extra| (Some(extra.from), Some(extra.to)))
    }

    /// The number of the last record; it is safe when the journal has committed up to it.
    pub fn recorded(&self) -> u64 {
        self.journal.next_sequence
    }

    /// What the journal has committed.
    pub fn has_committed(&self, sequence: u64) -> bool {
        self.journal.committed >= sequence
    }
}
