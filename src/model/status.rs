//! The state of a PPU at one moment, as `status` shows it: plain data, the same in the table and in JSON.
//!
//! Names and meanings of JSON keys are an interface to scripts: they may be added to, but not changed within a [`STATUS_VERSION`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attention::Problem;
use super::half::Paused;
use super::host::Advice;
use super::ledger::Tally;
use super::message::Message;
use super::shift::ShiftId;

/// The `version` of a [`StatusReport`].
pub const STATUS_VERSION: u32 = 1;

/// Everything that `status` shows. Times are milliseconds since the epoch on the PPU's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusReport {
    /// [`STATUS_VERSION`] of the daemon.
    pub version: u32,
    /// When the report was made.
    pub at_ms: i64,
    /// The process.
    pub daemon: Daemon,
    /// The PPU's own.
    pub ramdisk: Ramdisk,
    /// Whether state survives a crash.
    pub journal: Journal,
    /// What people have paused.
    #[serde(default)]
    pub paused: Paused,
    /// As configured.
    pub detectors: Vec<Detector>,
    /// As configured.
    pub storages: Vec<Storage>,
    /// Oldest first; the last one is the current one.
    pub shifts: Vec<Shift>,
    /// How long files take.
    pub latency: Latency,
    /// File systems that may fill up.
    #[serde(default)]
    pub fills: Vec<Fill>,
    /// What needs attention, and what to do; the worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// What of the machine holds it back, as it was at start.
    #[serde(default)]
    pub advice: Vec<Advice>,
    /// The last ones, oldest first.
    pub messages: Vec<Told>,
}

/// See [`StatusReport::daemon`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Daemon {
    /// Release.
    pub software: String,
    /// Process number.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// What moves the data: `uring` or `syscall`.
    pub engine: String,
    /// Contents are compared before they become visible; `false` only by configuration.
    pub verify: bool,
}

/// See [`StatusReport::ramdisk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ramdisk {
    /// Where it is mounted.
    pub path: String,
    /// Its room.
    #[serde(flatten)]
    pub room: Room,
    /// What left it.
    #[serde(flatten)]
    pub left: Left,
}

/// What left a file system by itself, to make room or because its shift was past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// It is too full, and the oldest stored files are leaving.
    #[serde(default)]
    pub evicting: bool,
    /// To make room, since the daemon's start; links may have their places.
    #[serde(default)]
    pub evicted: Amount,
    /// Of past shifts, since the daemon's start.
    #[serde(default)]
    pub purged: Amount,
}

/// Of a file system; both 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Room {
    /// In all.
    pub total_bytes: u64,
    /// Free.
    pub free_bytes: u64,
}

/// See [`StatusReport::journal`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Journal {
    /// Everything is written.
    Ok,
    /// Landing and copying go on, nothing is called stored.
    Error {
        /// For people.
        reason: String,
    },
}

/// One detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Detector {
    /// Its name.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// How the connection is.
    pub link: Link,
    /// Closed there and not yet landed.
    pub backlog: Amount,
    /// Of them: wanted, and on the way.
    pub in_flight: u64,
    /// Of them: waiting for room on the PPU's ramdisk.
    pub no_room: u64,
    /// Of them: held, as no shift that the PPU knows covers them.
    #[serde(default)]
    pub held: u64,
    /// Landed since the daemon's start.
    pub landed: Amount,
    /// Landed of late.
    pub rate: Rate,
    /// The detector's clock minus the PPU's, once measured.
    pub clock_offset_ms: Option<f64>,
    /// Files that were damaged on the way, and sent again.
    pub integrity_errors: u64,
    /// Symlinks, devices and sockets there, which are not transferred.
    pub skipped: u64,
    /// Removed from the detector's ramdisk by its daemon, when they were safe, since its start.
    pub released: Amount,
    /// The detector's ramdisk.
    pub ramdisk: Room,
    /// What failed last, for people.
    pub last_error: Option<String>,
    /// What is wrong on it, by its own word, and lasts; oldest first.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

/// See [`Detector::troubles`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// As it was told to people.
    #[serde(flatten)]
    pub message: Message,
    /// Since when.
    pub since_ms: i64,
}

/// See [`Detector::link`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// How it is.
    #[serde(flatten)]
    pub state: LinkState,
    /// Since when.
    pub since_ms: i64,
}

/// See [`Link`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// Files travel.
    Connected,
    /// Being tried again and again.
    Connecting {
        /// Why it failed last, if it did.
        reason: Option<String>,
    },
    /// The detector answers, but will not serve us until somebody changes something.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// Their sum.
    pub bytes: u64,
}

/// Per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Files.
    pub files_per_s: f64,
    /// Bytes.
    pub bytes_per_s: f64,
}

/// One storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Storage {
    /// Its name.
    pub id: String,
    /// `internal`, `external` or `optional`.
    pub kind: String,
    /// The directory that copies go below.
    pub target: String,
    /// Whether it can be written.
    pub health: Health,
    /// Since when it has not been `ok`.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Copies that run now.
    pub in_flight: u64,
    /// Landed files that are not yet stored there, over all shifts.
    pub pending: u64,
    /// Stored of late.
    #[serde(default)]
    pub rate: Rate,
    /// Stored there since the daemon's start.
    #[serde(default)]
    pub stored: Amount,
    /// Its room.
    #[serde(default)]
    pub room: Room,
    /// What left it for the external storage.
    #[serde(flatten)]
    pub left: Left,
}

/// See [`Storage::health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// It is written.
    Ok,
    /// Not mounted, read-only, not answering; it catches up by itself when it is back.
    Unavailable {
        /// For people.
        reason: String,
    },
    /// No room; it catches up by itself when there is.
    Full {
        /// For people.
        reason: String,
    },
    /// It is written, and does not keep up.
    Slow {
        /// For people.
        reason: String,
    },
    /// Its disk gives one error after the other; it is tried now and then.
    Quarantined {
        /// For people.
        reason: String,
    },
    /// It does not answer; it goes on by itself when it does.
    Hung {
        /// For people.
        reason: String,
    },
}

/// A file system that may fill up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fill {
    /// What it is to us.
    pub of: FillOf,
    /// The detector's or the storage's name; empty for the PPU's ramdisk.
    pub name: String,
    /// Its room.
    #[serde(flatten)]
    pub room: Room,
    /// When it will be full if it goes on as in the last seconds, in seconds; nothing where it does not fill up, and where stored files will
    /// make room before.
    pub full_in_s: Option<u64>,
}

/// See [`Fill::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FillOf {
    /// The PPU's ramdisk.
    Ramdisk,
    /// A detector's ramdisk.
    Detector,
    /// A storage.
    Storage,
}

/// One shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shift {
    /// Its start, which is its name.
    pub start_ms: ShiftId,
    /// Owner of its files.
    pub uid: u32,
    /// Group of its files.
    pub gid: u32,
    /// In the order of [`StatusReport::storages`].
    pub storages: Vec<Copies>,
}

/// The files of one shift on one storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Copies {
    /// The storage's name.
    pub storage: String,
    /// How many are where.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Every file version that a detector produced is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All of them.
    pub produced: u64,
    /// Landed, not yet stored.
    pub pending: u64,
    /// Durable there.
    pub copied: u64,
    /// Given up for now; `retry` takes them up again.
    pub failed: u64,
    /// Replaced by a newer version first.
    pub superseded: u64,
    /// Gone from the detector before they had landed.
    pub lost: u64,
}

impl From<Tally> for Counts {
    fn from(tally: Tally) -> Self {
        let Tally { pending, stored, failed, superseded, lost } = tally;
        let produced = pending + stored + failed + superseded + lost;
        Self { produced, pending, copied: stored, failed, superseded, lost }
    }
}

/// Since the daemon's start, from the close on the detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Until the file is visible on the PPU.
    pub visible: Percentiles,
    /// Until it is durable on the internal storage.
    pub stored: Percentiles,
}

/// In microseconds; all 0 before the first file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Percentiles {
    /// Of how many files.
    pub files: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// All but one in a hundred took no longer.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// Grows from message to message, also over restarts; not without gaps.
    pub number: u64,
    /// Messages that it stands for: more than one where it sums up.
    pub count: u64,
    /// When.
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub message: Message,
}

impl StatusReport {
    /// Of all storages, over all shifts.
    pub fn failed(&self) -> u64 {
        self.counts().map(|counts| counts.failed).sum()
    }

    /// The files that are gone for good, counted once however many storages there are.
    pub fn lost(&self) -> u64 {
        let of_shift = |shift: &Shift| shift.storages.iter().map(|copies| copies.counts.lost).max();
        self.shifts.iter().filter_map(of_shift).sum()
    }

    fn counts(&self) -> impl Iterator<Item = &Counts> {
        self.shifts.iter().flat_map(|shift| &shift.storages).map(|copies| &copies.counts)
    }
}

/// Whether stored files will leave a file system before it is full, as things are: it is below `limit`, above which they do, and the storage
/// that they are stored on works.
pub fn makes_room(storages: &[Storage], of: FillOf, name: &str, room: Room, limit: f64) -> bool {
    let kind = |wanted: &str| storages.iter().find(|storage| storage.kind == wanted);
    let refuge = match of {
        FillOf::Ramdisk => kind("internal"),
        FillOf::Storage if kind("internal").is_some_and(|internal| internal.id == name) => kind("external"),
        FillOf::Storage | FillOf::Detector => None,
    };
    let used = 1.0 - room.free_bytes as f64 / room.total_bytes as f64;
    used < limit && refuge.is_some_and(|storage| storage.health == Health::Ok)
}

/// Leaves out what is older than the newest `most`, but for shifts in which something is still to be done.
pub fn forget(shifts: &mut Vec<Shift>, most: usize) {
    let old = shifts.len().saturating_sub(most);
    let is_open = |copies: &Copies| copies.counts.pending > 0 || copies.counts.failed > 0;
    let mut seen = 0;
    shifts.retain(|shift| {
        seen += 1;
        seen > old || shift.storages.iter().any(is_open)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Code;

    #[test]
    fn a_file_system_is_relieved_below_its_limit_while_the_next_storage_works() {
        let storage = |kind: &str, health| Storage {
            id: format!("the {kind}"),
            kind: kind.to_owned(),
            target: String::new(),
            health,
            since_ms: None,
            in_flight: 0,
            pending: 0,
            rate: Rate::default(),
            stored: Amount::default(),
            room: Room::default(),
            left: Left::default(),
        };
        let room = |free_bytes| Room { total_bytes: 100, free_bytes };
        let ask = |internal: Health, external: Option<Health>, of, name: &str, free| {
            let external = external.map(|health| storage("external", health));
            let storages: Vec<Storage> =
                [storage("internal", internal)].into_iter().chain(external).collect();
            makes_room(&storages, of, name, room(free), 0.8)
        };
        let hung = || Health::Hung { reason: String::new() };
        let internal = "the internal";
        assert!(ask(Health::Ok, None, FillOf::Ramdisk, "", 30));
        assert!(!ask(Health::Ok, None, FillOf::Ramdisk, "", 20), "files leave, and it fills all the same");
        assert!(!ask(hung(), None, FillOf::Ramdisk, "", 30), "nothing is stored, so nothing leaves");
        assert!(!ask(Health::Ok, None, FillOf::Detector, "", 30));
        assert!(!ask(Health::Ok, None, FillOf::Storage, internal, 30), "no external one");
        assert!(ask(Health::Ok, Some(Health::Ok), FillOf::Storage, internal, 30));
        assert!(!ask(Health::Ok, Some(hung()), FillOf::Storage, internal, 30));
        assert!(!ask(Health::Ok, Some(Health::Ok), FillOf::Storage, "the external", 30));
    }

    #[test]
    fn old_shifts_are_forgotten_when_nothing_is_to_be_done_in_them() {
        let shift = |id, pending, failed| {
            let tally = Tally { pending, failed, stored: 3, lost: 1, superseded: 1 };
            let copies = Copies { storage: "internal".to_owned(), counts: tally.into() };
            Shift { start_ms: ShiftId(id), uid: 1, gid: 1, storages: vec![copies] }
        };
        let left = |most| {
            let mut shifts =
                vec![shift(1, 0, 0), shift(2, 1, 0), shift(3, 0, 1), shift(4, 0, 0), shift(5, 0, 0)];
            forget(&mut shifts, most);
            shifts.iter().map(|shift| shift.start_ms.0).collect::<Vec<_>>()
        };
        assert_eq!(left(9), [1, 2, 3, 4, 5]);
        assert_eq!(left(5), [1, 2, 3, 4, 5]);
        assert_eq!(left(4), [2, 3, 4, 5]);
        assert_eq!(left(1), [2, 3, 5]);
    }

    #[test]
    fn json_keys_are_what_scripts_read() {
        let counts = Counts::from(Tally { pending: 1, stored: 2, failed: 3, superseded: 4, lost: 5 });
        let copies = Copies { storage: "internal".to_owned(), counts };
        let json = r#"{"storage":"internal","produced":15,"pending":1,"copied":2,"failed":3,"superseded":4,"lost":5}"#;
        assert_eq!(serde_json::to_string(&copies).unwrap(), json);

        let link = Link { state: LinkState::Refused { reason: "key differs".to_owned() }, since_ms: 7 };
        let json = r#"{"state":"refused","reason":"key differs","since_ms":7}"#;
        assert_eq!(serde_json::to_string(&link).unwrap(), json);
        assert_eq!(serde_json::from_str::<Link>(json).unwrap(), link);

        let told = Told {
            number: 7,
            count: 1,
            at_ms: 1,
            message: Message::new(Code::DataLost, "a_001.cbf", "long"),
        };
        let json = r#"{"number":7,"count":1,"at_ms":1,"code":"DATA_LOST","short":"a_001.cbf","long":"long"}"#;
        assert_eq!(serde_json::to_string(&told).unwrap(), json);
        assert_eq!(serde_json::from_str::<Told>(json).unwrap(), told);
    }
}
