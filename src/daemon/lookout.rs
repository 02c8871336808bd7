//! What the ledger does not know of the status, and how things were. Owned by the hub.

use std::sync::Arc;
use std::time::Instant;

use ppu_config::{Ppu, StorageKind, Verify};
use ppu_uring::Engine;

use crate::model::attention::problems;
use crate::model::history::{History, Sample};
use crate::model::host::Advice;
use crate::model::ledger::{Ledger, Now};
use crate::model::status::{Daemon, Fill, FillOf, Room, StatusReport, Told, forget, makes_room};

/// See the module.
pub struct Lookout {
    began: Instant,
    engine: Engine,
    verify: bool,
    ramdisk: String,
    /// Kind and target of each storage.
    storages: Vec<(&'static str, String)>,
    advice: Vec<Advice>,
    /// Shifts that the status remembers.
    shifts: usize,
    /// Above it stored files make room.
    fillstate_limit: f64,
    /// Fills in what the keepers know, room on storages for instance.
    keepers: Box<dyn Fn(&mut StatusReport) + Send>,
    /// An old report, for the keepers to fill in: a new one takes its time where a great backlog has to be added up.
    outline: Option<StatusReport>,
    history: History,
}

impl Lookout {
    /// Of a daemon that starts now.
    pub fn new(
        config: &Ppu,
        engine: Engine,
        advice: Vec<Advice>,
        keepers: Box<dyn Fn(&mut StatusReport) + Send>,
    ) -> Self {
        let storages = config.storages.iter().map(|storage| {
            let kind = match storage.kind {
                StorageKind::Internal => "internal",
                StorageKind::External => "external",
                StorageKind::Optional => "optional",
            };
            (kind, storage.target.display().to_string())
        });
        Self {
            began: Instant::now(),
            engine,
            verify: config.verify == Verify::Publish,
            ramdisk: config.ramdisk.display().to_string(),
            storages: storages.collect(),
            advice,
            shifts: config.history_max_entries as usize,
            fillstate_limit: config.fillstate_limit,
            keepers,
            outline: None,
            history: History::default(),
        }
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, ledger: &mut Ledger, now: Now) {
        if !self.history.is_due(now.at) {
            return;
        }
        let outline = self.outline.get_or_insert_with(|| ledger.report(now));
        (self.keepers)(outline);
        let mut sample = ledger.sample(now);
        sample.rooms.extend(outline.storages.iter().map(|storage| storage.room));
        self.history.push(now.at, sample);
    }

    /// How things were, oldest first.
    pub(super) fn samples(&self) -> Vec<Arc<Sample>> {
        self.history.samples()
    }

    /// How things are.
    pub(super) fn report(&self, ledger: &Ledger, now: Now, messages: Vec<Told>) -> StatusReport {
        let mut report = ledger.report(now);
        forget(&mut report.shifts, self.shifts);
        report.daemon = Daemon {
            software: crate::wire::handshake::SOFTWARE.to_owned(),
            pid: std::process::id(),
            uptime_s: now.at.saturating_duration_since(self.began).as_secs(),
            engine: self.engine.to_string(),
            verify: self.verify,
        };
        report.ramdisk.path.clone_from(&self.ramdisk);
        for (storage, (kind, target)) in report.storages.iter_mut().zip(&self.storages) {
            (*kind).clone_into(&mut storage.kind);
            storage.target.clone_from(target);
        }
        report.advice.clone_from(&self.advice);
        (self.keepers)(&mut report);
        report.fills = self.fills(&report);
        report.problems = problems(&report);
        report.messages = messages;
        report
    }

    /// In the order of the rooms in samples.
    fn fills(&self, report: &StatusReport) -> Vec<Fill> {
        let detectors = report.detectors.iter().map(|d| (FillOf::Detector, d.id.clone(), d.ramdisk));
        let storages = report.storages.iter().map(|s| (FillOf::Storage, s.id.clone(), s.room));
        let places = [(FillOf::Ramdisk, String::new(), report.ramdisk.room)].into_iter();
        let fill = |(place, (of, name, room)): (usize, (FillOf, String, Room))| {
            let full_in = self.history.full_in(place);
            let full_in =
                full_in.filter(|_| !makes_room(&report.storages, of, &name, room, self.fillstate_limit));
            Fill { of, name, room, full_in_s: full_in.map(|time| time.as_secs()) }
        };
        places.chain(detectors).chain(storages).enumerate().map(fill).collect()
    }
}
