//! Pauses in which a detector is left in peace (SPEC 1.9): between two rounds of wants, and after a run.

use std::time::{Duration, Instant};

/// As configured, for one detector. Zero is no pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pauses {
    /// Shortest time between two rounds of wants.
    pub min: Duration,
    /// From the moment at which the backlog has become empty.
    pub interrun: Duration,
}

/// When a detector may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    pauses: Pauses,
    not_before: Option<Instant>,
    /// There was a backlog when it was last looked at.
    run: bool,
}

impl Pace {
    /// Nothing was asked yet.
    pub fn new(pauses: Pauses) -> Self {
        Self { pauses, not_before: None, run: false }
    }

    /// Takes notice of the backlog. A run is over when it has become empty.
    pub fn backlog(&mut self, now: Instant, is_empty: bool) {
        if std::mem::replace(&mut self.run, !is_empty) && is_empty {
            self.pause(now, self.pauses.interrun);
        }
    }

    /// A round of wants went out.
    pub fn asked(&mut self, now: Instant) {
        self.pause(now, self.pauses.min);
    }

    /// Until when nothing is asked; `None`: ask.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| now < *until)
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        if !pause.is_zero() {
            self.not_before = self.not_before.max(Some(now + pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rounds_keep_their_distance() {
        let now = Instant::now();
        let mut pace = Pace::new(Pauses { min: 10 * MS, interrun: Duration::ZERO });
        assert_eq!(pace.paused_until(now), None);
        pace.asked(now);
        assert_eq!(pace.paused_until(now + 9 * MS), Some(now + 10 * MS));
        assert_eq!(pace.paused_until(now + 10 * MS), None);
        pace.backlog(now, false);
        pace.backlog(now + 11 * MS, true);
        assert_eq!(pace.paused_until(now + 11 * MS), None, "no pause after a run is wished");
    }

    #[test]
    fn a_run_ends_when_its_backlog_has_become_empty() {
        let now = Instant::now();
        let mut pace = Pace::new(Pauses { min: 10 * MS, interrun: 500 * MS });
        pace.backlog(now, true);
        assert_eq!(pace.paused_until(now), None, "there was no run");
        pace.backlog(now, false);
        pace.asked(now);
        pace.backlog(now + 2 * MS, true);
        // The end counts, not how often somebody looks.
        pace.backlog(now + 400 * MS, true);
        pace.backlog(now + 401 * MS, false);
        assert_eq!(pace.paused_until(now + 501 * MS), Some(now + 502 * MS));
        assert_eq!(pace.paused_until(now + 502 * MS), None);
    }

    #[test]
    fn without_pauses_nothing_ever_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(Pauses::default());
        for _ in 0..3 {
            pace.backlog(now, false);
            pace.asked(now);
            pace.backlog(now, true);
            assert_eq!(pace, Pace::new(Pauses::default()));
        }
    }
}
