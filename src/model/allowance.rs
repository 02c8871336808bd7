//! How often something may be done by whoever does it too often: a few times at once, then now and then.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone)]
pub struct Allowance {
    at_once: u32,
    every: Duration,
    left: u32,
    /// Since when the next one is earned; `None` while all are left.
    since: Option<Instant>,
}

impl Allowance {
    /// `at_once` in a row, and one more after each `every`.
    pub fn new(at_once: u32, every: Duration) -> Self {
        Self { at_once, every, left: at_once, since: None }
    }

    /// Once more? `false`: not now.
    pub fn take(&mut self, now: Instant) -> bool {
        self.earn(now);
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.since.get_or_insert(now);
        true
    }

    fn earn(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        let passed = now.saturating_duration_since(since);
        let earned = passed.as_nanos() / self.every.as_nanos().max(1);
        let missing = self.at_once - self.left;
        if earned >= u128::from(missing) {
            (self.left, self.since) = (self.at_once, None);
            return;
        }
        let earned = earned as u32; // less than what is missing
        self.left += earned;
        self.since = Some(since + self.every * earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_few_at_once_then_one_now_and_then() {
        let start = Instant::now();
        let mut allowance = Allowance::new(3, MINUTE);
        assert_eq!((0..5).filter(|_| allowance.take(start)).count(), 3);
        assert!(!allowance.take(start + MINUTE - Duration::from_nanos(1)));
        assert!(allowance.take(start + MINUTE));
        assert!(!allowance.take(start + MINUTE));
        assert!(allowance.take(start + 2 * MINUTE + MINUTE / 2));
        assert!(allowance.take(start + 3 * MINUTE), "half of it was earned before");
        let later = start + 100 * MINUTE;
        assert_eq!((0..5).filter(|_| allowance.take(later)).count(), 3, "never more than at the beginning");
    }

    proptest! {
        #[test]
        fn never_more_than_the_sum(pauses in proptest::collection::vec(0_u64..200, 1..200)) {
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0);
            let mut allowance = Allowance::new(4, MINUTE);
            for pause in pauses {
                now += Duration::from_secs(pause);
                taken += u64::from(allowance.take(now));
                prop_assert!(taken <= 4 + (now - start).as_secs() / 60);
            }
        }
    }
}
