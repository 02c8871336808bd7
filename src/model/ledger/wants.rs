//! Asking detectors for files, as far as there is room, and no pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::detector::Offer;
use super::landings::Transfer;
use super::{Ledger, Now, Order};
use crate::model::file_version::{DetectorIndex, OfferId, TransferId};
use crate::model::job::LandJob;
use crate::model::message::{Code, Message};
use crate::model::offer::Wanted;
use crate::model::shift::ShiftId;

/// Files asked of one detector at a time.
const WANTED_FILES_MAX: u64 = 256;
/// Bytes asked of one detector at a time; one larger file may be asked for alone.
const WANTED_BYTES_MAX: u64 = 256 << 20;
/// How far a smaller file may be looked for behind one that does not fit.
const PASSING_FILES_MAX: usize = 64;
/// After that long nothing passes any more.
const PASSING_TIME: Duration = Duration::from_secs(10);
/// A file whose shift will be known in a moment is looked at again after that time.
const UNCLEAR_PAUSE: Duration = Duration::from_millis(20);
/// Why a file that its detector cannot attribute is held.
const UNKNOWN_SHIFT: &str = "in which shift it was closed cannot be told, so nobody gets it; to give it to the current shift, close it again on the \
                             detector: touch it";

impl Ledger {
    /// Asks every detector in turn for one file, oldest first, until nothing more fits.
    pub(super) fn want(&mut self, now: Now, out: &mut Vec<Order>) {
        for state in &mut self.detectors {
            while let Some(&(at, id)) = state.later.first()
                && at <= now.at
            {
                state.later.pop_first();
                if state.offers.contains_key(&id) {
                    state.waiting.insert(id);
                }
            }
            state.pace.backlog(now.at, state.backlog_is_empty());
        }
        if !self.may_ask() {
            return;
        }
        let mut wants: Vec<Vec<(Wanted, LandJob)>> = self.detectors.iter().map(|_| Vec::new()).collect();
        let may_be_asked = |d: &usize| {
            let state = &self.detectors[*d];
            !state.waiting.is_empty() && state.pace.paused_until(now.at).is_none()
        };
        let mut asking: Vec<usize> = (0..self.detectors.len()).filter(may_be_asked).collect();
        while !asking.is_empty() {
            asking.retain(|&d| {
                let detector = DetectorIndex(d as u16);
                let Some(offer) = self.next_fit(now, detector, out) else { return false };
                let transfer = TransferId(self.next_transfer);
                if let Some(want) = self.ask(now, detector, offer, transfer, out) {
                    self.next_transfer += 1;
                    wants[d].push(want);
                }
                true
            });
        }
        for (d, wants) in wants.into_iter().enumerate() {
            if !wants.is_empty() {
                self.detectors[d].pace.asked(now.at);
                out.push(Order::Want { detector: DetectorIndex(d as u16), wants });
            }
        }
        self.grant(out);
    }

    /// Files that were asked for and have not come yet.
    pub fn wanted_files(&self) -> u64 {
        self.detectors.iter().map(|state| state.wanted_files).sum()
    }

    /// When the first pause ends that a file waits for.
    pub fn pause_ends(&self, now: Now) -> Option<Instant> {
        let waiting = self.detectors.iter().filter(|state| !state.waiting.is_empty());
        waiting.filter_map(|state| state.pace.paused_until(now.at)).min()
    }

    fn next_fit(&mut self, now: Now, detector: DetectorIndex, out: &mut Vec<Order>) -> Option<OfferId> {
        let state = &mut self.detectors[detector.index()];
        if state.wanted_files >= WANTED_FILES_MAX {
            return None;
        }
        let oldest_blocked_for = state.blocked_since.map(|since| now.at - since);
        let passing = match oldest_blocked_for {
            Some(time) if time >= PASSING_TIME => 1,
            _ => PASSING_FILES_MAX,
        };
        for (place, id) in state.waiting.iter().take(passing).enumerate() {
            let Some(offer) = state.offers.get(id) else { continue };
            let size = offer.identity.size;
            if state.wanted_files > 0 && state.wanted_bytes.saturating_add(size) > WANTED_BYTES_MAX {
                return None;
            }
            if self.room.fits(size) || !self.room.could_ever_hold(size) {
                if place == 0 {
                    state.blocked_since = None;
                }
                return Some(*id);
            }
            if place == 0 && state.blocked_since.is_none() {
                state.blocked_since = Some(now.at);
                let long = format!(
                    "The PPU's ramdisk has no room for {} ({size} bytes). It waits on its detector; nothing is lost. Room comes back when \
                     files leave the ramdisk.",
                    offer.path
                );
                out.push(Order::Tell(Message::new(Code::DiskOverflow, self.settings.ramdisk.as_str(), long)));
            }
        }
        None
    }

    /// `None`: it cannot be had now, or at all, and waits.
    pub(super) fn ask(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        id: OfferId,
        transfer: TransferId,
        out: &mut Vec<Order>,
    ) -> Option<(Wanted, LandJob)> {
        let detector_id = Arc::clone(&self.settings.detectors[detector.index()].id);
        let offer = self.detectors[detector.index()].offers.get(&id)?;
        let unclear = self.may_be_misplaced(detector, offer.shift, offer.closed);
        let like = self.like_which(detector, offer);
        let state = &mut self.detectors[detector.index()];
        state.waiting.remove(&id);
        let offer = state.offers.get_mut(&id)?;
        if unclear {
            state.later.insert((now.at + UNCLEAR_PAUSE, id));
            return None;
        }
        let compare_only = like.is_some();
        let shift = self.shifts.get(&like.unwrap_or(offer.shift)).cloned();
        let at = shift.as_ref().and_then(|shift| {
            let place = shift.place(&detector_id)?;
            place.target.landing(shift.user_dir.as_ref(), &offer.path).ok()
        });
        let held = match (shift, at) {
            (None, _) if offer.shift == ShiftId::UNKNOWN => Err(UNKNOWN_SHIFT),
            (None, _) => Err(
                "the PPU does not know its shift (was its state_dir lost?); to give it to the current shift, close it again: touch it",
            ),
            (Some(shift), None) if shift.place(&detector_id).is_none() && shift.id == self.current.id => Err(
                "its detector takes no part in the shift; `ppu-uringd shift start` begins one with all detectors",
            ),
            (Some(shift), None) if shift.place(&detector_id).is_none() => Err(
                "it was closed in a shift in which its detector took no part; to give it to the current shift, close it again: touch it",
            ),
            (_, None) => Err("its path on the PPU would be too long"),
            _ if !self.room.could_ever_hold(offer.identity.size) => {
                Err("it is larger than the PPU's ramdisk")
            }
            (Some(shift), Some(at)) => Ok((shift, at)),
        };
        let (shift, at) = match held {
            Ok(places) => places,
            Err(reason) => {
                if !std::mem::replace(&mut offer.told, true) {
                    let path = offer.path.to_string();
                    let long = format!("{path} of detector {detector_id} is held there: {reason}.");
                    out.push(Order::Tell(Message::new(Code::LandError, path, long)));
                }
                self.ask_again(now, detector, id);
                return None;
            }
        };
        offer.wanted = true;
        let size = offer.identity.size;
        state.wanted_files += 1;
        state.wanted_bytes += size;
        self.room.reserve(size);
        let record = Transfer {
            detector,
            session: state.session,
            offer: id,
            path: offer.path.clone(),
            size,
            shift: shift.id,
        };
        self.transfers.insert(transfer, record);
        let wanted = Wanted { transfer, offer: id, known_hash: offer.known_hash };
        let (path, offered, replace_past) = (offer.path.clone(), offer.identity, offer.replace_past);
        let place = shift.place(&detector_id);
        let to = place.and_then(|place| place.target.replica(shift.user_dir.as_ref(), &path).ok());
        let job = LandJob { detector, detector_id, shift, path, at, to, offered, replace_past, compare_only };
        Some((wanted, job))
    }

    /// Its detector cannot tell in which shift a file was closed, but it looks like one that has landed: nothing has moved but its ctime
    /// (it was about to be released, say, and put back). If its content is the same it is the same. In which shift that was.
    fn like_which(&self, detector: DetectorIndex, offer: &Offer) -> Option<ShiftId> {
        if offer.shift != ShiftId::UNKNOWN || offer.differs {
            return None;
        }
        let known = self.versions.get(self.versions.newest(detector, &offer.path)?)?;
        (offer.known_hash == Some(known.hash)).then_some(known.shift)
    }

    /// Nobody gets what that detector closed in that shift: no shift that we know covers it.
    pub(super) fn is_held(&self, detector: &str, shift: ShiftId) -> bool {
        self.shifts.get(&shift).is_none_or(|shift| shift.place(detector).is_none())
    }

    /// A want's end: gives its reservation back.
    pub(super) fn end_transfer(&mut self, id: TransferId, landed: bool) -> Option<Transfer> {
        let transfer = self.transfers.remove(&id)?;
        if landed {
            self.room.land(transfer.size);
        } else {
            self.room.release(transfer.size);
        }
        let state = &mut self.detectors[transfer.detector.index()];
        if state.session == transfer.session {
            state.wanted_files = state.wanted_files.saturating_sub(1);
            state.wanted_bytes = state.wanted_bytes.saturating_sub(transfer.size);
            if let Some(offer) = state.offers.get_mut(&transfer.offer) {
                offer.wanted = false;
            }
        }
        Some(transfer)
    }

    /// What was said of an offer while it was on its way, now that it brought nothing.
    pub(super) fn settle_withdrawn(&mut self, transfer: &Transfer, out: &mut Vec<Order>) -> bool {
        let state = &self.detectors[transfer.detector.index()];
        let Some(why) = state.offers.get(&transfer.offer).and_then(|offer| offer.withdrawn) else {
            return false;
        };
        self.end_offer(transfer.detector, transfer.offer, why, out);
        true
    }
}
