//! All that can be seen of a PPU at one moment: the status, and what graphs and metrics need beside it.

use std::sync::Arc;

use super::history::Sample;
use super::message::Code;
use super::status::{StatusReport, Told};
use super::times::Times;

/// See the module.
#[derive(Debug, Clone)]
pub struct Observation {
    /// How things are.
    pub report: StatusReport,
    /// How they were, oldest first.
    pub samples: Vec<Arc<Sample>>,
    /// Close on the detector to visible on the PPU, since the daemon's start.
    pub visible: Times,
    /// Close on the detector to stored, for each storage, likewise.
    pub stored: Vec<Times>,
    /// Messages raised since the daemon's start.
    pub raised: Raised,
    /// What was told since the one who asks last asked; at most as many as are kept.
    pub told: Vec<Told>,
}

/// How many messages of each code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raised([u64; Code::ALL.len()]);

impl Raised {
    /// One more.
    pub fn count(&mut self, code: Code) {
        self.0[code as usize] += 1;
    }

    /// Every code, and how many.
    pub fn each(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        Code::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_counts_for_itself() {
        let mut raised = Raised::default();
        Code::ALL.into_iter().enumerate().for_each(|(n, code)| (0..n).for_each(|_| raised.count(code)));
        assert!(
            raised.each().enumerate().all(|(n, (code, count))| count == n as u64 && code == Code::ALL[n])
        );
    }
}
