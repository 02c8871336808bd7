//! Copies from the ramdisk to the storages: order, tries, a storage's health.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{CopyState, Ledger, Now, Order};
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::job::{CopyJob, CopyOutcome, CopyReport};
use crate::model::message::{Code, Message};
use crate::model::record::Record;

/// Pause before a storage that could not be written is tried again; doubles up to [`PROBE_PAUSE_MAX`].
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// Short enough that a storage is in use again soon after somebody mounted it or made room.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A storage, as its thread's reports show it.
#[derive(Default)]
pub(super) struct Storage {
    /// To be copied, oldest first.
    pub(super) ready: BTreeSet<VersionId>,
    /// To be tried again at that time.
    later: BTreeSet<(Instant, VersionId)>,
    pub(super) flying: HashMap<VersionId, Flight>,
    pub(super) health: Health,
    probe_at: Option<Instant>,
    probe_pause: Duration,
}

pub(super) struct Flight {
    superseded: Arc<AtomicBool>,
    /// A newer version of the same path: copied when this one is down.
    next: Option<VersionId>,
}

/// What a storage is able to take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Health {
    #[default]
    Ok,
    Unavailable(String),
    Full(String),
}

impl Ledger {
    /// Gives each storage's thread the oldest copies, up to twice its queue depth so that it never waits for the next.
    pub(super) fn dispatch(&mut self, now: Now, out: &mut Vec<Order>) {
        for index in 0..self.storages.len() {
            let storage = &mut self.storages[index];
            while let Some(&(at, id)) = storage.later.first()
                && at <= now.at
            {
                storage.later.pop_first();
                storage.ready.insert(id);
            }
            let in_flight_max = match storage.probe_at {
                None => 2 * self.settings.storages[index].queue_depth,
                Some(at) if at <= now.at => 1,
                Some(_) => 0,
            };
            while self.storages[index].flying.len() < in_flight_max
                && let Some(id) = self.storages[index].ready.pop_first()
            {
                self.fly(id, StorageIndex(index as u16), out);
            }
        }
    }

    fn fly(&mut self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        if let Some(flying) = self.flying_on_same_path(id, storage) {
            flying.next = Some(id);
            return;
        }
        let Some(version) = self.versions.get(id) else { return };
        if version.copies[storage.index()].state != CopyState::Queued {
            return; // superseded while it waited for its next try
        }
        let Some(shift) = self.shift(version.shift) else { return };
        let (Some(from), Some(to)) = self.places(version) else { return };
        let superseded = Arc::new(AtomicBool::new(false));
        let job = CopyJob {
            version: id,
            storage,
            from,
            local: version.local,
            to,
            brand: Arc::new(self.brand(version)),
            uid: shift.uid,
            gid: shift.gid,
            mode: version.mode,
            superseded: Arc::clone(&superseded),
        };
        self.storages[storage.index()].flying.insert(id, Flight { superseded, next: None });
        self.set_copy(id, storage, CopyState::Flying);
        out.push(Order::Copy { storage, job });
    }

    /// Two versions of a path never fly to one storage at a time, so that the newest has the last word there.
    fn flying_on_same_path(&mut self, id: VersionId, storage: StorageIndex) -> Option<&mut Flight> {
        let version = self.versions.get(id)?;
        let versions = &self.versions;
        let same = |other: &VersionId| {
            versions.get(*other).is_some_and(|o| o.detector == version.detector && o.path == version.path)
        };
        let other = *self.storages[storage.index()].flying.keys().find(|other| same(other))?;
        self.storages[storage.index()].flying.get_mut(&other)
    }

    pub(super) fn copying(&mut self, now: Now, report: CopyReport, out: &mut Vec<Order>) {
        let CopyReport { version: id, storage, outcome } = report;
        let Some(flight) = self.storages[storage.index()].flying.remove(&id) else { return };
        if let Some(next) = flight.next {
            self.storages[storage.index()].ready.insert(next);
        }
        let superseded = flight.superseded.load(Ordering::Relaxed);
        match outcome {
            CopyOutcome::Stored => {
                self.storage_is_well(storage);
                let sequence = self.record(Record::Stored { version: id, storage }, out);
                self.set_copy(id, storage, CopyState::Written);
                self.journal.written.push_back((sequence, id, storage));
            }
            CopyOutcome::Superseded => {
                self.storage_is_well(storage);
                self.end_superseded(id, storage, out);
            }
            _ if superseded => self.end_superseded(id, storage, out),
            CopyOutcome::Unavailable(reason) => {
                self.storage_is_ill(now, storage, Health::Unavailable(reason), out);
                self.queue_again(id, storage);
            }
            CopyOutcome::Full(reason) => {
                self.storage_is_ill(now, storage, Health::Full(reason), out);
                self.queue_again(id, storage);
            }
            CopyOutcome::SourceLost(reason) | CopyOutcome::Failed(reason) => {
                self.storage_is_well(storage);
                self.try_again(now, id, storage, &reason, out);
            }
        }
        self.versions.forget_if_done(id);
    }

    /// The journal has it: now, and only now, these copies are *stored* (SPEC 3.4, 3.8).
    pub(super) fn committed(&mut self, now: Now, up_to: u64, out: &mut Vec<Order>) {
        self.journal.committed = up_to;
        self.begin_committed(now, up_to, out);
        let mut acks: Vec<Vec<_>> = self.detectors.iter().map(|_| Vec::new()).collect();
        while let Some(&(sequence, id, storage)) = self.journal.written.front()
            && sequence <= up_to
        {
            self.journal.written.pop_front();
            self.set_copy(id, storage, CopyState::Stored);
            if self.settings.storages[storage.index()].internal
                && let Some(version) = self.versions.get(id)
            {
                if let Some(closed) = version.closed {
                    self.timing.stored(now.at.saturating_duration_since(closed));
                }
                if let Some(offer) = version.offer {
                    acks[version.detector.index()].push(offer);
                }
            }
            self.versions.forget_if_done(id);
        }
        for (detector, offers) in acks.into_iter().enumerate() {
            if !offers.is_empty() {
                let detector = crate::model::file_version::DetectorIndex(detector as u16);
                out.push(Order::AckStored { detector, offers });
            }
        }
    }

    /// A newer version has landed: this copy ends now, or, in flight, right before it would take its name.
    pub(super) fn supersede_copy(&mut self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        if let Some(flight) = self.storages[storage.index()].flying.get(&id) {
            flight.superseded.store(true, Ordering::Relaxed);
            return;
        }
        let state = self.versions.get(id).map(|version| version.copies[storage.index()].state);
        if matches!(state, Some(CopyState::Queued | CopyState::Failed)) {
            self.storages[storage.index()].ready.remove(&id);
            self.end_superseded(id, storage, out);
        }
    }

    fn end_superseded(&mut self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        self.set_copy(id, storage, CopyState::Superseded);
        self.record(Record::Superseded { version: id, storage }, out);
    }

    fn queue_again(&mut self, id: VersionId, storage: StorageIndex) {
        self.set_copy(id, storage, CopyState::Queued);
        self.storages[storage.index()].ready.insert(id);
    }

    fn try_again(
        &mut self,
        now: Now,
        id: VersionId,
        storage: StorageIndex,
        reason: &str,
        out: &mut Vec<Order>,
    ) {
        let Some(version) = self.versions.get_mut(id) else { return };
        let copy = &mut version.copies[storage.index()];
        copy.tries += 1;
        let tries = copy.tries;
        let settings = &self.settings.storages[storage.index()];
        let pause = settings.retry_pause.saturating_mul(2u32.saturating_pow(tries.min(8) - 1));
        let pause = pause.min(settings.retry_pause_max);
        if tries >= settings.copy_tries {
            return self.give_up(id, storage, reason, out);
        }
        tracing::warn!(version = id.0, tries, "copy failed, it is tried again: {reason}");
        self.set_copy(id, storage, CopyState::Queued);
        self.storages[storage.index()].later.insert((now.at + pause, id));
    }

    fn give_up(&mut self, id: VersionId, storage: StorageIndex, reason: &str, out: &mut Vec<Order>) {
        self.set_copy(id, storage, CopyState::Failed);
        let Some(version) = self.versions.get(id) else { return };
        let tries = version.copies[storage.index()].tries;
        let (from, to) = self.places(version);
        let text =
            |path: Option<crate::model::path::RelPath>| path.map_or(String::new(), |path| path.to_string());
        let storage_id = &self.settings.storages[storage.index()].id;
        let short = format!("{}:{storage_id}/{}", text(from), text(to));
        let long = format!(
            "{} could not be copied to storage {storage_id}: {reason}. It stays on the ramdisk and in the journal; it is queued \
             again when the daemon starts.",
            version.path
        );
        out.push(Order::Tell(Message::new(Code::CopyError, short, long)));
        self.record(Record::CopyFailed { version: id, storage, tries, error: reason.to_owned() }, out);
    }

    fn storage_is_well(&mut self, storage: StorageIndex) {
        let storage = &mut self.storages[storage.index()];
        storage.health = Health::Ok;
        storage.probe_at = None;
        storage.probe_pause = Duration::ZERO;
    }

    fn storage_is_ill(&mut self, now: Now, index: StorageIndex, health: Health, out: &mut Vec<Order>) {
        let id = &self.settings.storages[index.index()].id;
        let storage = &mut self.storages[index.index()];
        if storage.health == Health::Ok {
            let (code, what, reason) = match &health {
                Health::Full(reason) => (Code::DiskOverflow, "is full", reason),
                Health::Unavailable(reason) => (Code::StorageUnavailable, "cannot be written", reason),
                Health::Ok => return,
            };
            let long = format!(
                "Storage {id} {what}: {reason}. Its files stay pending and are copied by themselves when it is back."
            );
            out.push(Order::Tell(Message::new(code, &**id, long)));
        }
        storage.health = health;
        storage.probe_pause = (storage.probe_pause * 2).clamp(PROBE_PAUSE, PROBE_PAUSE_MAX);
        storage.probe_at = Some(now.at + storage.probe_pause);
    }

    /// The one place where a copy changes its state, so that the tallies always add up.
    fn set_copy(&mut self, id: VersionId, storage: StorageIndex, state: CopyState) {
        let Some(version) = self.versions.get_mut(id) else { return };
        let copy = &mut version.copies[storage.index()];
        let tally = self.tallies.at(version.shift, storage);
        *tally.of(copy.state) -= 1;
        *tally.of(state) += 1;
        copy.state = state;
    }
}
