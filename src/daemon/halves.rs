//! Pausing and resuming: asked for on the control socket, done by the ledger at once, answered when the journal has it.

use std::time::{Duration, Instant};

use super::shifts::Reply;
use crate::model::half::{Half, Switched};
use crate::model::ledger::{Ledger, Now, Order};

/// How long the journal may take before whoever asked is told that it has not.
const JOURNAL_WAIT: Duration = Duration::from_millis(2500);

/// Those who wait for the journal. Owned by the hub.
#[derive(Default)]
pub struct Halves {
    waiting: Vec<Waiting>,
}

struct Waiting {
    /// The last record that must be committed: what people are told of it is one, too. `None`: that is not recorded yet.
    sequence: Option<u64>,
    asked: Instant,
    switched: Switched,
    reply: Reply<Switched>,
}

impl Halves {
    /// Takes hold at once. The answer comes by [`Halves::answer`].
    pub fn switch(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        (half, pause): (Half, bool),
        reply: Reply<Switched>,
        orders: &mut Vec<Order>,
    ) {
        let switched = ledger.switch(now, half, pause, orders);
        self.waiting.push(Waiting { sequence: None, asked: now.at, switched, reply });
    }

    /// Answers whoever has waited long enough. To be called when all orders have been carried out.
    pub fn answer(&mut self, ledger: &Ledger, now: Now) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            let kept = ledger.has_committed(*waiting.sequence.get_or_insert(ledger.recorded()));
            if kept || now.at.saturating_duration_since(waiting.asked) > JOURNAL_WAIT {
                (waiting.reply)(Switched { kept, ..waiting.switched });
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}
