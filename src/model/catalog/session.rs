//! The catalog towards a PPU: what is on offer, and how offers end.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::files::Slot;
use super::grants::Grants;
use super::{Catalog, NO_OFFER, Since, State, Word, same_content};
use crate::model::file_version::{Hash, Identity, OfferId, TransferId};
use crate::model::offer::{Coming, Decline, OFFER_PAGE_FILES, OFFER_WINDOW, Offered, Wanted, Withdrawal};
use crate::model::send::{SendJob, SendOutcome, SendReport};
use crate::model::shift::ShiftId;

/// What lasts as long as a PPU is connected.
#[derive(Default)]
pub(super) struct Session {
    /// Each ends an offer or a want, so that the window and the wants bound them.
    pub(super) words: VecDeque<Word>,
    gone: Vec<OfferId>,
    /// Open or landed.
    offers: HashMap<OfferId, Slot>,
    /// A stream has them.
    transfers: HashMap<TransferId, OfferId>,
    /// The last of an offer's: how an earlier one ends means nothing.
    pub(super) last_transfer: HashMap<OfferId, TransferId>,
    last_offer: u64,
    pub(super) unanswered: usize,
    pub(super) grants: Grants,
    /// How often it has told of a shift.
    pub(super) shifts_heard: u64,
    pub(super) manifest: Manifest,
    /// When the PPU had not yet spoken (µs): what it says now it says after that.
    pub(super) heard: i64,
    /// Its first row of shifts has come to its end. It was said before anything that we may have said meanwhile.
    pub(super) is_told: bool,
    /// The shifts that it has our word for, the oldest first, and when that was said (µs).
    pub(super) worded: Vec<(ShiftId, i64)>,
}

#[derive(Default, Clone, Copy)]
pub(super) enum Manifest {
    /// The PPU has not yet said whose files these are.
    #[default]
    Unasked,
    Due,
    /// Ends when nothing is left that was closed before then (µs): what was there when it began, and what has become of that since.
    Begun {
        at: i64,
    },
    Ended,
}

impl Session {
    /// The file that was offered by that number, and is still.
    pub(super) fn slot(&self, offer: OfferId) -> Option<Slot> {
        self.offers.get(&offer).copied()
    }
}

/// Towards the PPU.
impl Catalog {
    /// A PPU is there.
    pub fn session_begins(&mut self, now: Instant) {
        self.session_ends(now);
        self.session = Some(Session { heard: self.us(now), ..Session::default() });
    }

    /// From here on the PPU may know something that it waits for before it speaks.
    pub fn session_goes_on(&mut self, now: Instant) {
        let now = self.us(now);
        if let Some(session) = &mut self.session {
            session.heard = now;
        }
    }

    /// The PPU is gone: what was on offer is in the backlog again.
    pub fn session_ends(&mut self, now: Instant) {
        let Some(session) = self.session.take() else { return };
        self.releases_without_ppu();
        self.troubles.session_ends();
        for slot in session.offers.into_values() {
            let was_on_offer = self.is_on_offer(slot);
            let entry = &mut self.files[slot];
            entry.offer = NO_OFFER;
            if was_on_offer {
                entry.produced |= matches!(entry.since, Since::Newer | Since::NewerGone);
                entry.told = matches!(entry.since, Since::Nothing | Since::Closed | Since::Gone);
                match (entry.state, entry.since) {
                    (State::Vanishing(_), _) => {}
                    (_, Since::Gone | Since::NewerGone) => self.vanish(now, slot),
                    _ => self.wait(slot),
                }
            }
        }
    }

    /// The PPU wants a file. `None`: it was declined.
    pub fn want(&mut self, now: Instant, wanted: Wanted) -> Option<SendJob> {
        let Wanted { transfer, offer, known_hash } = wanted;
        let Some(slot) = self.session.as_ref()?.offers.get(&offer).copied() else {
            return self.decline(transfer, Decline::Changed); // withdrawn meanwhile
        };
        let entry = &mut self.files[slot];
        // It had landed perhaps, and is not there any more: it is a version like any other, and if it comes to nothing now, that counts.
        entry.produced |= entry.landed && known_hash.is_none();
        entry.landed &= known_hash.is_some();
        if self.is_anothers_by_now(slot) {
            self.offer_anew(slot);
            return self.decline(transfer, Decline::Changed);
        }
        let entry = &self.files[slot];
        match (entry.state, entry.since) {
            // It is read after that close, all the same.
            (State::Offered, _) => {}
            // It did not land there. A stream's report may come later than the PPU's.
            (State::Sending | State::Sent, Since::Nothing) => {}
            (State::Sending | State::Sent, Since::Gone | Since::NewerGone) => {
                self.unsent(now, slot, Unsent::Again);
                return self.decline(transfer, Decline::Vanished);
            }
            (State::Sending | State::Sent, Since::Closed | Since::Met | Since::Newer) => {
                self.unsent(now, slot, Unsent::Again);
                return self.decline(transfer, Decline::Changed);
            }
            (State::Vanishing(_), _) => return self.decline(transfer, Decline::Vanished),
            _ => return self.decline(transfer, Decline::Failed("it has landed already".to_owned())),
        }
        Some(self.send(slot, transfer, known_hash))
    }

    fn send(&mut self, slot: Slot, transfer: TransferId, known_hash: Option<Hash>) -> SendJob {
        let entry = &mut self.files[slot];
        entry.since = Since::Nothing;
        entry.state = State::Sending;
        if let Some(session) = &mut self.session {
            session.transfers.insert(transfer, entry.offer);
            session.last_transfer.insert(entry.offer, transfer);
        }
        SendJob { transfer, path: entry.path.clone(), identity: entry.identity, known_hash }
    }

    /// The PPU has these: landed now, or before (`Have`).
    pub fn landed(&mut self, now: Instant, offers: &[OfferId]) {
        for &offer in offers {
            let Some(session) = &mut self.session else { return };
            match session.offers.get(&offer).copied() {
                Some(slot) => self.has_landed(now, slot),
                // Withdrawn meanwhile, yet the PPU had it already: it must not believe that this version is still here.
                None if (1..=session.last_offer).contains(&offer.0) => session.gone.push(offer),
                None => {}
            }
        }
    }

    /// The PPU had these and has them no longer: what is still here is offered anew.
    pub fn fell(&mut self, offers: &[OfferId]) {
        for &offer in offers {
            let Some(session) = &self.session else { return };
            // Absent: the PPU has heard that it is gone, or of a newer version.
            let Some(slot) = session.offers.get(&offer).copied() else { continue };
            match self.files[slot].state {
                State::Landed => {
                    let path = self.files[slot].path.clone();
                    self.closed_while_leaving(&path);
                    self.forget_offer(slot);
                    self.wait(slot);
                }
                // Closed again since: it will be offered in any case.
                State::Waiting | State::Open => {}
                // Or never, as nobody wants what it is now.
                State::Outside => {
                    self.say_gone(slot);
                    self.files[slot].landed = false;
                    continue;
                }
                _ => continue,
            }
            let entry = &mut self.files[slot];
            entry.landed = false;
            entry.fresh = true;
            // The PPU counts it until it is offered again; a newer version it does not know.
            entry.told |= !std::mem::replace(&mut entry.produced, true);
        }
    }

    /// How a send ended.
    pub fn sent(&mut self, now: Instant, report: SendReport) {
        let SendReport { transfer, outcome } = report;
        let Some(session) = &mut self.session else { return };
        let Some(offer) = session.transfers.remove(&transfer) else { return };
        if let SendOutcome::Declined { why, .. } = &outcome {
            session.words.push_back(Word::Declined(transfer, why.clone()));
        }
        let Some(slot) = session.offers.get(&offer).copied() else { return };
        if session.last_transfer.get(&offer) != Some(&transfer) {
            return;
        }
        session.last_transfer.remove(&offer);
        match (self.files[slot].state, &outcome) {
            (State::Sending, _) => {}
            // The PPU was quicker to tell.
            (State::Landed, SendOutcome::Sent { identity, settled }) => {
                self.files.set_identity(slot, *identity);
                self.files[slot].settled = *settled;
                self.consider(slot);
                return;
            }
            _ => return,
        }
        match outcome {
            SendOutcome::Sent { identity, settled } => self.is_sent(slot, identity, settled),
            SendOutcome::Changed { identity } => self.unsent(now, slot, Unsent::Changed(identity)),
            SendOutcome::Failed(_) => self.unsent(now, slot, Unsent::Again),
            SendOutcome::Declined { why, identity: now_is } => match why {
                Decline::Unchanged { identity, settled } => self.is_sent(slot, identity, settled),
                Decline::Busy => self.unsent(now, slot, Unsent::Busy),
                Decline::Vanished => self.unsent(now, slot, Unsent::Changed(None)),
                Decline::Changed => self.unsent(now, slot, Unsent::Changed(now_is)),
                Decline::Failed(_) => self.unsent(now, slot, Unsent::Again),
            },
        }
    }

    /// What is to be said next. An offer may be too long for one frame, then its files go out in several.
    pub fn next_word(&mut self, now: Instant) -> Option<Word> {
        let at = self.us(now);
        let session = self.session.as_mut()?;
        if let Some(word) = session.words.pop_front() {
            if let Word::ShiftWord(id) = &word
                && session.worded.last().is_none_or(|(last, _)| last < id)
            {
                session.worded.push((*id, at));
            }
            return Some(word);
        }
        if !session.gone.is_empty() {
            let rest = session.gone.split_off(session.gone.len().min(OFFER_WINDOW));
            return Some(Word::Gone(std::mem::replace(&mut session.gone, rest)));
        }
        let manifest = session.manifest;
        if let Some(word) = self.next_trouble(now) {
            return Some(word);
        }
        let session = self.session.as_mut()?;
        match manifest {
            Manifest::Unasked => return None,
            Manifest::Due => {
                session.manifest = Manifest::Begun { at };
                return Some(Word::ManifestBegin);
            }
            Manifest::Begun { at: began } if self.complete && !self.is_left_from(began) => {
                self.session.as_mut()?.manifest = Manifest::Ended;
                return Some(Word::ManifestEnd);
            }
            Manifest::Begun { .. } | Manifest::Ended => {}
        }
        self.offer(at)
    }

    /// Answers that wait to be said: each ends an open offer, of which there are at most [`OFFER_WINDOW`], or a want.
    pub fn unsaid(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.words.len())
    }

    /// Something closed before then is not yet offered: it waits, or whether it vanished is not yet clear.
    fn is_left_from(&self, began: i64) -> bool {
        let unclear = |slot: Slot| {
            let entry = &self.files[slot];
            matches!(entry.state, State::Vanishing(_)) && entry.offer == NO_OFFER && entry.closed_us <= began
        };
        self.backlog.first().is_some_and(|(closed, _)| closed <= began)
            || self.vanishing.iter().any(|(_, slot)| unclear(*slot))
    }

    /// A file is about to have another version, or another name, that was closed by then. If the manifest has not named it yet, it does not
    /// end before: else the PPU would take for lost what it was offered of this file in an earlier session.
    pub(super) fn manifest_still_owes(&mut self, slot: Slot, closed_us: i64) {
        let entry = &self.files[slot];
        let is_named = entry.offer != NO_OFFER;
        if let Some(session) = &mut self.session
            && let Manifest::Begun { at } = &mut session.manifest
            && !is_named
            && entry.closed_us <= *at
        {
            *at = closed_us.max(*at);
        }
    }

    fn offer(&mut self, now_us: i64) -> Option<Word> {
        let (mut files, mut slots) = (Vec::new(), Vec::new());
        while files.len() < OFFER_PAGE_FILES
            && self.session.as_ref()?.unanswered < OFFER_WINDOW
            && let Some((_, slot)) = self.backlog.first()
        {
            let is_ghost = self.files[slot].state == State::Ghost;
            self.leave_backlog(slot);
            self.forget_offer(slot);
            let path = self.source_path(slot);
            let entry = &mut self.files[slot];
            let (Some(path), Some(shift)) = (path, self.shifts.get(entry.shift as usize)) else {
                entry.state = State::Outside;
                continue;
            };
            let session = self.session.as_mut()?;
            session.last_offer += 1;
            session.unanswered += 1;
            entry.offer = OfferId(session.last_offer);
            entry.state = State::Offered;
            entry.told = false;
            session.offers.insert(entry.offer, slot);
            tracing::debug!(%path, offer = entry.offer.0, "offered");
            files.push(Offered {
                offer: entry.offer,
                path,
                identity: entry.identity,
                shift: shift.id,
                closed_us_ago: u64::try_from(now_us - entry.closed_us).unwrap_or(0),
                fresh: entry.fresh,
                superseded: std::mem::take(&mut entry.superseded),
            });
            if is_ghost {
                self.withdraw(slot, Withdrawal::Vanished);
                self.remove(slot);
            } else {
                slots.push(slot);
            }
        }
        if files.is_empty() {
            return None;
        }
        if slots.len() < files.len() || !self.may_come(&slots) {
            return Some(Word::Offer(files));
        }
        let mut coming = Vec::with_capacity(files.len());
        for (file, slot) in files.into_iter().zip(slots) {
            let transfer = self.session.as_mut()?.grants.take(file.offer, self.files[slot].shift)?;
            let shifts_heard = self.session.as_ref()?.shifts_heard;
            tracing::debug!(path = %file.path, offer = file.offer.0, "comes unasked");
            coming.push((Coming { transfer, shifts_heard, file }, self.send(slot, transfer, None)));
        }
        Some(Word::Coming(coming))
    }

    /// A new PPU has to hear of every file, also of what the one before had.
    pub(super) fn offer_everything(&mut self) {
        self.no_candidates();
        let slots: Vec<Slot> = self.files.slots().collect();
        for slot in slots {
            let entry = &mut self.files[slot];
            entry.offer = NO_OFFER;
            entry.stored = false;
            let inside = self.source_path(slot).is_some();
            let entry = &mut self.files[slot];
            match entry.state {
                State::Vanishing(_) => {}
                State::Ghost if inside => {}
                State::Ghost => self.remove(slot),
                _ => entry.state = if inside { State::Waiting } else { State::Outside },
            }
        }
        let files = &self.files;
        let waiting =
            files.slots().filter(|slot| matches!(files[*slot].state, State::Waiting | State::Ghost));
        self.backlog.rebuild(waiting.map(|slot| (files[slot].closed_us, slot, files[slot].identity.size)));
    }

    fn has_landed(&mut self, now: Instant, slot: Slot) {
        if !self.is_on_offer(slot) {
            return;
        }
        let entry = &self.files[slot];
        tracing::debug!(path = %entry.path, offer = entry.offer.0, "landed");
        if let Some(session) = &mut self.session {
            session.unanswered -= 1;
            session.grants.end(entry.offer);
        }
        self.busy.forget(slot);
        let entry = &mut self.files[slot];
        entry.landed = true;
        let since = std::mem::replace(&mut entry.since, Since::Nothing);
        match (entry.state, since) {
            (State::Vanishing(_), _) | (_, Since::Gone) => {
                self.say_gone(slot);
                self.remove(slot);
            }
            (state, Since::Nothing) => {
                // Without a send the PPU goes by a settled identity.
                entry.settled |= state == State::Offered;
                entry.state = State::Landed;
                entry.fresh = false;
                entry.produced = false;
                self.consider(slot);
            }
            (_, Since::Closed | Since::Met | Since::Newer) => {
                entry.produced = since == Since::Newer;
                self.wait(slot);
            }
            (_, Since::NewerGone) => {
                entry.produced = true;
                self.say_gone(slot);
                self.vanish(now, slot);
            }
        }
    }

    fn is_sent(&mut self, slot: Slot, identity: Identity, settled: bool) {
        if let Since::Nothing = self.files[slot].since {
            self.files.set_identity(slot, identity);
            self.files[slot].settled = settled;
        }
        self.files[slot].state = State::Sent;
    }

    /// A send that brought nothing: the offer stays, or it ends because the file is another one by now.
    pub(super) fn unsent(&mut self, now: Instant, slot: Slot, how: Unsent) {
        match (self.files[slot].since, how) {
            (Since::Nothing, Unsent::Again) => self.files[slot].state = State::Offered,
            (Since::Nothing, Unsent::Busy) => {
                self.withdraw(slot, Withdrawal::Reopened);
                self.files[slot].state = State::Open;
                let now_us = self.us(now);
                self.busy.met(now_us, slot);
            }
            (Since::Nothing, Unsent::Changed(Some(identity))) => {
                let before = self.files[slot].identity;
                if before.ino == identity.ino {
                    // Nobody closed it: the same version still, or the next one, whose close is not told yet and may be another shift's.
                    self.withdraw(slot, Withdrawal::Reopened);
                } else {
                    self.withdraw(slot, Withdrawal::Replaced);
                    self.files[slot].produced = false;
                }
                if !same_content(&before, &identity) {
                    let path = self.files[slot].path.clone();
                    let whose = self.whose_change(&path, &identity);
                    let at = self.us(now);
                    let entry = &mut self.files[slot];
                    (entry.shift, entry.seen, entry.closed_us) = (whose, false, at);
                }
                self.files.set_identity(slot, identity);
                self.files[slot].fresh = true;
                self.wait(slot);
            }
            (Since::Nothing, Unsent::Changed(None)) | (Since::Gone, _) => self.vanish(now, slot),
            (Since::Closed | Since::Met, _) => self.offer_anew(slot),
            (Since::Newer, _) => {
                self.withdraw(slot, Withdrawal::Replaced);
                self.files[slot].produced = true;
                self.wait(slot);
            }
            (Since::NewerGone, _) => {
                self.withdraw(slot, Withdrawal::Replaced);
                self.files[slot].produced = true;
                self.vanish(now, slot);
            }
        }
    }

    /// Its offer ends uncounted, and it is offered as it is by now.
    pub(super) fn offer_anew(&mut self, slot: Slot) {
        self.withdraw(slot, Withdrawal::Reopened);
        self.wait(slot);
    }

    fn decline(&mut self, transfer: TransferId, why: Decline) -> Option<SendJob> {
        if let Some(session) = &mut self.session {
            session.words.push_back(Word::Declined(transfer, why));
        }
        None
    }

    /// The open offer of `slot` ends here.
    pub(super) fn withdraw(&mut self, slot: Slot, why: Withdrawal) {
        let entry = &self.files[slot];
        // What the PPU has already is not produced a second time, so it is not counted as superseded or lost either.
        let why = if entry.landed && !entry.produced { Withdrawal::Reopened } else { why };
        if let Some(session) = &mut self.session {
            session.words.push_back(Word::Withdrawn(entry.offer, why));
            session.unanswered -= 1;
        }
        self.forget_offer(slot);
    }

    /// A landed version is no longer here.
    pub(super) fn say_gone(&mut self, slot: Slot) {
        if let Some(session) = &mut self.session
            && let offer @ OfferId(1..) = self.files[slot].offer
        {
            session.gone.push(offer);
        }
        self.forget_offer(slot);
    }

    pub(super) fn forget_offer(&mut self, slot: Slot) {
        let offer = std::mem::replace(&mut self.files[slot].offer, NO_OFFER);
        if let Some(session) = &mut self.session {
            session.offers.remove(&offer);
            session.last_transfer.remove(&offer);
            session.grants.end(offer);
        }
    }

    pub(super) fn is_on_offer(&self, slot: Slot) -> bool {
        let entry = &self.files[slot];
        entry.offer != NO_OFFER
            && matches!(entry.state, State::Offered | State::Sending | State::Sent | State::Vanishing(_))
    }
}

/// Why nothing came of a send.
pub(super) enum Unsent {
    /// The PPU may want it again.
    Again,
    /// Somebody has it open for writing.
    Busy,
    /// It is another file by now, or none.
    Changed(Option<Identity>),
}
