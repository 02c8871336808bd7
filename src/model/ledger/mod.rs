//! The only state of the PPU: takes facts from the stages, gives orders to them. Pure: no IO, no clock.
//!
//! A file version's way through it:
//!
//! ```text
//! Offered ──► waiting ──► wanted ──► landed ──► queued ─► flying ─► written ─► stored     (per storage)
//!    │           ▲           │                    ▲          │
//!    └► have     └─ back-off ┘                    └ back-off ┴──► failed
//! ```
//!
//! `written` becomes `stored` when the journal has committed it; a newer landed version of the same path turns whatever
//! is still queued into `superseded`. For every shift and storage, always:
//! pending + stored + failed + superseded + lost = produced.

mod copies;
mod detector;
mod events;
mod extras;
mod fact;
mod fallen;
mod grants;
mod halves;
mod health;
mod landings;
mod leaving;
mod offers;
mod queue;
mod report;
mod retry;
mod room;
mod sample;
mod shifts;
mod tally;
#[cfg(test)]
mod tests;
mod timing;
mod troubles;
mod versions;
mod wants;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::copies::Storage;
use self::detector::Detector;
pub use self::extras::Progress;
pub use self::fact::{Fact, Now, Order, Session, Space};
pub use self::health::Patience;
use self::landings::Transfer;
pub use self::retry::{Place as RetryPlace, Retried, Selection};
use self::room::Room;
use self::shifts::Starting;
use self::tally::Tallies;
pub use self::tally::Tally;
use self::timing::Timing;
use self::versions::Versions;
pub use self::versions::{Copies, Copy, CopyState, Version};
use super::file_version::{DetectorIndex, StorageIndex, TransferId, VersionId};
use super::half::Paused;
use super::job::{Brand, Local};
use super::message::{Code, Message};
use super::pacing::{Pace, Pauses};
use super::path::RelPath;
use super::record::Record;
use super::shift::{Shift, ShiftId};

/// Records that the journal has not committed yet, above which no further file is asked for: with a broken journal, memory
/// stays bounded and files wait on their detectors.
const UNCOMMITTED_RECORDS_MAX: u64 = 500_000;

/// What the ledger needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In the order of [`DetectorIndex`].
    pub detectors: Vec<DetectorSettings>,
    /// In the order of [`StorageIndex`].
    pub storages: Vec<StorageSettings>,
    /// The PPU's, as messages name it.
    pub ramdisk: String,
}

/// See [`Settings`].
#[derive(Debug, Clone)]
pub struct DetectorSettings {
    /// The name operators use.
    pub id: Arc<str>,
    /// As configured, for the status.
    pub address: String,
    /// In which it is left in peace.
    pub pauses: Pauses,
}

/// See [`Settings`].
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// The name operators use.
    pub id: Arc<str>,
    /// Its mount point, as messages name it.
    pub at: Arc<str>,
    /// Links lead to it that eviction leaves in files' places.
    pub linked: bool,
    /// The one storage whose copy makes a file safe.
    pub internal: bool,
    /// The one storage that may hold what the internal one no longer does.
    pub external: bool,
    /// Copies in flight.
    pub queue_depth: usize,
    /// Tries of a copy before it counts as failed.
    pub copy_tries: u32,
    /// Pause before the second try of a copy; doubles from try to try.
    pub retry_pause: Duration,
    /// Longest such pause.
    pub retry_pause_max: Duration,
    /// How long things may take there.
    pub patience: Patience,
}

/// See the module.
pub struct Ledger {
    settings: Settings,
    shifts: BTreeMap<ShiftId, Arc<Shift>>,
    current: Arc<Shift>,
    /// Asked for, and not yet in the journal.
    starting: VecDeque<Starting>,
    /// When shifts began, of those that began in this process.
    begins: HashMap<ShiftId, Instant>,
    detectors: Vec<Detector>,
    storages: Vec<Storage>,
    versions: Versions,
    transfers: HashMap<TransferId, Transfer>,
    next_transfer: u64,
    room: Room,
    tallies: Tallies,
    journal: Journal,
    timing: Timing,
    /// By people.
    paused: Paused,
}

/// What is under way to the journal.
#[derive(Default)]
struct Journal {
    next_sequence: u64,
    committed: u64,
    trouble: Option<String>,
    /// Copies that are durable on their storage but not yet *stored*, oldest record first.
    written: VecDeque<(u64, VersionId, StorageIndex)>,
}

impl Ledger {
    /// An empty ledger in `current`; [`restore`](Self::restore) fills it.
    pub fn new(settings: Settings, current: Arc<Shift>) -> Self {
        Self {
            shifts: BTreeMap::from([(current.id, Arc::clone(&current))]),
            current,
            starting: VecDeque::new(),
            begins: HashMap::new(),
            detectors: settings
                .detectors
                .iter()
                .map(|detector| Detector { pace: Pace::new(detector.pauses), ..Detector::default() })
                .collect(),
            storages: settings.storages.iter().map(|_| Storage::default()).collect(),
            versions: Versions::default(),
            transfers: HashMap::new(),
            next_transfer: 1,
            room: Room::default(),
            tallies: Tallies::default(),
            journal: Journal::default(),
            timing: Timing::new(settings.detectors.len(), settings.storages.len()),
            paused: Paused::default(),
            settings,
        }
    }

    /// Takes one fact. Call [`work`](Self::work) after one or several.
    pub fn apply(&mut self, now: Now, fact: Fact, out: &mut Vec<Order>) {
        match fact {
            Fact::LinkUp { detector, session } => self.link_up(now, detector, session, out),
            Fact::LinkDown { detector, session, reason, refused } => {
                self.link_down(now, detector, session, reason, refused, out);
            }
            Fact::Beat { detector, beat } => {
                self.detectors[detector.index()].beat = beat;
                self.sum_up_troubles(now, detector, out);
            }
            Fact::Clock { detector, offset_ns } => self.clock(detector, offset_ns, out),
            Fact::ManifestBegin { detector } => self.manifest_begin(detector),
            Fact::ManifestEnd { detector } => self.manifest_end(detector, out),
            Fact::Offered { detector, files } => self.offered(now, detector, files, out),
            Fact::Coming { detector, files } => self.coming(now, detector, files, out),
            Fact::Withdrawn { detector, offer, why } => self.withdrawn(detector, offer, why, out),
            Fact::Declined { transfer, why } => self.declined(now, transfer, why, out),
            Fact::Gone { detector, offers } => self.gone(detector, &offers, out),
            Fact::ShiftWord { detector, shift } => self.shift_word(now, detector, shift, out),
            Fact::Trouble { detector, report } => self.trouble(now, detector, *report, out),
            Fact::TroubleOver { detector, number } => self.detectors[detector.index()].troubles.over(number),
            Fact::Landing(report) => self.landing(now, report, out),
            Fact::Extra(file) => self.extra(now, *file, out),
            Fact::Copying(report) => self.copying(now, report, out),
            Fact::Steps { storage, steps, reads } => self.steps(now, storage, steps, reads, out),
            Fact::Looked { storage, gone } => self.looked(now, storage, gone, out),
            Fact::Committed { up_to } => self.committed(now, up_to, out),
            Fact::JournalTrouble(trouble) => self.journal_trouble(trouble, out),
            Fact::Space(space) => self.room.sample(space),
            Fact::Tick => {}
        }
    }

    /// Gives out what can be done now: wants and copies.
    pub fn work(&mut self, now: Now, out: &mut Vec<Order>) {
        self.want(now, out);
        self.dispatch(now, out);
    }

    fn clock(&mut self, detector: DetectorIndex, offset_ns: i64, out: &mut Vec<Order>) {
        const TOLERATED_NS: u64 = 1_000_000_000; // SPEC 2.2
        let id = Arc::clone(&self.settings.detectors[detector.index()].id);
        let state = &mut self.detectors[detector.index()];
        let off = |ns: Option<i64>| ns.is_some_and(|ns| ns.unsigned_abs() > TOLERATED_NS);
        if off(Some(offset_ns)) && !off(state.clock_offset_ns) {
            let seconds = offset_ns as f64 / 1e9;
            let long = format!(
                "The clock of detector {id} differs from the PPU's by {seconds:+.1} s. No file is misplaced by it, but \
                 times look wrong: let both machines follow the same NTP server."
            );
            out.push(Order::Tell(Message::new(Code::ClockOffset, &*id, long)));
        }
        state.clock_offset_ns = Some(offset_ns);
    }

    fn journal_trouble(&mut self, trouble: Option<String>, out: &mut Vec<Order>) {
        if let (None, Some(text)) = (&self.journal.trouble, &trouble) {
            let long = format!(
                "The journal cannot be written: {text}. Images still land and are copied, but nothing is called stored, and \
                 nothing is removed. Make room or repair the file system that holds state_dir; no restart is needed."
            );
            out.push(Order::Tell(Message::new(Code::JournalError, "journal.db", long)));
        }
        self.journal.trouble = trouble;
    }

    fn record(&mut self, record: Record, out: &mut Vec<Order>) -> u64 {
        self.journal.next_sequence += 1;
        let sequence = self.journal.next_sequence;
        out.push(Order::Record { sequence, record });
        sequence
    }

    /// The shift that files closed now belong to.
    pub fn current_shift(&self) -> &Shift {
        &self.current
    }

    fn shift(&self, id: ShiftId) -> Option<&Arc<Shift>> {
        self.shifts.get(&id)
    }

    fn brand(&self, version: &Version) -> Brand {
        Brand {
            detector: self.settings.detectors[version.detector.index()].id.to_string(),
            shift: version.shift,
            path: version.path.clone(),
            identity: version.identity,
            settled: version.settled,
            hash: version.hash,
        }
    }
}

/// Filling the ledger at start, from the journal and from what is on the ramdisk.
impl Ledger {
    /// Numbers of versions below `next` were given.
    pub fn restore_numbers(&mut self, next: VersionId) {
        self.versions.start_at(next);
    }

    /// Makes a past shift known.
    pub fn restore_shift(&mut self, shift: Arc<Shift>) {
        self.shifts.insert(shift.id, shift);
    }

    /// Counts of what came to an end: stored, superseded and lost. Pending and failed copies count themselves when their
    /// versions are restored.
    pub fn restore_tally(&mut self, shift: ShiftId, storage: StorageIndex, ended: Tally) {
        *self.tallies.at(shift, storage) = Tally { pending: 0, failed: 0, ..ended };
    }

    /// A live version that the journal remembers. `local` is its file on the ramdisk, if that is still there untouched.
    /// Where it is not and a copy is pending, that is made from another storage; where none has it, the version will be asked for again,
    /// or counts as lost when its detector's manifest does not name it. Versions come in the order of their numbers.
    pub fn restore(
        &mut self,
        id: VersionId,
        mut version: Version,
        local: Option<Local>,
        out: &mut Vec<Order>,
    ) {
        if let Some(older) = self.versions.newest(version.detector, &version.path) {
            if version.on_detector {
                self.versions.retire(older);
            }
            // The older one's copy was in flight when this one landed, and a crash came before its end was told.
            self.supersede(older, &version, out);
            self.versions.forget_if_done(older);
        }
        self.replace_unresolved(version.detector, &version.path, out);
        version.local = local;
        let open = version.copies.iter().any(|copy| !copy.state.is_final());
        if local.is_none() && open && !version.is_durable_somewhere() {
            return self.fall(id, version, false);
        }
        for (storage, copy) in version.copies.iter_mut().enumerate() {
            if !copy.state.is_final() {
                // What had failed is queued again at start.
                *copy = Copy { state: CopyState::Queued, tries: 0 };
                self.storages[storage].ready.insert(id);
                self.tallies.at(version.shift, StorageIndex(storage as u16)).pending += 1;
            }
        }
        self.versions.insert_with(id, version);
    }

    /// What a storage is called.
    pub fn storage_id(&self, storage: StorageIndex) -> &str {
        &self.settings.storages[storage.index()].id
    }

    /// Where images land, for people.
    pub fn ramdisk(&self) -> &str {
        &self.settings.ramdisk
    }

    /// A version under a brand's path is what the brand speaks of. It need not be the newest: an earlier shift's lies elsewhere.
    pub fn knows(&self, detector: DetectorIndex, brand: &Brand) -> bool {
        let mut known = self.versions.under(detector, &brand.path);
        known.any(|(_, v)| v.hash == brand.hash && v.shift == brand.shift)
    }

    /// A branded file at `at` on the ramdisk, which the journal may not know: it landed right before a crash, or the journal was
    /// lost. Says whether it was taken in.
    #[allow(clippy::too_many_arguments)]
    pub fn adopt(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        brand: Brand,
        at: &RelPath,
        mode: u32,
        local: Local,
        out: &mut Vec<Order>,
    ) -> bool {
        if self.knows(detector, &brand) {
            return false;
        }
        let version = Version {
            detector,
            shift: brand.shift,
            path: brand.path,
            identity: brand.identity,
            settled: brand.settled,
            hash: brand.hash,
            mode,
            local: Some(local),
            on_detector: true,
            seen: 0,
            closed: None,
            copies: self.fresh_copies(),
        };
        // A brand is believed only at the place where its file would have landed: users may move our files about.
        if self.places(&version).0.as_ref() != Some(at) {
            return false;
        }
        self.replace_unresolved(detector, &version.path, out);
        self.admit(now, version, out);
        true
    }

    /// Writes a record that follows from no fact.
    pub fn note(&mut self, record: Record, out: &mut Vec<Order>) {
        self.record(record, out);
    }
}

impl DetectorIndex {
    /// For indexing.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl StorageIndex {
    /// For indexing.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
