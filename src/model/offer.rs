//! What detector and PPU say to each other about a file.

use serde::{Deserialize, Serialize};

use super::file_version::{Hash, Identity, OfferId, TransferId};
use super::path::RelPath;
use super::shift::ShiftId;

/// Most files in one offer message.
pub const OFFER_PAGE_FILES: usize = 1000;
/// Most offers of a session without an answer: bounds the PPU's memory whatever the backlog is.
pub const OFFER_WINDOW: usize = 4096;

/// How the detector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Closed files that were not offered yet in this session.
    pub backlog_files: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// Symlinks, devices, sockets that were skipped since the daemon's start.
    pub skipped: u64,
    /// Size of the detector's ramdisk, bytes.
    pub ramdisk_total: u64,
    /// Free there, bytes.
    pub ramdisk_free: u64,
    /// Files that were released since the daemon's start.
    pub released_files: u64,
    /// Their bytes.
    pub released_bytes: u64,
}

/// One closed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Its number in this session.
    pub offer: OfferId,
    /// Below the source.
    pub path: RelPath,
    /// When it was looked at.
    pub identity: Identity,
    /// The shift in which the detector closed it.
    pub shift: ShiftId,
    /// How long ago the close was seen, in microseconds.
    pub closed_us_ago: u64,
    /// A close was seen since this identity was last reported: an equal identity proves nothing.
    pub fresh: bool,
    /// Earlier versions of this path that were replaced before they could be offered.
    pub superseded: u32,
}

/// One file that travels unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// Of a grant.
    pub transfer: TransferId,
    /// How often the PPU had told of a shift in this session, as far as that was heard by now.
    pub shifts_heard: u64,
    /// What it is.
    pub file: Offered,
}

/// One file wished for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Names the reservation on the PPU's ramdisk.
    pub transfer: TransferId,
    /// Which.
    pub offer: OfferId,
    /// If the content still has this hash, decline as [`Decline::Unchanged`].
    pub known_hash: Option<Hash>,
}

/// How an offer ended on the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawal {
    /// The file is no longer there: lost.
    Vanished,
    /// It has another name now, and is offered under it: superseded.
    Moved,
    /// It was not closed after all; it will be offered when it is. Not counted as produced.
    Reopened,
    /// A newer version is offered: superseded.
    Replaced,
}

/// Why a wanted file will not travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decline {
    /// Its content has the known hash.
    Unchanged {
        /// As it is now.
        identity: Identity,
        /// No later write can leave this identity equal.
        settled: bool,
    },
    /// Somebody has it open for writing. A `Withdrawn` follows.
    Busy,
    /// It is not there. A `Withdrawn` follows.
    Vanished,
    /// It is not the version that was offered. A `Withdrawn` follows.
    Changed,
    /// It cannot be read; for people. The PPU may want it again.
    Failed(String),
}
