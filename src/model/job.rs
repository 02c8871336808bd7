//! What the ledger asks of the stages, and what they report back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::extra::EXTRA;
use super::file_version::{DetectorIndex, Hash, Identity, StorageIndex, TransferId, VersionId};
use super::path::RelPath;
use super::shift::{Shift, ShiftId};

/// The mark that every file we bring carries (as an extended attribute), on the ramdisk and on storages:
/// what it is, so that nothing else is ever mistaken for ours, and the journal can be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brand {
    /// The detector's `id`.
    pub detector: String,
    /// Whose it is.
    pub shift: ShiftId,
    /// Below the detector's source.
    pub path: RelPath,
    /// On the detector, after it was sent.
    pub identity: Identity,
    /// See PROTOCOL.md.
    pub settled: bool,
    /// Of the content.
    pub hash: Hash,
}

/// A wanted file: where it lands.
#[derive(Debug, Clone)]
pub struct LandJob {
    /// From which detector.
    pub detector: DetectorIndex,
    /// The detector's `id`, for the brand.
    pub detector_id: Arc<str>,
    /// Whose.
    pub shift: Arc<Shift>,
    /// Below the detector's source.
    pub path: RelPath,
    /// Below the PPU's ramdisk.
    pub at: RelPath,
    /// Below every storage's target, later.
    pub to: Option<RelPath>,
    /// As offered.
    pub offered: Identity,
    /// The name may hold the same file of another shift, which is safe on the internal storage: it is replaced.
    pub replace_past: bool,
    /// It is only wanted for its hash: should its content be another one than is known, that does not land.
    pub compare_only: bool,
}

/// How a transfer ended on the PPU.
#[derive(Debug)]
pub struct LandReport {
    /// Which.
    pub transfer: TransferId,
    /// Published, or why not.
    pub outcome: Result<Landed, LandFailure>,
}

/// A published file.
#[derive(Debug, Clone)]
pub struct Landed {
    /// On the detector, after it was sent.
    pub identity: Identity,
    /// Permission bits.
    pub mode: u32,
    /// See PROTOCOL.md.
    pub settled: bool,
    /// Of the content.
    pub hash: Hash,
    /// The file on the PPU's ramdisk.
    pub local: Local,
    /// When it became visible.
    pub visible: Instant,
}

/// A landed file as the PPU's ramdisk knows it, to notice that somebody else changed or replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Inode number.
    pub ino: u64,
    /// Nanoseconds since the epoch, the PPU's clock, read after publishing.
    pub ctime_ns: i64,
}

/// Why a transfer was not published. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LandFailure {
    /// The detector will offer the newer version.
    #[error("it changed on the detector while it was sent")]
    Changed,
    /// The detector could not read it.
    #[error("the detector failed to read it")]
    SenderFailed,
    /// Damaged on the way.
    #[error("integrity error: sent {sent}, landed {landed}")]
    Mismatch {
        /// Hash over what the sender read.
        sent: Hash,
        /// Hash over what was landed.
        landed: Hash,
    },
    /// The ramdisk has no room (bytes, inodes or quota).
    #[error("no space on the ramdisk: {0}")]
    NoSpace(String),
    /// The name holds something that is not ours.
    #[error("the name is taken by a file that ppu-uringd did not bring")]
    Foreign,
    /// Its content is another one than is known ([`LandJob::compare_only`]).
    #[error("nobody can tell whose it is")]
    Nobodys,
    /// Anything else; names the operation.
    #[error("{0}")]
    Io(String),
}

/// One copy to one storage.
#[derive(Debug, Clone)]
pub struct CopyJob {
    /// Which version.
    pub version: VersionId,
    /// To which storage.
    pub storage: StorageIndex,
    /// Where it landed, below the ramdisk.
    pub from: RelPath,
    /// Where its bytes are, the best first; they are tried in this order.
    pub sources: Vec<Source>,
    /// Below the storage's target; the same on every storage.
    pub to: RelPath,
    /// Goes onto the copy.
    pub brand: Arc<Brand>,
    /// Owner on the ramdisk.
    pub uid: u32,
    /// Group on the ramdisk.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// A newer version has landed: checked right before the copy takes its name.
    pub superseded: Arc<AtomicBool>,
}

/// A verified replica that a copy is made from (SPEC 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The landed file, or the extra file that was handed over; the copy is refused if it is another one by now.
    Ramdisk(Local),
    /// The copy on another storage; this one takes its name only if what was read has the version's hash.
    Stored(StorageIndex),
}

impl Brand {
    /// Of an extra file.
    pub fn is_extra(&self) -> bool {
        self.detector == EXTRA
    }
}

impl CopyJob {
    /// The landed file, if that is what is copied.
    pub fn local(&self) -> Option<Local> {
        self.sources.iter().find_map(|source| match source {
            Source::Ramdisk(local) => Some(*local),
            Source::Stored(_) => None,
        })
    }
}

/// How a copy ended.
#[derive(Debug)]
pub struct CopyReport {
    /// Which version.
    pub version: VersionId,
    /// On which storage.
    pub storage: StorageIndex,
    /// Result.
    pub outcome: CopyOutcome,
    /// The stored file, to notice later that somebody changed or replaced it.
    pub file: Option<Local>,
    /// What did not get, or keep, the name.
    pub set_aside: Option<Aside>,
}

/// What has another name on a storage than it should, in the same directory (SPEC 2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// What had the name before and is not ours, or an earlier shift's.
    Other(Vec<u8>),
    /// The copy itself: a later shift's file has the name.
    Itself(Vec<u8>),
}

/// See [`CopyReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// File, name and directories are durable under the final name.
    Stored,
    /// A newer version landed before this one took its name.
    Superseded,
    /// The storage cannot be written at all (not mounted, read-only): not this file's fault. For people.
    Unavailable(String),
    /// The storage has no room: not this file's fault. For people.
    Full(String),
    /// What was to be copied is gone, was changed by somebody else, or is damaged. For people.
    SourceLost(String),
    /// What it takes is not to be had at the moment (the storage that is to be read, descriptors, memory): nobody's fault. For people.
    NotNow(String),
    /// The name is taken, by another detector's file of this shift or by what is no file: trying again does not help. For people.
    Taken(String),
    /// The storage's disk failed; counts as a try while it does not fail for all. Names the operation.
    DiskError(String),
    /// Anything else; counts as a try. Names the operation.
    Failed(String),
}
