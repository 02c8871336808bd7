//! What may leave the ramdisk, oldest close first, and what is on its way out.
//!
//! Writing through a mapping moves no time, so that a file which was written again a moment ago may look like the version that is
//! safe. Its close tells, but may still be in the kernel's queue. So a file is *taken* out of sight first, into a directory that is
//! watched as well. When the watch tells of that, every close before has been told. Only then is the file deleted, or put back.
//!
//! ```text
//! Landed, safe ─► candidate ─► asked ─► taken, by its own word and the watch's ─┬─ not closed meanwhile ─► deleted ─► Gone is said
//!                                                                               └─ closed ─► put back ─► offered anew
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::files::Slot;
use super::{Catalog, State};
use crate::model::file_version::{Identity, OfferId};
use crate::model::path::RelPath;
use crate::model::release::{Order, Outcome, Report, Safe};
use crate::model::trouble::{Trouble, What};

/// Files on their way out at a time.
pub const RELEASES_MAX: usize = 256;
/// After that long what was taken is put back: the watch has not told that its name is gone.
const TAKEN_MAX: Duration = Duration::from_secs(20);
/// Pause after the file system refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Releases {
    /// `None`: nothing ever leaves.
    safe: Option<Safe>,
    candidates: Backlog,
    under_way: HashMap<RelPath, Leaving>,
    /// Takes that the watch told of before the thread did, and when.
    told: HashMap<Box<[u8]>, u64>,
    /// Counts what the watch tells.
    clock: u64,
    orders: VecDeque<Order>,
    paused_until: i64,
    files: u64,
    bytes: u64,
}

/// A file on its way out.
struct Leaving {
    identity: Identity,
    /// Since when (µs).
    since: i64,
    phase: Phase,
    /// By the thread.
    token: Option<Box<[u8]>>,
    /// When the watch told that it was taken, after every close before.
    told: Option<u64>,
    /// When it was first closed.
    closed: Option<u64>,
    /// Its name is gone, which the catalog keeps to itself until the end.
    gone: bool,
    /// Something has had that name since.
    renewed: bool,
    /// Events were missed while it was on its way: that of its going may never come.
    missed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    Taken,
    /// To be deleted or put back.
    Decided,
    /// Put back, though its going is not told yet.
    Back,
}

/// Releasing.
impl Catalog {
    /// Files may leave the ramdisk when they are `safe`.
    #[must_use]
    pub fn with_release(mut self, safe: Safe) -> Self {
        self.releases.safe = Some(safe);
        self
    }

    /// Files and bytes that left by [`Order::Delete`].
    pub fn released(&self) -> (u64, u64) {
        (self.releases.files, self.releases.bytes)
    }

    /// The PPU has these on its internal storage.
    pub fn stored(&mut self, offers: &[OfferId]) {
        for offer in offers {
            let slot = self.session.as_ref().and_then(|session| session.slot(*offer));
            // A newer version that waits still bears the offer of the one before.
            let Some(slot) = slot.filter(|slot| self.files[*slot].state == State::Landed) else { continue };
            self.files[slot].stored = true;
            self.consider(slot);
        }
    }

    /// Begins to release the oldest files, `excess` bytes of them.
    pub fn release(&mut self, now: Instant, excess: u64) {
        let now_us = self.us(now);
        if now_us < self.releases.paused_until {
            return;
        }
        let mut leaving: u64 = self.releases.under_way.values().map(|leaving| leaving.identity.size).sum();
        while leaving < excess
            && self.releases.under_way.len() < RELEASES_MAX
            && let Some((_, slot)) = self.releases.candidates.first()
        {
            self.leave_candidates(slot);
            let (path, identity) = (self.files[slot].path.clone(), self.files[slot].identity);
            leaving = leaving.saturating_add(identity.size);
            self.releases.orders.push_back(Order::Take { path: path.clone(), identity });
            let leaving = Leaving {
                identity,
                since: now_us,
                phase: Phase::Asked,
                token: None,
                told: None,
                closed: None,
                gone: false,
                renewed: false,
                missed: false,
            };
            self.releases.under_way.insert(path, leaving);
        }
    }

    /// What is to be carried out next.
    pub fn next_release(&mut self) -> Option<Order> {
        self.releases.orders.pop_front()
    }

    /// Something may be released now, if the ramdisk's fill asks for it.
    pub fn has_releasable(&self) -> bool {
        self.releases.candidates.files() > 0
    }

    /// Something is on its way out.
    pub fn is_releasing(&self) -> bool {
        !self.releases.under_way.is_empty()
    }

    /// What came of an order.
    pub fn release_report(&mut self, now: Instant, report: Report) {
        let Report { path, outcome } = report;
        let Some(leaving) = self.releases.under_way.get_mut(&path) else { return };
        match &outcome {
            Outcome::Taken { token } => {
                self.troubles.gone(&path);
                leaving.phase = Phase::Taken;
                leaving.told = leaving.told.or(self.releases.told.remove(token));
                leaving.token = Some(token.clone());
                return self.decide(&path);
            }
            // The event of its going is still to come, and means nothing.
            Outcome::Back if !leaving.gone && !leaving.missed => {
                leaving.phase = Phase::Back;
                return;
            }
            Outcome::Back => {
                self.end_leaving(&path);
                return;
            }
            Outcome::Deleted => {
                self.releases.files += 1;
                self.releases.bytes += leaving.identity.size;
                tracing::debug!(%path, "released");
            }
            Outcome::Left(why) => {
                self.troubles.gone(&path);
                tracing::debug!(%path, "not released: {why}");
            }
            Outcome::Kept(why) => {
                let trouble = Trouble::with(What::NotPutBack, Some(path.clone()), why);
                self.troubles.met(now, trouble);
            }
            Outcome::Failed(why) => {
                let trouble = Trouble::with(What::NotReleased, Some(path.clone()), why);
                self.troubles.met(now, trouble);
                self.releases.paused_until = self.us(now) + REFUSED_PAUSE.as_micros() as i64;
            }
        }
        let Some(leaving) = self.end_leaving(&path) else { return };
        let Some(slot) = self.files.find(&path) else { return };
        if leaving.gone && !leaving.renewed {
            self.gone(now, slot);
        } else if matches!(outcome, Outcome::Failed(_)) {
            self.consider(slot);
        }
    }

    /// Puts back what has waited for its event in vain.
    pub(super) fn tick_releases(&mut self, now: Instant) {
        let overdue = self.us(now) - TAKEN_MAX.as_micros() as i64;
        for (path, leaving) in &mut self.releases.under_way {
            if leaving.phase == Phase::Taken && leaving.since <= overdue {
                leaving.phase = Phase::Decided;
                self.releases.orders.push_back(Order::PutBack { path: path.clone() });
            }
        }
    }

    /// Into the list, if it may go.
    pub(super) fn consider(&mut self, slot: Slot) {
        let entry = &self.files[slot];
        let safe = match self.releases.safe {
            None => false,
            Some(Safe::Landed) => true,
            Some(Safe::Stored) => entry.stored,
        };
        // Without a settled identity a later write might not show.
        if safe
            && entry.state == State::Landed
            && entry.settled
            && !entry.fresh
            && !self.releases.under_way.contains_key(&entry.path)
        {
            self.releases.candidates.insert(entry.closed_us, slot, entry.identity.size);
        }
    }

    pub(super) fn leave_candidates(&mut self, slot: Slot) {
        let entry = &mut self.files[slot];
        self.releases.candidates.remove(entry.closed_us, slot, entry.identity.size);
    }

    /// What the PPU said of files is no longer to be relied on.
    pub(super) fn no_candidates(&mut self) {
        self.releases.candidates = Backlog::default();
    }

    /// A link is down: what has only landed may be gone with the PPU when it is up again.
    pub(super) fn releases_without_ppu(&mut self) {
        if self.releases.safe == Some(Safe::Landed) {
            self.no_candidates();
        }
    }

    /// Events were missed, and closes among them: nothing leaves before the PPU has compared its content anew.
    pub(super) fn missed(&mut self) {
        if self.releases.safe.is_none() {
            return;
        }
        self.no_candidates();
        self.releases.told.clear();
        self.releases.under_way.retain(|_, leaving| leaving.phase != Phase::Back);
        let under_way: Vec<RelPath> = self.releases.under_way.keys().cloned().collect();
        for path in under_way {
            if let Some(leaving) = self.releases.under_way.get_mut(&path) {
                leaving.missed = true;
                if leaving.told.is_none() {
                    (leaving.closed, leaving.told) = (Some(0), Some(u64::MAX));
                }
            }
            self.decide(&path);
        }
        let landed: Vec<Slot> =
            self.files.slots().filter(|slot| self.files[*slot].state == State::Landed).collect();
        for slot in landed {
            let entry = &mut self.files[slot];
            (entry.stored, entry.settled, entry.fresh) = (false, false, true);
        }
    }

    /// A name was closed, or another file was found under it.
    pub(super) fn closed_while_leaving(&mut self, path: &RelPath) {
        let Some(leaving) = self.releases.under_way.get_mut(path) else { return };
        if leaving.phase == Phase::Back {
            self.end_leaving(path);
            return;
        }
        self.releases.clock += 1;
        leaving.closed.get_or_insert(self.releases.clock);
        leaving.renewed = leaving.gone;
    }

    /// Another name of the same file was closed.
    pub(super) fn linked_closed_while_leaving(&mut self, path: &RelPath) {
        let Some(leaving) = self.releases.under_way.get_mut(path) else { return };
        self.releases.clock += 1;
        leaving.closed.get_or_insert(self.releases.clock);
    }

    /// Its directory has another name, under which a close may have been told.
    pub(super) fn moved_while_leaving(&mut self, directory: &RelPath) {
        self.releases.clock += 1;
        for (path, leaving) in &mut self.releases.under_way {
            if path.below(directory).is_some() {
                leaving.closed.get_or_insert(self.releases.clock);
            }
        }
    }

    /// A name is gone that we are about to take, or have taken. True: this is kept back until it is clear what becomes of the file.
    pub(super) fn gone_while_leaving(&mut self, path: &RelPath) -> bool {
        let Some(leaving) = self.releases.under_way.get_mut(path) else { return false };
        (leaving.gone, leaving.renewed) = (true, false);
        if leaving.phase == Phase::Back {
            self.end_leaving(path);
        }
        true
    }

    /// The watch has come to where that file was taken.
    pub(super) fn take_is_told(&mut self, token: Box<[u8]>) {
        let is_it = |leaving: &Leaving| leaving.token.as_ref() == Some(&token);
        self.releases.clock += 1;
        let clock = self.releases.clock;
        let found = self.releases.under_way.iter_mut().find(|(_, leaving)| is_it(leaving));
        if let Some((path, leaving)) = found {
            leaving.told.get_or_insert(clock);
            let path = path.clone();
            self.decide(&path);
        } else if self.is_releasing() {
            // The thread's word is still to come.
            self.releases.told.insert(token, clock);
        }
    }

    fn decide(&mut self, path: &RelPath) {
        let Some(leaving) = self.releases.under_way.get_mut(path) else { return };
        if let (Phase::Taken, Some(told)) = (leaving.phase, leaving.told) {
            leaving.phase = Phase::Decided;
            let path = path.clone();
            let order = if leaving.closed.is_some_and(|closed| closed < told) {
                Order::PutBack { path }
            } else {
                Order::Delete { path }
            };
            self.releases.orders.push_back(order);
        }
    }

    fn end_leaving(&mut self, path: &RelPath) -> Option<Leaving> {
        let leaving = self.releases.under_way.remove(path);
        if self.releases.under_way.is_empty() {
            // Of files that the thread itself has put back.
            self.releases.told.clear();
        }
        leaving
    }
}
