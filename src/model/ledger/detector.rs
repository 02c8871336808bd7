//! A detector, as its sessions show it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use super::shifts::Awaited;
use super::troubles::Troubles;
use super::{Copies, Session};
use crate::model::file_version::{Hash, Identity, OfferId, TransferId, VersionId};
use crate::model::offer::{Heartbeat, Withdrawal};
use crate::model::pacing::Pace;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// A detector, as its sessions show it.
#[derive(Default)]
pub(super) struct Detector {
    pub(super) link: Link,
    pub(super) session: Session,
    pub(super) beat: Heartbeat,
    /// The last shift that it tells from those before.
    pub(super) word: Option<ShiftId>,
    /// Words that it owes us, of the oldest shift first.
    pub(super) awaited: Vec<Awaited>,
    pub(super) clock_offset_ns: Option<i64>,
    pub(super) offers: HashMap<OfferId, Offer>,
    /// Offers to be asked for, oldest first.
    pub(super) waiting: BTreeSet<OfferId>,
    /// Offers to be asked for again at that time.
    pub(super) later: BTreeSet<(Instant, OfferId)>,
    /// Versions known to exist that no session has offered yet: offered to the session before, or fallen from the ramdisk
    /// before they were stored.
    pub(super) unresolved: HashMap<RelPath, Unresolved>,
    /// Landed versions of this session that are to be fetched again.
    pub(super) fell: HashMap<OfferId, RelPath>,
    /// How often it was told of a shift in this session.
    pub(super) shifts_told: u64,
    /// Files may come unasked, one for each of these.
    pub(super) grants: HashSet<TransferId>,
    pub(super) manifest: u64,
    pub(super) wanted_files: u64,
    pub(super) wanted_bytes: u64,
    pub(super) blocked_since: Option<Instant>,
    pub(super) pace: Pace,
    pub(super) counters: Counters,
    pub(super) troubles: Troubles,
    /// In this session it has offered more than it may, and that was told.
    pub(super) offers_too_much: bool,
    /// For people.
    pub(super) last_error: Option<String>,
}

/// What a detector's link is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Never,
    Up(Instant),
    Down {
        since: Instant,
        reason: String,
        refused: bool,
    },
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// Since the daemon's start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub(super) landed_files: u64,
    pub(super) landed_bytes: u64,
    pub(super) integrity_errors: u64,
}

pub(super) struct Offer {
    pub(super) path: RelPath,
    pub(super) identity: Identity,
    pub(super) shift: ShiftId,
    pub(super) closed: Instant,
    pub(super) known_hash: Option<Hash>,
    pub(super) tries: u32,
    pub(super) wanted: bool,
    /// Said while it was wanted; counts if the transfer brings nothing.
    pub(super) withdrawn: Option<Withdrawal>,
    pub(super) told: bool,
    /// See [`LandJob::replace_past`](crate::model::job::LandJob).
    pub(super) replace_past: bool,
    /// Nobody knows whose it is, and its content is another one than that which had landed.
    pub(super) differs: bool,
    /// Had landed, and fell from the ramdisk: whatever the detector says, it counts once.
    pub(super) again: bool,
    /// When it was withdrawn, this very version had landed already.
    pub(super) landed: bool,
}

impl Detector {
    pub(super) fn files_without_room(&self) -> u64 {
        if self.blocked_since.is_some() { self.waiting.len() as u64 } else { 0 }
    }

    /// Closed there and not landed.
    pub(super) fn backlog_files(&self) -> u64 {
        self.beat.backlog_files + (self.offers.len() + self.unresolved.len()) as u64
    }

    /// Nothing is closed there and not landed, as far as its last word goes.
    pub(super) fn backlog_is_empty(&self) -> bool {
        self.offers.is_empty() && self.beat.backlog_files == 0
    }
}

pub(super) struct Unresolved {
    pub(super) shift: ShiftId,
    pub(super) identity: Identity,
    /// Had landed, and fell from the ramdisk before it was stored everywhere.
    pub(super) fallen: Option<(VersionId, Copies)>,
    /// Had landed, and fell from the ramdisk, be it long ago; then its detector may believe that it is there.
    pub(super) again: bool,
    /// The detector will tell of it in this session; a manifest that is under way may not name it.
    pub(super) awaited: bool,
}
