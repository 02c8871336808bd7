//! Every file that the detector has, and how far each has come: the truth of what happened to a file on the detector.
//!
//! The watch tells it [`Event`]s, the streams tell how sends ended, the session passes on what the PPU says; it answers with
//! [`Word`]s for the PPU and [`SendJob`](super::send::SendJob)s for the streams. An event costs a few hash look-ups and at most a
//! logarithm of the backlog; a file some 140 bytes beyond its path.
//!
//! ```text
//!            closed, found                 want           sent            landed
//!  (nothing) ─────────────► Waiting ─► Offered ─► Sending ─► Sent ─────────────► Landed
//!                             ▲ │ ▲       │          │         │ have             │
//!                       close │ │ └───────┴──────────┴─────────┴──────────────────┘ closed again: a newer version
//!                            Open ◄── somebody writes it, or seemed to: offered again, too
//!  gone, not landed: Vanishing ──(grace)──► withdrawn as vanished; if it was never offered: Ghost, offered to be withdrawn
//! ```
//!
//! Of one path there is never more than one version on offer; what happens to the file meanwhile is kept in [`Since`].

mod backlog;
mod busy;
mod event;
mod files;
mod grants;
mod release;
mod session;
mod shifts;
#[cfg(test)]
mod tests;
mod timeline;
mod troubles;
mod vanish;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use backlog::Backlog;
use busy::Busy;
pub use event::{Counts, Event, Word};
use files::{Files, Slot};
pub use release::RELEASES_MAX;
use release::Releases;
use session::Session;
use shifts::Attribution;
pub use shifts::{Announced, KnownSpan, Moment};
use timeline::{Place, Timeline};

use super::file_version::{Identity, OfferId};
use super::offer::Withdrawal;
use super::path::RelPath;
use super::shift::ShiftId;
use super::trouble::Troubles;

/// How long a file that is gone may still turn up under another name, before it counts as vanished: a stream may find it gone long
/// before the watch, on a busy machine, has listed the directory that it was moved with.
pub const VANISH_GRACE: Duration = Duration::from_secs(1);
/// Most vanished files that are remembered until a PPU can be told, so that a long absence cannot exhaust the memory.
pub const GHOSTS_MAX: usize = 1 << 20;

/// See the module.
pub struct Catalog {
    /// Times are kept as microseconds since then: half the size of an `Instant`.
    epoch: Instant,
    files: Files,
    backlog: Backlog,
    /// In the order in which their grace ends; entries that are no longer vanishing, or are so anew, are passed over.
    vanishing: VecDeque<(i64, Slot)>,
    busy: Busy,
    ghosts: usize,
    shifts: Vec<ShiftPlace>,
    /// Of the shift that a file closed now belongs to.
    shift: Place,
    timeline: Timeline,
    attribution: Attribution,
    /// Counts the scans.
    scan: u32,
    /// A scan has been completed: the catalog names every file.
    complete: bool,
    session: Option<Session>,
    releases: Releases,
    troubles: Troubles,
}

struct ShiftPlace {
    id: ShiftId,
    /// Below the ramdisk; `None` is all of it.
    source: Option<RelPath>,
}

/// One name on the ramdisk.
struct Entry {
    path: RelPath,
    /// The newest that is known.
    identity: Identity,
    /// When the close was seen, microseconds on the catalog's clock.
    closed_us: i64,
    state: State,
    /// Present or last offer, in this session; [`NO_OFFER`].
    offer: OfferId,
    /// In which it was closed; [`NO_SHIFT`] before the first is known.
    shift: Place,
    /// Earlier versions that were replaced before they could be offered.
    superseded: u32,
    /// The last scan that the file was seen in.
    scan: u32,
    since: Since,
    /// Its shift is that of a close that was seen; else it is that of its ctime.
    seen: bool,
    /// A close was seen since the PPU last said that it has this file.
    fresh: bool,
    /// Was really closed, and the PPU counts it nowhere yet.
    produced: bool,
    /// It was on offer when a session ended: that PPU counts it, unless it is offered again.
    told: bool,
    /// The PPU has this file as it was before what is on offer now.
    landed: bool,
    /// No later write can leave the identity equal.
    settled: bool,
    /// The PPU has it on its internal storage.
    stored: bool,
}

const NO_OFFER: OfferId = OfferId(0);
const NO_SHIFT: Place = Place::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the backlog.
    Waiting,
    /// Not below its shift's source.
    Outside,
    /// Somebody has it open: its close is awaited.
    Open,
    Offered,
    /// A stream has it.
    Sending,
    /// Gone out, not yet acknowledged.
    Sent,
    Landed,
    /// Its name is gone since then (µs); it may turn up under another one.
    Vanishing(i64),
    /// It vanished without having been offered: in the backlog, to be offered and withdrawn.
    Ghost,
}

/// The shift in which a version was closed, and whether that was seen.
#[derive(Clone, Copy)]
struct Shift {
    of: Place,
    seen: bool,
}

/// What happened to a file since it was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Nothing,
    /// A close, with the same identity.
    Closed,
    /// A scan has met another one there: its close was missed, or is not told yet.
    Met,
    /// A newer version.
    Newer,
    Gone,
    /// A newer version came and went.
    NewerGone,
}

impl Since {
    fn is_gone(self) -> bool {
        matches!(self, Self::Gone | Self::NewerGone)
    }
}

impl Entry {
    /// A scan met the file while it was written, in a directory that was new: what it met was no version, this is the first.
    fn is_first_close(&self, identity: &Identity) -> bool {
        let Self { produced, landed, .. } = *self;
        !produced && !landed && self.identity != *identity && self.identity.ino == identity.ino
    }
}

impl Catalog {
    /// Empty; `now` is the origin of its clock.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            files: Files::default(),
            backlog: Backlog::default(),
            vanishing: VecDeque::new(),
            busy: Busy::default(),
            ghosts: 0,
            shifts: Vec::new(),
            shift: NO_SHIFT,
            timeline: Timeline::default(),
            attribution: Attribution::default(),
            scan: 0,
            complete: false,
            session: None,
            releases: Releases::default(),
            troubles: Troubles::default(),
        }
    }

    /// Takes what the watch saw, in its order.
    pub fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Closed { path, identity, at } => {
                let at = self.us(at);
                let shift = Shift { of: self.whose_close(&path, &identity, at), seen: true };
                self.closed(path, identity, at, shift);
            }
            Event::ClosedUnseen { path } => self.closed_unseen(now, &path),
            Event::Taken { token } => self.take_is_told(token),
            Event::Found { path, identity, at } => self.found(path, identity, self.us(at)),
            Event::Gone { path } => match self.files.find(&path) {
                Some(slot) => self.gone(now, slot),
                None => _ = self.gone_while_leaving(&path),
            },
            Event::GoneBelow { directory } => {
                self.moved_while_leaving(&directory);
                self.gone_all(now, |entry| entry.path.below(&directory).is_some());
            }
            Event::ScanBegins => {
                self.scan = self.scan.wrapping_add(1);
                self.troubles.scan_begins();
            }
            Event::ScanEnds => {
                self.complete = true;
                let scan = self.scan;
                self.gone_all(now, |entry| entry.scan != scan);
                self.troubles.scan_ends();
            }
            Event::Missed => {
                self.missed();
                self.marks_may_be_lost();
            }
            Event::MarksLost => self.marks_may_be_lost(),
            Event::Mark(number) => self.mark_passed(number),
            Event::Met(trouble) => self.troubles.met(now, trouble),
            Event::Over(what) => self.troubles.over(what, None),
        }
    }

    /// Ends the grace of what has vanished, and waits that were too long.
    pub fn tick(&mut self, now: Instant) {
        self.tick_releases(now);
        self.troubles.tick(now);
        let now_us = self.us(now);
        while let Some(slot) = self.busy.take_due(now_us) {
            if self.files[slot].state == State::Open {
                self.wait(slot);
            }
        }
        while let Some(&(until, slot)) = self.vanishing.front()
            && until <= now_us
        {
            self.vanishing.pop_front();
            let since = until - VANISH_GRACE.as_micros() as i64;
            if self.files[slot].state == State::Vanishing(since) {
                self.vanished(now, slot);
            }
        }
    }

    /// When [`Catalog::tick`] has something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        let vanishing = self.vanishing.front().map(|(until, _)| *until);
        let next = [vanishing, self.busy.next_us()].into_iter().flatten().min();
        let next = next
            .and_then(|next| self.epoch.checked_add(Duration::from_micros(u64::try_from(next).unwrap_or(0))));
        next.into_iter().chain(self.troubles.next_tick()).min()
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            files: self.files.len(),
            backlog_files: self.backlog.files() as u64,
            backlog_bytes: self.backlog.bytes(),
        }
    }

    fn closed(&mut self, path: RelPath, identity: Identity, at: i64, shift: Shift) {
        self.closed_while_leaving(&path);
        let Some(slot) = self.files.find(&path) else {
            return self.add(path, identity, at, true, shift);
        };
        let before = self.files[slot].identity;
        self.closed_here(slot, identity, at, shift);
        // It may be the file that had the name before which was closed. Last, because names that are gone are sorted out by then.
        let is_it = same_content(&before, &identity);
        let closed = if is_it { identity } else { before };
        self.closed_under_other_names(&path, closed, at, shift, is_it);
    }

    fn closed_here(&mut self, slot: Slot, identity: Identity, at: i64, shift: Shift) {
        let entry = &mut self.files[slot];
        entry.scan = self.scan;
        let changed = entry.identity != identity;
        match entry.state {
            // It is offered for the shift before.
            State::Offered if !changed && entry.shift != shift.of => {
                self.withdraw(slot, Withdrawal::Reopened)
            }
            State::Offered if !changed && entry.fresh => return, // it will be read after this close anyway
            State::Offered if entry.is_first_close(&identity) => self.withdraw(slot, Withdrawal::Reopened),
            State::Offered if changed => self.withdraw(slot, Withdrawal::Replaced),
            State::Offered | State::Sending | State::Sent => {
                return self.closed_while_offered(slot, identity, changed, at, shift);
            }
            State::Landed => {}
            State::Vanishing(_) if entry.offer != NO_OFFER => self.withdraw(slot, Withdrawal::Replaced),
            State::Vanishing(_) | State::Ghost => {
                let counts = entry.produced || !entry.landed;
                if counts && !entry.told && !same_content(&entry.identity, &identity) {
                    entry.superseded = entry.superseded.saturating_add(1);
                }
            }
            State::Waiting | State::Outside | State::Open => {
                if changed && entry.produced && !entry.told {
                    entry.superseded = entry.superseded.saturating_add(1);
                }
            }
        }
        let entry = &mut self.files[slot];
        entry.produced |= changed || !entry.landed;
        entry.told &= !changed;
        self.renew(slot, identity, at, shift);
        self.settle_moved(slot);
    }

    /// The name was gone when its close was looked at.
    fn closed_unseen(&mut self, now: Instant, path: &RelPath) {
        self.closed_while_leaving(path);
        let Some(slot) = self.files.find(path) else { return };
        let (identity, at) = (self.files[slot].identity, self.us(now));
        let shift = Shift { of: self.whose_close(path, &identity, at), seen: true };
        self.closed_under_other_names(path, identity, at, shift, true);
    }

    /// Only the close tells of a write through a mapping, and it tells of one of the file's names. Unless it is `certain` that this file was
    /// closed, it is only looked at again: the close tells nothing of its shift.
    fn closed_under_other_names(
        &mut self,
        path: &RelPath,
        closed: Identity,
        at: i64,
        shift: Shift,
        certain: bool,
    ) {
        for other in self.files.names_of(&closed) {
            let entry = &self.files[other];
            if entry.path == *path {
                continue;
            }
            let (path, before, whose) = (entry.path.clone(), entry.identity, entry.shift);
            self.linked_closed_while_leaving(&path);
            let shift = match certain || whose == shift.of {
                true => shift,
                false => Shift { of: self.whose_change(&path, &before), seen: false },
            };
            // A link or a rename moves the ctime, and no more.
            let identity = if before.ctime_ns > closed.ctime_ns { before } else { closed };
            match self.files[other].state {
                State::Landed => self.renew(other, identity, at, shift),
                State::Offered if self.files[other].shift != shift.of => {
                    self.withdraw(other, Withdrawal::Reopened);
                    self.renew(other, identity, at, shift);
                }
                State::Offered | State::Sending | State::Sent => {
                    self.closed_while_offered(other, identity, false, at, shift);
                }
                State::Waiting | State::Outside | State::Open => self.files[other].fresh = true,
                State::Vanishing(_) | State::Ghost => {}
            }
        }
    }

    /// A stream may be reading it: the newer version waits for the end of this one.
    fn closed_while_offered(&mut self, slot: Slot, identity: Identity, changed: bool, at: i64, shift: Shift) {
        let entry = &mut self.files[slot];
        if matches!(entry.since, Since::Newer | Since::NewerGone) && changed {
            entry.superseded = entry.superseded.saturating_add(1);
        }
        let since = match entry.since {
            Since::Nothing | Since::Closed if !changed || entry.is_first_close(&identity) => Since::Closed,
            _ => Since::Newer,
        };
        self.comes_next(slot, since, identity, at, shift);
    }

    /// What is offered when that which is on its way has ended.
    fn comes_next(&mut self, slot: Slot, since: Since, identity: Identity, at: i64, shift: Shift) {
        let entry = &mut self.files[slot];
        entry.since = since;
        entry.fresh = true;
        entry.closed_us = at;
        entry.settled = false;
        (entry.shift, entry.seen) = (shift.of, shift.seen);
        self.files.set_identity(slot, identity);
        self.settle_moved(slot);
    }

    fn found(&mut self, path: RelPath, identity: Identity, at: i64) {
        let Some(slot) = self.files.find(&path) else {
            self.closed_while_leaving(&path);
            let shift = Shift { of: self.whose_change(&path, &identity), seen: false };
            return self.add(path, identity, at, false, shift);
        };
        let changed = self.files[slot].identity != identity;
        if changed {
            self.closed_while_leaving(&path);
        }
        let entry = &mut self.files[slot];
        entry.scan = self.scan;
        let shift = match same_content(&entry.identity, &identity) && entry.shift != NO_SHIFT {
            // A chmod or a link closes nothing.
            true => Shift { of: entry.shift, seen: entry.seen },
            false => Shift { of: self.whose_change(&path, &identity), seen: false },
        };
        let entry = &mut self.files[slot];
        match entry.state {
            State::Vanishing(_) | State::Ghost => self.closed(path, identity, at, shift),
            // Its close may have been missed.
            State::Open => self.renew(slot, identity, at, shift),
            State::Landed if changed || !entry.settled => {
                let missed = entry.fresh;
                self.renew(slot, identity, at, shift);
                self.files[slot].fresh = changed || missed;
            }
            State::Waiting | State::Outside if changed => {
                // Else a PPU that waits for our word on a shift would take what was closed in that shift for an earlier one's.
                let at = if same_content(&entry.identity, &identity) { entry.closed_us } else { at };
                self.renew(slot, identity, at, shift);
            }
            // The PPU may have the offered one already: then nobody looks at the file again.
            State::Offered if changed => {
                self.withdraw(slot, Withdrawal::Reopened);
                self.renew(slot, identity, at, shift);
            }
            State::Sending | State::Sent if changed || entry.since.is_gone() => {
                self.met_while_offered(slot, identity, changed, at, shift);
            }
            _ => {}
        }
    }

    /// As [`Catalog::closed_while_offered`], but nobody has told of a close: it is no version to be counted yet.
    fn met_while_offered(&mut self, slot: Slot, identity: Identity, changed: bool, at: i64, shift: Shift) {
        match self.files[slot].since {
            Since::Nothing | Since::Closed | Since::Met => {
                self.comes_next(slot, Since::Met, identity, at, shift);
            }
            // The name is there again, or was all the time: what was told of its going came late.
            Since::Gone if !changed => self.comes_next(slot, Since::Met, identity, at, shift),
            Since::Gone | Since::NewerGone => self.closed_while_offered(slot, identity, changed, at, shift),
            // It is looked at before it is sent.
            Since::Newer => {}
        }
    }

    fn add(&mut self, path: RelPath, identity: Identity, closed_us: i64, produced: bool, shift: Shift) {
        let entry = Entry {
            path,
            identity,
            closed_us,
            state: State::Outside,
            offer: NO_OFFER,
            shift: shift.of,
            seen: shift.seen,
            superseded: 0,
            scan: self.scan,
            since: Since::Nothing,
            fresh: produced,
            produced,
            told: false,
            landed: false,
            settled: false,
            stored: false,
        };
        let slot = self.files.insert(entry);
        self.wait(slot);
        self.settle_moved(slot);
    }

    /// A version that is to be offered, whatever it was before.
    fn renew(&mut self, slot: Slot, identity: Identity, closed_us: i64, shift: Shift) {
        self.busy.forget(slot);
        self.manifest_still_owes(slot, closed_us);
        self.leave_backlog(slot);
        self.files.set_identity(slot, identity);
        let entry = &mut self.files[slot];
        entry.closed_us = closed_us;
        (entry.shift, entry.seen) = (shift.of, shift.seen);
        entry.fresh = true;
        entry.settled = false;
        self.wait(slot);
    }

    /// Into the backlog, if it is below the source.
    fn wait(&mut self, slot: Slot) {
        self.leave_backlog(slot);
        let inside = self.source_path(slot).is_some();
        let entry = &mut self.files[slot];
        entry.since = Since::Nothing;
        entry.state = if inside { State::Waiting } else { State::Outside };
        if inside {
            self.backlog.insert(entry.closed_us, slot, entry.identity.size);
        }
    }

    /// Out of the list that it is in, if any: it is another version now, or gone.
    fn leave_backlog(&mut self, slot: Slot) {
        self.leave_candidates(slot);
        let entry = &mut self.files[slot];
        entry.stored = false;
        match entry.state {
            State::Waiting => {}
            State::Ghost => self.ghosts -= 1,
            _ => return,
        }
        entry.state = State::Outside;
        self.backlog.remove(entry.closed_us, slot, entry.identity.size);
    }

    /// Its path below its shift's source; `None` where it is not below it.
    fn source_path(&self, slot: Slot) -> Option<RelPath> {
        let entry = &self.files[slot];
        match self.shifts.get(entry.shift as usize).and_then(|shift| shift.source.as_ref()) {
            Some(source) => entry.path.below(source),
            None => Some(entry.path.clone()),
        }
    }

    fn us(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.epoch) {
            Some(after) => after.as_micros() as i64,
            None => -(self.epoch.duration_since(at).as_micros() as i64),
        }
    }
}

/// Renaming and linking move the ctime, and nothing else.
fn same_content(a: &Identity, b: &Identity) -> bool {
    (a.ino, a.size, a.mtime_ns) == (b.ino, b.size, b.mtime_ns)
}
