//! Control messages. Variants are only ever appended: their order is their number on the wire.

use serde::{Deserialize, Serialize};

use crate::model::file_version::{OfferId, TransferId};
pub use crate::model::offer::{
    Coming, Decline, Heartbeat, OFFER_PAGE_FILES, OFFER_WINDOW, Offered, Wanted, Withdrawal,
};
use crate::model::path::RelPath;
use crate::model::shift::{Began, ShiftId};
pub use crate::model::trouble::Report;

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
    /// Something is wrong, for people; only to a PPU that has said [`FromPpu::Noted`].
    Trouble(Report),
    /// A trouble that lasted is over.
    TroubleOver {
        /// As in its report, in this session.
        number: u64,
    },
    /// As [`FromDetector::Offer`], of files that travel at once.
    Coming {
        /// At most as many as grants are held.
        files: Vec<Coming>,
    },
}

/// PPU → detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPpu {
    /// Every second.
    Heartbeat,
    /// From its beginning on files below `source` belong to `shift`. First of all in every session, for every shift that the detector
    /// may not know, in their order.
    ShiftBegan {
        /// Which.
        shift: ShiftId,
        /// Below the detector's ramdisk; `None` = all of it.
        source: Option<RelPath>,
        /// When.
        began: Began,
        /// Another one follows, which began later; the last of a row is the current one.
        more: bool,
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
    /// Had landed, and is needed again: to be offered anew.
    Fell {
        /// Which.
        offers: Vec<OfferId>,
    },
    /// Troubles up to this one need not be told again. 0, in the first frame of a session: this PPU hears of troubles.
    Noted {
        /// As in its report.
        number: u64,
    },
    /// Files may come unasked, one for each of these.
    Grant {
        /// Beside those that were granted before.
        transfers: Vec<TransferId>,
        /// The largest that may.
        max_bytes: u64,
    },
    /// What came with that grant is discarded: its offer waits, as if it had not come.
    NotTaken {
        /// Of the grant.
        transfer: TransferId,
    },
}
