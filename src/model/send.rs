//! What the detector's streams are asked to send, and what they report back.

use super::file_version::{Hash, Identity, TransferId};
use super::offer::Decline;
use super::path::RelPath;

/// One wanted file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendJob {
    /// Of the PPU's want.
    pub transfer: TransferId,
    /// Below the detector's ramdisk.
    pub path: RelPath,
    /// As offered: another one is declined as [`Decline::Changed`].
    pub identity: Identity,
    /// If the content has this hash, decline as [`Decline::Unchanged`].
    pub known_hash: Option<Hash>,
}

/// How a [`SendJob`] ended; each ends exactly once, or with its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReport {
    /// Which.
    pub transfer: TransferId,
    /// How.
    pub outcome: SendOutcome,
}

/// See [`SendReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// All of it went out, and its trailer says `unchanged`. Whether it lands is the PPU's to say.
    Sent {
        /// After the send.
        identity: Identity,
        /// See PROTOCOL.md.
        settled: bool,
    },
    /// Its trailer says `changed`.
    Changed {
        /// As it is now; `None`: it is gone.
        identity: Option<Identity>,
    },
    /// Its trailer says `failed`. For people.
    Failed(String),
    /// Nothing of it travelled.
    Declined {
        /// To be said to the PPU.
        why: Decline,
        /// As it is now, where that was seen.
        identity: Option<Identity>,
    },
}
