//! How long files take, and how many come: for the status.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::history::SAMPLE_EVERY;
use crate::model::status::{Amount, Percentiles};
use crate::model::times::Times;

/// Longest time told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// A rate is the mean over that time.
const RATE_TIME: Duration = Duration::from_secs(3);

/// Since the daemon's start.
pub(super) struct Timing {
    /// Close on the detector to visible on the PPU.
    pub(super) visible: Taken,
    /// Close on the detector to stored, for each storage.
    pub(super) stored: Vec<Taken>,
    arrivals: Vec<Meter>,
    sampled: Option<Instant>,
}

/// How long files took: exactly enough for percentiles, and in classes.
pub(super) struct Taken {
    /// Microseconds.
    all: Option<Histogram<u64>>,
    /// Likewise, since the last sample.
    lately: Option<Histogram<u64>>,
    pub(super) classes: Times,
}

/// Files and bytes of late.
#[derive(Default)]
pub(super) struct Meter {
    slots: VecDeque<(Instant, u64, u64)>,
    /// Since the daemon's start.
    pub(super) all: Amount,
    /// Since the last sample.
    lately: Amount,
}

impl Timing {
    pub(super) fn new(detectors: usize, storages: usize) -> Self {
        Self {
            visible: Taken::new(),
            stored: (0..storages).map(|_| Taken::new()).collect(),
            arrivals: (0..detectors).map(|_| Meter::default()).collect(),
            sampled: None,
        }
    }

    pub(super) fn visible(&mut self, time: Duration) {
        self.visible.note(time);
    }

    pub(super) fn stored(&mut self, storage: StorageIndex, time: Duration) {
        self.stored[storage.index()].note(time);
    }

    pub(super) fn arrivals(&mut self, detector: usize) -> &mut Meter {
        &mut self.arrivals[detector]
    }

    /// The time since the last sample.
    pub(super) fn begin_sample(&mut self, at: Instant) -> Duration {
        let before = self.sampled.replace(at);
        before.map_or(SAMPLE_EVERY, |before| at.saturating_duration_since(before))
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
        for amount in [&mut self.all, &mut self.lately] {
            amount.files += 1;
            amount.bytes += bytes;
        }
        let slots = &mut self.slots;
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
        let recent = self.slots.iter().filter(|slot| at.saturating_duration_since(slot.0) <= RATE_TIME);
        let (files, bytes) = recent.fold((0, 0), |(files, bytes), slot| (files + slot.1, bytes + slot.2));
        let seconds = RATE_TIME.as_secs_f64();
        (files as f64 / seconds, bytes as f64 / seconds)
    }

    /// What came since the last call.
    pub(super) fn take_lately(&mut self) -> Amount {
        std::mem::take(&mut self.lately)
    }
}

impl Taken {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 2).ok();
        Self { all: histogram(), lately: histogram(), classes: Times::default() }
    }

    fn note(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        for histogram in [&mut self.all, &mut self.lately].into_iter().flatten() {
            histogram.saturating_record(micros);
        }
        self.classes.note(time);
    }

    /// Since the daemon's start.
    pub(super) fn percentiles(&self) -> Percentiles {
        percentiles(self.all.as_ref())
    }

    /// Since the last call.
    pub(super) fn take_lately(&mut self) -> Percentiles {
        let taken = percentiles(self.lately.as_ref());
        if let Some(lately) = self.lately.as_mut().filter(|lately| !lately.is_empty()) {
            lately.reset();
        }
        taken
    }
}

fn percentiles(histogram: Option<&Histogram<u64>>) -> Percentiles {
    let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
        return Percentiles::default();
    };
    Percentiles {
        files: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        max_us: histogram.max(),
    }
}
