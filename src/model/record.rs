//! stub
#![allow(missing_docs)]
use super::file_version::*;
use super::job::Local;
use super::path::RelPath;
use super::shift::{Shift, ShiftId};
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Shift(Shift),
    Landed {
        version: VersionId,
        detector: DetectorIndex,
        shift: ShiftId,
        path: RelPath,
        identity: Identity,
        settled: bool,
        hash: Hash,
        mode: u32,
        local: Local,
        at: RelPath,
        to: RelPath,
        landed_ms: i64,
    },
    Refreshed {
        version: VersionId,
        identity: Identity,
        settled: bool,
    },
    Stored {
        version: VersionId,
        storage: StorageIndex,
    },
    CopyFailed {
        version: VersionId,
        storage: StorageIndex,
        tries: u32,
        error: String,
    },
    Superseded {
        version: VersionId,
        storage: StorageIndex,
    },
    Gone {
        version: VersionId,
    },
    Unlanded {
        version: VersionId,
    },
    Lost {
        detector: DetectorIndex,
        shift: ShiftId,
        path: RelPath,
        identity: Identity,
    },
    SupersededUnlanded {
        shift: ShiftId,
        count: u64,
    },
}
