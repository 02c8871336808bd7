//! Control messages. Variants are only ever appended: their order is their number on the wire.

use serde::{Deserialize, Serialize};

use crate::model::file_version::{Hash, Identity, OfferId, TransferId};
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// Most files in one [`FromDetector::Offer`].
pub const OFFER_PAGE_FILES: usize = 1000;
/// Most offers of a session without an answer: bounds the PPU's memory whatever the backlog is.
pub const OFFER_WINDOW: usize = 4096;

/// Detector → PPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDetector {
    /// First of all, then every second, and whenever the backlog becomes empty or not.
    Heartbeat(Heartbeat),
    /// What follows names every file that the detector has, up to [`FromDetector::ManifestEnd`].
    ManifestBegin,
    /// The manifest is complete.
    ManifestEnd,
    /// Closed files, oldest first.
    Offer {
        /// At most [`OFFER_PAGE_FILES`], and as many as fit a frame.
        files: Vec<Offered>,
    },
    /// An offer that ended on the detector.
    Withdrawn {
        /// Which.
        offer: OfferId,
        /// How it ended.
        why: Withdrawal,
    },
    /// The answer to a want when no file will travel.
    Declined {
        /// Which want.
        transfer: TransferId,
        /// Why.
        why: Decline,
    },
    /// Landed files that are no longer on the detector.
    Gone {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// The shift is known, and every earlier close was attributed to the one before.
    ShiftWord {
        /// Which.
        shift: ShiftId,
    },
    /// Answer to a probe, on the detector's clock (ns since the epoch).
    ClockReply {
        /// As in the probe, on the PPU's clock.
        sent_ns: i64,
        /// When the probe came.
        received_ns: i64,
        /// When this answer left.
        replied_ns: i64,
    },
    /// Orderly end.
    Goodbye {
        /// For people.
        reason: String,
    },
}

/// PPU → detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPpu {
    /// Every second.
    Heartbeat,
    /// From now on files below `source` belong to `shift`; repeated first in every session.
    ShiftBegan {
        /// Which.
        shift: ShiftId,
        /// Below the detector's ramdisk; `None` = all of it.
        source: Option<RelPath>,
    },
    /// Send these.
    Want {
        /// In the order wished.
        wants: Vec<Wanted>,
    },
    /// Landed already: do not send.
    Have {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Published on the PPU's ramdisk.
    Landed {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Durable on the internal storage, and the journal has it.
    Stored {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// To be answered at once.
    ClockProbe {
        /// On the PPU's clock, ns since the epoch.
        sent_ns: i64,
    },
    /// Orderly end.
    Goodbye {
        /// For people.
        reason: String,
    },
}

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
