//! A journal in memory: what is committed survives a crash of the PPU, nothing else does.

use std::collections::{BTreeMap, VecDeque};

use ppu_uringd::model::file_version::{StorageIndex, VersionId};
use ppu_uringd::model::job::Local;
use ppu_uringd::model::ledger::{Copy, CopyState, Tally, Version};
use ppu_uringd::model::record::{self, Record};
use ppu_uringd::model::residents::Resident;
use ppu_uringd::model::shift::{Shift, ShiftId};

use super::keeper::Proof;

pub const STORAGES: usize = 3;
pub const INTERNAL: usize = 0;
pub const EXTERNAL: usize = 1;

#[derive(Default)]
pub struct Journal {
    /// It cannot be written.
    pub stuck: bool,
    under_way: VecDeque<(u64, Record)>,
    versions: BTreeMap<VersionId, Entry>,
    shifts: BTreeMap<ShiftId, Shift>,
    /// Ended without having landed.
    unlanded: BTreeMap<ShiftId, Tally>,
    next_version: u64,
}

struct Entry {
    version: record::Version,
    gone: bool,
    copies: [State; STORAGES],
    /// As they were stored.
    files: [Option<Local>; STORAGES],
    /// Its open copies are counted under another version.
    forgotten: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Stored,
    Superseded,
    Lost,
    Forgotten,
}

impl Journal {
    pub fn write(&mut self, sequence: u64, record: Record) {
        self.under_way.push_back((sequence, record));
    }

    /// Commits the oldest records; the number of the last one.
    pub fn commit(&mut self, records: usize) -> Option<u64> {
        let records = records.min(self.under_way.len());
        let mut last = None;
        for (sequence, record) in self.under_way.drain(..records).collect::<Vec<_>>() {
            self.apply(record);
            last = Some(sequence);
        }
        last
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub fn crash(&mut self) {
        self.under_way.clear();
    }

    pub fn next_version(&self) -> VersionId {
        VersionId(self.next_version)
    }

    pub fn shifts(&self) -> impl DoubleEndedIterator<Item = &Shift> {
        self.shifts.values()
    }

    /// What the ledger is filled with after a crash: live versions, oldest first.
    pub fn live(&self) -> impl Iterator<Item = (VersionId, Version, &record::Version)> {
        let live = |entry: &&Entry| !entry.forgotten && (!entry.gone || entry.copies.contains(&State::Open));
        self.versions.values().filter(live).map(|entry| {
            let of = &entry.version;
            let copy = |state: &State| match state {
                State::Open => CopyState::Queued,
                State::Stored => CopyState::Stored,
                State::Superseded | State::Lost | State::Forgotten => CopyState::Superseded,
            };
            let version = Version {
                detector: of.detector,
                shift: of.shift,
                path: of.path.clone(),
                identity: of.identity,
                settled: of.settled,
                hash: of.hash,
                mode: of.mode,
                local: None,
                on_detector: !entry.gone,
                seen: 0,
                closed: None,
                copies: entry.copies.iter().map(|state| Copy { state: copy(state), tries: 0 }).collect(),
            };
            (of.version, version, of)
        })
    }

    /// Everything that ever landed, and was not forgotten.
    pub fn history(&self) -> impl Iterator<Item = &record::Version> {
        self.versions.values().filter(|entry| !entry.forgotten).map(|entry| &entry.version)
    }

    /// It is written down that this is on the internal storage.
    pub fn calls_stored(&self, is_it: &impl Fn(&record::Version) -> bool) -> bool {
        self.is_stored_on(INTERNAL, is_it)
    }

    pub fn is_stored_on(&self, storage: usize, is_it: &impl Fn(&record::Version) -> bool) -> bool {
        let stored = |entry: &Entry| entry.copies[storage] == State::Stored;
        self.versions.values().any(|entry| stored(entry) && is_it(&entry.version))
    }

    /// It is written down that this is on some storage.
    pub fn has(&self, is_it: &impl Fn(&record::Version) -> bool) -> bool {
        self.versions.values().any(|entry| entry.copies.contains(&State::Stored) && is_it(&entry.version))
    }

    /// The proofs for those that are stored on all of `on`. Like all questions, not while there is trouble.
    pub fn safe(&self, residents: &[Resident], on: &[usize]) -> Option<Vec<Proof>> {
        let proof = |resident: &Resident| {
            let entry = self.versions.get(&resident.version)?;
            let stored = on.iter().all(|storage| entry.copies[*storage] == State::Stored);
            stored.then(|| entry.proof())
        };
        (!self.stuck).then(|| residents.iter().filter_map(proof).collect())
    }

    /// Of the versions from the first up to but not with the second, what seems to be stored on all of `on`.
    pub fn residents(&self, (first, end): (VersionId, VersionId), on: &[usize]) -> Option<Vec<Resident>> {
        let stored = |entry: &&Entry| on.iter().all(|storage| entry.copies[*storage] == State::Stored);
        let found = self.versions.range(first..end).map(|(_, entry)| entry).filter(stored);
        (!self.stuck).then(|| found.map(Entry::resident).collect())
    }

    /// What came to an end.
    pub fn ended(&self) -> BTreeMap<(ShiftId, StorageIndex), Tally> {
        let mut tallies: BTreeMap<(ShiftId, StorageIndex), Tally> = BTreeMap::new();
        for storage in 0..STORAGES {
            let index = StorageIndex(storage as u16);
            for (shift, tally) in &self.unlanded {
                tallies.insert((*shift, index), *tally);
            }
            for entry in self.versions.values() {
                let tally = tallies.entry((entry.version.shift, index)).or_default();
                match entry.copies[storage] {
                    State::Stored => tally.stored += 1,
                    State::Superseded => tally.superseded += 1,
                    State::Lost => tally.lost += 1,
                    State::Open | State::Forgotten => {}
                }
            }
        }
        tallies
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Shift(shift) => drop(self.shifts.insert(shift.id, shift)),
            Record::Landed(version) => {
                self.next_version = version.version.0 + 1;
                let copies = [State::Open; STORAGES];
                let files = [None; STORAGES];
                let entry = Entry { version: *version, gone: false, copies, files, forgotten: false };
                self.versions.insert(entry.version.version, entry);
            }
            Record::Refreshed { version, identity, settled } => self.change(version, |entry| {
                (entry.version.identity, entry.version.settled) = (identity, settled);
            }),
            Record::Stored { version, storage, file } => {
                self.copy(version, storage, State::Stored);
                self.change(version, |entry| entry.files[storage.index()] = file);
            }
            Record::Superseded { version, storage } => self.copy(version, storage, State::Superseded),
            Record::CopyFailed { version, storage, .. } | Record::Requeued { version, storage } => {
                self.copy(version, storage, State::Open);
            }
            Record::Gone { version } => self.change(version, |entry| entry.gone = true),
            Record::Unlanded { version } => self.change(version, |entry| {
                entry.gone = true;
                entry.forgotten = entry.copies.iter().all(|state| *state == State::Open);
                end_open(entry, State::Forgotten);
            }),
            Record::LostVersion { version } => self.change(version, |entry| {
                entry.gone = true;
                end_open(entry, State::Lost);
            }),
            Record::Lost { shift, .. } => self.unlanded.entry(shift).or_default().lost += 1,
            Record::SupersededUnlanded { shift, count } => {
                self.unlanded.entry(shift).or_default().superseded += count;
            }
            // Of no concern here.
            _ => {}
        }
    }

    fn change(&mut self, version: VersionId, change: impl FnOnce(&mut Entry)) {
        change(self.versions.get_mut(&version).expect("a record of an unknown version"));
    }

    fn copy(&mut self, version: VersionId, storage: StorageIndex, state: State) {
        self.change(version, |entry| entry.copies[usize::from(storage.0)] = state);
    }
}

impl Entry {
    fn resident(&self) -> Resident {
        Resident { version: self.version.version, shift: self.version.shift }
    }

    fn proof(&self) -> Proof {
        let record::Version { at, to, local, identity, hash, .. } = &self.version;
        Proof {
            resident: self.resident(),
            at: at.clone(),
            to: to.clone(),
            local: *local,
            size: identity.size,
            hash: *hash,
            is_copied: !self.copies.contains(&State::Open),
            files: self.files,
        }
    }
}

fn end_open(entry: &mut Entry, how: State) {
    for state in entry.copies.iter_mut().filter(|state| **state == State::Open) {
        *state = how;
    }
}
