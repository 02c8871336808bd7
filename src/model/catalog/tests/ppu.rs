//! A PPU that counts as the ledger does, as far as a detector sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::*;
use crate::model::file_version::Hash;
use crate::model::file_version::TransferId;
use crate::model::offer::Wanted;
use crate::model::offer::{Coming, Decline, Offered};

/// What a file holds, so that two are compared at a glance.
pub(super) type Content = u64;

/// Said to the detector.
pub(super) enum ToDetector {
    Want(Wanted),
    Grant(Vec<TransferId>),
    NotTaken(TransferId),
    Landed(OfferId),
    Fell(OfferId),
    Stored(OfferId),
}

pub(super) fn hash(content: Content) -> Hash {
    Hash(u128::from(content).to_be_bytes())
}

/// See the module.
#[derive(Default)]
pub(super) struct Ppu {
    pub(super) has: BTreeMap<RelPath, Has>,
    pub(super) offers: BTreeMap<OfferId, Open>,
    wants: BTreeMap<TransferId, OfferId>,
    granted: BTreeSet<TransferId>,
    unresolved: BTreeMap<RelPath, Unresolved>,
    /// Had landed in this session, and fell from the ramdisk.
    fell: BTreeMap<OfferId, RelPath>,
    seen: BTreeSet<RelPath>,
    transfers: u64,
    pub(super) landed: u64,
    pub(super) superseded: u64,
    pub(super) lost: u64,
    /// All that ever landed.
    pub(super) ever: BTreeSet<(RelPath, Content)>,
}

pub(super) struct Has {
    identity: Identity,
    pub(super) content: Content,
    offer: Option<OfferId>,
    /// It may have been called stored, and what is stored never falls.
    stored: bool,
}

struct Unresolved {
    identity: Identity,
    fell: bool,
    /// The detector will tell of it in this session.
    awaited: bool,
}

#[derive(Debug)]
pub(super) struct Open {
    path: RelPath,
    identity: Identity,
    known: Option<Hash>,
    wanted: bool,
    withdrawn: Option<Withdrawal>,
    /// Had landed, and fell.
    again: bool,
    /// Had landed when it was withdrawn.
    landed: bool,
}

impl Ppu {
    pub(super) fn hear(&mut self, word: Word, say: &mut VecDeque<ToDetector>) {
        match word {
            Word::ShiftWord(_) | Word::Trouble(_) | Word::TroubleOver(_) => {}
            Word::ManifestBegin => self.seen.clear(),
            Word::Offer(files) => {
                for file in files {
                    let offer = file.offer;
                    self.offered(file, say);
                    self.want(offer, say);
                }
            }
            Word::Coming(files) => files.into_iter().for_each(|(coming, _)| self.coming(coming, say)),
            Word::ManifestEnd => {
                let seen = &self.seen;
                self.has.retain(|path, _| seen.contains(path));
                let before = self.unresolved.len();
                self.unresolved.retain(|_, unresolved| unresolved.awaited);
                self.lost += (before - self.unresolved.len()) as u64;
            }
            Word::Withdrawn(offer, why) => {
                let Some(open) = self.offers.get(&offer) else { return };
                let landed = self.has_version(open);
                let Some(open) = self.offers.get_mut(&offer) else { return };
                (open.landed, open.withdrawn) = (landed, Some(why));
                if !open.wanted {
                    self.end(offer, why);
                }
            }
            Word::Declined(transfer, why) => self.declined(transfer, why, say),
            Word::Gone(offers) => {
                self.has.retain(|_, has| !has.offer.is_some_and(|offer| offers.contains(&offer)));
                for path in offers.iter().filter_map(|offer| self.fell.remove(offer)) {
                    self.lost += u64::from(self.unresolved.remove(&path).is_some());
                }
            }
        }
    }

    fn offered(&mut self, file: Offered, say: &mut VecDeque<ToDetector>) {
        let on_offer = self.offers.values().any(|open| open.path == file.path && open.withdrawn.is_none());
        assert!(!on_offer, "{} is on offer twice", file.path);
        self.seen.insert(file.path.clone());
        let again = self.resolve(&file);
        self.superseded += u64::from(file.superseded);
        let mut known = None;
        if let Some(has) = self.has.get_mut(&file.path) {
            if !file.fresh && has.identity == file.identity {
                has.offer = Some(file.offer);
                return say.extend([ToDetector::Landed(file.offer), ToDetector::Stored(file.offer)]);
            }
            known = Some(hash(has.content));
        }
        let Offered { path, identity, .. } = file;
        self.offers.insert(
            file.offer,
            Open { path, identity, known, wanted: false, withdrawn: None, again, landed: false },
        );
    }

    fn coming(&mut self, coming: Coming, say: &mut VecDeque<ToDetector>) {
        let Coming { transfer, file, .. } = coming;
        assert!(self.granted.remove(&transfer), "{} comes without a grant", file.path);
        let offer = file.offer;
        self.offered(file, say);
        match self.offers.get_mut(&offer) {
            // Now and then it cannot be taken as it comes.
            Some(open) if transfer.0 % 3 > 0 => {
                open.wanted = true;
                self.wants.insert(transfer, offer);
            }
            _ => {
                say.push_back(ToDetector::NotTaken(transfer));
                self.want(offer, say);
            }
        }
    }

    pub(super) fn grant(&mut self, say: &mut VecDeque<ToDetector>) {
        self.transfers += 1;
        self.granted.insert(TransferId(self.transfers));
        say.push_back(ToDetector::Grant(vec![TransferId(self.transfers)]));
    }

    /// A landing thread that has its content waits.
    pub(super) fn waits_for_word_on(&self, transfer: TransferId) -> bool {
        self.granted.contains(&transfer)
    }

    fn resolve(&mut self, file: &Offered) -> bool {
        let same = |unresolved: &Unresolved| same_content(&unresolved.identity, &file.identity);
        let found = self.unresolved.remove(&file.path).or_else(|| {
            let renamed = self.unresolved.iter().find(|(_, u)| same(u)).map(|(path, _)| path.clone());
            renamed.and_then(|path| self.unresolved.remove(&path))
        });
        let Some(found) = found else { return false };
        self.superseded += u64::from(!same(&found));
        same(&found) && found.fell
    }

    fn want(&mut self, offer: OfferId, say: &mut VecDeque<ToDetector>) {
        let Some(open) = self.offers.get_mut(&offer) else { return };
        open.wanted = true;
        self.transfers += 1;
        let transfer = TransferId(self.transfers);
        self.wants.insert(transfer, offer);
        say.push_back(ToDetector::Want(Wanted { transfer, offer, known_hash: open.known }));
    }

    fn end(&mut self, offer: OfferId, why: Withdrawal) {
        let Some(open) = self.offers.remove(&offer) else { return };
        match why {
            // It landed in the session before, which broke before the detector heard of it.
            _ if open.landed => {}
            Withdrawal::Reopened if open.again => {
                let unresolved = Unresolved { identity: open.identity, fell: true, awaited: true };
                self.unresolved.insert(open.path, unresolved);
            }
            Withdrawal::Reopened => {}
            Withdrawal::Moved | Withdrawal::Replaced => self.superseded += 1,
            Withdrawal::Vanished => self.lost += 1,
        }
    }

    fn has_version(&self, open: &Open) -> bool {
        self.has.get(&open.path).is_some_and(|has| has.identity == open.identity)
    }

    fn declined(&mut self, transfer: TransferId, why: Decline, say: &mut VecDeque<ToDetector>) {
        let Some(offer) = self.wants.remove(&transfer) else { return };
        let Some(open) = self.offers.get_mut(&offer) else { return };
        open.wanted = false;
        match why {
            Decline::Busy | Decline::Vanished | Decline::Changed => {
                if let Some(why) = open.withdrawn {
                    self.end(offer, why);
                }
            }
            Decline::Failed(_) => self.want(offer, say),
            Decline::Unchanged { identity, .. } => {
                let open = self.offers.remove(&offer).unwrap();
                let Some(has) = self.has.get_mut(&open.path) else {
                    self.offers.insert(offer, Open { known: None, ..open });
                    return self.want(offer, say);
                };
                has.identity = identity;
                has.offer = Some(offer);
                say.extend([ToDetector::Landed(offer), ToDetector::Stored(offer)]);
            }
        }
    }

    pub(super) fn received(
        &mut self,
        transfer: TransferId,
        received: Option<(Identity, Content)>,
        say: &mut VecDeque<ToDetector>,
    ) {
        let Some(offer) = self.wants.remove(&transfer) else { return };
        let Some(open) = self.offers.get_mut(&offer) else { return };
        open.wanted = false;
        match (received, open.withdrawn) {
            (Some((identity, content)), _) => {
                let open = self.offers.remove(&offer).unwrap();
                self.superseded += u64::from(self.unresolved.remove(&open.path).is_some());
                self.ever.insert((open.path.clone(), content));
                self.has.insert(open.path, Has { identity, content, offer: Some(offer), stored: false });
                self.landed += 1;
                say.extend([ToDetector::Landed(offer), ToDetector::Stored(offer)]);
            }
            (None, Some(why)) => self.end(offer, why),
            (None, None) => self.want(offer, say),
        }
    }

    /// Somebody took away a landed file that is not called stored yet: it is to be had again, and counted when it is.
    pub(super) fn fall(&mut self, path: &RelPath, say: &mut VecDeque<ToDetector>) {
        let landed = self.has.get(path).filter(|has| !has.stored);
        let Some(offer) = landed.and_then(|has| has.offer) else { return };
        let before = say.len();
        say.retain(|word| !matches!(word, ToDetector::Stored(stored) if *stored == offer));
        if say.len() == before {
            return; // said already
        }
        if let Some(has) = self.has.remove(path) {
            self.landed -= 1;
            let unresolved = Unresolved { identity: has.identity, fell: true, awaited: true };
            self.unresolved.insert(path.clone(), unresolved);
            self.fell.insert(offer, path.clone());
            say.push_back(ToDetector::Fell(offer));
        }
    }

    pub(super) fn link_down(&mut self) {
        self.wants.clear();
        self.granted.clear();
        self.fell.clear();
        self.unresolved.values_mut().for_each(|unresolved| unresolved.awaited = false);
        for offer in self.offers.keys().copied().collect::<Vec<_>>() {
            if let Some(why) = self.offers[&offer].withdrawn {
                self.end(offer, why);
            }
        }
        for open in std::mem::take(&mut self.offers).into_values() {
            if !self.has_version(&open) {
                let unresolved = Unresolved { identity: open.identity, fell: open.again, awaited: false };
                self.superseded += u64::from(self.unresolved.insert(open.path, unresolved).is_some());
            }
        }
        self.has.values_mut().for_each(|has| (has.offer, has.stored) = (None, true));
    }
}
