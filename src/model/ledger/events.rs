//! What events need to know of a version (`model/event.rs`).

use super::Ledger;
use crate::model::event::Subject;
use crate::model::file_version::VersionId;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

impl Ledger {
    /// A live version, and where its copies are below a storage's target.
    pub fn subject(&self, id: VersionId) -> Option<(Subject, RelPath)> {
        let version = self.versions.get(id)?;
        let subject = Subject {
            version: id,
            detector: version.detector,
            shift: version.shift,
            owner: self.owner(version.shift)?,
            size: version.identity.size,
            hash: version.hash,
            mtime_ns: version.identity.mtime_ns,
        };
        Some((subject, self.places(version).1?))
    }

    /// User and group of a shift.
    pub fn owner(&self, shift: ShiftId) -> Option<(u32, u32)> {
        self.shift(shift).map(|shift| (shift.uid, shift.gid))
    }
}
