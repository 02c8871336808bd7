//! The ledger against a small world: detectors with files, a ramdisk, storages. Random events; at every step the counts add
//! up, and when the world calms down every file's newest version is stored everywhere.

mod copies;
mod grants;
mod halves;
mod restart;
mod shifts;
mod troubles;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::model::file_version::{Hash, Identity, OfferId};
use crate::model::half::{Half, Switched};
use crate::model::job::{
    Aside, CopyJob, CopyOutcome, CopyReport, LandFailure, LandJob, LandReport, Landed, Source,
};
use crate::model::offer::{Decline, Offered, Wanted, Withdrawal};
use crate::model::path::RelPath;
use crate::model::replica_path::Target;
use crate::model::shift::Place;

const DETECTORS: usize = 2;
const STORAGES: usize = 2;
const FILE_BYTES: u64 = 10_000;

#[derive(Debug, Clone)]
enum Event {
    /// A file is written (again) and closed.
    Close { detector: usize, name: u8 },
    /// A file is removed.
    Remove { detector: usize, name: u8 },
    /// The oldest transfer ends.
    Land { detector: usize, how: u8 },
    /// A copy ends.
    Copy { storage: usize, how: u8, which: usize },
    /// The journal commits.
    Commit,
    /// The link breaks and comes back.
    Relink { detector: usize },
    /// The ramdisk has that many free files' worth of room.
    Room { files: u64 },
    /// Time passes.
    Wait { ms: u64 },
    /// People pause, or resume.
    Switch { half: Half, pause: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let detector = 0..DETECTORS;
    prop_oneof![
        4 => (detector.clone(), 0u8..6).prop_map(|(detector, name)| Event::Close { detector, name }),
        1 => (detector.clone(), 0u8..6).prop_map(|(detector, name)| Event::Remove { detector, name }),
        5 => (detector.clone(), any::<u8>()).prop_map(|(detector, how)| Event::Land { detector, how }),
        6 => (0..STORAGES, any::<u8>(), any::<usize>())
            .prop_map(|(storage, how, which)| Event::Copy { storage, how, which }),
        3 => Just(Event::Commit),
        1 => detector.prop_map(|detector| Event::Relink { detector }),
        1 => (0u64..20).prop_map(|files| Event::Room { files }),
        2 => (0u64..3000).prop_map(|ms| Event::Wait { ms }),
        1 => (0usize..2, any::<bool>()).prop_map(|(half, pause)| Event::Switch { half: Half::ALL[half], pause }),
    ]
}

/// What a detector has, and what it told the PPU of it.
#[derive(Default)]
struct FakeDetector {
    files: BTreeMap<u8, Identity>,
    offers: BTreeMap<OfferId, (u8, Identity)>,
    landed: BTreeMap<u8, (OfferId, Identity)>,
    wants: VecDeque<(Wanted, LandJob)>,
    session: u64,
    last_offer: u64,
    grants: VecDeque<TransferId>,
    /// What came unasked.
    told: Vec<(TransferId, Option<LandJob>)>,
}

struct World {
    ledger: Ledger,
    now: Now,
    detectors: Vec<FakeDetector>,
    copies: Vec<Vec<CopyJob>>,
    /// Per storage and path: the content (its ctime) under the final name.
    stored: Vec<HashMap<(String, RelPath), i64>>,
    produced: u64,
    content: i64,
    last_record: u64,
    /// To be offered anew.
    fell: Vec<(usize, u8, Identity)>,
    told: Vec<Message>,
    /// Numbers of troubles.
    noted: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let ids = ["1MF", "2MF"];
        let places = ids.map(|id| Place {
            detector: id.to_owned(),
            source: None,
            target: Target::parse(b"/ramdisk", format!("/ramdisk/./{id}").as_bytes()).unwrap(),
        });
        let shift = Shift::new(ShiftId(1), 500, 500, "$UID", places.to_vec()).unwrap();
        let settings = Settings {
            detectors: ids
                .map(|id| DetectorSettings {
                    id: id.into(),
                    address: "fake".to_owned(),
                    pauses: Pauses::default(),
                })
                .to_vec(),
            storages: (0..STORAGES)
                .map(|s| StorageSettings {
                    id: s.to_string().into(),
                    at: format!("/storage{s}").into(),
                    linked: false,
                    internal: s == 0,
                    external: s == 1,
                    queue_depth: 2,
                    copy_tries: 3,
                    retry_pause: Duration::from_millis(10),
                    retry_pause_max: Duration::from_secs(1),
                    patience: Patience {
                        hung_after: Duration::from_secs(10),
                        slow_after: Duration::from_secs(30),
                        quarantine: Duration::from_secs(1),
                        quarantine_max: Duration::from_secs(2),
                    },
                })
                .collect(),
            ramdisk: "/ramdisk".to_owned(),
        };
        let mut world = World {
            ledger: Ledger::new(settings, Arc::new(shift)),
            now: Now { at: Instant::now(), wall_ms: 1 },
            detectors: (0..DETECTORS).map(|_| FakeDetector::default()).collect(),
            copies: vec![Vec::new(); STORAGES],
            stored: vec![HashMap::new(); STORAGES],
            produced: 0,
            content: 0,
            last_record: 0,
            fell: Vec::new(),
            told: Vec::new(),
            noted: Vec::new(),
        };
        world.tell(Fact::Space(room(100)));
        for detector in 0..DETECTORS {
            world.link(detector);
        }
        world
    }

    fn tell(&mut self, fact: Fact) {
        let mut orders = Vec::new();
        self.ledger.apply(self.now, fact, &mut orders);
        self.ledger.work(self.now, &mut orders);
        for order in orders {
            self.obey(order);
        }
        for (detector, name, identity) in std::mem::take(&mut self.fell) {
            self.offer(detector, name, identity, true);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Want { detector, wants } => {
                assert_eq!(self.ledger.paused().fetch_ms, None, "wanted while paused");
                for (wanted, job) in wants {
                    let fake = &mut self.detectors[detector.index()];
                    assert!(fake.offers.contains_key(&wanted.offer), "wanted what is not offered");
                    let same_path = fake.wants.iter().filter(|(_, other)| other.path == job.path).count();
                    assert_eq!(same_path, 0, "two versions of one path on their way");
                    fake.wants.push_back((wanted, job));
                }
            }
            Order::Grant { detector, transfers, max_bytes } => {
                assert!(max_bytes >= FILE_BYTES);
                self.detectors[detector.index()].grants.extend(transfers);
            }
            Order::Coming { detector, transfer, job } => {
                self.detectors[detector.index()].told.push((transfer, job));
            }
            Order::Have { detector, offers } | Order::AckLanded { detector, offers } => {
                let fake = &mut self.detectors[detector.index()];
                for offer in offers {
                    if let Some((name, identity)) = fake.offers.remove(&offer) {
                        fake.landed.insert(name, (offer, identity));
                    }
                }
            }
            Order::AckStored { detector, offers } => {
                for offer in offers {
                    let known = self.detectors[detector.index()].landed.iter().find(|(_, l)| l.0 == offer);
                    let Some((name, (_, identity))) = known else { continue };
                    let key = (["1MF", "2MF"][detector.index()].to_owned(), path(*name));
                    assert_eq!(
                        self.stored[0].get(&key),
                        Some(&identity.ctime_ns),
                        "stored was said too early"
                    );
                }
            }
            Order::Copy { storage, job } => {
                assert_eq!(self.ledger.paused().store_ms, None, "copied while paused");
                self.copies[storage.index()].push(job);
            }
            Order::Record { sequence, .. } => {
                assert_eq!(sequence, self.last_record + 1);
                self.last_record = sequence;
            }
            Order::Fell { detector, offers } => {
                let fake = &mut self.detectors[detector.index()];
                for offer in offers {
                    let known = fake.landed.iter().find(|(_, landed)| landed.0 == offer);
                    let Some((&name, &(_, identity))) = known else { continue };
                    fake.landed.remove(&name);
                    // Where it was closed again, the newer version is on offer already.
                    if fake.files.get(&name) == Some(&identity) {
                        self.fell.push((detector.index(), name, identity));
                    }
                }
            }
            Order::MayLeave { home, resident } => {
                // Forgotten with this very commit it may be, but not before.
                let Some(version) = self.ledger.versions.get(resident.version) else { return };
                let needed = if home == crate::model::residents::Home::Ramdisk { 1 } else { 2 };
                let stored = version.copies[..needed].iter().all(|copy| copy.state == CopyState::Stored);
                assert!(stored, "it was let go too early");
            }
            Order::AnnounceShift { .. } | Order::PrepareShift(_) | Order::LookAgain { .. } => {}
            Order::Noted { number, .. } => self.noted.push(number),
            Order::Tell(message) => self.told.push(message),
        }
    }

    fn link(&mut self, detector: usize) {
        let index = DetectorIndex(detector as u16);
        let fake = &mut self.detectors[detector];
        fake.session += 1;
        fake.offers.clear();
        fake.landed.clear();
        fake.wants.clear();
        fake.grants.clear();
        let session = Session(fake.session);
        let files: Vec<_> = fake.files.clone().into_iter().collect();
        self.tell(Fact::LinkUp { detector: index, session });
        self.tell(Fact::ManifestBegin { detector: index });
        for (name, identity) in files {
            self.offer(detector, name, identity, false);
        }
        self.tell(Fact::ManifestEnd { detector: index });
    }

    fn offer(&mut self, detector: usize, name: u8, identity: Identity, fresh: bool) {
        let fake = &mut self.detectors[detector];
        fake.last_offer += 1;
        let offer = OfferId(fake.last_offer);
        let before = fake.offers.iter().find(|(_, o)| o.0 == name).map(|(id, _)| *id);
        fake.offers.insert(offer, (name, identity));
        if let Some(before) = before {
            fake.offers.remove(&before);
            let why = Withdrawal::Replaced;
            self.tell(Fact::Withdrawn { detector: DetectorIndex(detector as u16), offer: before, why });
        }
        let file = Offered {
            offer,
            path: path(name),
            identity,
            shift: ShiftId(1),
            closed_us_ago: 0,
            fresh,
            superseded: 0,
        };
        self.tell(Fact::Offered { detector: DetectorIndex(detector as u16), files: vec![file] });
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Close { detector, name } => {
                // The real catalog offers a path again only when its transfer is over.
                if self.detectors[detector].wants.iter().any(|(_, job)| job.path == path(name)) {
                    return;
                }
                self.content += 1;
                self.produced += 1;
                let identity = Identity {
                    size: FILE_BYTES + u64::from(name),
                    mtime_ns: self.content,
                    ino: u64::from(name),
                    ctime_ns: self.content,
                };
                self.detectors[detector].files.insert(name, identity);
                self.offer(detector, name, identity, true);
            }
            Event::Remove { detector, name } => self.remove(detector, name),
            Event::Land { detector, how } => self.land(detector, how),
            Event::Copy { storage, how, which } => self.copy(storage, how, which),
            Event::Commit => self.tell(Fact::Committed { up_to: self.last_record }),
            Event::Relink { detector } => {
                let session = Session(self.detectors[detector].session);
                let index = DetectorIndex(detector as u16);
                let reason = "cable".to_owned();
                self.tell(Fact::LinkDown { detector: index, session, reason, refused: false });
                self.link(detector);
            }
            Event::Room { files } => self.tell(Fact::Space(room(files))),
            Event::Wait { ms } => {
                self.now.at += Duration::from_millis(ms);
                self.tell(Fact::Tick);
            }
            Event::Switch { half, pause } => drop(self.switch(half, pause)),
        }
    }

    fn switch(&mut self, half: Half, pause: bool) -> Switched {
        let mut orders = Vec::new();
        let switched = self.ledger.switch(self.now, half, pause, &mut orders);
        orders.into_iter().for_each(|order| self.obey(order));
        self.tell(Fact::Tick);
        switched
    }

    fn remove(&mut self, detector: usize, name: u8) {
        let fake = &mut self.detectors[detector];
        if fake.wants.iter().any(|(_, job)| job.path == path(name)) || fake.files.remove(&name).is_none() {
            return;
        }
        let index = DetectorIndex(detector as u16);
        let open = fake.offers.iter().find(|(_, o)| o.0 == name).map(|(id, _)| *id);
        if let Some(offer) = open {
            fake.offers.remove(&offer);
            self.tell(Fact::Withdrawn { detector: index, offer, why: Withdrawal::Vanished });
        } else if let Some((offer, _)) = fake.landed.remove(&name) {
            self.tell(Fact::Gone { detector: index, offers: vec![offer] });
        }
    }

    fn land(&mut self, detector: usize, how: u8) {
        let Some((wanted, job)) = self.detectors[detector].wants.pop_front() else { return };
        let outcome = match how % 8 {
            0 => Err(LandFailure::Changed),
            1 => Err(LandFailure::NoSpace("full".to_owned())),
            2 => Err(LandFailure::Mismatch { sent: Hash([0; 16]), landed: Hash([1; 16]) }),
            _ => Ok(Landed {
                identity: job.offered,
                mode: 0o644,
                settled: true,
                hash: Hash::of(&job.offered.ctime_ns.to_le_bytes()),
                local: Local { ino: 1, ctime_ns: job.offered.ctime_ns },
                visible: self.now.at,
            }),
        };
        self.tell(Fact::Landing(LandReport { transfer: wanted.transfer, outcome }));
    }

    fn copy(&mut self, storage: usize, how: u8, which: usize) {
        if self.copies[storage].is_empty() {
            return;
        }
        let which = which % self.copies[storage].len();
        let job = self.copies[storage].remove(which);
        let key = (job.brand.detector.clone(), job.brand.path.clone());
        let content = job.brand.identity.ctime_ns;
        let readable = job.sources.iter().any(|source| match source {
            Source::Ramdisk(_) => true,
            Source::Stored(other) => self.stored[other.index()].get(&key) == Some(&content),
        });
        let outcome = match how % 12 {
            0 => CopyOutcome::Unavailable("not mounted".to_owned()),
            1 => CopyOutcome::Full("full".to_owned()),
            2 => CopyOutcome::Failed("EINVAL".to_owned()),
            3 => CopyOutcome::DiskError("EIO".to_owned()),
            4 => CopyOutcome::SourceLost("removed by a user".to_owned()),
            5 if job.local().is_none() => CopyOutcome::NotNow("not mounted".to_owned()),
            6 if how > 200 => CopyOutcome::Taken("another detector's".to_owned()),
            _ if job.superseded.load(Ordering::Relaxed) => CopyOutcome::Superseded,
            _ if !readable => CopyOutcome::SourceLost("replaced by a newer version".to_owned()),
            _ => {
                let before = self.stored[storage].insert(key, content);
                assert!(before <= Some(content), "an older version replaced a newer one");
                CopyOutcome::Stored
            }
        };
        self.copied(storage, job.version, outcome);
    }

    fn copied(&mut self, storage: usize, version: VersionId, outcome: CopyOutcome) {
        let storage = StorageIndex(storage as u16);
        self.tell(Fact::Copying(CopyReport { version, storage, outcome, file: None, set_aside: None }));
    }

    /// pending + stored + failed + superseded + lost = produced, per storage (SPEC, terms).
    fn check(&self) {
        let offered = self.ledger.waiting_per_shift()[&ShiftId(1)];
        for storage in 0..STORAGES {
            let t = self.ledger.tallies.get(ShiftId(1), StorageIndex(storage as u16));
            let sum = t.pending + t.stored + t.failed + t.superseded + t.lost + offered;
            assert_eq!(sum, self.produced, "{t:?} and {offered} offered");
        }
    }

    /// Everything works again: until nothing is left to do.
    fn calm(&mut self) {
        for half in Half::ALL {
            self.switch(half, false);
        }
        self.tell(Fact::Space(room(1000)));
        for _ in 0..200 {
            self.now.at += Duration::from_secs(11);
            self.tell(Fact::Space(room(1000)));
            for detector in 0..DETECTORS {
                while !self.detectors[detector].wants.is_empty() {
                    self.land(detector, 7);
                }
            }
            for storage in 0..STORAGES {
                while !self.copies[storage].is_empty() {
                    self.copy(storage, 11, 0);
                }
            }
            self.tell(Fact::Committed { up_to: self.last_record });
        }
    }
}

fn room(files: u64) -> Space {
    Space { total_bytes: 1 << 30, free_bytes: (1 << 20) + files * 12_288, free_inodes: 1 << 20 }
}

fn path(name: u8) -> RelPath {
    RelPath::new(format!("run/{name}.cbf").as_bytes()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn counts_add_up_and_the_newest_version_wins(events in proptest::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            world.run(event);
            world.check();
        }
        world.calm();
        world.check();
        for (d, fake) in world.detectors.iter().enumerate() {
            for (name, identity) in &fake.files {
                let key = (["1MF", "2MF"][d].to_owned(), path(*name));
                for storage in 0..STORAGES {
                    let failed = world.ledger.tallies.get(ShiftId(1), StorageIndex(storage as u16)).failed > 0;
                    let stored = world.stored[storage].get(&key) == Some(&identity.ctime_ns);
                    prop_assert!(stored || failed, "{} of detector {d} is not on storage {storage}", path(*name));
                }
            }
            prop_assert!(fake.wants.is_empty() && fake.offers.is_empty());
        }
    }
}

#[test]
fn nothing_is_stored_before_the_journal_says_so() {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Land { detector: 0, how: 7 });
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    let stored = |world: &World| world.ledger.tallies.get(ShiftId(1), StorageIndex(0)).stored;
    assert_eq!(stored(&world), 0);
    world.run(Event::Commit);
    assert_eq!(stored(&world), 1);
}

#[test]
fn a_file_that_does_not_fit_waits_and_smaller_ones_pass() {
    let mut world = World::new();
    world.tell(Fact::Space(room(1)));
    let identity = |size, ino| Identity { size, mtime_ns: 0, ino, ctime_ns: ino as i64 };
    world.offer(0, 1, identity(1 << 25, 1), true);
    world.offer(0, 2, identity(100, 2), true);
    assert_eq!(world.detectors[0].wants.len(), 1);
    assert_eq!(world.detectors[0].wants[0].1.path, path(2));
    world.run(Event::Land { detector: 0, how: 7 });
    world.now.at += Duration::from_secs(11);
    world.tell(Fact::Space(room(1)));
    world.offer(0, 3, identity(100, 3), true);
    assert!(world.detectors[0].wants.is_empty(), "after 10 s nothing passes any more");
    let needed = world.ledger.room_needed();
    assert!(needed > room(1).free_bytes && needed <= room(10_000).free_bytes, "{needed}");
    world.tell(Fact::Space(room(10_000)));
    assert_eq!(world.ledger.room_needed(), 0);
    assert_eq!(world.detectors[0].wants.len(), 2);
    assert_eq!(world.detectors[0].wants[0].1.path, path(1), "oldest first");
}

#[test]
fn a_vanished_detector_file_is_lost_after_a_relink() {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    world.detectors[0].files.clear();
    world.detectors[0].wants.clear();
    world.run(Event::Relink { detector: 0 });
    let tally = world.ledger.tallies.get(ShiftId(1), StorageIndex(0));
    assert_eq!((tally.lost, tally.pending), (1, 0));
}

#[test]
fn one_detectors_failure_leaves_the_other_alone() {
    let mut world = World::new();
    let index = DetectorIndex(0);
    let reason = "key differs".to_owned();
    world.tell(Fact::LinkDown { detector: index, session: Session(1), reason, refused: true });
    world.run(Event::Close { detector: 1, name: 1 });
    assert_eq!(world.detectors[1].wants.len(), 1);
}

#[test]
fn what_has_landed_is_not_counted_again_when_it_is_offered_again() {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Land { detector: 0, how: 7 });
    // The detector did not hear that it has landed, and a newer version comes.
    let identity = world.detectors[0].files[&1];
    world.offer(0, 1, identity, true);
    world.check();
    world.detectors[0].wants.clear();
    world.run(Event::Close { detector: 0, name: 1 });
    world.check();
}

/// A detector's "no" travels on another connection than the newer version, which may be the quicker.
#[test]
fn what_landed_unheard_and_ended_counts_once_however_late_its_end_is_told() {
    for event in [Event::Close { detector: 0, name: 1 }, Event::Remove { detector: 0, name: 1 }] {
        let mut world = World::new();
        world.run(Event::Close { detector: 0, name: 1 });
        world.run(Event::Land { detector: 0, how: 7 });
        world.offer(0, 1, world.detectors[0].files[&1], true);
        let (asked, _) = world.detectors[0].wants.pop_front().unwrap();
        world.run(event.clone());
        if let Event::Remove { .. } = event {
            world.run(Event::Close { detector: 0, name: 1 });
        }
        world.run(Event::Land { detector: 0, how: 7 });
        world.check();
        world.tell(Fact::Declined { transfer: asked.transfer, why: Decline::Changed });
        world.check();
        world.run(Event::Relink { detector: 0 });
        assert!(world.detectors[0].wants.is_empty(), "{event:?}: what is there is known to be there");
    }
}

#[test]
fn what_a_heartbeat_counted_is_not_counted_again_when_it_is_offered() {
    let mut world = World::new();
    let beat = crate::model::offer::Heartbeat { backlog_files: 3, backlog_bytes: 300, ..Default::default() };
    world.tell(Fact::Beat { detector: DetectorIndex(0), beat });
    let backlog = |world: &World| world.ledger.report(world.now).detectors[0].backlog.files;
    assert_eq!(backlog(&world), 3);
    world.run(Event::Close { detector: 0, name: 1 });
    assert_eq!(backlog(&world), 3, "one of them is on offer now");
}

#[test]
fn pauses_hold_wants_back() {
    let mut world = World::new();
    let pauses = Pauses { min: Duration::from_millis(10), interrun: Duration::from_millis(500) };
    world.ledger.detectors[0].pace = Pace::new(pauses);
    let wait = |world: &mut World, ms| world.run(Event::Wait { ms });
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Close { detector: 0, name: 2 });
    world.run(Event::Close { detector: 1, name: 1 });
    assert_eq!(world.detectors[0].wants.len(), 1, "the second waits for the next round");
    assert_eq!(world.detectors[1].wants.len(), 1, "the other detector is left out of it");
    assert_eq!(world.ledger.pause_ends(world.now), Some(world.now.at + pauses.min));
    wait(&mut world, 9);
    assert_eq!(world.detectors[0].wants.len(), 1);
    wait(&mut world, 1);
    assert_eq!(world.detectors[0].wants.len(), 2);
    assert_eq!(world.ledger.pause_ends(world.now), None, "nothing waits");
    world.run(Event::Land { detector: 0, how: 7 });
    world.run(Event::Land { detector: 0, how: 7 });
    wait(&mut world, 100);
    world.run(Event::Close { detector: 0, name: 3 });
    wait(&mut world, 399);
    assert!(world.detectors[0].wants.is_empty(), "the run is over: quiet");
    wait(&mut world, 1);
    assert_eq!(world.detectors[0].wants.len(), 1);
}
