//! Files that a stream met while somebody seemed to write them.
//!
//! The kernel tells of a close before it takes the writer off the file: whoever comes at once, while the closing thread is not running, still
//! meets a writer, and no other close will be told. So such a file is offered again, soon at first; whoever really writes for long
//! tells by closing.

use std::collections::{BTreeSet, HashMap};

use super::files::Slot;

/// Until the first look, in microseconds; doubles from look to look.
const FIRST_PAUSE_US: i64 = 2_000;
/// Looks; the last pause is half a second, and all of them together one.
const LOOKS_MAX: u32 = 9;

/// See the module.
#[derive(Default)]
pub(super) struct Busy {
    due: BTreeSet<(i64, Slot)>,
    looks: HashMap<Slot, (i64, u32)>,
}

impl Busy {
    /// A stream met a writer, now.
    pub(super) fn met(&mut self, now_us: i64, slot: Slot) {
        let looks = self.looks.get(&slot).map_or(0, |(_, looks)| *looks);
        if looks >= LOOKS_MAX {
            return;
        }
        let due = now_us + (FIRST_PAUSE_US << looks);
        self.looks.insert(slot, (due, looks + 1));
        self.due.insert((due, slot));
    }

    /// It was closed, has landed, or is gone.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some((due, _)) = self.looks.remove(&slot) {
            self.due.remove(&(due, slot));
        }
    }

    /// When the next one is to be looked at.
    pub(super) fn next_us(&self) -> Option<i64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// One that is to be looked at now.
    pub(super) fn take_due(&mut self, now_us: i64) -> Option<Slot> {
        let (_, slot) = self.next_us().filter(|due| *due <= now_us).and_then(|_| self.due.pop_first())?;
        Some(slot)
    }
}
