//! Acknowledgements to detectors, which wait a little: nobody is in a hurry for them, and every message wakes a thread here and one there.

use std::time::{Duration, Instant};

use crate::model::file_version::{DetectorIndex, OfferId};
use crate::wire::control::FromPpu;

/// So long for another message that they can go with.
const PAUSE: Duration = Duration::from_millis(5);
/// Offers in one message, so that it fits a frame.
const OFFERS_MAX: usize = 4096;

/// What waits for each detector.
pub struct Acks {
    waiting: Vec<Waiting>,
    /// The first of them.
    since: Option<Instant>,
}

#[derive(Default)]
struct Waiting {
    have: Vec<OfferId>,
    landed: Vec<OfferId>,
    stored: Vec<OfferId>,
}

/// What is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ack {
    Have,
    Landed,
    Stored,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.have.is_empty() && self.landed.is_empty() && self.stored.is_empty()
    }
}

impl Acks {
    /// None, for so many detectors.
    pub(super) fn new(detectors: usize) -> Self {
        Self { waiting: std::iter::repeat_with(Waiting::default).take(detectors).collect(), since: None }
    }

    pub(super) fn add(&mut self, detector: DetectorIndex, ack: Ack, offers: Vec<OfferId>) {
        let waiting = &mut self.waiting[detector.index()];
        let list = match ack {
            Ack::Have => &mut waiting.have,
            Ack::Landed => &mut waiting.landed,
            Ack::Stored => &mut waiting.stored,
        };
        list.extend(offers);
        self.since.get_or_insert_with(Instant::now);
    }

    /// When they are to be told without company.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PAUSE)
    }

    /// Whether that is now.
    pub(super) fn are_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// Those of a detector. It hears that a file has landed before it hears that it is stored.
    pub(super) fn take(&mut self, detector: DetectorIndex) -> Vec<FromPpu> {
        let Waiting { have, landed, stored } = std::mem::take(&mut self.waiting[detector.index()]);
        if self.waiting.iter().all(Waiting::is_empty) {
            // They had company: nobody is woken for them.
            self.since = None;
        }
        let pages = |offers: Vec<OfferId>, message: fn(Vec<OfferId>) -> FromPpu| -> Vec<FromPpu> {
            offers.chunks(OFFERS_MAX).map(|page| message(page.to_vec())).collect()
        };
        let mut messages = pages(have, |offers| FromPpu::Have { offers });
        messages.extend(pages(landed, |offers| FromPpu::Landed { offers }));
        messages.extend(pages(stored, |offers| FromPpu::Stored { offers }));
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_wait_for_company_and_keep_their_order() {
        let (one, other) = (DetectorIndex(0), DetectorIndex(1));
        let mut acks = Acks::new(2);
        assert!(acks.due().is_none() && !acks.are_due());
        acks.add(one, Ack::Stored, vec![OfferId(1)]);
        acks.add(one, Ack::Landed, vec![OfferId(1), OfferId(2)]);
        acks.add(other, Ack::Have, (0..=OFFERS_MAX as u64).map(OfferId).collect());
        assert!(acks.due().is_some_and(|due| due > Instant::now()) && !acks.are_due());
        let first = acks.take(one);
        assert!(
            matches!(&first[..], [FromPpu::Landed { offers }, FromPpu::Stored { .. }] if offers.len() == 2)
        );
        assert!(acks.take(one).is_empty() && acks.due().is_some(), "the other's still wait");
        let pages = acks.take(other);
        assert!(
            matches!(&pages[..], [FromPpu::Have { offers }, FromPpu::Have { offers: rest }] if offers.len() == OFFERS_MAX && rest.len() == 1)
        );
        assert!(acks.due().is_none(), "nothing is left to wake for");
    }
}
