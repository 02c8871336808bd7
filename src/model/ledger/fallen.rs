//! Versions that had landed and fell from the ramdisk before they were stored anywhere: a user removed or changed the file, or the
//! machine rebooted. Their detector may still have them.

use super::detector::{Offer, Unresolved};
use super::offers::same_write;
use super::{Copy, Ledger, Order, Version};
use crate::model::file_version::{DetectorIndex, OfferId, StorageIndex, VersionId};
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::record::Record;
use crate::model::shift::ShiftId;

impl Ledger {
    /// To be fetched again: when its detector offers it anew, it is what it was before it landed; when the detector does not have it any
    /// more, it is lost. `awaited`: it was asked for it.
    pub(super) fn fall(&mut self, id: VersionId, version: Version, awaited: bool) {
        let Version { detector, shift, path, identity, copies, .. } = version;
        let unresolved = Unresolved { shift, identity, fallen: Some((id, copies)), again: true, awaited };
        self.detectors[detector.index()].unresolved.insert(path, unresolved);
    }

    /// As [`fall`](Self::fall), in the middle of a session: the detector is asked to offer it anew. No copy of it is in flight.
    pub(super) fn fetch_again(&mut self, id: VersionId, reason: &str, out: &mut Vec<Order>) {
        let offer = self.versions.offer(id);
        let Some(version) = self.versions.remove(id) else { return };
        for (storage, copy) in version.copies.iter().enumerate() {
            if !copy.state.is_final() {
                *self.tallies.at(version.shift, StorageIndex(storage as u16)).of(copy.state) -= 1;
            }
        }
        let detector = version.detector;
        let name = &self.settings.detectors[detector.index()].id;
        let long = format!(
            "{} cannot be copied: {reason}. It is not stored yet, so it is fetched again from detector {name}. Nothing but ppu-uringd \
             should remove or change images on the ramdisk before they are stored.",
            version.path
        );
        out.push(Order::Tell(Message::new(Code::LandError, version.path.to_string(), long)));
        self.replace_unresolved(detector, &version.path, out);
        let state = &mut self.detectors[detector.index()];
        let is_it =
            |open: &&mut Offer| open.path == version.path && same_write(&open.identity, &version.identity);
        // Offered again as it is: the link broke before its detector heard that it had landed, or it was closed once more, unchanged.
        if let Some(open) = state.offers.values_mut().find(is_it) {
            (open.again, open.landed, open.known_hash) = (true, false, None);
            self.record(Record::Unlanded { version: id }, out);
            return;
        }
        if let Some(offer) = offer {
            state.fell.insert(offer, version.path.clone());
            out.push(Order::Fell { detector, offers: vec![offer] });
        }
        self.fall(id, version, offer.is_some());
    }

    /// The detector said that it does not have it any more, before it heard that it is needed again.
    pub(super) fn gone_for_good(&mut self, detector: DetectorIndex, offer: OfferId, out: &mut Vec<Order>) {
        let state = &mut self.detectors[detector.index()];
        let Some(path) = state.fell.remove(&offer) else { return };
        if let Some(Unresolved { shift, fallen: Some((id, copies)), .. }) = state.unresolved.remove(&path) {
            self.lose_fallen(detector, shift, &path, id, &copies, out);
        }
    }

    /// A newer version has its place. What had come to an end on a storage has been counted there.
    pub(super) fn supersede_fallen(
        &mut self,
        shift: ShiftId,
        version: VersionId,
        copies: &[Copy],
        out: &mut Vec<Order>,
    ) {
        for (storage, _) in copies.iter().enumerate().filter(|(_, copy)| !copy.state.is_final()) {
            let storage = StorageIndex(storage as u16);
            self.tallies.at(shift, storage).superseded += 1;
            self.record(Record::Superseded { version, storage }, out);
        }
        self.record(Record::Gone { version }, out);
    }

    /// As [`lose`](Self::lose), of a version that had landed once.
    pub(super) fn lose_fallen(
        &mut self,
        detector: DetectorIndex,
        shift: ShiftId,
        path: &RelPath,
        version: VersionId,
        copies: &[Copy],
        out: &mut Vec<Order>,
    ) {
        for (storage, _) in copies.iter().enumerate().filter(|(_, copy)| !copy.state.is_final()) {
            self.tallies.at(shift, StorageIndex(storage as u16)).lost += 1;
        }
        self.tell_lost(detector, path, out);
        self.record(Record::LostVersion { version }, out);
    }
}
