//! Copies to the storages: order, tries, and where each is read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::health::{Called, Health, Trouble};
use super::queue::Queue;
use super::timing::Meter;
use super::{CopyState, Ledger, Now, Order, Version};
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::job::{Aside, CopyJob, CopyOutcome, CopyReport, Source};
use crate::model::message::{Code, Message};
use crate::model::path::{RelPath, printable};
use crate::model::record::Record;

/// Copies from other storages in flight to one storage, beside those from the ramdisk: should the storage that is read hang, these wait,
/// and no others.
const REMOTE_IN_FLIGHT: usize = 2;
/// How many are looked at for one whose source can be read.
const REMOTE_LOOK: usize = 64;
/// Pause before a copy is looked at again that waits for what is not to be had at the moment.
const LATER: Duration = Duration::from_secs(1);

/// A storage, as its thread's reports show it.
#[derive(Default)]
pub(super) struct Storage {
    /// To be copied, oldest first.
    pub(super) ready: Queue,
    /// To be copied from another storage, because they are no longer on the ramdisk; oldest first.
    remote: BTreeSet<VersionId>,
    /// To be tried again at that time.
    later: BTreeSet<(Instant, VersionId)>,
    pub(super) flying: HashMap<VersionId, Flight>,
    /// Of the flying: from another storage.
    remote_flying: usize,
    pub(super) health: Health,
    /// What is stored.
    pub(super) meter: Meter,
}

pub(super) struct Flight {
    superseded: Arc<AtomicBool>,
    /// Other versions of the same path, each another shift's or newer: looked at when this one is down.
    next: Vec<VersionId>,
    remote: bool,
}

/// Copies that a storage's thread has, for each place of its queue: four small ones that it writes at a time, the next four, and eight that wait for their
/// directory's sync.
const ORDERED_PER_DEPTH: usize = 16;
/// With more than that some of them wait, even if all are small, and nothing but a storage that does not keep up is the reason when it lasts.
const WAITING_PER_DEPTH: usize = 4;

impl Ledger {
    /// Gives each storage's thread the oldest copies, so many that it never waits for the next.
    pub(super) fn dispatch(&mut self, now: Now, out: &mut Vec<Order>) {
        for index in 0..self.storages.len() {
            let at = StorageIndex(index as u16);
            let storage = &mut self.storages[index];
            while let Some(&(due, id)) = storage.later.first()
                && due <= now.at
            {
                storage.later.pop_first();
                storage.ready.insert(id);
            }
            if self.paused.store_ms.is_some() {
                storage.health.waiting(now.at, false);
                continue;
            }
            let depth = self.settings.storages[index].queue_depth;
            let usual = ORDERED_PER_DEPTH * depth;
            let in_flight_max = storage.health.in_flight_max(now.at, usual);
            while self.storages[index].local_flying() < in_flight_max
                && let Some(id) = self.storages[index].ready.pop_first()
            {
                self.fly(id, at, out);
            }
            self.dispatch_remote(now, at, in_flight_max, out);
            let storage = &mut self.storages[index];
            let waiting = storage.local_flying() > WAITING_PER_DEPTH * depth || !storage.ready.is_empty();
            storage.health.waiting(now.at, waiting);
        }
    }

    /// The same for what must be read from another storage.
    fn dispatch_remote(&mut self, now: Now, at: StorageIndex, in_flight_max: usize, out: &mut Vec<Order>) {
        let storage = &self.storages[at.index()];
        if storage.remote.is_empty() || (in_flight_max == 1 && !storage.flying.is_empty()) {
            return;
        }
        let most = REMOTE_IN_FLIGHT.min(in_flight_max);
        let looked: Vec<VersionId> = storage.remote.iter().take(REMOTE_LOOK).copied().collect();
        for id in looked {
            if self.storages[at.index()].remote_flying >= most {
                return;
            }
            let Some(version) = self.versions.get(id) else {
                self.storages[at.index()].remote.remove(&id);
                continue;
            };
            let sources = self.replicas(version);
            if !sources.is_empty() {
                self.storages[at.index()].remote.remove(&id);
                self.take_off(id, at, sources, out);
            } else if !version.is_durable_somewhere() {
                // Somebody removed the landed file, and another shift's has landed in its place.
                self.storages[at.index()].remote.remove(&id);
                self.ramdisk_lost(now, id, at, "it is neither on the ramdisk nor on a storage any more", out);
            }
        }
    }

    /// Where a version can be read but for the ramdisk: internal, external, optional; none that does not answer.
    fn replicas(&self, version: &Version) -> Vec<Source> {
        let rank = |index: &usize| match &self.settings.storages[*index] {
            storage if storage.internal => 0,
            storage if storage.external => 1,
            _ => 2,
        };
        let readable = |index: &usize| {
            version.copies[*index].state.is_durable() && !self.storages[*index].health.is_out()
        };
        let mut found: Vec<usize> = (0..version.copies.len()).filter(readable).collect();
        found.sort_by_key(rank);
        found.into_iter().map(|index| Source::Stored(StorageIndex(index as u16))).collect()
    }

    fn fly(&mut self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        let Some(version) = self.versions.get(id) else { return };
        match version.local {
            Some(local) => self.take_off(id, storage, vec![Source::Ramdisk(local)], out),
            None => drop(self.storages[storage.index()].remote.insert(id)),
        }
    }

    fn take_off(&mut self, id: VersionId, storage: StorageIndex, sources: Vec<Source>, out: &mut Vec<Order>) {
        if let Some(flying) = self.flying_on_same_path(id, storage) {
            flying.next.push(id);
            return;
        }
        let Some(version) = self.versions.get(id) else { return };
        if version.copies[storage.index()].state != CopyState::Queued {
            return; // superseded while it waited for its next try
        }
        let Some(shift) = self.shift(version.shift) else { return };
        let (Some(from), Some(to)) = self.places(version) else { return };
        let superseded = Arc::new(AtomicBool::new(false));
        let remote = version.local.is_none();
        let job = CopyJob {
            version: id,
            storage,
            from,
            sources,
            to,
            brand: Arc::new(self.brand(version)),
            uid: shift.uid,
            gid: shift.gid,
            mode: version.mode,
            superseded: Arc::clone(&superseded),
        };
        let state = &mut self.storages[storage.index()];
        state.flying.insert(id, Flight { superseded, next: Vec::new(), remote });
        state.remote_flying += usize::from(remote);
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
        let CopyReport { version: id, storage, outcome, file, set_aside } = report;
        let state = &mut self.storages[storage.index()];
        let Some(flight) = state.flying.remove(&id) else { return };
        state.remote_flying -= usize::from(flight.remote);
        state.ready.extend(flight.next);
        if let Some(aside) = set_aside {
            self.tell_set_aside(id, storage, &aside, out);
        }
        let superseded = flight.superseded.load(Ordering::Relaxed);
        match outcome {
            CopyOutcome::Stored => {
                let state = &mut self.storages[storage.index()];
                state.health.stored();
                state.meter.note(now.at, self.versions.get(id).map_or(0, |version| version.identity.size));
                let sequence = self.record(Record::Stored { version: id, storage, file }, out);
                self.set_copy(id, storage, CopyState::Written);
                self.journal.written.push_back((sequence, id, storage));
            }
            CopyOutcome::Superseded => {
                self.storages[storage.index()].health.well();
                self.end_superseded(id, storage, out);
            }
            _ if superseded => self.end_superseded(id, storage, out),
            CopyOutcome::Unavailable(reason) => {
                self.storage_is_ill(now, storage, Trouble::Unavailable(reason), out);
                self.queue_again(id, storage);
            }
            CopyOutcome::Full(reason) => {
                self.storage_is_ill(now, storage, Trouble::Full(reason), out);
                self.queue_again(id, storage);
            }
            CopyOutcome::DiskError(reason) => self.disk_error(now, id, storage, &reason, out),
            CopyOutcome::SourceLost(reason) if !flight.remote => {
                self.storages[storage.index()].health.well();
                self.ramdisk_lost(now, id, storage, &reason, out);
            }
            CopyOutcome::NotNow(reason) => {
                tracing::warn!(version = id.0, "a copy has to wait: {reason}");
                self.wait_for_later(now, id, storage);
            }
            CopyOutcome::Taken(reason) => {
                self.storages[storage.index()].health.well();
                self.give_up(id, storage, &reason, out);
            }
            CopyOutcome::SourceLost(reason) | CopyOutcome::Failed(reason) => {
                self.storages[storage.index()].health.well();
                self.try_again(now, id, storage, &reason, out);
            }
        }
        self.versions.forget_if_done(id);
    }

    /// The landed file is gone, or not what it was: it is read from another storage, fetched again, or given up.
    fn ramdisk_lost(
        &mut self,
        now: Now,
        id: VersionId,
        storage: StorageIndex,
        reason: &str,
        out: &mut Vec<Order>,
    ) {
        let flies = self.storages.iter().any(|storage| storage.flying.contains_key(&id));
        let Some(version) = self.versions.get_mut(id) else { return };
        if version.is_durable_somewhere() {
            version.local = None;
            self.queue_again(id, storage);
        } else if flies {
            // It may soon be on that storage.
            self.wait_for_later(now, id, storage);
        } else if version.on_detector {
            self.fetch_again(id, reason, out);
        } else if let Some(version) = self.versions.get(id).filter(|version| self.is_extra(version)) {
            self.look_again(version, out);
            self.try_again(now, id, storage, reason, out);
        } else {
            self.give_up(id, storage, reason, out);
        }
    }

    /// What a storage's threads have done, or not.
    pub(super) fn steps(
        &mut self,
        now: Now,
        index: StorageIndex,
        steps: u64,
        reads: u64,
        out: &mut Vec<Order>,
    ) {
        let settings = &self.settings.storages[index.index()];
        let storage = &mut self.storages[index.index()];
        let (writing, reading) = (storage.local_flying() > 0, storage.remote_flying > 0);
        let (called, patience) = (Called::from(settings), &settings.patience);
        let hung = storage.health.steps(now.at, called, steps, writing, patience);
        let hung_source = storage.health.reads(now.at, called, reads, reading, patience);
        out.extend(hung.into_iter().chain(hung_source).map(Order::Tell));
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
            self.may_leave(id, storage, out);
            if let Some(version) = self.versions.get(id) {
                if let Some(closed) = version.closed {
                    self.timing.stored(storage, now.at.saturating_duration_since(closed));
                }
                let internal = self.settings.storages[storage.index()].internal;
                if let Some(offer) = self.versions.offer(id).filter(|_| internal) {
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
            self.storages[storage.index()].ready.remove(id);
            self.end_superseded(id, storage, out);
        }
    }

    fn end_superseded(&mut self, id: VersionId, storage: StorageIndex, out: &mut Vec<Order>) {
        self.set_copy(id, storage, CopyState::Superseded);
        self.record(Record::Superseded { version: id, storage }, out);
    }

    /// What had failed, if it had. It begins anew.
    pub(super) fn retry_copy(&mut self, id: VersionId, storage: StorageIndex) -> bool {
        let Some(version) = self.versions.get_mut(id) else { return false };
        let copy = &mut version.copies[storage.index()];
        if copy.state != CopyState::Failed {
            return false;
        }
        copy.tries = 0;
        self.queue_again(id, storage);
        true
    }

    fn wait_for_later(&mut self, now: Now, id: VersionId, storage: StorageIndex) {
        self.set_copy(id, storage, CopyState::Queued);
        self.storages[storage.index()].later.insert((now.at + LATER, id));
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
        copy.tries = copy.tries.saturating_add(1);
        let tries = u32::from(copy.tries);
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
        let tries = u32::from(version.copies[storage.index()].tries);
        let (from, to) = self.places(version);
        let text = |path: Option<RelPath>| path.map_or(String::new(), |path| path.to_string());
        let storage_id = &self.settings.storages[storage.index()].id;
        let short = format!("{}:{storage_id}/{}", text(from.clone()), text(to));
        let what = match self.is_extra(version) {
            true => format!("Extra file /{}", text(from)),
            false => version.path.to_string(),
        };
        let long = format!(
            "{what} could not be copied to storage {storage_id}: {reason}. It stays where it is and in the journal; `ppu-uringd retry` \
             queues it again, and so does the next start."
        );
        out.push(Order::Tell(Message::new(Code::CopyError, short, long)));
        self.record(Record::CopyFailed { version: id, storage, tries, error: reason.to_owned() }, out);
    }

    /// SPEC 2.5.
    fn tell_set_aside(&self, id: VersionId, storage: StorageIndex, aside: &Aside, out: &mut Vec<Order>) {
        let Some((_, Some(to))) = self.versions.get(id).map(|version| self.places(version)) else { return };
        let storage = &self.settings.storages[storage.index()].id;
        let what = match aside {
            Aside::Other(name) => format!(
                "another shift's (or somebody's own) file had the name {to}: it is now {} in the same directory",
                printable(name)
            ),
            Aside::Itself(name) => format!(
                "a later shift's file has the name {to} already: the earlier shift's, which was copied later, is {} in the same directory",
                printable(name)
            ),
        };
        let long = format!(
            "On storage {storage}, {what}. Nothing is lost; whoever looks for it should know its new name."
        );
        out.push(Order::Tell(Message::new(Code::FileReplaced, to.to_string(), long)));
    }

    fn storage_is_ill(&mut self, now: Now, index: StorageIndex, trouble: Trouble, out: &mut Vec<Order>) {
        let called = Called::from(&self.settings.storages[index.index()]);
        let news = self.storages[index.index()].health.ill(now.at, called, trouble);
        out.extend(news.map(Order::Tell));
    }

    /// A look from outside, which also tells of a storage that nothing is copied to at the moment.
    pub(super) fn looked(
        &mut self,
        now: Now,
        index: StorageIndex,
        gone: Option<String>,
        out: &mut Vec<Order>,
    ) {
        let storage = &mut self.storages[index.index()];
        if let Some(reason) = gone {
            storage.health.seen_gone();
            return self.storage_is_ill(now, index, Trouble::Unavailable(reason), out);
        }
        let idle = storage.flying.is_empty()
            && storage.ready.is_empty()
            && storage.remote.is_empty()
            && storage.later.is_empty();
        storage.health.seen(now.at, idle);
    }

    fn disk_error(
        &mut self,
        now: Now,
        id: VersionId,
        index: StorageIndex,
        reason: &str,
        out: &mut Vec<Order>,
    ) {
        let settings = &self.settings.storages[index.index()];
        let storage = &mut self.storages[index.index()];
        match storage.health.disk_error(now.at, Called::from(settings), reason, &settings.patience) {
            Err(()) => self.try_again(now, id, index, reason, out),
            Ok(news) => {
                out.extend(news.map(Order::Tell));
                // Other files are tried before it: this one may be what the disk fails at.
                let pause = LATER.max(2 * storage.health.probe_pause());
                self.set_copy(id, index, CopyState::Queued);
                self.storages[index.index()].later.insert((now.at + pause, id));
            }
        }
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

impl Storage {
    /// Copies in flight that need no other storage.
    fn local_flying(&self) -> usize {
        self.flying.len() - self.remote_flying
    }
}
