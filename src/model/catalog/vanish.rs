//! A name that is gone: the file was renamed and is there under another name, or it is lost.

use std::time::Instant;

use super::{Catalog, Entry, GHOSTS_MAX, NO_SHIFT, Since, Slot, State, VANISH_GRACE};
use crate::model::offer::Withdrawal;
use crate::model::trouble::{Trouble, What};

impl Catalog {
    pub(super) fn gone_all(&mut self, now: Instant, is_gone: impl Fn(&Entry) -> bool) {
        let gone: Vec<Slot> = self.files.slots().filter(|slot| is_gone(&self.files[*slot])).collect();
        for slot in gone {
            self.gone(now, slot);
        }
    }

    pub(super) fn gone(&mut self, now: Instant, slot: Slot) {
        if self.is_releasing() {
            let path = self.files[slot].path.clone();
            if self.gone_while_leaving(&path) {
                return;
            }
        }
        let entry = &mut self.files[slot];
        match entry.state {
            State::Vanishing(_) | State::Ghost => {}
            State::Sending | State::Sent => {
                entry.since = match entry.since {
                    Since::Newer | Since::NewerGone => Since::NewerGone,
                    _ => Since::Gone,
                };
            }
            State::Offered => self.vanish(now, slot),
            State::Landed => {
                self.say_gone(slot);
                self.remove(slot);
            }
            State::Waiting | State::Outside | State::Open => {
                self.say_gone(slot);
                let entry = &self.files[slot];
                let known_by_now = entry.state == State::Waiting && !entry.landed;
                if entry.produced || known_by_now {
                    self.vanish(now, slot);
                } else {
                    self.remove(slot);
                }
            }
        }
    }

    /// The name is gone: was the file renamed, or is it lost?
    pub(super) fn vanish(&mut self, now: Instant, slot: Slot) {
        let entry = &self.files[slot];
        let lives = |other: &Slot| {
            !matches!(self.files[*other].state, State::Vanishing(_) | State::Ghost) && *other != slot
        };
        if let Some(other) = self.files.other_names(slot, &entry.identity).into_iter().find(lives) {
            return self.moved(slot, other);
        }
        self.leave_backlog(slot);
        let since = self.us(now);
        self.files[slot].state = State::Vanishing(since);
        self.vanishing.push_back((since + VANISH_GRACE.as_micros() as i64, slot));
    }

    /// `slot` is or was named anew: what vanished under another name has only moved.
    pub(super) fn settle_moved(&mut self, slot: Slot) {
        let identity = self.files[slot].identity;
        for other in self.files.other_names(slot, &identity) {
            if matches!(self.files[other].state, State::Vanishing(_) | State::Ghost) {
                self.moved(other, slot);
            }
        }
    }

    pub(super) fn moved(&mut self, from: Slot, to: Slot) {
        self.manifest_still_owes(from, self.files[to].closed_us);
        let Entry { superseded, fresh, produced, landed, shift, seen, closed_us, .. } = self.files[from];
        if !landed && shift != NO_SHIFT {
            // A new name is no close.
            self.files[to].seen = seen;
            if seen {
                self.closed_when(to, closed_us);
            }
            self.give(to, shift);
        }
        if self.is_on_offer(from) {
            self.withdraw(from, Withdrawal::Moved);
        } else {
            let entry = &mut self.files[to];
            entry.superseded = entry.superseded.saturating_add(superseded);
            entry.fresh |= fresh;
            entry.produced |= produced;
        }
        self.remove(from);
    }

    /// It was closed then, not when its name was met.
    fn closed_when(&mut self, slot: Slot, closed_us: i64) {
        match self.files[slot].state {
            State::Landed => {}
            State::Waiting => {
                self.leave_backlog(slot);
                self.files[slot].closed_us = closed_us;
                self.wait(slot);
            }
            _ => self.files[slot].closed_us = closed_us,
        }
    }

    pub(super) fn vanished(&mut self, now: Instant, slot: Slot) {
        if self.is_on_offer(slot) {
            self.withdraw(slot, Withdrawal::Vanished);
            return self.remove(slot);
        }
        let outside = self.source_path(slot).is_none();
        if outside || self.ghosts >= GHOSTS_MAX {
            if !outside {
                let path = Some(self.files[slot].path.clone());
                self.troubles.met(now, Trouble::with(What::Uncounted, path, ""));
            }
            return self.remove(slot);
        }
        self.ghosts += 1;
        let entry = &mut self.files[slot];
        entry.state = State::Ghost;
        // It may have landed at the end of that session: then the PPU knows it by its identity, and says so.
        entry.fresh &= !entry.told;
        self.backlog.insert(entry.closed_us, slot, entry.identity.size);
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.troubles.gone(&self.files[slot].path);
        self.busy.forget(slot);
        self.leave_backlog(slot);
        self.forget_offer(slot);
        self.files.remove(slot);
        // Its place may be looked at once more, by the queue of graces.
        self.files[slot].state = State::Outside;
    }
}
