//! The last ten minutes, second by second: what the graphs show, and what a forecast is made from.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{Percentiles, Rate, Room};

/// Time between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples that are kept: ten minutes.
pub const SAMPLES: usize = 600;
/// A forecast goes by the last samples, that many: long enough to see through a storage that flushes every few seconds, short enough
/// to notice that a run has begun.
const FORECAST_SAMPLES: usize = 15;
/// With fewer there is none.
const FORECAST_SAMPLES_MIN: usize = 5;
/// What is farther away than that is no forecast.
const FORECAST_MAX: Duration = Duration::from_secs(24 * 3600);

/// What happened in about a second, and how things were at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Its end, milliseconds since the epoch on the PPU's clock.
    pub at_ms: i64,
    /// How long it was, in milliseconds; rates are means over that time.
    pub over_ms: u64,
    /// In the order of the status.
    pub detectors: Vec<Arrivals>,
    /// In the order of the status.
    pub storages: Vec<Copied>,
    /// Close on the detector to visible on the PPU, of the files that landed in it.
    pub visible: Percentiles,
    /// Of the file systems that the status shows as `fills`, in that order.
    pub rooms: Vec<Room>,
}

/// A detector's part of a [`Sample`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arrivals {
    /// What landed.
    pub landed: Rate,
    /// Files closed there and not landed, at its end.
    pub backlog: u64,
}

/// A storage's part of a [`Sample`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Copied {
    /// What was written there and synced.
    pub stored: Rate,
    /// Landed files not yet stored there, at its end.
    pub pending: u64,
    /// Close on the detector to stored there, of the files that were stored in it.
    pub times: Percentiles,
}

/// The last [`SAMPLES`], oldest first.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Arc<Sample>>,
    last: Option<Instant>,
}

impl History {
    /// Whether it is time for the next sample.
    pub fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= SAMPLE_EVERY)
    }

    /// Takes the next sample.
    pub fn push(&mut self, now: Instant, sample: Sample) {
        self.last = Some(now);
        self.samples.push_back(Arc::new(sample));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Oldest first.
    pub fn samples(&self) -> Vec<Arc<Sample>> {
        self.samples.iter().cloned().collect()
    }

    /// When the file system that is number `place` in [`Sample::rooms`] will be full if it goes on as in the last seconds. `None` where it
    /// does not fill up, or nobody can tell.
    pub fn full_in(&self, place: usize) -> Option<Duration> {
        let mut points = Vec::with_capacity(FORECAST_SAMPLES);
        let mut age_s = 0.0;
        let mut last: Option<Room> = None;
        for sample in self.samples.iter().rev().take(FORECAST_SAMPLES) {
            let room = sample.rooms.get(place).filter(|room| room.total_bytes > 0)?;
            if last.is_some_and(|last| last.total_bytes != room.total_bytes) {
                // Another file system is mounted there now, or it has grown.
                break;
            }
            last = last.or(Some(*room));
            points.push((-age_s, room.total_bytes.saturating_sub(room.free_bytes) as f64));
            age_s += sample.over_ms as f64 / 1e3;
        }
        let free = last?.free_bytes as f64;
        let rate = slope(&points).filter(|rate| *rate > 0.0)?;
        let full_in = Duration::try_from_secs_f64(free / rate).ok()?;
        (full_in <= FORECAST_MAX).then_some(full_in)
    }
}

/// What came after the sample of the time `after_ms`, which may have gone: then all.
pub fn news<S: Borrow<Sample>>(samples: &[S], after_ms: Option<i64>) -> &[S] {
    let known = samples.iter().rposition(|sample| Some(sample.borrow().at_ms) == after_ms);
    &samples[known.map_or(0, |known| known + 1)..]
}

/// Of the straight line that fits best: bytes per second.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < FORECAST_SAMPLES_MIN {
        return None;
    }
    let count = points.len() as f64;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (x, y) in points {
        above += (x - mean_x) * (y - mean_y);
        below += (x - mean_x) * (x - mean_x);
    }
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(at_ms: i64, total_bytes: u64, free_bytes: u64) -> Sample {
        Sample {
            at_ms,
            over_ms: 1000,
            detectors: vec![],
            storages: vec![],
            visible: Percentiles::default(),
            rooms: vec![Room { total_bytes, free_bytes }],
        }
    }

    fn history(rooms: impl IntoIterator<Item = (u64, u64)>) -> History {
        let mut history = History::default();
        let start = Instant::now();
        for (second, (total, free)) in rooms.into_iter().enumerate() {
            let now = start + Duration::from_secs(second as u64);
            assert!(history.is_due(now));
            history.push(now, sample(second as i64 * 1000, total, free));
            assert!(!history.is_due(now + Duration::from_millis(999)));
        }
        history
    }

    fn full_in(rooms: impl IntoIterator<Item = (u64, u64)>) -> Option<u64> {
        history(rooms).full_in(0).map(|time| time.as_secs())
    }

    #[test]
    fn what_fills_steadily_is_full_when_its_room_is_used_up() {
        // 10 bytes a second, 410 left.
        assert_eq!(full_in((0..20).map(|n| (1000, 600 - 10 * n))), Some(41));
        assert_eq!(full_in((0..20).map(|n| (1000, 600 - 10 * n)).chain([(1000, 0)])), Some(0), "full");
    }

    #[test]
    fn no_forecast_where_nobody_can_tell() {
        assert_eq!(full_in([]), None);
        assert_eq!(full_in((0..4).map(|n| (1000, 600 - 10 * n))), None, "too few samples");
        assert_eq!(full_in((0..20).map(|_| (1000, 600))), None, "nothing happens");
        assert_eq!(full_in((0..20).map(|n| (1000, 500 + 10 * n))), None, "it empties");
        assert_eq!(full_in((0..20).map(|_| (0, 0))), None, "not known");
        let remounted = (0..20).map(|n| (1000, 600 - 10 * n)).chain((0..4).map(|n| (2000, 1000 - n)));
        assert_eq!(full_in(remounted), None, "another file system, for too short a time");
        assert_eq!(full_in((0..20).map(|n| (u64::MAX, u64::MAX / 2 - n))), None, "in some years");
        assert_eq!(history((0..20).map(|n| (1000, 600 - 10 * n))).full_in(1), None, "no such place");
    }

    #[test]
    fn what_has_begun_lately_counts_and_what_was_long_before_does_not() {
        let idle_then_filling =
            (0..600).map(|_| (100_000, 90_000)).chain((0..15).map(|n| (100_000, 90_000 - 100 * n)));
        assert_eq!(full_in(idle_then_filling), Some(886));
    }

    #[test]
    fn who_has_heard_something_gets_the_rest() {
        let history = history((0..5).map(|n| (1000, n))).samples();
        let times = |after| news(&history, after).iter().map(|sample| sample.at_ms).collect::<Vec<_>>();
        assert_eq!(times(Some(2000)), [3000, 4000]);
        assert_eq!(times(Some(4000)), [0; 0]);
        assert_eq!(times(Some(77)), times(None), "that one has gone");
    }

    #[test]
    fn only_the_last_ones_are_kept() {
        let history = history((0..SAMPLES as u64 + 10).map(|n| (1000, n)));
        let kept = history.samples();
        assert_eq!((kept.len(), kept[0].at_ms, kept[SAMPLES - 1].at_ms), (SAMPLES, 10_000, 609_000));
    }

    proptest! {
        #[test]
        fn no_room_makes_it_panic(rooms in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..40)) {
            let full = history(rooms).full_in(0);
            prop_assert!(full.is_none_or(|time| time <= FORECAST_MAX));
        }
    }
}
