//! How long files take, and how many come: for the status.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::model::file_version::DetectorIndex;

/// Longest time told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// A rate is the mean over that time.
const RATE_TIME: Duration = Duration::from_secs(3);

/// Since the daemon's start.
pub(super) struct Timing {
    /// Close on the detector to visible on the PPU, microseconds.
    pub(super) visible: Option<Histogram<u64>>,
    /// Close on the detector to stored, microseconds.
    pub(super) stored: Option<Histogram<u64>>,
    arrivals: Vec<Meter>,
}

/// Files and bytes of late.
#[derive(Default)]
pub(super) struct Meter(VecDeque<(Instant, u64, u64)>);

impl Timing {
    pub(super) fn new(detectors: usize) -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 2).ok();
        Self {
            visible: histogram(),
            stored: histogram(),
            arrivals: (0..detectors).map(|_| Meter::default()).collect(),
        }
    }

    pub(super) fn visible(&mut self, time: Duration) {
        note(&mut self.visible, time);
    }

    pub(super) fn stored(&mut self, time: Duration) {
        note(&mut self.stored, time);
    }

    pub(super) fn arrived(&mut self, at: Instant, detector: DetectorIndex, bytes: u64) {
        self.arrivals[detector.index()].note(at, bytes);
    }

    /// Files and bytes per second of late.
    pub(super) fn rate(&self, at: Instant, detector: DetectorIndex) -> (f64, f64) {
        self.arrivals[detector.index()].rate(at)
    }
}

impl Meter {
    pub(super) fn note(&mut self, at: Instant, bytes: u64) {
        const SLOT: Duration = Duration::from_millis(100);
        let slots = &mut self.0;
        match slots.back_mut() {
            Some((start, files, sum)) if at.saturating_duration_since(*start) < SLOT => {
                *files += 1;
                *sum += bytes;
            }
            _ => slots.push_back((at, 1, bytes)),
        }
        while slots.front().is_some_and(|slot| at.saturating_duration_since(slot.0) > RATE_TIME) {
            slots.pop_front();
        }
    }

    /// Files and bytes per second.
    pub(super) fn rate(&self, at: Instant) -> (f64, f64) {
        let recent = self.0.iter().filter(|slot| at.saturating_duration_since(slot.0) <= RATE_TIME);
        let (files, bytes) = recent.fold((0, 0), |(files, bytes), slot| (files + slot.1, bytes + slot.2));
        let seconds = RATE_TIME.as_secs_f64();
        (files as f64 / seconds, bytes as f64 / seconds)
    }
}

fn note(histogram: &mut Option<Histogram<u64>>, time: Duration) {
    if let Some(histogram) = histogram {
        histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST_US));
    }
}
