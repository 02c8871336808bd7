//! Which shift a file belongs to: the one in which it was closed (SPEC 2.2).
//!
//! A shift that begins while the PPU is connected is *marked*: a file that is made in a directory of our own shows up in the queue of
//! the watch, and what was closed before it belongs to the shift before. No clock is asked. A shift that began while the
//! link was down is told with its age; what is known to have been closed after that moment is given to it, what is known to have
//! been closed before is not, and what is neither is held. Files that nobody saw closed are told apart by their
//! ctime ([`Timeline`]).

use std::collections::VecDeque;
use std::time::Instant;

use super::files::Slot;
use super::session::Manifest;
use super::timeline::{Edge, Place, Span, Whose};
use super::{Catalog, Entry, NO_SHIFT, ShiftPlace, Since, State, Word};
use crate::model::file_version::Identity;
use crate::model::path::RelPath;
use crate::model::shift::{Began, ShiftId, WORD_WAIT};
use crate::model::trouble::{Trouble, What};

/// Time stamps of files move with the timer tick: what they say is old by this much at most (HZ=100).
const TICK_NS: i64 = 10_000_000;
/// A beginning is moved to an earlier moment only where it was heard of that much too late.
const LATE_US: i64 = 100_000;
/// Clock steps are noticed above this.
const STEP_NS: i64 = 50_000_000;

/// A moment, on the detector's monotonic clock and on that of its ramdisk's time stamps.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub at: Instant,
    /// The time stamp, in nanoseconds, of a file that is made now.
    pub file_ns: i64,
}

/// What the PPU says of a shift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Which.
    pub shift: ShiftId,
    /// Below the ramdisk; `None` is all of it.
    pub source: Option<RelPath>,
    /// When it began.
    pub began: Began,
    /// Another one follows, which began later.
    pub more: bool,
}

/// A shift's time, as it is remembered when the daemon is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSpan {
    /// Whose.
    pub shift: ShiftId,
    /// Below the ramdisk; `None` is all of it.
    pub source: Option<RelPath>,
    /// It began between these, as time stamps of files.
    pub from_ns: (i64, i64),
    /// The clock was set at its end: no time stamp of it is later.
    pub until_ns: Option<i64>,
}

/// What the catalog is about to do about shifts.
#[derive(Default)]
pub(super) struct Attribution {
    /// Announced shifts, the oldest first, until the watch comes to their marks.
    pending: VecDeque<Pending>,
    /// The last mark that was made.
    mark: u64,
    /// Changes whenever the timeline does.
    revision: u64,
    /// What was handed out to be saved, and what is.
    handed: u64,
    saved: u64,
    /// Words to be said once that revision is saved.
    words: VecDeque<(ShiftId, u64)>,
    /// Something was inserted into the past since the last mark was asked for.
    past_changed: bool,
    /// The ramdisk's clock minus ours, ns, when it was last looked at, and when that was (µs).
    clock: Option<(i64, i64)>,
}

/// Whose word is taken for when a shift began.
#[derive(Clone, Copy)]
enum Trust {
    Ppu,
    /// Ours and the PPU's differ: what was closed in between is held.
    Nobody,
}

struct Pending {
    place: Place,
    /// `None`: to be made.
    mark: Option<u64>,
    /// Begins where its mark is; in the timeline only once that is made.
    live: bool,
    /// Events before the mark are told apart by their times.
    timed: bool,
    /// What was written after that time stamp was closed after the mark.
    after_ns: i64,
}

/// Shifts.
impl Catalog {
    /// Makes known what an earlier process knew, oldest first. Before the first event.
    pub fn restore_shifts(&mut self, known: impl IntoIterator<Item = KnownSpan>) {
        for KnownSpan { shift, source, from_ns, until_ns } in known {
            let place = self.place(shift, source);
            let from = Edge { us: (i64::MIN, i64::MIN), ns: from_ns };
            self.timeline.restore(Span { place, from, until_ns });
            self.shift = place;
        }
    }

    /// The clock was set while nobody looked: from the last time stamp that there may be before, to the first after.
    pub fn clock_was_set(&mut self, before_ns: i64, after_ns: i64) {
        self.timeline.step((i64::MIN, i64::MIN), before_ns, after_ns);
        self.attribution.revision += 1;
    }

    /// Looks whether the clock is being set. To be called every second or so.
    pub fn look_at_clock(&mut self, now: Moment) {
        let us = self.us(now.at);
        let offset = now.file_ns.saturating_sub(us.saturating_mul(1000));
        if let Some((before, seen)) = self.attribution.clock.replace((offset, us))
            && before.abs_diff(offset) > STEP_NS.unsigned_abs()
        {
            let last_before = us.saturating_mul(1000).saturating_add(before).saturating_add(TICK_NS);
            let first_after = seen.saturating_mul(1000).saturating_add(offset).saturating_sub(TICK_NS);
            let by = format!("by {:+.1} s", (offset - before) as f64 / 1e9);
            self.troubles.met(now.at, Trouble::new(What::ClockSet, by));
            self.timeline.step((seen, us), last_before, first_after);
            self.attribution.revision += 1;
        }
    }

    /// The PPU tells of a shift. The last of a row, without `more`, is the current one; the first row of a session sets off its
    /// manifest.
    pub fn shift_began(&mut self, now: Moment, announced: Announced) {
        let Announced { shift, source, began, more } = announced;
        if let Some(session) = &mut self.session {
            session.shifts_heard += 1;
        }
        let place = self.place(shift, source);
        let pending = self.attribution.pending.iter().any(|pending| pending.place == place);
        let unknown = !pending && !self.timeline.knows(place);
        match began {
            Began::Ever if self.timeline.first().is_none() => {
                self.timeline.begin(place, Edge::EVER);
                self.past_has_changed(place, Edge::EVER);
            }
            Began::Ago { us } if unknown || self.is_corrected(place, us) => {
                self.began_in_the_past(now, place, us, Trust::Ppu);
            }
            Began::Ago { us } if self.is_contradicted(now, place, us) => {
                self.began_in_the_past(now, place, us, Trust::Nobody);
            }
            _ => {}
        }
        if more {
            return;
        }
        if let Some(session) = &mut self.session
            && !std::mem::replace(&mut session.is_told, true)
            && !self.troubles.are_heard()
        {
            tracing::warn!(
                "the PPU's ppu-uringd is too old to be told what goes wrong here: only this log says it. Install the same release there"
            );
        }
        // Begins now; or a PPU that has lost its last shifts goes on with an older one.
        let live = !pending && self.timeline.last().is_none_or(|last| last.place != place);
        let timed = std::mem::take(&mut self.attribution.past_changed);
        if live || timed || pending {
            self.attribution.pending.push_back(Pending {
                place,
                mark: None,
                live,
                timed,
                after_ns: i64::MAX,
            });
        } else {
            self.is_current(place);
        }
    }

    /// A mark is to be made now, under this number.
    pub fn mark_due(&self) -> Option<u64> {
        let unmarked = |pending: &Pending| pending.mark.is_none();
        self.attribution.pending.iter().any(unmarked).then_some(self.attribution.mark + 1)
    }

    /// The mark was made between `before` and `after`; or it could not be, and is due again later.
    pub fn marked(&mut self, number: u64, before: Moment, after: Moment, made: bool) {
        let edge = Edge { us: (self.us(before.at), self.us(after.at)), ns: (before.file_ns, after.file_ns) };
        if made {
            self.attribution.mark = number;
        }
        for pending in &mut self.attribution.pending {
            if pending.mark.is_some() {
                continue;
            }
            if std::mem::take(&mut pending.live) {
                self.timeline.begin(pending.place, edge);
                self.attribution.revision += 1;
                pending.after_ns = after.file_ns;
            }
            pending.mark = made.then_some(number);
            pending.timed |= !made;
        }
    }

    /// What is to be remembered, if it is not what was handed out last, and its number.
    pub fn unsaved_shifts(&mut self) -> Option<(u64, Vec<KnownSpan>)> {
        let Attribution { revision, handed, .. } = self.attribution;
        if revision == handed {
            return None;
        }
        self.attribution.handed = revision;
        let span = |span: &Span| {
            let ShiftPlace { id: shift, source } = &self.shifts[span.place as usize];
            let (shift, source) = (*shift, source.clone());
            KnownSpan { shift, source, from_ns: span.from.ns, until_ns: span.until_ns }
        };
        Some((revision, self.timeline.spans().iter().map(span).collect()))
    }

    /// It is remembered: the PPU may rely on it.
    pub fn shifts_saved(&mut self, revision: u64) {
        self.attribution.saved = self.attribution.saved.max(revision);
        self.say_shift_words();
    }

    /// The watch has come to this mark: what it sees from here on was closed after it was made.
    pub(super) fn mark_passed(&mut self, number: u64) {
        while let Some(pending) = self.attribution.pending.front()
            && pending.mark.is_some_and(|mark| mark <= number)
        {
            let place = pending.place;
            self.attribution.pending.pop_front();
            self.is_current(place);
        }
    }

    /// The kernel dropped events, and perhaps marks.
    pub(super) fn marks_may_be_lost(&mut self) {
        for pending in &mut self.attribution.pending {
            pending.mark = None;
            pending.timed = true;
        }
    }

    /// Whose a file is whose close was seen by `at`.
    pub(super) fn whose_close(&mut self, path: &RelPath, identity: &Identity, at_us: i64) -> Place {
        // A chmod moves the ctime alone.
        let written_ns = identity.ctime_ns.min(identity.mtime_ns);
        let pending = &self.attribution.pending;
        if pending.iter().any(|pending| pending.timed) {
            let whose = self.timeline.closed(written_ns, at_us, |place| self.takes(place, path));
            return self.place_of(path, whose);
        }
        // Before the mark it is looked at as it is by now, which may be after the mark.
        let later = pending.iter().rev().find(|pending| written_ns > pending.after_ns);
        later.map_or(self.shift, |pending| pending.place)
    }

    /// Whose a file is that a scan has met.
    pub(super) fn whose_change(&mut self, path: &RelPath, identity: &Identity) -> Place {
        let whose_at = |ns: i64| self.timeline.changed(ns, |place| self.takes(place, path));
        let whose = match (whose_at(identity.ctime_ns), whose_at(identity.mtime_ns)) {
            // Written in one shift, and renamed, say, in a later one; or its writer has set an old time.
            (Whose::Of(changed), Whose::Of(written)) if changed != written => {
                Whose::Unsure(self.either(path, written, changed))
            }
            (Whose::Of(_), Whose::Unsure(written)) => Whose::Unsure(written),
            (changed, _) => changed,
        };
        self.place_of(path, whose)
    }

    fn place_of(&mut self, path: &RelPath, whose: Whose) -> Place {
        match whose {
            Whose::Of(place) => place,
            Whose::Unsure(place) => self.unsure(place),
            Whose::Nobody => self.nobodys(path),
        }
    }

    /// Of a file that was closed before the first shift that is known.
    fn nobodys(&mut self, path: &RelPath) -> Place {
        let Some(first) = self.timeline.first().map(|first| first.place) else { return NO_SHIFT };
        let mut places = self.timeline.spans().iter().map(|span| span.place);
        let like = places.find(|place| self.takes(*place, path)).unwrap_or(first);
        self.unsure(like)
    }

    /// It lies below that shift's source. What one shift takes and another does not is held like any other while nobody knows which
    /// of them it belongs to: else people would not hear of it.
    fn takes(&self, place: Place, path: &RelPath) -> bool {
        match self.shifts.get(place as usize).map(|shift| &shift.source) {
            Some(Some(source)) => path.below(source).is_some(),
            Some(None) => true,
            None => false,
        }
    }

    fn either(&self, path: &RelPath, first: Place, second: Place) -> Place {
        if !self.takes(first, path) && self.takes(second, path) { second } else { first }
    }

    /// Where a shift is in the table.
    fn place(&mut self, id: ShiftId, source: Option<RelPath>) -> Place {
        match self.shifts.iter().position(|shift| shift.id == id) {
            Some(place) => {
                self.shifts[place].source = source;
                place as Place
            }
            None => {
                self.shifts.push(ShiftPlace { id, source });
                (self.shifts.len() - 1) as Place
            }
        }
    }

    /// No shift at all, its files being named as those of `like`: the PPU tells people that they are held.
    fn unsure(&mut self, like: Place) -> Place {
        let source = self.shifts[like as usize].source.clone();
        let same = |shift: &ShiftPlace| shift.id == ShiftId::UNKNOWN && shift.source == source;
        match self.shifts.iter().position(same) {
            Some(place) => place as Place,
            None => {
                self.shifts.push(ShiftPlace { id: ShiftId::UNKNOWN, source });
                (self.shifts.len() - 1) as Place
            }
        }
    }

    /// The PPU says again, after our word on it or on a later one, and because that came late, when a shift began: it may have been earlier than
    /// we had it. How long that took to come here is not known.
    fn is_corrected(&self, place: Place, ago_us: u64) -> bool {
        let beginning = self.timeline.beginning(place).map_or(i64::MIN, |edge| edge.us.0);
        self.worded_at(place)
            .is_some_and(|worded| worded.saturating_sub_unsigned(ago_us) < beginning.saturating_sub(LATE_US))
    }

    /// When our first word was said that tells a shift from those before (µs), if what the PPU says now can be its answer.
    fn worded_at(&self, place: Place) -> Option<i64> {
        let id = self.shifts[place as usize].id;
        let session = self.session.as_ref().filter(|session| session.is_told)?;
        session.worded.iter().find(|(worded, _)| *worded >= id).map(|(_, at)| *at)
    }

    /// A new session's PPU has it that a shift began, or may have begun, long before we heard of it: its word to the last session, that this was
    /// too late, did not come here. Or it was restarted meanwhile, and its clock was set.
    fn is_contradicted(&self, now: Moment, place: Place, ago_us: u64) -> bool {
        let (Some(known), Some(session)) = (self.timeline.beginning(place), &self.session) else {
            return false;
        };
        let earliest = session.heard.saturating_sub_unsigned(ago_us);
        let (earliest, known_us) = match known.us.0 {
            // Before this process: there are only the files' time stamps.
            i64::MIN => {
                let ahead = (now.file_ns / 1000).saturating_sub(self.us(now.at));
                (earliest.saturating_add(ahead), known.ns.0 / 1000)
            }
            known_us => (earliest, known_us),
        };
        self.worded_at(place).is_none() && earliest < known_us.saturating_sub(WORD_WAIT.as_micros() as i64)
    }

    /// A shift began that long before the PPU said so, which was after it had heard from us last, or our word on it, and before now.
    fn began_in_the_past(&mut self, now: Moment, place: Place, ago_us: u64, trust: Trust) {
        let now_us = self.us(now.at);
        let heard = self.session.as_ref().map_or(now_us, |session| session.heard);
        let heard = self.worded_at(place).unwrap_or(heard).min(now_us);
        let mut us = (heard.saturating_sub_unsigned(ago_us), now_us.saturating_sub_unsigned(ago_us));
        let stamp = |us: i64| now.file_ns.saturating_sub(now_us.saturating_sub(us).saturating_mul(1000));
        let mut ns = (stamp(us.0).saturating_sub(TICK_NS), stamp(us.1).saturating_add(TICK_NS));
        // It had begun by its mark.
        match (self.timeline.beginning(place), trust) {
            (None, _) => {}
            (Some(mark), Trust::Ppu) => (us.1, ns.1) = (us.1.min(mark.us.1), ns.1.min(mark.ns.1)),
            (Some(mark), Trust::Nobody) => (us.1, ns.1) = (us.1.max(mark.us.1), mark.ns.1),
        }
        let edge = Edge { us, ns };
        let shifts = &self.shifts;
        self.timeline.insert(place, edge, |place| shifts[place as usize].id);
        self.past_has_changed(place, edge);
        self.attribution.past_changed = true;
    }

    /// Files that have not yet landed may belong to another shift than was thought.
    fn past_has_changed(&mut self, place: Place, edge: Edge) {
        self.attribution.revision += 1;
        let slots: Vec<Slot> = self.files.slots().collect();
        for slot in slots {
            // What is on its way, but for what came after it.
            let is_next = !matches!(self.files[slot].since, Since::Nothing | Since::Gone);
            match self.files[slot].state {
                State::Landed => continue,
                State::Sending | State::Sent if !is_next && !self.went_unasked(slot) => continue,
                _ => {}
            }
            let now = self.reconsidered(slot, place, edge);
            self.give(slot, now);
        }
    }

    fn reconsidered(&mut self, slot: Slot, place: Place, edge: Edge) -> Place {
        let Entry { shift, seen, identity, closed_us, .. } = self.files[slot];
        let path = self.files[slot].path.clone();
        if !seen {
            return self.whose_change(&path, &identity);
        }
        let id_of = |shift: Place| self.shifts.get(shift as usize).map(|shift| shift.id);
        let is_held = id_of(shift) == Some(ShiftId::UNKNOWN);
        if !is_held && shift != NO_SHIFT && id_of(shift) >= id_of(place) {
            return shift;
        }
        if is_held {
            // One that takes the file may have come to those that it may belong to.
            let may_be = closed_us >= edge.us.0;
            if may_be { self.unsure(self.either(&path, shift, place)) } else { shift }
        } else if edge == Edge::EVER {
            place
        } else if closed_us < edge.us.0 {
            shift
        } else if identity.ctime_ns.min(identity.mtime_ns) > edge.ns.1 {
            // Not at the edge's time stamp: those move with the timer tick, so that a close right before it may have the same.
            place
        } else if shift == NO_SHIFT {
            self.unsure(place)
        } else {
            self.unsure(self.either(&path, shift, place))
        }
    }

    /// An offer under another shift ends uncounted, and is made anew.
    pub(super) fn give(&mut self, slot: Slot, shift: Place) {
        if self.files[slot].shift == shift {
            return;
        }
        self.files[slot].shift = shift;
        match self.files[slot].state {
            State::Offered => self.offer_anew(slot),
            State::Waiting | State::Outside => self.wait(slot),
            _ => {}
        }
    }

    /// Closed before the first shift that is known.
    fn hold_what_is_nobodys(&mut self) {
        let slots: Vec<Slot> =
            self.files.slots().filter(|slot| self.files[*slot].shift == NO_SHIFT).collect();
        for slot in slots {
            let path = self.files[slot].path.clone();
            let nobody = self.nobodys(&path);
            self.give(slot, nobody);
        }
    }

    /// What is closed from now on belongs to `place`.
    fn is_current(&mut self, place: Place) {
        self.shift = place;
        self.hold_what_is_nobodys();
        let id = self.shifts[place as usize].id;
        self.attribution.words.push_back((id, self.attribution.revision));
        self.say_shift_words();
    }

    fn say_shift_words(&mut self) {
        while let Some((id, revision)) = self.attribution.words.front().copied()
            && revision <= self.attribution.saved
        {
            self.attribution.words.pop_front();
            let Some(session) = &mut self.session else { continue };
            session.words.push_back(Word::ShiftWord(id));
            if let Manifest::Unasked = session.manifest {
                session.manifest = Manifest::Due;
                self.offer_everything();
            }
        }
    }
}
