//! Fetching and storing can be paused, each by itself (SPEC 5.5). A pause takes hold at once: nothing new is asked of a detector, or given to
//! a storage; what is under way ends as it would. It ends when somebody says so, not by a restart and not by a new shift.

use super::{Ledger, Now, Order};
use crate::model::half::{Half, Paused, Switched};
use crate::model::message::{Code, Message};
use crate::model::record::Record;

impl Ledger {
    /// What is paused since when.
    pub fn paused(&self) -> Paused {
        self.paused
    }

    /// As the journal remembers it.
    pub fn restore_paused(&mut self, paused: Paused) {
        self.paused = paused;
    }

    /// Pauses a half, or lets it work again. It is `kept` when the journal has what was recorded.
    pub fn switch(&mut self, now: Now, half: Half, pause: bool, out: &mut Vec<Order>) -> Switched {
        let before = self.paused.since(half);
        let changed = before.is_some() != pause;
        if changed {
            let since_ms = pause.then_some(now.wall_ms);
            self.paused.set(half, since_ms);
            self.record(Record::Paused { half, since_ms }, out);
            out.push(Order::Tell(message(half, pause)));
        }
        Switched { half, since_ms: self.paused.since(half), changed, kept: false }
    }
}

fn message(half: Half, pause: bool) -> Message {
    match pause {
        true => {
            let effect = half.while_paused();
            let long = format!(
                "Somebody has paused {half}: {effect}. It stays so, also over a restart, until `ppu-uringd resume {half}`."
            );
            Message::new(Code::Paused, half.name(), long)
        }
        false => {
            Message::new(Code::Resumed, half.name(), format!("Somebody has resumed {half}: it catches up."))
        }
    }
}
