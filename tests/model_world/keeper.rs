//! What takes files away from the ramdisk and from the internal storage: the real rules of which and when, with a view of the rest that is as old as the real one's,
//! and a world that goes on between what is decided and what is done.

use std::collections::VecDeque;

use ppu_uringd::model::departures::{self, Departures, Outcome, Outlook, Step, Why};
use ppu_uringd::model::file_version::{Hash, StorageIndex};
use ppu_uringd::model::job::{Brand, Local};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::pressure::{Level, Marks, Pressure};
use ppu_uringd::model::residents::{Home, Resident};
use ppu_uringd::model::shift::ShiftId;

use super::journal::{EXTERNAL, INTERNAL, STORAGES};
use super::ppu::Ppu;
use super::ramdisk::{Link, NotTaken};
use super::storage::Mood;
use super::truth::Truth;
use super::{Clock, trace};

pub const MARKS: Marks = Marks { limit: 0.6, low: 0.4, almost: 0.9 };

/// What the journal says of a version that may leave.
#[derive(Debug, Clone)]
pub struct Proof {
    pub resident: Resident,
    pub at: RelPath,
    pub to: RelPath,
    pub local: Local,
    pub size: u64,
    pub hash: Hash,
    pub is_copied: bool,
    pub files: [Option<Local>; STORAGES],
}

impl departures::Proof for Proof {
    fn resident(&self) -> Resident {
        self.resident
    }

    fn is_copied(&self) -> bool {
        self.is_copied
    }
}

/// How things are, as the ledger's thread has last told.
#[derive(Clone)]
pub struct View {
    pub current: ShiftId,
    pub doubtful: Vec<StorageIndex>,
    pub room_needed: u64,
    /// Not told to them: storages that are away, as the ledger must know.
    pub away: Vec<StorageIndex>,
}

pub struct Keeper {
    home: Home,
    pressure: Pressure,
    departures: Departures<Proof>,
    /// From the ledger.
    told: VecDeque<Resident>,
    /// Decided, and not done yet.
    step: Option<Step<Proof>>,
    /// Of this round.
    outlook: Option<Outlook>,
    /// When it began, the ledger knew that a storage was away that others' copies are on.
    away: bool,
    evicted: u64,
    /// What has left, and is still read; bytes.
    held: u64,
}

impl Keeper {
    pub fn new(home: Home, create_links: bool) -> Self {
        Self {
            home,
            pressure: Pressure::new("/".to_owned(), MARKS, true),
            departures: Departures::new(create_links),
            told: VecDeque::new(),
            step: None,
            outlook: None,
            away: false,
            evicted: 0,
            held: 0,
        }
    }

    pub fn may_leave(&mut self, resident: Resident) {
        self.told.push_back(resident);
    }

    fn stored_on(&self) -> &'static [usize] {
        match self.home {
            Home::Ramdisk => &[INTERNAL],
            Home::Internal => &[INTERNAL, EXTERNAL],
        }
    }

    fn begin(&mut self, clock: &Clock, view: &View, level: Option<Level>) {
        self.told.drain(..).for_each(|resident| self.departures.add(resident));
        let wanted = level.map(|level| self.pressure.look(level, &mut Vec::new()));
        let is_on = |storage: &StorageIndex| self.stored_on().contains(&storage.index());
        let doubtful = view.doubtful.iter().any(is_on);
        let gentle = !self.pressure.is_urgent();
        let outlook = Outlook { current: view.current, wanted, doubtful, gentle };
        let away = view.away.iter().any(is_on);
        (self.outlook, self.away) = (Some(outlook), away);
        self.evicted = 0;
        self.departures.begin(clock.at(), outlook);
    }
}

/// Their threads.
impl Ppu {
    /// One of them goes on by a step. True: it is at the end of a round.
    pub fn keep(&mut self, home: Home, fails: bool, clock: &Clock, truth: &Truth) -> bool {
        let mood = self.storages[INTERNAL].mood;
        if home == Home::Internal && mood == Mood::Hung {
            return true;
        }
        let away = home == Home::Internal && mood == Mood::Away;
        let keeper = &mut self.keepers[home as usize];
        let stored_on = keeper.stored_on();
        let now = clock.at();
        match keeper.step.take() {
            None => {
                let level = match home {
                    Home::Ramdisk => {
                        let space = self.ramdisk.space();
                        if !self.ramdisk.is_read() {
                            keeper.held = 0;
                        }
                        let (held, needed) = (keeper.held, self.view.room_needed);
                        Some(Level { total: space.total_bytes, free: space.free_bytes, held, needed })
                    }
                    Home::Internal => (!away).then(|| self.storages[INTERNAL].level()),
                };
                keeper.begin(clock, &self.view, level);
            }
            Some(Step::NextVersion) => match self.journal.stuck {
                false => keeper.departures.next_version(self.journal.next_version()),
                true => keeper.departures.unanswered(now),
            },
            Some(Step::Walk(first, until)) => match self.journal.residents((first, until), stored_on) {
                Some(found) => keeper.departures.walked(until, found),
                None => keeper.departures.unanswered(now),
            },
            Some(Step::Prove(residents)) => match self.journal.safe(&residents, stored_on) {
                Some(page) => keeper.departures.proven(page),
                None => keeper.departures.unanswered(now),
            },
            Some(Step::Take(proof, _)) if away => keeper.departures.not_now(now, &proof),
            Some(Step::Take(proof, why)) => {
                let outcome = if fails { Outcome::Failed } else { self.take(home, &proof, why, truth) };
                trace!("{} {home:?} {why:?} {proof:?}: {outcome:?}", clock.ns);
                self.keepers[home as usize].departures.done(now, &proof, outcome);
            }
            Some(Step::Rest(_)) => {}
            Some(Step::Over { .. }) => return true,
        }
        let keeper = &mut self.keepers[home as usize];
        keeper.step = Some(keeper.departures.next(now));
        false
    }

    /// A crash comes when a file is out of its place: it is put back at the start.
    pub fn put_back_after_crash(&mut self) {
        if let Some(Step::Take(proof, _)) = &self.keepers[Home::Ramdisk as usize].step {
            self.ramdisk.move_ctime(&proof.at.clone());
        }
    }

    fn take(&mut self, home: Home, proof: &Proof, why: Why, truth: &Truth) -> Outcome {
        let taken = match home {
            Home::Ramdisk => self.take_from_ramdisk(proof, why),
            Home::Internal => self.take_from_internal(proof, why),
        };
        match taken {
            Ok((brand, content, bytes)) => {
                self.check_taken(home, proof, why, (&brand, content, bytes), truth);
                Outcome::Gone(bytes)
            }
            Err(NotTaken::Missing) => Outcome::Passed,
            Err(NotTaken::Other) if why == Why::Evicted => Outcome::Other,
            Err(NotTaken::Other) => Outcome::Passed,
            Err(NotTaken::Busy) => Outcome::Busy,
        }
    }

    /// What it was, and how much comes free.
    fn take_from_ramdisk(&mut self, proof: &Proof, why: Why) -> Result<(Brand, u64, u64), NotTaken> {
        let link = Link { to: proof.to.clone(), landed_ns: proof.local.ctime_ns };
        let instead = (why == Why::Evicted && self.ramdisk.links).then(|| link.clone());
        match self.ramdisk.take(proof, instead) {
            Ok((image, held)) => {
                if held {
                    self.keepers[Home::Ramdisk as usize].held += proof.size;
                }
                Ok((image.brand, image.content, proof.size))
            }
            Err(NotTaken::Other) if why == Why::Purged => {
                let of = self.ramdisk.take_link(&proof.at, &link)?;
                Ok((of.brand, of.content, 0))
            }
            Err(error) => Err(error),
        }
    }

    fn take_from_internal(&mut self, proof: &Proof, why: Why) -> Result<(Brand, u64, u64), NotTaken> {
        let storage = &mut self.storages[INTERNAL];
        let link = why == Why::Evicted && self.ramdisk.links;
        let stored = match storage.take(proof, link) {
            Ok(stored) => return Ok((stored.brand, stored.content, proof.size)),
            Err(error) if why == Why::Evicted => return Err(error),
            Err(error) => match storage.take_link(proof) {
                Some(stored) => return Ok((stored.brand, stored.content, 0)),
                None => storage.take_aside(proof).ok_or(error)?,
            },
        };
        Ok((stored.brand, stored.content, proof.size))
    }

    /// Nothing leaves but what must, and may (SPEC 2.3, 3.5, 3.7, 4.1).
    fn check_taken(
        &mut self,
        home: Home,
        proof: &Proof,
        why: Why,
        (brand, content, bytes): (&Brand, u64, u64),
        truth: &Truth,
    ) {
        let what = format!("{why:?} from {home:?}: {content} as {brand:?}");
        let keeper = &mut self.keepers[home as usize];
        let Outlook { wanted, doubtful, .. } = keeper.outlook.expect("a round has begun");
        assert!(!doubtful && !keeper.away, "{what} while what is stored may not be to be had");
        match why {
            Why::Evicted => {
                assert!(
                    keeper.evicted < wanted.unwrap_or(0),
                    "{what}, although there is room: {wanted:?} wanted, {} evicted",
                    keeper.evicted
                );
                keeper.evicted += bytes;
            }
            Why::Purged => {
                let current = self.ledger.current_shift().id;
                assert!(brand.shift < current, "{what}, and {current:?} goes on");
            }
        }
        assert_eq!(brand.shift, proof.resident.shift, "{what} is another shift's than {proof:?}");
        assert_eq!(brand.hash, super::detector::hash(content), "{what}: a user has changed it");
        let is_it = |version: &ppu_uringd::model::record::Version| {
            (&version.path, version.shift, version.hash) == (&brand.path, brand.shift, brand.hash)
        };
        // What has left the internal storage is on the external one, or a newer version of it is.
        let replaced = truth.newest(brand) != Some(content) && self.storages[EXTERNAL].has_any(brand);
        let external = replaced || self.storages[EXTERNAL].holds(brand, content);
        match home {
            Home::Ramdisk => {
                let internal = self.storages[INTERNAL].holds(brand, content);
                let has_left =
                    self.storages[INTERNAL].has(&brand.detector, brand.shift, &brand.path, content);
                assert!(internal || has_left && external, "{what} is not on the internal storage");
                assert!(self.journal.calls_stored(&is_it), "{what}, and the journal knows nothing of it");
            }
            Home::Internal => {
                assert!(external, "{what} is not on the external storage");
                assert!(
                    self.journal.is_stored_on(EXTERNAL, &is_it),
                    "{what}, and the journal knows nothing of it"
                );
            }
        }
    }
}
