//! What the ledger is told, and what it says in answer.

use std::sync::Arc;
use std::time::Instant;

use crate::model::extra::ExtraFile;
use crate::model::file_version::{DetectorIndex, OfferId, StorageIndex, TransferId};
use crate::model::job::{CopyJob, CopyReport, LandJob, LandReport};
use crate::model::message::Message;
use crate::model::offer::{Coming, Decline, Heartbeat, Offered, Wanted, Withdrawal};
use crate::model::path::RelPath;
use crate::model::record::Record;
use crate::model::residents::{Home, Resident};
use crate::model::shift::{Began, Shift, ShiftId};
use crate::model::trouble::Report;

/// The time at which a fact is told; the ledger has no clock of its own.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Milliseconds since the epoch.
    pub wall_ms: i64,
}

/// A session's number: reports of an earlier session are told from those of the present one by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Session(pub u64);

/// What the stages tell the ledger.
#[derive(Debug)]
pub enum Fact {
    /// A detector's session began; its manifest follows.
    LinkUp {
        /// Which detector.
        detector: DetectorIndex,
        /// Number of the new session.
        session: Session,
    },
    /// A session is over *and* every landing thread of it has reported and ended.
    LinkDown {
        /// Which detector.
        detector: DetectorIndex,
        /// Which session.
        session: Session,
        /// For people.
        reason: String,
        /// Waiting will not cure it: the peer refused (wrong key, other version).
        refused: bool,
    },
    /// The detector's heartbeat.
    Beat {
        /// Which detector.
        detector: DetectorIndex,
        /// Its word.
        beat: Heartbeat,
    },
    /// The detector's clock minus ours, measured.
    Clock {
        /// Which detector.
        detector: DetectorIndex,
        /// Positive where the detector's clock is ahead, ns.
        offset_ns: i64,
    },
    /// Every file that the detector has is offered from here on.
    ManifestBegin {
        /// Which detector.
        detector: DetectorIndex,
    },
    /// The manifest is complete.
    ManifestEnd {
        /// Which detector.
        detector: DetectorIndex,
    },
    /// Closed files.
    Offered {
        /// Which detector.
        detector: DetectorIndex,
        /// Oldest first.
        files: Vec<Offered>,
    },
    /// Closed files that come without having been asked for.
    Coming {
        /// Which detector.
        detector: DetectorIndex,
        /// Oldest first.
        files: Vec<Coming>,
    },
    /// An offer that ended on the detector.
    Withdrawn {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offer.
        offer: OfferId,
        /// How.
        why: Withdrawal,
    },
    /// A want that will bring no file.
    Declined {
        /// Which want.
        transfer: TransferId,
        /// Why.
        why: Decline,
    },
    /// Landed files that are no longer on the detector.
    Gone {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offers.
        offers: Vec<OfferId>,
    },
    /// A detector tells the files of this shift from those before.
    ShiftWord {
        /// Which detector.
        detector: DetectorIndex,
        /// Which shift.
        shift: ShiftId,
    },
    /// Something is wrong on a detector.
    Trouble {
        /// Which detector.
        detector: DetectorIndex,
        /// Its word.
        report: Box<Report>,
    },
    /// It is no longer.
    TroubleOver {
        /// Which detector.
        detector: DetectorIndex,
        /// As in its report, in this session.
        number: u64,
    },
    /// A transfer's end on the PPU.
    Landing(LandReport),
    /// An extra file was handed over, or one that is known was looked at anew.
    Extra(Box<ExtraFile>),
    /// A copy's end.
    Copying(CopyReport),
    /// Of a storage's thread, now and then.
    Steps {
        /// Which storage.
        storage: StorageIndex,
        /// How many steps it has made since its start: while it has work and makes none, it hangs.
        steps: u64,
        /// Likewise of the thread that reads other storages for it.
        reads: u64,
    },
    /// Somebody has looked at a storage, also where nothing is to be copied.
    Looked {
        /// Which storage.
        storage: StorageIndex,
        /// Why it cannot be used, for people; `None`: it can, as far as a look tells.
        gone: Option<String>,
    },
    /// The journal has everything up to and with this record.
    Committed {
        /// Number of the last record.
        up_to: u64,
    },
    /// The journal cannot be written, for people; `None`: it can again.
    JournalTrouble(Option<String>),
    /// Room on the ramdisk, looked up just now.
    Space(Space),
    /// Time passes.
    Tick,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes free for us.
    pub free_bytes: u64,
    /// Inodes free for us; `u64::MAX` where the file system has no limit.
    pub free_inodes: u64,
}

/// What the ledger says.
#[derive(Debug)]
pub enum Order {
    /// Ask a detector for files, and be ready to land them.
    Want {
        /// Which detector.
        detector: DetectorIndex,
        /// What to ask, and where each lands.
        wants: Vec<(Wanted, LandJob)>,
    },
    /// Let files of a detector come unasked.
    Grant {
        /// Which detector.
        detector: DetectorIndex,
        /// One for each file.
        transfers: Vec<TransferId>,
        /// The largest that may.
        max_bytes: u64,
    },
    /// A file comes that was not asked for.
    Coming {
        /// From which detector.
        detector: DetectorIndex,
        /// Of a grant.
        transfer: TransferId,
        /// Where it lands; `None`: it is discarded.
        job: Option<LandJob>,
    },
    /// Tell a detector that these had landed before.
    Have {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offers.
        offers: Vec<OfferId>,
    },
    /// Tell a detector that these have landed.
    AckLanded {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offers.
        offers: Vec<OfferId>,
    },
    /// Tell a detector that these are safe on the internal storage.
    AckStored {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offers.
        offers: Vec<OfferId>,
    },
    /// Tell a detector that these are needed again: they had landed, and were taken from the ramdisk before they were stored.
    Fell {
        /// Which detector.
        detector: DetectorIndex,
        /// Which offers.
        offers: Vec<OfferId>,
    },
    /// Tell a detector that people know of its troubles up to this one.
    Noted {
        /// Which detector.
        detector: DetectorIndex,
        /// As in its report.
        number: u64,
    },
    /// Tell a detector of a shift.
    AnnounceShift {
        /// Which detector.
        detector: DetectorIndex,
        /// The shift.
        shift: ShiftId,
        /// Below the detector's ramdisk; `None` is all of it.
        source: Option<RelPath>,
        /// When.
        began: Began,
        /// Another one follows.
        more: bool,
    },
    /// Look anew at an extra file that is held open.
    LookAgain {
        /// As it is encoded.
        path: RelPath,
    },
    /// A shift begins: make its directories.
    PrepareShift(Arc<Shift>),
    /// Start a copy.
    Copy {
        /// To which storage.
        storage: StorageIndex,
        /// What.
        job: CopyJob,
    },
    /// This version may leave.
    MayLeave {
        /// From where.
        home: Home,
        /// Which.
        resident: Resident,
    },
    /// Write into the journal.
    Record {
        /// Grows by one from record to record.
        sequence: u64,
        /// What.
        record: Record,
    },
    /// Tell people.
    Tell(Message),
}
