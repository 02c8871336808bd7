//! What was seen of every file, by two threads in either order: closed on the detector, visible on the PPU.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ppu_uringd::model::path::RelPath;

#[derive(Default)]
pub(super) struct Board(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    files: HashMap<RelPath, Sighting>,
    totals: Totals,
    /// From close to visible.
    latencies: Vec<Duration>,
}

#[derive(Default)]
struct Sighting {
    closed: Option<(Instant, u64)>,
    visible: Option<Instant>,
}

/// Files and bytes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) closed: u64,
    pub(super) visible: u64,
    pub(super) visible_bytes: u64,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Board {
    pub(super) fn closed(&self, path: RelPath, at: Instant, size: u64) {
        let mut seen = self.lock();
        seen.files.entry(path.clone()).or_default().closed.get_or_insert((at, size));
        seen.totals.closed += 1;
        seen.joined(&path);
    }

    /// The first sight of a name counts.
    pub(super) fn visible(&self, path: RelPath, at: Instant) {
        let mut seen = self.lock();
        let sighting = seen.files.entry(path.clone()).or_default();
        if sighting.visible.replace(sighting.visible.unwrap_or(at)).is_none() {
            seen.joined(&path);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// Of all files so far; `None` before the first.
    pub(super) fn latency(&self) -> Option<Percentiles> {
        let mut latencies = self.lock().latencies.clone();
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies
                .get(index.min(latencies.len().wrapping_sub(1)))
                .map(|latency| latency.as_secs_f64() * 1e3)
        };
        Some(Percentiles { p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Counts a file once both ends of its way are known.
    fn joined(&mut self, path: &RelPath) {
        if let Some(Sighting { closed: Some((closed, size)), visible: Some(visible) }) = self.files.get(path)
        {
            self.totals.visible += 1;
            self.totals.visible_bytes += size;
            // The daemons may be faster than the thread that notes the close.
            self.latencies.push(visible.saturating_duration_since(*closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_in_either_order_and_once() {
        let board = Board::default();
        let path = |n: u8| RelPath::new(&[b'a' + n]).unwrap();
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        assert!(board.latency().is_none());
        board.closed(path(0), later(0), 10);
        board.visible(path(0), later(4));
        board.visible(path(0), later(90));
        board.visible(path(1), later(7));
        board.visible(path(1), later(8));
        assert_eq!(board.totals().visible, 1);
        board.closed(path(1), later(5), 10);
        let totals = board.totals();
        assert_eq!((totals.closed, totals.visible, totals.visible_bytes), (2, 2, 20));
        let latency = board.latency().unwrap();
        assert_eq!((latency.p50, latency.p99, latency.max), (4.0, 4.0, 4.0));
    }
}
