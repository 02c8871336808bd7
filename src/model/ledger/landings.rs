//! Transfers and how they end on the PPU.

use super::offers::internal_copy_is_stored;
use super::{Copies, Copy, CopyState, Ledger, Now, Order, Session, Version};
use crate::model::file_version::{DetectorIndex, OfferId, StorageIndex, VersionId};
use crate::model::job::{LandFailure, LandReport, Landed};
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::record::{self, Record};
use crate::model::shift::ShiftId;

/// After that many tries people are told what a file waits for.
const PAST_TRIES: u32 = 6;

/// What earlier shifts have at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Nothing that matters any more.
    None,
    /// Safe on the internal storage.
    Safe,
    /// Only that.
    Unsafe,
}

/// A want that is under way.
pub(super) struct Transfer {
    pub(super) detector: DetectorIndex,
    pub(super) session: Session,
    pub(super) offer: OfferId,
    pub(super) path: RelPath,
    /// Reserved on the ramdisk.
    pub(super) size: u64,
    pub(super) shift: ShiftId,
}

impl Ledger {
    pub(super) fn landing(&mut self, now: Now, report: LandReport, out: &mut Vec<Order>) {
        let Some(transfer) = self.end_transfer(report.transfer, report.outcome.is_ok()) else { return };
        match report.outcome {
            Ok(landed) => self.landed(now, transfer, landed, out),
            Err(failure) => self.not_landed(now, &transfer, failure, out),
        }
    }

    fn landed(&mut self, now: Now, transfer: Transfer, landed: Landed, out: &mut Vec<Order>) {
        let Transfer { detector, offer, path, shift, .. } = transfer;
        let closed = self.take_offer(detector, offer).map(|offer| offer.closed);
        let version = Version {
            detector,
            shift,
            path,
            identity: landed.identity,
            settled: landed.settled,
            hash: landed.hash,
            mode: landed.mode,
            local: Some(landed.local),
            on_detector: true,
            seen: self.manifest_of(detector),
            closed,
            copies: self.fresh_copies(),
        };
        let counters = &mut self.detectors[detector.index()].counters;
        counters.landed_files += 1;
        counters.landed_bytes += landed.identity.size;
        self.timing.arrived(now.at, detector, landed.identity.size);
        if let Some(closed) = closed {
            self.timing.visible(landed.visible.saturating_duration_since(closed));
        }
        // What was to be fetched again under this name is older: it was offered after this one, or not yet.
        self.replace_unresolved(detector, &version.path, out);
        let id = self.admit(now, version, out);
        self.versions.link_offer(id, offer);
        out.push(Order::AckLanded { detector, offers: vec![offer] });
    }

    /// Takes a landed version in: it replaces the one before under its path, and its copies begin.
    pub(super) fn admit(&mut self, now: Now, version: Version, out: &mut Vec<Order>) -> VersionId {
        let older = self.versions.newest(version.detector, &version.path);
        if let Some(older) = older {
            self.versions.unlink_offer(older);
            self.supersede(older, &version, out);
            self.leave_detector(older, out);
            // Its detector may have said before that it does not have it any more.
            self.versions.forget_if_done(older);
        }
        let (at, to) = self.places(&version);
        let id = self.versions.insert(version);
        let Some(version) = self.versions.get(id) else { return id };
        for storage in 0..version.copies.len() {
            self.storages[storage].ready.insert(id);
            *self.tallies.at(version.shift, StorageIndex(storage as u16)).of(CopyState::Queued) += 1;
        }
        if let (Some(at), Some(to), Some(local)) = (at, to, version.local) {
            let record = record::Version {
                version: id,
                detector: version.detector,
                shift: version.shift,
                path: version.path.clone(),
                identity: version.identity,
                settled: version.settled,
                hash: version.hash,
                mode: version.mode,
                local,
                at,
                to,
                landed_ms: now.wall_ms,
            };
            self.record(Record::Landed(Box::new(record)), out);
        }
        id
    }

    fn not_landed(&mut self, now: Now, transfer: &Transfer, failure: LandFailure, out: &mut Vec<Order>) {
        if self.settle_withdrawn(transfer, out) {
            return;
        }
        let Transfer { detector, offer: id, path, .. } = transfer;
        let past = match failure {
            LandFailure::Foreign => self.past_at(*detector, transfer.shift, path),
            _ => Past::None,
        };
        let name = &self.settings.detectors[detector.index()].id;
        let state = &mut self.detectors[detector.index()];
        let mismatch = matches!(failure, LandFailure::Mismatch { .. });
        if mismatch {
            state.counters.integrity_errors += 1;
        }
        let Some(offer) = state.offers.get_mut(id) else { return };
        let first = !std::mem::replace(&mut offer.told, true);
        let (code, advice) = match failure {
            // The detector offers the newer version; should it not, this one is asked for again.
            LandFailure::Changed => {
                offer.told = false;
                return self.ask_again(now, *detector, *id);
            }
            LandFailure::NoSpace(_) => {
                offer.told = false;
                self.room.is_full();
                return self.ask_when_possible(*detector, *id);
            }
            LandFailure::Nobodys => {
                (offer.told, offer.differs) = (false, true);
                return self.ask_again(now, *detector, *id);
            }
            LandFailure::Mismatch { .. } => (
                Code::IntegrityError,
                "Nothing was published; it is sent again. Should it happen often, check network cards, cables and memory.",
            ),
            // The name is an earlier shift's (SPEC 2.5). Its file is never the only one that there is.
            LandFailure::Foreign if past == Past::Unsafe && offer.tries < PAST_TRIES => {
                offer.told = false;
                return self.ask_again(now, *detector, *id);
            }
            LandFailure::Foreign if past != Past::Unsafe && !offer.replace_past => {
                (offer.told, offer.replace_past) = (false, true);
                return self.ask_when_possible(*detector, *id);
            }
            LandFailure::Foreign if past == Past::Unsafe => (
                Code::LandError,
                "It is an earlier shift's file, which is not yet on the internal storage. The image waits on its detector, and lands by itself \
                 when that is.",
            ),
            LandFailure::Foreign => (
                Code::LandError,
                "The image waits on its detector. Move or rename what stands at its place on the PPU's ramdisk; it lands by itself then.",
            ),
            LandFailure::SenderFailed | LandFailure::Io(_) => (Code::LandError, "It is tried again."),
        };
        let long = format!("{path} of detector {name} did not land: {failure}. {advice}");
        state.last_error = Some(long.clone());
        if first || mismatch {
            out.push(Order::Tell(Message::new(code, path.to_string(), long)));
        }
        self.ask_again(now, *detector, *id);
    }

    /// `older` is no longer the newest of its path: what is still to be copied of it never will be.
    pub(super) fn supersede(&mut self, older: VersionId, newer: &Version, out: &mut Vec<Order>) {
        let Some(version) = self.versions.get(older) else { return };
        if version.shift != newer.shift {
            // Another shift's file. Where it had the same place it is replaced there, and was safe before.
            if self.places(version).0 == self.places(newer).0
                && let Some(version) = self.versions.get_mut(older)
            {
                version.local = None;
            }
            return;
        }
        for storage in 0..version.copies.len() {
            self.supersede_copy(older, StorageIndex(storage as u16), out);
        }
    }

    /// What earlier shifts have where a file is to land.
    fn past_at(&self, detector: DetectorIndex, shift: ShiftId, path: &RelPath) -> Past {
        let place = self.shift(shift).and_then(|shift| {
            let place = shift.place(&self.settings.detectors[detector.index()].id)?;
            place.target.landing(shift.user_dir.as_ref(), path).ok()
        });
        let there = |version: &&Version| {
            version.shift != shift && version.local.is_some() && self.places(version).0 == place
        };
        let mut past = Past::None;
        for version in self.versions.iter().map(|(_, version)| version).filter(there) {
            match internal_copy_is_stored(&self.settings, version) {
                true => past = Past::Safe,
                false => return Past::Unsafe,
            }
        }
        past
    }

    /// Where a version lies below the ramdisk, and below a storage's target.
    pub(super) fn places(&self, version: &Version) -> (Option<RelPath>, Option<RelPath>) {
        if self.is_extra(version) {
            return Self::extra_places(version);
        }
        let shift = self.shift(version.shift);
        let detector = &self.settings.detectors[version.detector.index()].id;
        let Some((shift, place)) = shift.and_then(|shift| Some((shift, shift.place(detector)?))) else {
            return (None, None);
        };
        let user_dir = shift.user_dir.as_ref();
        (
            place.target.landing(user_dir, &version.path).ok(),
            place.target.replica(user_dir, &version.path).ok(),
        )
    }

    pub(super) fn fresh_copies(&self) -> Copies {
        self.settings.storages.iter().map(|_| Copy { state: CopyState::Queued, tries: 0 }).collect()
    }
}
