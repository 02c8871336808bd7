//! Detectors' sessions: what they offer, what is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use super::detector::{Link, Offer, Unresolved};
use super::{Ledger, Now, Order, Session, Version};
use crate::model::file_version::{DetectorIndex, Identity, OfferId, TransferId, VersionId};
use crate::model::message::{Code, Message};
use crate::model::offer::{Decline, OFFER_WINDOW, Offered, Withdrawal};
use crate::model::path::RelPath;
use crate::model::record::Record;
use crate::model::shift::ShiftId;

/// Pause before a failed landing is tried again; doubles from try to try.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

impl Ledger {
    pub(super) fn link_up(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        session: Session,
        out: &mut Vec<Order>,
    ) {
        let state = &mut self.detectors[detector.index()];
        state.session = session;
        state.shifts_told = 0;
        state.offers_too_much = false;
        state.troubles.forget();
        state.link = Link::Up(now.at);
        self.announce_all(now, detector, out);
    }

    /// Transfers whose want never reached a landing thread end here; all others have been reported.
    pub(super) fn link_down(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        session: Session,
        reason: String,
        refused: bool,
        out: &mut Vec<Order>,
    ) {
        let settings = &self.settings.detectors[detector.index()];
        let state = &mut self.detectors[detector.index()];
        let since = match &state.link {
            Link::Down { since, reason: before, .. } if *before == reason => *since,
            _ => {
                let (id, address) = (&settings.id, &settings.address);
                let long = format!(
                    "Detector {id} at {address}: {reason}. Its images wait there and are fetched when the link is back, which is \
                     tried without end."
                );
                out.push(Order::Tell(Message::new(Code::DetectorLink, &**id, long)));
                now.at
            }
        };
        state.link = Link::Down { since, reason, refused };
        if state.session != session {
            return;
        }
        let room = &mut self.room;
        self.transfers.retain(|_, transfer| {
            let over = transfer.detector == detector && transfer.session == session;
            if over {
                room.release(transfer.size);
            }
            !over
        });
        let mut offers: Vec<(OfferId, Offer)> = state.offers.drain().collect();
        self.versions.unlink_offers(detector);
        state.waiting.clear();
        state.later.clear();
        state.fell.clear();
        state.grants.clear();
        state.unresolved.values_mut().for_each(|unresolved| unresolved.awaited = false);
        (state.wanted_files, state.wanted_bytes) = (0, 0);
        state.troubles.forget();
        state.beat.backlog_files = 0;
        state.beat.backlog_bytes = 0;
        state.blocked_since = None;
        offers.sort_unstable_by_key(|(id, _)| *id); // the newest of a path comes last
        for (_, offer) in offers {
            match offer.withdrawn {
                Some(why) => self.conclude(detector, offer, why, out),
                None => self.leave_unresolved(detector, offer, out),
            }
        }
    }

    /// The next session will tell what becomes of it.
    fn leave_unresolved(&mut self, detector: DetectorIndex, offer: Offer, out: &mut Vec<Order>) {
        if self.has_landed(detector, &offer) {
            return;
        }
        let Offer { shift, identity, again, .. } = offer;
        let unresolved = Unresolved { shift, identity, fallen: None, again, awaited: false };
        let before = self.detectors[detector.index()].unresolved.insert(offer.path, unresolved);
        if let Some(before) = before {
            self.supersede_found(before, out);
        }
    }

    /// The very version that is offered (again) has landed: the link broke before the detector heard so. It is counted already.
    pub(super) fn has_landed(&self, detector: DetectorIndex, offer: &Offer) -> bool {
        let newest = self.versions.newest(detector, &offer.path).and_then(|id| self.versions.get(id));
        offer.landed || newest.is_some_and(|version| version.identity == offer.identity)
    }

    pub(super) fn manifest_begin(&mut self, detector: DetectorIndex) {
        self.detectors[detector.index()].manifest += 1;
    }

    /// What the manifest did not name is gone from the detector; what had not landed either is lost.
    pub(super) fn manifest_end(&mut self, detector: DetectorIndex, out: &mut Vec<Order>) {
        let manifest = self.detectors[detector.index()].manifest;
        let is_gone = |v: &Version| v.detector == detector && v.on_detector && v.seen < manifest;
        let gone: Vec<VersionId> =
            self.versions.iter().filter(|(_, v)| is_gone(v)).map(|(id, _)| id).collect();
        for id in gone {
            self.leave_detector(id, out);
        }
        let unresolved = &mut self.detectors[detector.index()].unresolved;
        let lost: Vec<_> = unresolved.extract_if(|_, unresolved| !unresolved.awaited).collect();
        for (path, Unresolved { shift, identity, fallen, .. }) in lost {
            match fallen {
                None => self.lose(detector, shift, path, identity, out),
                Some((id, copies)) => self.lose_fallen(detector, shift, &path, id, &copies, out),
            }
        }
    }

    pub(super) fn offered(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        files: Vec<Offered>,
        out: &mut Vec<Order>,
    ) {
        let (mut have, mut stored) = (Vec::new(), Vec::new());
        let sources = self.sources(detector);
        // They were in the backlog when it was last told of, which may be a second ago: no file is in two counts.
        let beat = &mut self.detectors[detector.index()].beat;
        beat.backlog_files = beat.backlog_files.saturating_sub(files.len() as u64);
        let bytes: u64 = files.iter().map(|file| file.identity.size).fold(0, u64::saturating_add);
        beat.backlog_bytes = beat.backlog_bytes.saturating_sub(bytes);
        for file in files {
            let again = self.resolve(detector, &file, &sources, out);
            if file.superseded > 0 {
                self.supersede_unlanded(file.shift, u64::from(file.superseded), out);
            }
            let known = self.versions.newest(detector, &file.path);
            let otherwise =
                known.is_none().then(|| self.named_otherwise(detector, &file, &sources)).flatten();
            let state = &mut self.detectors[detector.index()];
            let mut known_hash = None;
            if let Some(id) = known.or(otherwise)
                && let Some(version) = self.versions.get_mut(id)
            {
                version.seen = state.manifest;
                let is_it = !file.fresh && version.on_detector && version.identity == file.identity;
                if is_it && (version.settled || otherwise.is_some()) {
                    have.push(file.offer);
                    if internal_copy_is_stored(&self.settings, version) {
                        stored.push(file.offer);
                    }
                    self.versions.link_offer(id, file.offer);
                    continue;
                }
                // What came back after it was gone may be gone from the ramdisk, too: it travels again.
                // Nor is what another shift wrote anew, be it the same: it is theirs, and lands where they look for it.
                let same_shift = version.shift == file.shift || same_write(&version.identity, &file.identity);
                let may_be_same =
                    version.on_detector && version.identity.size == file.identity.size && same_shift;
                known_hash = may_be_same.then_some(version.hash);
            }
            if state.offers.len() >= OFFER_WINDOW {
                if !std::mem::replace(&mut state.offers_too_much, true) {
                    let id = &self.settings.detectors[detector.index()].id;
                    let long = format!(
                        "Detector {id} offers more than {OFFER_WINDOW} files at a time, which its program must not: {} and others are not fetched \
                         until it is connected again. Install the same version of ppu-uringd there and restart it.",
                        file.path
                    );
                    out.push(Order::Tell(Message::new(Code::LandError, file.path.to_string(), long)));
                }
                continue;
            }
            let closed = now.at.checked_sub(Duration::from_micros(file.closed_us_ago)).unwrap_or(now.at);
            let offer = Offer {
                path: file.path,
                identity: file.identity,
                shift: file.shift,
                closed,
                known_hash,
                tries: 0,
                wanted: false,
                withdrawn: None,
                told: false,
                replace_past: false,
                differs: false,
                again,
                landed: false,
            };
            state.waiting.insert(file.offer);
            state.offers.insert(file.offer, offer);
        }
        if !have.is_empty() {
            out.push(Order::Have { detector, offers: have });
        }
        if !stored.is_empty() {
            out.push(Order::AckStored { detector, offers: stored });
        }
    }

    /// Every part of its ramdisk that a shift takes, or took.
    fn sources(&self, detector: DetectorIndex) -> BTreeSet<Option<RelPath>> {
        let id = &self.settings.detectors[detector.index()].id;
        self.shifts.values().filter_map(|shift| Some(shift.place(id)?.source.clone())).collect()
    }

    /// A file that landed in a shift with another source, below which its path is another: a detector that was restarted has but its times
    /// to tell in which shift it was closed, and may take it for an earlier one's.
    fn named_otherwise(
        &self,
        detector: DetectorIndex,
        file: &Offered,
        sources: &BTreeSet<Option<RelPath>>,
    ) -> Option<VersionId> {
        if file.fresh || sources.len() < 2 {
            return None;
        }
        let paths = sources.iter().filter_map(|source| whole(source, &file.path));
        let others = paths.flat_map(|whole| sources.iter().filter_map(move |source| below(&whole, source)));
        let is_it = |id: &VersionId| {
            self.versions.get(*id).is_some_and(|v| v.on_detector && v.identity == file.identity)
        };
        others.filter_map(|path| self.versions.newest(detector, &path)).find(is_it)
    }

    /// A version left over from an earlier session is found again under its own or (`mv`) another name, or was replaced. True: it is one
    /// that had landed and fell.
    fn resolve(
        &mut self,
        detector: DetectorIndex,
        file: &Offered,
        sources: &BTreeSet<Option<RelPath>>,
        out: &mut Vec<Order>,
    ) -> bool {
        if self.detectors[detector.index()].unresolved.is_empty() {
            return false;
        }
        let same = |u: &Unresolved| same_write(&u.identity, &file.identity);
        let name = self.left_over(detector, file, sources);
        let unresolved = &mut self.detectors[detector.index()].unresolved;
        let found = name.and_then(|name| unresolved.remove(&name)).or_else(|| {
            let renamed = unresolved.iter().find(|(_, u)| same(u)).map(|(path, _)| path.clone());
            renamed.and_then(|path| unresolved.remove(&path))
        });
        let Some(found) = found else { return false };
        if !same(&found) {
            self.supersede_found(found, out);
            return false;
        }
        if let Some((version, _)) = found.fallen {
            self.record(Record::Unlanded { version }, out);
        }
        found.again
    }

    /// How the version that is left over of an offered file is called: where a shift has another source, the same file has another path.
    fn left_over(
        &self,
        detector: DetectorIndex,
        file: &Offered,
        sources: &BTreeSet<Option<RelPath>>,
    ) -> Option<RelPath> {
        let unresolved = &self.detectors[detector.index()].unresolved;
        if sources.len() < 2 || unresolved.contains_key(&file.path) && self.shift(file.shift).is_none() {
            return unresolved.contains_key(&file.path).then(|| file.path.clone());
        }
        // Of a file that is held nobody knows which part of the ramdisk its path is below.
        let its_source = self.source(detector, file.shift);
        let may_be = sources.iter().filter(|source| its_source.as_ref().is_none_or(|its| its == *source));
        let wholes = may_be.filter_map(|source| whole(source, &file.path));
        let names = wholes.flat_map(|whole| {
            sources.iter().filter_map(move |source| Some((source, below(&whole, source)?)))
        });
        let names: Vec<(&Option<RelPath>, RelPath)> = names.collect();
        let is_it = |(source, name): &&(&Option<RelPath>, RelPath)| {
            let its = unresolved.get(name).map(|unresolved| self.source(detector, unresolved.shift));
            its.is_some_and(|its| its.map_or(*name == file.path, |its| its == **source))
        };
        // Of one that was held, any of its names may be it.
        let was_held = |(_, name): &&(&Option<RelPath>, RelPath)| {
            unresolved.get(name).is_some_and(|unresolved| self.source(detector, unresolved.shift).is_none())
        };
        let found = names.iter().find(is_it).or_else(|| names.iter().find(was_held));
        found.map(|(_, name)| name.clone())
    }

    /// What a shift takes of a detector.
    fn source(&self, detector: DetectorIndex, shift: ShiftId) -> Option<Option<RelPath>> {
        let id = &self.settings.detectors[detector.index()].id;
        Some(self.shift(shift)?.place(id)?.source.clone())
    }

    /// A version that was to be fetched again has a newer one in its place.
    pub(super) fn replace_unresolved(
        &mut self,
        detector: DetectorIndex,
        path: &RelPath,
        out: &mut Vec<Order>,
    ) {
        if let Some(found) = self.detectors[detector.index()].unresolved.remove(path) {
            self.supersede_found(found, out);
        }
    }

    fn supersede_found(&mut self, found: Unresolved, out: &mut Vec<Order>) {
        match found.fallen {
            Some((version, copies)) => self.supersede_fallen(found.shift, version, &copies, out),
            None => self.supersede_unlanded(found.shift, 1, out),
        }
    }

    /// Versions that came to an end before they landed, because newer ones took their place.
    fn supersede_unlanded(&mut self, shift: ShiftId, count: u64, out: &mut Vec<Order>) {
        self.tallies.everywhere(shift, self.settings.storages.len(), |t| t.superseded += count);
        self.record(Record::SupersededUnlanded { shift, count }, out);
    }

    pub(super) fn withdrawn(
        &mut self,
        detector: DetectorIndex,
        offer: OfferId,
        why: Withdrawal,
        out: &mut Vec<Order>,
    ) {
        let Some(open) = self.detectors[detector.index()].offers.get(&offer) else { return };
        let path = open.path.clone();
        // What the PPU has of this path now is no newer than this offer: that may be so no more once it has ended.
        let landed = self.has_landed(detector, open);
        if !matches!(why, Withdrawal::Reopened) {
            // An older version that fell while this one was on offer: its detector has nothing more to say of that.
            self.replace_unresolved(detector, &path, out);
        }
        if matches!(why, Withdrawal::Vanished)
            && let Some(older) = self.versions.newest(detector, &path)
        {
            // Whatever had landed under this name is not there any more, either.
            self.leave_detector(older, out);
        }
        let Some(open) = self.detectors[detector.index()].offers.get_mut(&offer) else { return };
        open.landed = landed;
        if open.wanted {
            open.withdrawn = Some(why);
        } else {
            self.end_offer(detector, offer, why, out);
        }
    }

    pub(super) fn end_offer(
        &mut self,
        detector: DetectorIndex,
        id: OfferId,
        why: Withdrawal,
        out: &mut Vec<Order>,
    ) {
        if let Some(offer) = self.take_offer(detector, id) {
            self.conclude(detector, offer, why, out);
        }
    }

    /// Counts an offer that ended on the detector. Newer ones of its path may have landed meanwhile.
    fn conclude(&mut self, detector: DetectorIndex, offer: Offer, why: Withdrawal, out: &mut Vec<Order>) {
        if offer.landed {
            return;
        }
        match why {
            // The detector may not have heard that it fell: it does not count what had landed once more.
            Withdrawal::Reopened if offer.again => {
                let Offer { path, shift, identity, .. } = offer;
                let unresolved = Unresolved { shift, identity, fallen: None, again: true, awaited: true };
                self.detectors[detector.index()].unresolved.insert(path, unresolved);
            }
            Withdrawal::Reopened => {}
            Withdrawal::Moved | Withdrawal::Replaced => self.supersede_unlanded(offer.shift, 1, out),
            Withdrawal::Vanished => self.lose(detector, offer.shift, offer.path, offer.identity, out),
        }
    }

    pub(super) fn take_offer(&mut self, detector: DetectorIndex, id: OfferId) -> Option<Offer> {
        let state = &mut self.detectors[detector.index()];
        state.waiting.remove(&id);
        state.offers.remove(&id)
    }

    pub(super) fn declined(&mut self, now: Now, transfer: TransferId, why: Decline, out: &mut Vec<Order>) {
        let Some(transfer) = self.end_transfer(transfer, false) else { return };
        let (detector, id) = (transfer.detector, transfer.offer);
        let state = &mut self.detectors[detector.index()];
        let Some(offer) = state.offers.get_mut(&id) else { return };
        match why {
            // The detector's word on the offer itself came already, or follows.
            Decline::Busy | Decline::Vanished | Decline::Changed => {
                if let Some(why) = offer.withdrawn {
                    self.end_offer(detector, id, why, out);
                }
            }
            Decline::Failed(reason) => {
                let told = std::mem::replace(&mut offer.told, true);
                let path = offer.path.to_string();
                let name = &self.settings.detectors[detector.index()].id;
                let long = format!("Detector {name} cannot read {path}: {reason}. It is tried again.");
                state.last_error = Some(long.clone());
                if !told {
                    out.push(Order::Tell(Message::new(Code::LandError, path, long)));
                }
                self.ask_again(now, detector, id);
            }
            Decline::Unchanged { identity, settled } => {
                let of_that_hash =
                    |id: &VersionId| self.versions.get(*id).is_some_and(|v| Some(v.hash) == offer.known_hash);
                let Some(known) = self.versions.newest(detector, &offer.path).filter(of_that_hash) else {
                    // It fell from the ramdisk meanwhile: what was known of it would be answered the same for ever.
                    offer.known_hash = None;
                    return self.ask_again(now, detector, id);
                };
                self.take_offer(detector, id);
                self.refresh(known, identity, settled, out);
                self.versions.link_offer(known, id);
                if self
                    .versions
                    .get(known)
                    .is_some_and(|known| internal_copy_is_stored(&self.settings, known))
                {
                    out.push(Order::AckStored { detector, offers: vec![id] });
                }
                out.push(Order::Have { detector, offers: vec![id] });
            }
        }
    }

    fn refresh(&mut self, id: VersionId, identity: Identity, settled: bool, out: &mut Vec<Order>) {
        let Some(version) = self.versions.get_mut(id) else { return };
        version.identity = identity;
        version.settled = settled;
        version.on_detector = true;
        self.record(Record::Refreshed { version: id, identity, settled }, out);
    }

    /// Puts an offer back, to be asked for after a pause that grows with its tries.
    pub(super) fn ask_again(&mut self, now: Now, detector: DetectorIndex, id: OfferId) {
        let state = &mut self.detectors[detector.index()];
        let Some(offer) = state.offers.get_mut(&id) else { return };
        offer.tries = offer.tries.saturating_add(1);
        let pause = RETRY_PAUSE * 2u32.saturating_pow(offer.tries.min(8) - 1);
        state.later.insert((now.at + pause.min(RETRY_PAUSE_MAX), id));
    }

    /// Puts an offer back, to be asked for as soon as there is room.
    pub(super) fn ask_when_possible(&mut self, detector: DetectorIndex, id: OfferId) {
        let state = &mut self.detectors[detector.index()];
        if state.offers.contains_key(&id) {
            state.waiting.insert(id);
        }
    }

    pub(super) fn gone(&mut self, detector: DetectorIndex, offers: &[OfferId], out: &mut Vec<Order>) {
        for offer in offers {
            if let Some(id) = self.versions.offered(detector, *offer) {
                self.leave_detector(id, out);
            }
            self.gone_for_good(detector, *offer, out);
        }
    }

    /// The detector no longer has this version.
    pub(super) fn leave_detector(&mut self, id: VersionId, out: &mut Vec<Order>) {
        if self.versions.get(id).is_some_and(|version| version.on_detector) {
            self.versions.retire(id);
            self.record(Record::Gone { version: id }, out);
            self.versions.forget_if_done(id);
        }
    }

    pub(super) fn manifest_of(&self, detector: DetectorIndex) -> u64 {
        self.detectors[detector.index()].manifest
    }

    fn lose(
        &mut self,
        detector: DetectorIndex,
        shift: ShiftId,
        path: RelPath,
        identity: Identity,
        out: &mut Vec<Order>,
    ) {
        self.tallies.everywhere(shift, self.settings.storages.len(), |t| t.lost += 1);
        self.tell_lost(detector, &path, out);
        self.record(Record::Lost { detector, shift, path, identity }, out);
    }

    pub(super) fn tell_lost(&self, detector: DetectorIndex, path: &RelPath, out: &mut Vec<Order>) {
        let id = &self.settings.detectors[detector.index()].id;
        let long = format!(
            "{path} vanished from detector {id} before it was safe on the PPU. Something removes files there: nothing but \
             ppu-uringd should."
        );
        out.push(Order::Tell(Message::new(Code::DataLost, path.to_string(), long)));
    }
}

/// Below the ramdisk.
fn whole(source: &Option<RelPath>, path: &RelPath) -> Option<RelPath> {
    match source {
        Some(source) => source.join(path).ok(),
        None => Some(path.clone()),
    }
}

/// Below a source.
fn below(whole: &RelPath, source: &Option<RelPath>) -> Option<RelPath> {
    match source {
        Some(source) => whole.below(source),
        None => Some(whole.clone()),
    }
}

/// Nothing was written between the two looks: a rename, a link or a chmod moves the ctime, a close without a write moves nothing.
pub(super) fn same_write(a: &Identity, b: &Identity) -> bool {
    (a.ino, a.size, a.mtime_ns) == (b.ino, b.size, b.mtime_ns)
}

pub(super) fn internal_copy_is_stored(settings: &super::Settings, version: &Version) -> bool {
    settings
        .storages
        .iter()
        .zip(&version.copies)
        .any(|(storage, copy)| storage.internal && copy.state == super::CopyState::Stored)
}
