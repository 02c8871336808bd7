//! What comes into the catalog, and what goes out.

use std::time::Instant;

use crate::model::file_version::{Identity, OfferId, TransferId};
use crate::model::offer::{Coming, Decline, Offered, Withdrawal};
use crate::model::path::RelPath;
use crate::model::send::SendJob;
use crate::model::shift::ShiftId;
use crate::model::trouble::{Report, Trouble, What};

/// What the watch sees. Paths are below the ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A regular file was closed after writing, moved in or linked in.
    Closed {
        /// Its name.
        path: RelPath,
        /// As it was looked at right after.
        identity: Identity,
        /// When it was seen.
        at: Instant,
    },
    /// Something was closed under that name, which was gone when it was to be looked at.
    ClosedUnseen {
        /// Which.
        path: RelPath,
    },
    /// A file that leaves the ramdisk has got this name in staging.
    Taken {
        /// See [`Outcome::Taken`](crate::model::release::Outcome::Taken).
        token: Box<[u8]>,
    },
    /// A scan met a regular file.
    Found {
        /// Its name.
        path: RelPath,
        /// As it was met.
        identity: Identity,
        /// When it was closed, as far as its ctime tells.
        at: Instant,
    },
    /// The name is no more.
    Gone {
        /// Which.
        path: RelPath,
    },
    /// A directory and all that was below it is no more, at least not under this name.
    GoneBelow {
        /// Which.
        directory: RelPath,
    },
    /// From here on every file that there is will be met, or seen in another event.
    ScanBegins,
    /// What was neither met nor seen since the scan began is gone.
    ScanEnds,
    /// More happened than the kernel keeps: closes were missed. A scan follows.
    Missed,
    /// Marks that were made and not yet seen will not be seen any more.
    MarksLost,
    /// The queue has come to this mark: what follows happened after the mark was made.
    Mark(u64),
    /// Something is wrong.
    Met(Trouble),
    /// With the detector as a whole; it is no longer.
    Over(What),
}

/// What is to be said to the PPU, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in wire::control::FromDetector")]
pub enum Word {
    ShiftWord(ShiftId),
    ManifestBegin,
    Offer(Vec<Offered>),
    /// With what the streams are to send: at once.
    Coming(Vec<(Coming, SendJob)>),
    ManifestEnd,
    Withdrawn(OfferId, Withdrawal),
    Declined(TransferId, Decline),
    Gone(Vec<OfferId>),
    Trouble(Report),
    TroubleOver(u64),
}

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Files that the catalog knows.
    pub files: usize,
    /// To be offered in this session, or once there is one.
    pub backlog_files: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
}
