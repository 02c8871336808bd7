//! How long files take, counted in classes, as Prometheus wants it: they only grow, and can be added up over machines.

use std::time::Duration;

/// Number of classes with an upper bound.
pub const CLASSES: usize = 18;

/// Upper bounds of the classes: from what a fast link does to the longest outage that anybody waits for. One more class holds the rest.
pub const BOUNDS: [Duration; CLASSES] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];

/// Counts per class, and the sum of all times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// In the order of [`BOUNDS`]; not cumulated.
    counts: [u64; CLASSES],
    longer: u64,
    sum: Duration,
}

impl Times {
    /// One more file.
    pub fn note(&mut self, time: Duration) {
        match BOUNDS.iter().position(|bound| time <= *bound) {
            Some(class) => self.counts[class] += 1,
            None => self.longer += 1,
        }
        self.sum = self.sum.saturating_add(time);
    }

    /// Each class: its upper bound, and how many files were in it and in none before.
    pub fn classes(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        BOUNDS.iter().copied().zip(self.counts)
    }

    /// Files in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// Of all times.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_first_class_that_holds_it() {
        let mut times = Times::default();
        for micros in [1, 500, 501, 1000, 1_800_000_000, 1_800_000_001] {
            times.note(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = times.classes().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts[CLASSES - 1]), (2, 2, 0, 1));
        assert_eq!(times.count(), 6);
        assert_eq!(times.sum(), Duration::from_micros(3_600_002_003));
        assert!(BOUNDS.is_sorted());
    }
}
