//! What is wrong on the detector, for people at the PPU.

use std::time::Instant;

use super::{Catalog, Word};
use crate::model::trouble::{Say, Trouble, Troubles, What};

/// Troubles.
impl Catalog {
    /// They are kept there.
    #[must_use]
    pub fn with_troubles(mut self, troubles: Troubles) -> Self {
        self.troubles = troubles;
        self
    }

    /// Something is wrong.
    pub fn met(&mut self, now: Instant, trouble: Trouble) {
        self.troubles.met(now, trouble);
    }

    /// With the detector as a whole; it is no longer.
    pub fn over(&mut self, what: What) {
        self.troubles.over(what, None);
    }

    /// The PPU hears of troubles, and has noted those up to `number`.
    pub fn noted(&mut self, number: u64) {
        if self.session.is_some() {
            self.troubles.noted(number);
        }
    }

    pub(super) fn next_trouble(&mut self, now: Instant) -> Option<Word> {
        Some(match self.troubles.say(now)? {
            Say::Trouble(report) => Word::Trouble(report),
            Say::Over(number) => Word::TroubleOver(number),
        })
    }
}
