//! What a journal should know: the same records, applied in memory in the plainest way.

use std::collections::BTreeMap;
use std::path::Path;

use ppu_uringd::journal::{Journal, Opened, Origin, Settings, open};
use ppu_uringd::model::file_version::{DetectorIndex, Hash, Identity, StorageIndex, VersionId};
use ppu_uringd::model::half::{Half, Paused};
use ppu_uringd::model::job::Local;
use ppu_uringd::model::message::{Code, Message};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::record::{CopyState, LiveVersion, Loaded, Record, Tally, Version};
use ppu_uringd::model::replica_path::Target;
use ppu_uringd::model::shift::{Place, Shift, ShiftId};
use ppu_uringd::model::status::Told;

pub const STORAGES: [StorageIndex; 2] = [StorageIndex(0), StorageIndex(1)];
const MESSAGES_KEPT: usize = 1000;

/// The settings of every test.
pub fn settings(dir: &Path) -> Settings {
    Settings::new(dir, vec!["1MF".into(), "2MF".into()], vec!["internal".into(), "external".into()])
}

/// Opens a journal that is expected to be as it was left, or new.
pub fn open_sound(dir: &Path) -> (Journal, Known) {
    let opened = open(settings(dir), Vec::push).unwrap();
    assert!(!matches!(opened.origin, Origin::SetAside { .. }), "{:?}", opened.origin);
    let known = Known::of(&opened);
    (opened.journal, known)
}

/// What a journal says at start, comparable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    pub shifts: Vec<Shift>,
    pub live: Vec<LiveVersion>,
    pub tallies: BTreeMap<(ShiftId, u16), (u64, u64, u64, u64)>,
    pub messages: Vec<Told>,
    pub paused: Paused,
    pub next_version: u64,
}

impl Known {
    pub fn of(opened: &Opened<Vec<LiveVersion>>) -> Self {
        let Loaded { shifts, tallies, messages, paused, next_version, .. } = opened.loaded.clone();
        let tallies = tallies.into_iter().filter(|(_, _, tally)| *tally != Tally::default());
        let count = |tally: Tally| (tally.stored, tally.failed, tally.superseded, tally.lost);
        Self {
            shifts,
            live: opened.live.clone(),
            tallies: tallies.map(|(shift, storage, tally)| ((shift, storage.0), count(tally))).collect(),
            messages,
            paused,
            next_version: next_version.0,
        }
    }
}

/// A version and its copies.
#[derive(Debug, Clone)]
struct Entry {
    version: Version,
    gone: bool,
    copies: BTreeMap<StorageIndex, CopyState>,
}

impl Entry {
    fn is_live(&self) -> bool {
        !self.gone || self.copies.values().any(CopyState::is_open)
    }
}

/// The journal's twin.
#[derive(Debug, Clone, Default)]
pub struct Model {
    shifts: BTreeMap<ShiftId, Shift>,
    versions: BTreeMap<VersionId, Entry>,
    /// Lost and superseded without having landed.
    unlanded: BTreeMap<(ShiftId, u16), (u64, u64)>,
    messages: BTreeMap<u64, Told>,
    paused: Paused,
    last_version: u64,
}

impl Model {
    pub fn apply(&mut self, record: &Record) {
        match record.clone() {
            Record::Shift(shift) => {
                self.shifts.insert(shift.id, shift);
            }
            Record::Landed(version) => {
                self.last_version = version.version.0;
                let copies = STORAGES.map(|storage| (storage, CopyState::Pending)).into();
                self.versions.insert(version.version, Entry { version: *version, gone: false, copies });
            }
            Record::Refreshed { version, identity, settled } => self.change(version, |entry| {
                entry.version.identity = identity;
                entry.version.settled = settled;
            }),
            Record::Stored { version, storage } => self.copy(version, storage, CopyState::Stored),
            Record::CopyFailed { version, storage, tries, error } => {
                self.copy(version, storage, CopyState::Failed { tries, error: error.into() });
            }
            Record::Requeued { version, storage } => self.copy(version, storage, CopyState::Pending),
            Record::Superseded { version, storage } => self.copy(version, storage, CopyState::Superseded),
            Record::Gone { version } => self.change(version, |entry| entry.gone = true),
            Record::Unlanded { version } => {
                self.change(version, |entry| {
                    entry.copies.retain(|_, state| !state.is_open());
                    entry.gone = true;
                });
                self.versions.retain(|_, entry| !entry.copies.is_empty());
            }
            Record::LostVersion { version } => self.change(version, |entry| {
                for state in entry.copies.values_mut().filter(|state| state.is_open()) {
                    *state = CopyState::Lost;
                }
                entry.gone = true;
            }),
            Record::Lost { shift, .. } => self.unlanded(shift, 1, 0),
            Record::SupersededUnlanded { shift, count } => self.unlanded(shift, 0, count),
            Record::Message(told) => {
                self.messages.insert(told.number, told);
                if self.messages.len() > MESSAGES_KEPT {
                    self.messages.pop_first();
                }
            }
            Record::Paused { half, since_ms } => self.paused.set(half, since_ms),
        }
    }

    fn change(&mut self, version: VersionId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.versions.get_mut(&version) {
            change(entry);
        }
    }

    fn copy(&mut self, version: VersionId, storage: StorageIndex, state: CopyState) {
        self.change(version, |entry| {
            entry.copies.insert(storage, state);
        });
    }

    fn unlanded(&mut self, shift: ShiftId, lost: u64, superseded: u64) {
        for storage in STORAGES {
            let counts = self.unlanded.entry((shift, storage.0)).or_default();
            counts.0 += lost;
            counts.1 += superseded;
        }
    }

    /// What the journal should know.
    pub fn known(&self) -> Known {
        let mut tallies: BTreeMap<_, (u64, u64, u64, u64)> = BTreeMap::new();
        for (&key, &(lost, superseded)) in &self.unlanded {
            let tally = tallies.entry(key).or_default();
            tally.3 += lost;
            tally.2 += superseded;
        }
        for entry in self.versions.values() {
            for (storage, state) in &entry.copies {
                let tally = tallies.entry((entry.version.shift, storage.0)).or_default();
                match state {
                    CopyState::Pending => {}
                    CopyState::Stored => tally.0 += 1,
                    CopyState::Failed { .. } => tally.1 += 1,
                    CopyState::Superseded => tally.2 += 1,
                    CopyState::Lost => tally.3 += 1,
                }
            }
        }
        tallies.retain(|_, counts| *counts != (0, 0, 0, 0));
        let live = self.versions.values().filter(|entry| entry.is_live());
        Known {
            shifts: self.shifts.values().cloned().collect(),
            live: live
                .map(|entry| LiveVersion {
                    version: entry.version.clone(),
                    gone: entry.gone,
                    copies: entry.copies.clone().into_iter().collect(),
                })
                .collect(),
            tallies,
            messages: self.messages.values().cloned().collect(),
            paused: self.paused,
            next_version: self.last_version + 1,
        }
    }

    /// Some record that could come next, made of three numbers.
    pub fn record(&self, (kind, a, b): (u8, u16, u8)) -> Record {
        let version = VersionId(u64::from(a) % (self.last_version + 1));
        let storage = STORAGES[usize::from(b) % STORAGES.len()];
        let shift = ShiftId(1_785_542_399_000 + i64::from(a % 3));
        match kind % 16 {
            0..=4 => landed(self.last_version + 1, a, b),
            5..=7 => Record::Stored { version, storage },
            8 => Record::CopyFailed { version, storage, tries: b.into(), error: format!("disk {a}") },
            9 => Record::Requeued { version, storage },
            10 => Record::Superseded { version, storage },
            11 => Record::Gone { version },
            12 => match b % 4 {
                0 => Record::Unlanded { version },
                1 => Record::LostVersion { version },
                _ => Record::Refreshed { version, identity: identity(a, b), settled: b % 8 < 4 },
            },
            13 => Record::Lost { detector: DetectorIndex(1), shift, path: path(a), identity: identity(a, b) },
            14 => Record::SupersededUnlanded { shift, count: b.into() },
            _ if b % 2 == 0 => Record::Message(Told {
                number: a.into(),
                count: b.into(),
                at_ms: a.into(),
                message: Message::new(Code::CopyError, "a:b", "do this"),
            }),
            _ if b % 8 == 1 => Record::Paused {
                half: Half::ALL[usize::from(a % 2)],
                since_ms: (a % 3 != 0).then_some(i64::MAX - i64::from(a)),
            },
            _ => Record::Shift(Shift {
                id: shift,
                uid: a.into(),
                gid: b.into(),
                user_dir: (b % 3 != 0).then(|| path(b.into())),
                places: vec![Place {
                    detector: "1MF".into(),
                    source: None,
                    target: Target::parse(b"/ramdisk", b"/ramdisk/./1mf").unwrap(),
                }],
            }),
        }
    }
}

/// A landed version with number `number`; the rest varies with `a` and `b`.
pub fn landed(number: u64, a: u16, b: u8) -> Record {
    let path = path(a);
    let below = |root: &[u8]| RelPath::new(root).unwrap().join(&path).unwrap();
    Record::Landed(Box::new(Version {
        version: VersionId(number),
        detector: DetectorIndex(u16::from(b) % 2),
        shift: ShiftId(1_785_542_399_000 + i64::from(a % 3)),
        identity: identity(a, b),
        settled: b.is_multiple_of(3),
        hash: Hash::of(&a.to_le_bytes()),
        mode: 0o644,
        local: Local { ino: u64::MAX - u64::from(a), ctime_ns: i64::MIN + i64::from(b) },
        at: if b.is_multiple_of(5) { below(b"elsewhere\xff") } else { below(b"1mf/500_501") },
        to: if b.is_multiple_of(7) { RelPath::new(b"unlike").unwrap() } else { path.clone() },
        landed_ms: -i64::from(b),
        path,
    }))
}

fn path(a: u16) -> RelPath {
    RelPath::new(format!("run {}\n/\u{e9}_{a:05}.cbf", a % 7).as_bytes()).unwrap()
}

fn identity(a: u16, b: u8) -> Identity {
    Identity { size: u64::MAX - u64::from(a), mtime_ns: -5, ino: u64::from(b) << 56, ctime_ns: i64::MAX }
}

/// A generator for three such numbers: splitmix64, so that a printed seed repeats a run.
pub struct Numbers(pub u64);

impl Iterator for Numbers {
    type Item = (u8, u16, u8);

    fn next(&mut self) -> Option<Self::Item> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        Some((mixed as u8, (mixed >> 8) as u16, (mixed >> 24) as u8))
    }
}

/// `count` records and the models before and after each.
pub fn history(seed: u64, count: usize) -> (Vec<(u64, Record)>, Vec<Model>) {
    let mut models = vec![Model::default()];
    let mut records = Vec::new();
    for (sequence, numbers) in (1..).zip(Numbers(seed)).take(count) {
        let mut model = models[models.len() - 1].clone();
        let record = model.record(numbers);
        model.apply(&record);
        records.push((sequence, record));
        models.push(model);
    }
    (records, models)
}
