//! The PPU: its hub with the real ledger, its landing threads, and those that copy.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ppu_uringd::model::catalog::{Announced, Word};
use ppu_uringd::model::file_version::{DetectorIndex, OfferId, StorageIndex, TransferId};
use ppu_uringd::model::job::{
    Brand, CopyJob, CopyOutcome, CopyReport, LandFailure, LandJob, LandReport, Landed, Source,
};
use ppu_uringd::model::ledger::{
    DetectorSettings, Fact, Ledger, Order, Patience, Selection, Session, Settings, StorageSettings,
};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::replica_path::Target;
use ppu_uringd::model::residents::Home;
use ppu_uringd::model::shift::{Place, Shift, ShiftId};
use ppu_uringd::model::status::Counts;

use super::detector::{DETECTORS, Sent, ToDetector, hash, index};
use super::journal::{Journal, STORAGES};
use super::keeper::{Keeper, View};
use super::ramdisk::{Image, Ramdisk, There, UNIT};
use super::storage::{Copying, Mood, Storage};
use super::truth::{self, Truth};
use super::{Clock, trace};

/// A session, as the hub knows it.
struct Outlet {
    session: Session,
    expected: HashMap<TransferId, Expected>,
}

/// What a data connection may bring.
enum Expected {
    /// `None`: to be discarded.
    Due(Option<LandJob>),
    /// Nothing was heard of it yet.
    Granted,
    /// Nor will it come.
    Declined,
}

pub struct Ppu {
    pub ledger: Ledger,
    pub journal: Journal,
    pub ramdisk: Ramdisk,
    pub storages: [Storage; STORAGES],
    /// Of the ramdisk, and of the internal storage.
    pub keepers: [Keeper; 2],
    /// What they know of the rest.
    pub view: View,
    /// The ledger was told that these are away, and nothing else since.
    pub told_away: [bool; STORAGES],
    /// On the way to the hub.
    facts: VecDeque<Fact>,
    outlets: [Option<Outlet>; DETECTORS],
    sessions: u64,
}

/// How large things are.
pub struct Sizes {
    /// Of the ramdisk.
    pub ramdisk_units: u64,
    /// Of the internal storage; 0: it never fills up.
    pub internal_units: u64,
    /// A link takes an evicted file's place.
    pub links: bool,
}

/// To whom, in which session.
pub type Said = Vec<(usize, Session, ToDetector)>;

fn settings() -> Settings {
    let detector = |index: usize| DetectorSettings {
        id: format!("d{index}").into(),
        address: String::new(),
        pauses: Default::default(),
    };
    let storage = |index: usize| StorageSettings {
        id: ["internal", "external", "optional"][index].into(),
        at: format!("/storage{index}").into(),
        linked: false,
        internal: index == 0,
        external: index == 1,
        queue_depth: 2,
        copy_tries: 3,
        retry_pause: Duration::from_millis(10),
        retry_pause_max: Duration::from_secs(1),
        patience: Patience {
            hung_after: Duration::from_secs(5),
            slow_after: Duration::from_secs(5),
            quarantine: Duration::from_millis(50),
            quarantine_max: Duration::from_secs(1),
        },
    };
    Settings {
        detectors: (0..DETECTORS).map(detector).collect(),
        storages: (0..STORAGES).map(storage).collect(),
        ramdisk: "/ramdisk".to_owned(),
    }
}

/// A shift of one of two users, with all of each detector, or the part below `run`.
fn shift(id: ShiftId, uid: u32, part: [bool; DETECTORS]) -> Shift {
    let place = |index: usize| Place {
        detector: format!("d{index}"),
        source: part[index].then(|| RelPath::new(b"run").unwrap()),
        target: Target::parse(b"/ramdisk", format!("/ramdisk/./d{index}").as_bytes()).unwrap(),
    };
    Shift::new(id, uid, uid, "$UID", (0..DETECTORS).map(place).collect()).unwrap()
}

fn keepers(links: bool) -> [Keeper; 2] {
    [Home::Ramdisk, Home::Internal].map(|home| Keeper::new(home, links))
}

impl Ppu {
    pub fn new(sizes: &Sizes, clock: &Clock, truth: &mut Truth) -> Self {
        let first = Arc::new(shift(ShiftId(clock.now().wall_ms), 500, [false; DETECTORS]));
        truth.asked(first.id);
        truth.begun(first.id, clock);
        let mut journal = Journal::default();
        let mut ledger = Ledger::new(settings(), Arc::clone(&first));
        let mut orders = Vec::new();
        ledger.note(ppu_uringd::model::record::Record::Shift((*first).clone()), &mut orders);
        for order in orders {
            if let Order::Record { sequence, record } = order {
                journal.write(sequence, record);
            }
        }
        journal.commit(1);
        let mut ppu = Self {
            ledger,
            journal,
            ramdisk: Ramdisk::new(sizes.ramdisk_units, sizes.links),
            storages: [Storage::new(sizes.internal_units * UNIT), Storage::default(), Storage::default()],
            keepers: keepers(sizes.links),
            view: View { current: first.id, doubtful: Vec::new(), room_needed: 0, away: Vec::new() },
            told_away: [false; STORAGES],
            facts: VecDeque::new(),
            outlets: Default::default(),
            sessions: 0,
        };
        ppu.tick(clock, truth);
        ppu
    }

    /// Time passes for the hub: it looks at the ramdisk and at its threads, and tells the keepers.
    pub fn tick(&mut self, clock: &Clock, truth: &mut Truth) -> Said {
        let mut orders = Vec::new();
        let mut facts = vec![Fact::Space(self.ramdisk.space()), Fact::Tick];
        for (index, storage) in self.storages.iter().enumerate() {
            let (at, steps) = (StorageIndex(index as u16), storage.steps);
            facts.push(Fact::Steps { storage: at, steps, reads: steps });
        }
        for fact in facts {
            self.ledger.apply(clock.now(), fact, &mut orders);
        }
        let all = || (0..STORAGES).map(|index| StorageIndex(index as u16));
        let is_away = |storage: &StorageIndex| {
            self.told_away[storage.index()] && self.storages[storage.index()].mood == Mood::Away
        };
        self.view = View {
            current: self.ledger.current_shift().id,
            away: all().filter(is_away).collect(),
            doubtful: all().filter(|storage| self.ledger.is_doubtful(*storage)).collect(),
            room_needed: self.ledger.room_needed(),
        };
        self.obey(&mut orders, clock, truth)
    }

    /// A storage's keeper looks whether it is there.
    pub fn look(&mut self, storage: usize) {
        let gone = match self.storages[storage].mood {
            Mood::Hung => return,
            Mood::Away => Some("away".to_owned()),
            _ => None,
        };
        self.tell(Fact::Looked { storage: StorageIndex(storage as u16), gone });
    }

    pub fn tell(&mut self, fact: Fact) {
        self.facts.push_back(fact);
    }

    /// The hub takes some facts, and carries out what follows.
    pub fn hub(&mut self, most: usize, clock: &Clock, truth: &mut Truth) -> Said {
        let (mut orders, mut said) = (Vec::new(), Vec::new());
        for _ in 0..most.min(self.facts.len()) {
            let Some(fact) = self.facts.pop_front() else { break };
            match &fact {
                Fact::LinkUp { detector, session } => {
                    // What was meant for the session before must not reach the next one.
                    said.extend(self.obey(&mut orders, clock, truth));
                    let outlet = Outlet { session: *session, expected: HashMap::new() };
                    self.outlets[detector.index()] = Some(outlet);
                }
                Fact::LinkDown { detector, .. } => {
                    said.extend(self.obey(&mut orders, clock, truth));
                    self.outlets[detector.index()] = None;
                }
                Fact::Looked { storage, gone } => self.told_away[storage.index()] = gone.is_some(),
                Fact::ShiftWord { detector, shift } => truth.word(detector.index(), *shift, clock),
                _ => {}
            }
            if !matches!(fact, Fact::Beat { .. } | Fact::Tick) {
                trace!("      {fact:?}");
            }
            self.ledger.apply(clock.now(), fact, &mut orders);
        }
        self.ledger.work(clock.now(), &mut orders);
        said.extend(self.obey(&mut orders, clock, truth));
        said
    }

    /// As the daemon's hub does: acknowledgements of a batch come together, after all else.
    fn obey(&mut self, orders: &mut Vec<Order>, clock: &Clock, truth: &mut Truth) -> Said {
        let mut said = Vec::new();
        let mut acks: Vec<(usize, [Vec<OfferId>; 3])> =
            (0..DETECTORS).map(|detector| (detector, Default::default())).collect();
        let mut say = |outlets: &[Option<Outlet>], detector: DetectorIndex, word| {
            if let Some(outlet) = &outlets[detector.index()] {
                said.push((detector.index(), outlet.session, word));
            }
        };
        for order in orders.drain(..) {
            trace!("        -> {order:?}");
            match order {
                Order::Want { detector, wants } => {
                    let Some(outlet) = &mut self.outlets[detector.index()] else { continue };
                    let expect = |(wanted, job): (ppu_uringd::model::offer::Wanted, LandJob)| {
                        outlet.expected.insert(wanted.transfer, Expected::Due(Some(job)));
                        wanted
                    };
                    let wants = wants.into_iter().map(expect).collect();
                    say(&self.outlets, detector, ToDetector::Want(wants));
                }
                Order::Grant { detector, transfers, max_bytes } => {
                    let Some(outlet) = &mut self.outlets[detector.index()] else { continue };
                    let granted = transfers.iter().map(|transfer| (*transfer, Expected::Granted));
                    outlet.expected.extend(granted);
                    say(&self.outlets, detector, ToDetector::Grant(transfers, max_bytes));
                }
                Order::Coming { detector, transfer, job } => {
                    let Some(outlet) = &mut self.outlets[detector.index()] else { continue };
                    let taken = job.is_some();
                    if let Some(Expected::Granted) = outlet.expected.remove(&transfer) {
                        outlet.expected.insert(transfer, Expected::Due(job));
                    }
                    if !taken {
                        say(&self.outlets, detector, ToDetector::NotTaken(transfer));
                    }
                }
                Order::Have { detector, offers } => acks[detector.index()].1[0].extend(offers),
                Order::AckLanded { detector, offers } => acks[detector.index()].1[1].extend(offers),
                Order::AckStored { detector, offers } => acks[detector.index()].1[2].extend(offers),
                Order::Fell { detector, offers } => say(&self.outlets, detector, ToDetector::Fell(offers)),
                Order::AnnounceShift { detector, shift, source, began, more } => {
                    let announced = Announced { shift, source, began, more };
                    say(&self.outlets, detector, ToDetector::Shift(announced));
                }
                // Nothing goes wrong on a detector of this world.
                Order::Noted { .. } => {}
                Order::PrepareShift(shift) => truth.begun(shift.id, clock),
                Order::Copy { storage, job } => {
                    self.storages[storage.index()].jobs.push(Copying { job, read: None });
                }
                Order::Record { sequence, record } => self.journal.write(sequence, record),
                Order::MayLeave { home, resident } => self.keepers[home as usize].may_leave(resident),
                _ => {}
            }
        }
        for (detector, [have, landed, stored]) in acks {
            let detector = DetectorIndex(detector as u16);
            for (offers, word) in [
                (have, ToDetector::Landed as fn(_) -> _),
                (landed, ToDetector::Landed),
                (stored, ToDetector::Stored),
            ] {
                if !offers.is_empty() {
                    say(&self.outlets, detector, word(offers));
                }
            }
        }
        said
    }

    pub fn start_shift(
        &mut self,
        uid: u32,
        part: [bool; DETECTORS],
        clock: &Clock,
        truth: &mut Truth,
    ) -> Said {
        let id = self.ledger.next_shift_id(clock.now());
        let shift = shift(id, uid, part);
        let mut orders = Vec::new();
        if self.ledger.start_shift(shift, &mut orders).is_ok() {
            truth.asked(id);
        }
        self.obey(&mut orders, clock, truth)
    }

    pub fn retry(&mut self, clock: &Clock, truth: &mut Truth) -> Said {
        let mut orders = Vec::new();
        self.ledger.retry(&Selection::default(), &mut orders);
        self.ledger.work(clock.now(), &mut orders);
        self.obey(&mut orders, clock, truth)
    }

    pub fn new_session(&mut self, detector: DetectorIndex) -> Session {
        self.sessions += 1;
        let session = Session(self.sessions);
        self.tell(Fact::LinkUp { detector, session });
        session
    }

    /// What a session's reader makes of a word.
    pub fn hear(&mut self, detector: DetectorIndex, word: Word) {
        let fact = match word {
            Word::ShiftWord(shift) => Fact::ShiftWord { detector, shift },
            Word::ManifestBegin => Fact::ManifestBegin { detector },
            Word::ManifestEnd => Fact::ManifestEnd { detector },
            Word::Offer(files) => Fact::Offered { detector, files },
            Word::Coming(coming) => {
                let files = coming.into_iter().map(|(file, _)| file).collect();
                Fact::Coming { detector, files }
            }
            Word::Withdrawn(offer, why) => Fact::Withdrawn { detector, offer, why },
            Word::Declined(transfer, why) => {
                let Some(outlet) = &mut self.outlets[detector.index()] else { return };
                match outlet.expected.remove(&transfer) {
                    Some(Expected::Due(_)) => {}
                    Some(Expected::Granted) => _ = outlet.expected.insert(transfer, Expected::Declined),
                    Some(Expected::Declined) | None => return,
                }
                Fact::Declined { transfer, why }
            }
            Word::Gone(offers) => Fact::Gone { detector, offers },
            Word::Trouble(report) => Fact::Trouble { detector, report: Box::new(report) },
            Word::TroubleOver(number) => Fact::TroubleOver { detector, number },
        };
        self.tell(fact);
    }

    /// A landing thread has its content, and does not know yet what it is.
    pub fn waits_for_word_on(&self, detector: DetectorIndex, transfer: TransferId) -> bool {
        let outlet = self.outlets[detector.index()].as_ref();
        outlet.is_some_and(|outlet| matches!(outlet.expected.get(&transfer), Some(Expected::Granted)))
    }

    fn expected(&mut self, detector: DetectorIndex, transfer: TransferId) -> Option<LandJob> {
        match self.outlets[detector.index()].as_mut()?.expected.remove(&transfer)? {
            Expected::Due(job) => job,
            _ => None,
        }
    }

    /// A landing thread has received a file.
    pub fn land(
        &mut self,
        detector: DetectorIndex,
        (transfer, sent): Sent,
        settled: impl Fn(&ppu_uringd::model::file_version::Identity) -> bool,
        named: Option<&Vec<i64>>,
        truth: &mut Truth,
    ) {
        let Some(job) = self.expected(detector, transfer) else { return };
        let outcome = match (sent, named) {
            (None, _) => Err(LandFailure::Changed),
            (Some(_), _) if job.compare_only => Err(LandFailure::Nobodys),
            (_, None) => Err(LandFailure::Mismatch { sent: hash(0), landed: hash(1) }),
            (Some((identity, content)), Some(named)) => {
                assert!(truth.is_a_version(content), "{} has landed half written", job.at);
                let may = truth.shifts_of(detector.index(), content, named);
                let shift = job.shift.id;
                assert!(
                    may.contains(&shift),
                    "{} with {content} is not {shift:?}'s: {}",
                    job.at,
                    truth.describe(content)
                );
                let brand = Brand {
                    detector: job.detector_id.to_string(),
                    shift: job.shift.id,
                    path: job.path.clone(),
                    identity,
                    settled: settled(&identity),
                    hash: hash(content),
                };
                self.publish(&job, brand, content, truth)
            }
        };
        self.tell(Fact::Landing(LandReport { transfer, outcome }));
    }

    fn publish(
        &mut self,
        job: &LandJob,
        brand: Brand,
        content: u64,
        truth: &mut Truth,
    ) -> Result<Landed, LandFailure> {
        if self.ramdisk.is_in_the_way(job, &brand).is_some() {
            return Err(LandFailure::Foreign);
        }
        if let Some(There::Image(before)) = self.ramdisk.at(&job.at)
            && before.brand.shift != brand.shift
            && hash(before.content) == before.brand.hash
        {
            let is_it = |stored: &ppu_uringd::model::record::Version| {
                stored.shift == before.brand.shift && stored.hash == before.brand.hash
            };
            assert!(
                self.journal.calls_stored(&is_it),
                "{} of an earlier shift is replaced, and not stored",
                job.at
            );
        }
        let Brand { identity, settled, hash, .. } = brand;
        let local = self.ramdisk.publish(&job.at, content, brand)?;
        let landed = truth::Landed { content, forgiven: false };
        truth.landed.insert((job.detector.index(), job.shift.id, job.path.clone()), landed);
        let visible = std::time::Instant::now();
        Ok(Landed { identity, mode: 0o644, settled, hash, local, visible })
    }

    /// What is gone from the ramdisk and not called stored anywhere has to come from its detector again, if that still has it.
    pub fn forgive(&self, gone: impl IntoIterator<Item = Brand>, truth: &mut Truth) {
        for Brand { detector, shift, path, .. } in gone {
            if let Some(landed) = truth.landed.get_mut(&(index(&detector), shift, path.clone()))
                && !self
                    .journal
                    .has(&|version| version.shift == shift && version.hash == hash(landed.content))
            {
                landed.forgiven = true;
                truth.fallen += 1;
            }
        }
    }

    /// A storage's thread goes on with one of its copies.
    pub fn copy(&mut self, index: usize, which: u64, fails: bool) {
        let jobs = self.storages[index].jobs.len();
        if jobs == 0 || self.storages[index].mood == Mood::Hung {
            return;
        }
        let which = which as usize % jobs;
        self.storages[index].steps += 1;
        let Copying { job, read } = &self.storages[index].jobs[which];
        let Some(read) = *read else {
            let content = self.read(job);
            self.storages[index].jobs[which].read = Some(content);
            return;
        };
        let superseded = job.superseded.load(Ordering::Relaxed);
        let source_away = job.local().is_none() && job.sources.iter().any(|source| self.is_away(source));
        let job = self.storages[index].jobs.remove(which).job;
        let (mut file, mut set_aside) = (None, None);
        let has_room = self.storages[index].has_room(job.brand.identity.size);
        let outcome = match (self.storages[index].mood, read) {
            (Mood::Away, _) => CopyOutcome::Unavailable("away".to_owned()),
            (Mood::Full, _) => CopyOutcome::Full("full".to_owned()),
            (Mood::Broken, _) => CopyOutcome::DiskError("EIO".to_owned()),
            _ if superseded => CopyOutcome::Superseded,
            (_, None) if source_away => CopyOutcome::NotNow("its source is away".to_owned()),
            (_, None) => CopyOutcome::SourceLost("gone".to_owned()),
            (_, Some(_)) if fails => CopyOutcome::Failed("EINVAL".to_owned()),
            (_, Some(_)) if !has_room => CopyOutcome::Full("full".to_owned()),
            (_, Some(content)) => {
                let (local, aside) = self.storages[index].place(&job, content);
                (file, set_aside) = (Some(local), aside);
                CopyOutcome::Stored
            }
        };
        let storage = StorageIndex(index as u16);
        self.tell(Fact::Copying(CopyReport { version: job.version, storage, outcome, file, set_aside }));
    }

    fn is_away(&self, source: &Source) -> bool {
        matches!(source, Source::Stored(storage) if self.storages[storage.index()].mood != Mood::Well)
    }

    /// The first source that has the version.
    fn read(&self, job: &CopyJob) -> Option<u64> {
        let found = |source: &Source| match source {
            // What has not moved since is as it landed.
            Source::Ramdisk(local) => {
                let landed = self.ramdisk.intact(&job.from, *local, job.brand.hash)?;
                Some((landed.content, landed.local == *local))
            }
            Source::Stored(storage) => {
                let storage = &self.storages[storage.index()];
                Some((storage.find(job).filter(|_| storage.mood == Mood::Well)?, false))
            }
        };
        let does = |(content, is_sure): &(u64, bool)| *is_sure || hash(*content) == job.brand.hash;
        job.sources.iter().filter_map(found).find(does).map(|(content, _)| content)
    }

    pub fn commit(&mut self, records: usize) {
        if !self.journal.stuck
            && let Some(up_to) = self.journal.commit(records)
        {
            self.tell(Fact::Committed { up_to });
        }
    }

    /// The process is killed and begins anew; `reboot`: with an empty ramdisk.
    pub fn crash(&mut self, reboot: bool, clock: &Clock, truth: &mut Truth) {
        trace!("  PPU crashes, reboot {reboot}");
        self.facts.clear();
        self.outlets = Default::default();
        self.journal.crash();
        self.journal.stuck = false;
        for storage in &mut self.storages {
            storage.jobs.clear();
        }
        match reboot {
            true => {
                truth.theirs.clear();
                let gone = self.ramdisk.empty();
                self.forgive(gone, truth);
            }
            false => self.put_back_after_crash(),
        }
        self.keepers = keepers(self.ramdisk.links);
        self.told_away = [false; STORAGES];
        let current = Arc::new(self.journal.shifts().next_back().expect("the first one").clone());
        truth.ppu_crashes(|id| self.journal.shifts().any(|shift| shift.id == id));
        self.journal.shifts().for_each(|shift| truth.begun(shift.id, clock));
        let mut orders = Vec::new();
        let mut ledger = Ledger::new(settings(), Arc::clone(&current));
        for shift in self.journal.shifts().filter(|shift| shift.id != current.id) {
            ledger.restore_shift(Arc::new(shift.clone()));
        }
        for ((shift, storage), tally) in self.journal.ended() {
            ledger.restore_tally(shift, storage, tally);
        }
        ledger.restore_numbers(self.journal.next_version());
        for (id, version, known) in self.journal.live() {
            // What has no copy to make is not looked for.
            let open = version.copies.iter().any(|copy| !copy.state.is_final());
            let intact = self.ramdisk.intact(&known.at, known.local, known.hash).map(|found| found.local);
            let local = if open { intact } else { Some(known.local) };
            ledger.restore(id, version, local, &mut orders);
        }
        self.ledger = ledger;
        self.adopt(clock, &mut orders);
        self.obey(&mut orders, clock, truth);
        self.tick(clock, truth);
    }

    /// Takes in what landed right before the crash.
    fn adopt(&mut self, clock: &Clock, orders: &mut Vec<Order>) {
        let history: BTreeSet<u64> = self.journal.history().map(|version| version.local.ino).collect();
        // In the order in which they landed.
        let is_its = |(_, image): &(&RelPath, &Image)| hash(image.content) == image.brand.hash;
        let mut found: Vec<_> = self.ramdisk.images().filter(is_its).collect();
        found.sort_by_key(|(_, there)| (there.local.ctime_ns, there.local.ino));
        for (at, Image { brand, local, .. }) in found {
            let detector = DetectorIndex(index(&brand.detector) as u16);
            if !self.ledger.knows(detector, brand) && !history.contains(&local.ino) {
                self.ledger.adopt(clock.now(), detector, brand.clone(), at, 0o644, *local, orders);
            }
        }
    }

    /// Per shift and storage, as the status shows them.
    pub fn counts(&self, clock: &Clock) -> BTreeMap<(ShiftId, usize), Counts> {
        let mut counts = BTreeMap::new();
        for shift in self.ledger.report(clock.now()).shifts {
            for (storage, copies) in shift.storages.into_iter().enumerate() {
                counts.insert((shift.start_ms, storage), copies.counts);
            }
        }
        counts
    }

    /// Where a path of a detector is, below the source of a shift.
    pub fn below_source(&self, detector: &str, shift: ShiftId, whole: &RelPath) -> Option<RelPath> {
        let shift = self.ledger.all_shifts().find(|other| other.id == shift)?;
        match &shift.place(detector)?.source {
            Some(source) => whole.below(source),
            None => Some(whole.clone()),
        }
    }
}
