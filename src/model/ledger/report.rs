//! The ledger's part of the status.

use std::collections::BTreeMap;
use std::time::Instant;

use super::detector::{Link as DetectorLink, Offer};
use super::health::{Condition, Trouble};
use super::{Ledger, Now};
use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::shift::ShiftId;
use crate::model::status::{
    Amount, Copies, Counts, Daemon, Detector, Health, Journal, Latency, Left, Link, LinkState, Percentiles,
    Ramdisk, Rate, Room, STATUS_VERSION, Shift, StatusReport, Storage,
};

impl Ledger {
    /// How things are. What the ledger does not know (process, paths, kinds, fill levels, messages) is left empty, for its caller.
    pub fn report(&self, now: Now) -> StatusReport {
        let space = self.room.space();
        StatusReport {
            version: STATUS_VERSION,
            at_ms: now.wall_ms,
            daemon: Daemon {
                software: String::new(),
                pid: 0,
                uptime_s: 0,
                engine: String::new(),
                verify: true,
            },
            ramdisk: Ramdisk {
                path: String::new(),
                room: Room { total_bytes: space.total_bytes, free_bytes: space.free_bytes },
                left: Left::default(),
            },
            journal: match &self.journal.trouble {
                None => Journal::Ok,
                Some(reason) => Journal::Error { reason: reason.clone() },
            },
            paused: self.paused,
            detectors: (0..self.detectors.len())
                .filter(|d| !self.settings.detectors[*d].is_extra())
                .map(|d| self.report_detector(now, d))
                .collect(),
            storages: (0..self.storages.len()).map(|s| self.report_storage(now, s)).collect(),
            shifts: self.report_shifts(),
            latency: Latency { visible: self.timing.visible.percentiles(), stored: self.internal_times() },
            fills: Vec::new(),
            problems: Vec::new(),
            advice: Vec::new(),
            messages: Vec::new(),
        }
    }

    fn internal_times(&self) -> Percentiles {
        let internal = self.settings.storages.iter().position(|storage| storage.internal);
        internal.map_or(Percentiles::default(), |internal| self.timing.stored[internal].percentiles())
    }

    fn report_detector(&self, now: Now, index: usize) -> Detector {
        let settings = &self.settings.detectors[index];
        let state = &self.detectors[index];
        let beat = &state.beat;
        let offered: u64 = state.offers.values().map(|offer| offer.identity.size).sum();
        let (files_per_s, bytes_per_s) = self.timing.rate(now.at, DetectorIndex(index as u16));
        let since = |at: Instant| now.wall_ms - now.at.saturating_duration_since(at).as_millis() as i64;
        let link = match &state.link {
            DetectorLink::Never => {
                Link { state: LinkState::Connecting { reason: None }, since_ms: now.wall_ms }
            }
            DetectorLink::Up(at) => Link { state: LinkState::Connected, since_ms: since(*at) },
            DetectorLink::Down { since: at, reason, refused } => {
                let reason = reason.clone();
                let state = match refused {
                    true => LinkState::Refused { reason },
                    false => LinkState::Connecting { reason: Some(reason) },
                };
                Link { state, since_ms: since(*at) }
            }
        };
        Detector {
            id: settings.id.to_string(),
            address: settings.address.clone(),
            link,
            backlog: Amount { files: state.backlog_files(), bytes: beat.backlog_bytes + offered },
            in_flight: state.wanted_files,
            no_room: state.files_without_room(),
            held: state.offers.values().filter(|offer| self.is_held(&settings.id, offer.shift)).count()
                as u64,
            landed: Amount { files: state.counters.landed_files, bytes: state.counters.landed_bytes },
            rate: Rate { files_per_s, bytes_per_s },
            clock_offset_ms: state.clock_offset_ns.map(|ns| ns as f64 / 1e6),
            integrity_errors: state.counters.integrity_errors,
            skipped: beat.skipped,
            released: Amount { files: beat.released_files, bytes: beat.released_bytes },
            ramdisk: Room { total_bytes: beat.ramdisk_total, free_bytes: beat.ramdisk_free },
            last_error: state.last_error.clone(),
            troubles: state.troubles.lasting(),
        }
    }

    fn report_storage(&self, now: Now, index: usize) -> Storage {
        let settings = &self.settings.storages[index];
        let state = &self.storages[index];
        let pending = self.tallies.pending(StorageIndex(index as u16));
        let (files_per_s, bytes_per_s) = state.meter.rate(now.at);
        let (condition, since) = state.health.condition(now.at, &settings.patience);
        let seconds = since.map_or(0, |since| now.at.saturating_duration_since(since).as_secs());
        let health = match condition {
            Condition::Ok => Health::Ok,
            Condition::Slow => Health::Slow {
                reason: format!(
                    "for {seconds} s more has come than it stores ({files_per_s:.0} files/s, {:.0} MB/s)",
                    bytes_per_s / 1e6
                ),
            },
            Condition::Hung => Health::Hung { reason: format!("it has not answered for {seconds} s") },
            Condition::SourceHung => Health::Hung {
                reason: format!(
                    "another storage, which is read for it, has not answered for {seconds} s; what comes from the ramdisk goes on"
                ),
            },
            Condition::Trouble(Trouble::Unavailable(reason)) => {
                Health::Unavailable { reason: reason.clone() }
            }
            Condition::Trouble(Trouble::Full(reason)) => Health::Full { reason: reason.clone() },
            Condition::Trouble(Trouble::Quarantined(reason)) => {
                Health::Quarantined { reason: reason.clone() }
            }
        };
        let since_ms = since.map(|at| now.wall_ms - now.at.saturating_duration_since(at).as_millis() as i64);
        Storage {
            id: settings.id.to_string(),
            kind: String::new(),
            target: String::new(),
            health,
            since_ms,
            in_flight: state.flying.len() as u64,
            pending,
            rate: Rate { files_per_s, bytes_per_s },
            stored: state.meter.all,
            room: Room::default(),
            left: Left::default(),
        }
    }

    fn report_shifts(&self) -> Vec<Shift> {
        let waiting = self.waiting_per_shift();
        let shifts = self.shifts.values();
        let report = |shift: &std::sync::Arc<crate::model::shift::Shift>| Shift {
            start_ms: shift.id,
            uid: shift.uid,
            gid: shift.gid,
            storages: (0..self.storages.len())
                .map(|storage| {
                    let mut tally = self.tallies.get(shift.id, StorageIndex(storage as u16));
                    tally.pending += waiting.get(&shift.id).copied().unwrap_or(0);
                    let storage = self.settings.storages[storage].id.to_string();
                    Copies { storage, counts: Counts::from(tally) }
                })
                .collect(),
        };
        shifts.map(report).collect()
    }

    /// Versions that have not landed; they are pending on every storage.
    pub(super) fn waiting_per_shift(&self) -> BTreeMap<ShiftId, u64> {
        let mut waiting = BTreeMap::new();
        for (index, detector) in self.detectors.iter().enumerate() {
            *waiting.entry(self.current.id).or_default() += detector.beat.backlog_files;
            let index = DetectorIndex(index as u16);
            let counts = |offer: &&Offer| !self.has_landed(index, offer);
            let offered = detector.offers.values().filter(counts).map(|offer| offer.shift);
            let unresolved = detector.unresolved.values().map(|unresolved| unresolved.shift);
            for shift in offered.chain(unresolved) {
                *waiting.entry(shift).or_default() += 1;
            }
        }
        waiting
    }
}
