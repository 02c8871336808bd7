//! Files that may come unasked: an image that comes alone waits for no round trip (DESIGN 3, "standing grant").

use super::{Ledger, Now, Order, UNCOMMITTED_RECORDS_MAX};
use crate::model::file_version::{DetectorIndex, OfferId, TransferId};
use crate::model::job::LandJob;
use crate::model::offer::Coming;
use crate::model::pacing::Pauses;
use crate::model::shift::ShiftId;

/// Grants that a detector holds.
const GRANTS: usize = 8;
/// Largest file that may come with one: 8 MiB. What larger ones take is not the asking.
const GRANT_BYTES: u64 = 8 << 20;
/// A grant reserves nothing: twice as much as all of a detector's could bring must be free when they are given.
const ROOM_BYTES: u64 = 2 * GRANTS as u64 * GRANT_BYTES;

impl Ledger {
    /// Detectors that have little to do get new grants when half of theirs are used.
    pub(super) fn grant(&mut self, out: &mut Vec<Order>) {
        if !self.room.fits(ROOM_BYTES) {
            return;
        }
        for (detector, state) in self.detectors.iter_mut().enumerate() {
            let is_busy = state.beat.backlog_files > 0 || state.offers.len() > GRANTS / 2;
            let may_be_asked = self.settings.detectors[detector].pauses == Pauses::default();
            if !state.link.is_up() || is_busy || !may_be_asked || state.grants.len() > GRANTS / 2 {
                continue;
            }
            let next = self.next_transfer;
            self.next_transfer += (GRANTS - state.grants.len()) as u64;
            let transfers: Vec<TransferId> = (next..self.next_transfer).map(TransferId).collect();
            state.grants.extend(&transfers);
            let detector = DetectorIndex(detector as u16);
            out.push(Order::Grant { detector, transfers, max_bytes: GRANT_BYTES });
        }
    }

    /// Offers whose files come without having been asked for. What cannot be taken as it comes is discarded, and asked for like any other.
    pub(super) fn coming(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        coming: Vec<Coming>,
        out: &mut Vec<Order>,
    ) {
        let mut unasked = Vec::with_capacity(coming.len());
        let mut files = Vec::with_capacity(coming.len());
        for Coming { transfer, shifts_heard, file } in coming {
            unasked.push((transfer, shifts_heard, file.offer));
            files.push(file);
        }
        self.offered(now, detector, files, out);
        for (transfer, shifts_heard, offer) in unasked {
            let state = &mut self.detectors[detector.index()];
            // What was never granted no landing thread takes, either.
            if !state.grants.remove(&transfer) {
                continue;
            }
            // Who has not heard of every shift may give it to another one when he has; a want would have come to him behind that.
            let job = match shifts_heard == state.shifts_told {
                true => self.let_come(now, detector, offer, transfer, out),
                false => None,
            };
            out.push(Order::Coming { detector, transfer, job });
        }
    }

    fn let_come(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        id: OfferId,
        transfer: TransferId,
        out: &mut Vec<Order>,
    ) -> Option<LandJob> {
        let state = &self.detectors[detector.index()];
        let offer = state.offers.get(&id)?;
        let may = state.waiting.contains(&id)
            && state.blocked_since.is_none()
            && offer.shift != ShiftId::UNKNOWN
            && offer.identity.size <= GRANT_BYTES
            && self.room.fits(offer.identity.size)
            && self.may_ask();
        if !may {
            return None;
        }
        self.ask(now, detector, id, transfer, out).map(|(_, job)| job)
    }

    /// Nothing keeps the PPU from asking for files at all.
    pub(super) fn may_ask(&self) -> bool {
        let uncommitted = self.journal.next_sequence - self.journal.committed;
        self.paused.fetch_ms.is_none() && uncommitted <= UNCOMMITTED_RECORDS_MAX
    }
}
