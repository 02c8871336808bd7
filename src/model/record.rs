//! What the ledger tells the journal, and what the journal knows again after a restart.

use super::file_version::{DetectorIndex, Hash, Identity, StorageIndex, VersionId};
use super::half::{Half, Paused};
use super::job::Local;
use super::path::RelPath;
use super::shift::{Shift, ShiftId};
use super::status::Told;

/// One fact. Every fact stands for itself: a journal that has them all up to some point knows the state at
/// that point. `storage` is always a configured one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A shift began.
    Shift(Shift),
    /// A version was published on the ramdisk; its copy to every configured storage is pending.
    Landed(Box<Version>),
    /// The same content has a new identity on the detector.
    Refreshed {
        /// Which.
        version: VersionId,
        /// As it is now.
        identity: Identity,
        /// See PROTOCOL.md.
        settled: bool,
    },
    /// Durable on a storage.
    Stored {
        /// Which.
        version: VersionId,
        /// Where.
        storage: StorageIndex,
    },
    /// A copy was given up for now.
    CopyFailed {
        /// Which.
        version: VersionId,
        /// To where.
        storage: StorageIndex,
        /// How often it was tried.
        tries: u32,
        /// The last reason, for people.
        error: String,
    },
    /// A copy is pending (again); also for a storage that was not configured when the version landed.
    Requeued {
        /// Which.
        version: VersionId,
        /// To where.
        storage: StorageIndex,
    },
    /// A newer version came before this one was stored there.
    Superseded {
        /// Which.
        version: VersionId,
        /// Where not.
        storage: StorageIndex,
    },
    /// The detector confirmed that it no longer has it.
    Gone {
        /// Which.
        version: VersionId,
    },
    /// The ramdisk's copy vanished before it was stored everywhere; it will be fetched and counted anew. Its open
    /// copies are forgotten, and so is the version where nothing else is known of it.
    Unlanded {
        /// Which.
        version: VersionId,
    },
    /// As [`Record::Unlanded`], but the detector no longer has it: its open copies are lost.
    LostVersion {
        /// Which.
        version: VersionId,
    },
    /// A file vanished from its detector before it landed: lost on every configured storage.
    Lost {
        /// Whose.
        detector: DetectorIndex,
        /// In which shift it was closed.
        shift: ShiftId,
        /// Below the source.
        path: RelPath,
        /// As offered.
        identity: Identity,
    },
    /// Versions were replaced on the detector before they landed: superseded on every configured storage.
    SupersededUnlanded {
        /// In which shift they were closed.
        shift: ShiftId,
        /// How many.
        count: u64,
    },
    /// A message to keep; the journal keeps the newest.
    Message(Told),
    /// People have paused half of the work, or let it go on.
    Paused {
        /// Which.
        half: Half,
        /// Milliseconds since the epoch; `None`: it goes on.
        since_ms: Option<i64>,
    },
}

/// A landed version, as the journal remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: VersionId,
    /// Whence.
    pub detector: DetectorIndex,
    /// Whose.
    pub shift: ShiftId,
    /// Below the detector's source.
    pub path: RelPath,
    /// On the detector, after it was sent.
    pub identity: Identity,
    /// See PROTOCOL.md.
    pub settled: bool,
    /// Of the content.
    pub hash: Hash,
    /// Permission bits.
    pub mode: u32,
    /// The landed file.
    pub local: Local,
    /// The landed file, below the ramdisk.
    pub at: RelPath,
    /// Its copies, below every storage's target.
    pub to: RelPath,
    /// When it landed, milliseconds since the epoch.
    pub landed_ms: i64,
}

/// How a version stands on one storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyState {
    /// To be done.
    Pending,
    /// Durable there.
    Stored,
    /// Given up for now.
    Failed {
        /// How often it was tried.
        tries: u32,
        /// The last reason, for people.
        error: Box<str>,
    },
    /// A newer version took its place before it was stored.
    Superseded,
    /// The file vanished everywhere before it was stored.
    Lost,
}

impl CopyState {
    /// Something may still be done about it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Failed { .. })
    }
}

/// A version that matters after a restart: its detector may still have it, or a copy of it is pending or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveVersion {
    /// What it is. Its detector may be one of [`Loaded::former_detectors`], if a copy is open.
    pub version: Version,
    /// The detector confirmed that it no longer has it.
    pub gone: bool,
    /// On the configured storages; one that was not configured when it landed may be missing.
    pub copies: Vec<(StorageIndex, CopyState)>,
}

/// How many versions of a shift ended how on one storage. What is pending is in the live versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Durable there.
    pub stored: u64,
    /// Given up for now.
    pub failed: u64,
    /// Replaced by a newer version before.
    pub superseded: u64,
    /// Vanished before.
    pub lost: u64,
}

/// What the journal knows at start, but for the live versions, which are handed over one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// All, oldest first.
    pub shifts: Vec<Shift>,
    /// Per shift and storage, the former ones too.
    pub tallies: Vec<(ShiftId, StorageIndex, Tally)>,
    /// The next number to give.
    pub next_version: VersionId,
    /// The newest messages, oldest first.
    pub messages: Vec<Told>,
    /// What people have paused.
    pub paused: Paused,
    /// Ids of detectors that are no longer configured; their indexes follow the last configured one's.
    pub former_detectors: Vec<String>,
    /// Ids of storages that are no longer configured; their indexes follow the last configured one's.
    pub former_storages: Vec<String>,
}
