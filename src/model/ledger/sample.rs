//! The ledger's part of the history.

use super::timing::Meter;
use super::{Ledger, Now};
use crate::model::file_version::StorageIndex;
use crate::model::history::{Arrivals, Copied, Sample};
use crate::model::status::{Rate, Room};
use crate::model::times::Times;

impl Ledger {
    /// What happened since the last call, and how things are now; without the storages' rooms.
    pub fn sample(&mut self, now: Now) -> Sample {
        let over = self.timing.begin_sample(now.at);
        let rate = |meter: &mut Meter| {
            let lately = meter.take_lately();
            let seconds = over.as_secs_f64().max(1e-3);
            Rate { files_per_s: lately.files as f64 / seconds, bytes_per_s: lately.bytes as f64 / seconds }
        };
        let mut detectors = Vec::new();
        for (index, detector) in self.detectors.iter().enumerate() {
            if !self.settings.detectors[index].is_extra() {
                let landed = rate(self.timing.arrivals(index));
                detectors.push(Arrivals { landed, backlog: detector.backlog_files() });
            }
        }
        let mut storages = Vec::new();
        for (index, storage) in self.storages.iter_mut().enumerate() {
            storages.push(Copied {
                stored: rate(&mut storage.meter),
                pending: self.tallies.pending(StorageIndex(index as u16)),
                times: self.timing.stored[index].take_lately(),
            });
        }
        let visible = self.timing.visible.take_lately();
        let rooms = self.rooms();
        Sample { at_ms: now.wall_ms, over_ms: over.as_millis() as u64, detectors, storages, visible, rooms }
    }

    /// Of every file system that is watched: the ramdisk, then the detectors'.
    pub(super) fn rooms(&self) -> Vec<Room> {
        let space = self.room.space();
        let own = Room { total_bytes: space.total_bytes, free_bytes: space.free_bytes };
        let settings = self.settings.detectors.iter();
        let detectors = self.detectors.iter().zip(settings).filter(|(_, settings)| !settings.is_extra());
        let of_detector = |beat: &crate::model::offer::Heartbeat| Room {
            total_bytes: beat.ramdisk_total,
            free_bytes: beat.ramdisk_free,
        };
        [own].into_iter().chain(detectors.map(|(detector, _)| of_detector(&detector.beat))).collect()
    }

    /// How long files took to become visible, and to be stored on each storage.
    pub fn times(&self) -> (Times, Vec<Times>) {
        let stored = self.timing.stored.iter().map(|taken| taken.classes).collect();
        (self.timing.visible.classes, stored)
    }
}
