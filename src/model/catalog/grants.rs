//! Files that go out unasked: an image that comes alone waits for no round trip.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::files::Slot;
use super::session::{Manifest, Unsent};
use super::timeline::Place;
use super::{Catalog, Entry, Since, State};
use crate::model::file_version::{OfferId, TransferId};
use crate::model::shift::ShiftId;

/// Most grants that are kept, whatever a PPU gives.
const GRANTS_MAX: usize = 64;
/// Most files under way, with those that go unasked: who has more to do asks for several at a time.
const UNDER_WAY_MAX: usize = 8;

/// What a session's PPU has granted.
#[derive(Default)]
pub(super) struct Grants {
    transfers: VecDeque<TransferId>,
    max_bytes: u64,
    /// What went out unasked and has not landed, with the shift that it was offered for.
    gone_out: HashMap<OfferId, Out>,
}

struct Out {
    transfer: TransferId,
    shift: Place,
}

impl Grants {
    /// For an offer that goes out unasked.
    pub(super) fn take(&mut self, offer: OfferId, shift: Place) -> Option<TransferId> {
        let transfer = self.transfers.pop_front()?;
        self.gone_out.insert(offer, Out { transfer, shift });
        Some(transfer)
    }

    /// That offer has landed, or is withdrawn.
    pub(super) fn end(&mut self, offer: OfferId) {
        self.gone_out.remove(&offer);
    }
}

impl Catalog {
    /// The PPU lets that many more files of at most `max_bytes` come unasked.
    pub fn granted(&mut self, transfers: Vec<TransferId>, max_bytes: u64) {
        let Some(session) = &mut self.session else { return };
        let grants = &mut session.grants;
        let room = GRANTS_MAX.saturating_sub(grants.transfers.len());
        grants.transfers.extend(transfers.into_iter().take(room));
        grants.max_bytes = max_bytes;
    }

    /// What went out with this grant could not be taken as it came: its offer is like any other now.
    pub fn not_taken(&mut self, now: Instant, transfer: TransferId) {
        let Some(session) = &self.session else { return };
        let gone_out = session.grants.gone_out.iter().find(|(_, out)| out.transfer == transfer);
        let Some(offer) = gone_out.map(|(offer, _)| *offer) else { return };
        let Some(slot) = session.slot(offer) else { return };
        let in_flight = matches!(self.files[slot].state, State::Sending | State::Sent);
        if self.is_anothers_by_now(slot) {
            self.offer_anew(slot);
        } else if in_flight {
            self.unsent(now, slot, Unsent::Again);
        }
        if let Some(session) = &mut self.session {
            session.grants.end(offer);
            session.last_transfer.remove(&offer);
        }
    }

    /// These are being offered: may they be sent at once? Only what was closed just now and is surely new to the PPU: of all else
    /// that may know more.
    pub(super) fn may_come(&self, slots: &[Slot]) -> bool {
        let Some(session) = &self.session else { return false };
        let Grants { transfers, max_bytes, .. } = &session.grants;
        let is_new = |slot: &Slot| {
            let entry = &self.files[*slot];
            let is_closed = entry.fresh && entry.produced && entry.seen;
            let shift = self.shifts.get(entry.shift as usize).map(|shift| shift.id);
            is_closed
                && shift.is_some_and(|id| id != ShiftId::UNKNOWN)
                && !entry.landed
                && entry.identity.size <= *max_bytes
        };
        matches!(session.manifest, Manifest::Ended)
            && slots.len() <= transfers.len()
            && session.unanswered <= UNDER_WAY_MAX
            && self.backlog.first().is_none()
            && slots.iter().all(is_new)
    }

    /// It went out unasked, and may not have been taken: a PPU that knows of another shift which it may belong to asks for it later.
    pub(super) fn went_unasked(&self, slot: Slot) -> bool {
        let offer = self.files[slot].offer;
        self.session.as_ref().is_some_and(|session| session.grants.gone_out.contains_key(&offer))
    }

    /// It went out unasked, was not taken, and belongs to another shift than was thought then.
    pub(super) fn is_anothers_by_now(&self, slot: Slot) -> bool {
        let Entry { offer, state, since, shift, .. } = &self.files[slot];
        let on_offer = matches!(state, State::Offered | State::Sending | State::Sent);
        let out = self.session.as_ref().and_then(|session| session.grants.gone_out.get(offer));
        on_offer && *since == Since::Nothing && out.is_some_and(|out| out.shift != *shift)
    }
}
