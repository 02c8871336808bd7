//! A detector: its ramdisk and who writes there, the watch, the streams, and the real catalog.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ppu_uringd::model::catalog::{Announced, Catalog, Event, KnownSpan, Moment, Word};
use ppu_uringd::model::file_version::{DetectorIndex, Hash, Identity, OfferId, TransferId};
use ppu_uringd::model::ledger::Session;
use ppu_uringd::model::offer::{Decline, Wanted};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::release::{self, Outcome, Safe};
use ppu_uringd::model::send::{SendJob, SendOutcome, SendReport};
use ppu_uringd::model::shift::Began;

use super::ramdisk::UNIT;
use super::truth::{Truth, WORD_WAIT_NS};
use super::{Clock, Random, trace};

pub const DETECTORS: usize = 2;
const NAMES: u64 = 4;
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Inode {
    content: u64,
    mtime: i64,
    ctime: i64,
    writers: u32,
}

#[derive(Debug, Clone, Copy)]
enum FsEvent {
    Closed(u8),
    Gone(u8),
    Taken(u64),
    Mark(u64),
}

/// What the PPU says.
#[derive(Debug)]
pub enum ToDetector {
    Shift(Announced),
    Want(Vec<Wanted>),
    Grant(Vec<TransferId>, u64),
    NotTaken(TransferId),
    Landed(Vec<OfferId>),
    Stored(Vec<OfferId>),
    Fell(Vec<OfferId>),
}

/// Sent on a data connection: what arrives, unless it changed meanwhile.
pub type Sent = (TransferId, Option<(Identity, u64)>);

/// A session, and what is under way.
pub struct Link {
    pub session: Session,
    pub to_ppu: VecDeque<Word>,
    pub to_detector: VecDeque<ToDetector>,
    pub data: VecDeque<Sent>,
    /// When the session began.
    since: i64,
}

/// A stream at work on a job, and what it has read.
struct Flight {
    job: SendJob,
    ino: u64,
    identity: Identity,
    content: u64,
}

pub struct Machine {
    pub index: DetectorIndex,
    pub id: String,
    /// Its clock is ahead of the true time by that much.
    ahead_ns: i64,
    names: BTreeMap<u8, u64>,
    inodes: BTreeMap<u64, Inode>,
    queue: VecDeque<FsEvent>,
    /// Out of sight, by the name it had.
    taken: BTreeMap<RelPath, (u8, u64)>,
    /// What left when it was safe, and was not replaced or deleted since.
    released: BTreeMap<u8, u64>,
    /// When a content got its name by a rename.
    named: BTreeMap<(u8, u64), i64>,
    pub catalog: Catalog,
    jobs: VecDeque<SendJob>,
    flights: VecDeque<Flight>,
    reports: VecDeque<release::Report>,
    saved: Vec<KnownSpan>,
    /// Handed to the thread that writes them.
    unsaved: Option<(u64, Vec<KnownSpan>)>,
    /// In that tick the last mark was made.
    marked: i64,
    looked: i64,
    pub link: Option<Link>,
}

pub fn path(name: u8) -> RelPath {
    let directory = if name == 0 { "other" } else { "run" };
    RelPath::new(format!("{directory}/{name}").as_bytes()).unwrap()
}

/// Of the detector with that id.
pub fn index(id: &str) -> usize {
    usize::from(id.as_bytes()[1] - b'0')
}

pub fn hash(content: u64) -> Hash {
    Hash(u128::from(content).to_be_bytes())
}

impl Machine {
    pub fn new(index: usize, clock: &Clock) -> Self {
        let mut machine = Self {
            index: DetectorIndex(index as u16),
            id: format!("d{index}"),
            ahead_ns: [0, 7_200_000_000_000][index],
            names: BTreeMap::new(),
            inodes: BTreeMap::new(),
            queue: VecDeque::new(),
            taken: BTreeMap::new(),
            released: BTreeMap::new(),
            named: BTreeMap::new(),
            catalog: Catalog::new(clock.at()).with_release(Safe::Stored),
            jobs: VecDeque::new(),
            flights: VecDeque::new(),
            reports: VecDeque::new(),
            saved: Vec::new(),
            unsaved: None,
            marked: 0,
            looked: 0,
            link: None,
        };
        machine.scan(clock);
        machine
    }

    /// What must be stored of it in the end.
    pub fn required(&self) -> Vec<(u8, u64)> {
        let there = self.names.iter().map(|(name, ino)| (*name, self.inodes[ino].content));
        let gone = self.released.iter().map(|(name, content)| (*name, *content));
        there.chain(gone).collect()
    }

    pub fn names(&self) -> Vec<u8> {
        self.names.keys().copied().collect()
    }

    /// When a content got the names that it had by renames.
    pub fn named(&self, content: u64) -> Vec<i64> {
        self.named.iter().filter(|((_, of), _)| *of == content).map(|(_, at)| *at).collect()
    }

    /// Its software does something.
    pub fn software(&mut self, random: &mut Random, clock: &mut Clock, truth: &mut Truth) {
        let name = random.below(NAMES) as u8;
        trace!("{} {}: software at {name}: {:?}", clock.ns, self.id, self.names);
        match random.below(20) {
            0..12 => self.write(name, clock, truth),
            12 | 13 => self.replace(name, clock, truth),
            14 => self.delete(name, truth),
            15 => {
                let to = random.below(NAMES) as u8;
                self.rename(name, to, clock, truth);
            }
            16 | 17 => self.open(name, clock, truth),
            18 => self.close(name, clock, truth),
            _ => self.touch(name, clock, truth),
        }
    }

    /// As [`Machine::software`], but each step makes one version that everybody can see.
    pub fn plain_software(&mut self, random: &mut Random, clock: &mut Clock, truth: &mut Truth) {
        let name = random.below(NAMES) as u8;
        // Two of the same size in one tick look like one.
        clock.pass(Duration::from_nanos(Clock::TICK_NS as u64));
        trace!("{} {}: software at {name}: {:?}", clock.ns, self.id, self.names);
        match random.below(8) {
            0 => self.delete(name, truth),
            _ => self.write(name, clock, truth),
        }
    }

    pub fn write(&mut self, name: u8, clock: &mut Clock, truth: &mut Truth) {
        let ino = self.names.get(&name).copied().unwrap_or_else(|| truth.new_content());
        self.fill(name, ino, clock, truth);
    }

    /// Another file is renamed over it.
    fn replace(&mut self, name: u8, clock: &mut Clock, truth: &mut Truth) {
        let ino = truth.new_content();
        self.fill(name, ino, clock, truth);
    }

    fn fill(&mut self, name: u8, ino: u64, clock: &mut Clock, truth: &mut Truth) {
        let before = self.inodes.get(&ino);
        let writers = before.map_or(0, |inode| inode.writers);
        // Written, and written again, in one tick and to the same size, with a shift's beginning in between: the second looks like the first
        // until its close is told.
        let untold = self.queue.iter().any(|event| matches!(event, FsEvent::Closed(other) if *other == name));
        let in_this_tick = before.is_some_and(|inode| inode.ctime == clock.stamp(self.ahead_ns));
        if (untold || in_this_tick) && self.marked == clock.stamp(0) {
            clock.pass(Duration::from_nanos(2 * Clock::TICK_NS as u64));
        }
        let (content, now) = (truth.new_content(), clock.stamp(self.ahead_ns));
        trace!("{} {}: {name} is inode {ino} with {content}, writers {writers}", clock.ns, self.id);
        self.inodes.insert(ino, Inode { content, mtime: now, ctime: now, writers });
        self.names.insert(name, ino);
        self.released.remove(&name);
        if writers == 0 {
            truth.close(content, clock);
        }
        self.queue.push_back(FsEvent::Closed(name));
    }

    fn delete(&mut self, name: u8, truth: &mut Truth) {
        if self.names.remove(&name).is_some() {
            trace!("{}: {name} is deleted", self.id);
            truth.deleted += 1;
            self.queue.push_back(FsEvent::Gone(name));
        }
    }

    fn rename(&mut self, from: u8, to: u8, clock: &Clock, truth: &mut Truth) {
        if from == to {
            return;
        }
        if let Some(ino) = self.names.remove(&from) {
            let inode = self.inodes.get_mut(&ino).unwrap();
            inode.ctime = clock.stamp(self.ahead_ns);
            trace!("{} {}: {from} is renamed {to}", clock.ns, self.id);
            self.named.insert((to, inode.content), clock.ns);
            truth.closed += 1;
            truth.renamed += 1;
            self.names.insert(to, ino);
            self.released.remove(&to);
            self.queue.extend([FsEvent::Gone(from), FsEvent::Closed(to)]);
        }
    }

    /// For writing, and a part is written.
    fn open(&mut self, name: u8, clock: &Clock, truth: &mut Truth) {
        let Some(ino) = self.names.get(&name) else { return };
        let now = clock.stamp(self.ahead_ns);
        let inode = self.inodes.get_mut(ino).unwrap();
        *inode = Inode { content: truth.new_content(), mtime: now, ctime: now, writers: inode.writers + 1 };
    }

    /// The last part, and the close.
    fn close(&mut self, name: u8, clock: &mut Clock, truth: &mut Truth) {
        let Some(ino) = self.names.get(&name).copied() else { return };
        let writers = self.inodes[&ino].writers;
        if writers > 0 {
            self.inodes.get_mut(&ino).unwrap().writers -= 1;
            self.fill(name, ino, clock, truth);
        }
    }

    /// Opened for writing and closed, nothing written.
    fn touch(&mut self, name: u8, clock: &Clock, truth: &mut Truth) {
        let Some(inode) = self.names.get(&name).map(|ino| self.inodes[ino]) else { return };
        if inode.writers == 0 {
            truth.touched(inode.content, clock);
        }
        self.queue.push_back(FsEvent::Closed(name));
    }

    pub fn close_all(&mut self, clock: &mut Clock, truth: &mut Truth) {
        for name in self.names() {
            while self.inodes[&self.names[&name]].writers > 0 {
                self.close(name, clock, truth);
            }
        }
    }

    fn identity(&self, ino: u64) -> Identity {
        let Inode { content, mtime, ctime, .. } = self.inodes[&ino];
        Identity { size: content % 3 * UNIT, mtime_ns: mtime, ino, ctime_ns: ctime }
    }

    fn inode_at(&self, wanted: &RelPath) -> Option<(u8, u64)> {
        self.names.iter().find(|(name, _)| path(**name) == *wanted).map(|(name, ino)| (*name, *ino))
    }
}

/// The watch.
impl Machine {
    /// Something was not told yet.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn watch(&mut self, clock: &mut Clock) {
        let event = match self.queue.pop_front() {
            None => return,
            Some(FsEvent::Gone(name)) => Event::Gone { path: path(name) },
            Some(FsEvent::Taken(token)) => Event::Taken { token: token.to_le_bytes().into() },
            Some(FsEvent::Mark(number)) => Event::Mark(number),
            // Looked at when it is told: as it is by then.
            Some(FsEvent::Closed(name)) => match self.names.get(&name) {
                Some(ino) => {
                    Event::Closed { path: path(name), identity: self.identity(*ino), at: clock.at() }
                }
                None => Event::ClosedUnseen { path: path(name) },
            },
        };
        trace!("{} {}: {event:?}", clock.ns, self.id);
        self.catalog.event(clock.at(), event);
        self.tend(clock, true);
    }

    /// The kernel drops what is queued.
    pub fn overflow(&mut self, clock: &mut Clock) {
        trace!("{} {}: events are lost, and it scans", clock.ns, self.id);
        self.queue.clear();
        self.catalog.event(clock.at(), Event::Missed);
        self.tend(clock, true);
        self.scan(clock);
        self.tend(clock, true);
    }

    pub fn scan(&mut self, clock: &Clock) {
        self.catalog.event(clock.at(), Event::ScanBegins);
        for (name, ino) in self.names.clone() {
            let event = Event::Found { path: path(name), identity: self.identity(ino), at: clock.at() };
            self.catalog.event(clock.at(), event);
        }
        self.catalog.event(clock.at(), Event::ScanEnds);
    }

    pub fn time(&mut self, clock: &mut Clock) {
        self.catalog.tick(clock.at());
        if clock.ns - self.looked >= LOOK.as_nanos() as i64 {
            self.looked = clock.ns;
            self.catalog.look_at_clock(self.moment(clock));
        }
        self.tend(clock, true);
        self.save();
    }

    fn moment(&self, clock: &Clock) -> Moment {
        Moment { at: clock.at(), file_ns: clock.stamp(self.ahead_ns) }
    }

    /// Marks, and the log of shifts.
    fn tend(&mut self, clock: &mut Clock, made: bool) {
        if let Some(number) = self.catalog.mark_due() {
            let before = self.moment(clock);
            clock.pass(Duration::from_micros(30));
            if made {
                self.queue.push_back(FsEvent::Mark(number));
                self.marked = clock.stamp(0);
            }
            self.catalog.marked(number, before, self.moment(clock), made);
        }
        if let Some(unsaved) = self.catalog.unsaved_shifts() {
            self.unsaved = Some(unsaved);
        }
    }

    /// The thread that writes the log of shifts.
    pub fn save(&mut self) {
        if let Some((revision, spans)) = self.unsaved.take() {
            self.saved = spans;
            self.catalog.shifts_saved(revision);
        }
    }
}

/// The session.
impl Machine {
    pub fn connect(&mut self, session: Session, clock: &mut Clock) {
        self.catalog.session_begins(clock.at());
        clock.pass(Duration::from_micros(200));
        self.catalog.session_goes_on(clock.at());
        let (to_ppu, to_detector, data) = Default::default();
        self.link = Some(Link { session, to_ppu, to_detector, data, since: clock.ns });
    }

    /// What was under way is lost.
    pub fn disconnect(&mut self, clock: &Clock) {
        if self.link.take().is_some() {
            trace!("{} {} link down", clock.ns, self.id);
            self.jobs.clear();
            self.flights.clear();
            self.catalog.session_ends(clock.at());
        }
    }

    /// The process is killed and begins anew.
    pub fn crash(&mut self, clock: &mut Clock) {
        trace!("{} {} crashes", clock.ns, self.id);
        self.link = None;
        self.jobs.clear();
        self.flights.clear();
        self.reports.clear();
        self.unsaved = None;
        // As the sweep of staging does.
        for (name, ino) in std::mem::take(&mut self.taken).into_values() {
            self.put_back(name, ino, clock);
        }
        self.queue.clear();
        self.catalog = Catalog::new(clock.at()).with_release(Safe::Stored);
        self.catalog.restore_shifts(self.saved.clone());
        self.scan(clock);
        self.tend(clock, true);
    }

    /// One word goes out.
    pub fn speak(&mut self, clock: &Clock) {
        if let Some(link) = &mut self.link {
            let word = self.catalog.next_word(clock.at());
            if let Some(word) = &word {
                trace!("{} {} says {word:?}", clock.ns, self.id);
            }
            if let Some(Word::Coming(coming)) = &word {
                self.jobs.extend(coming.iter().map(|(_, job)| job.clone()));
            }
            link.to_ppu.extend(word);
        }
    }

    /// One word comes in.
    pub fn hear(&mut self, random: &mut Random, clock: &mut Clock, truth: &mut Truth) {
        let Some(word) = self.link.as_mut().and_then(|link| link.to_detector.pop_front()) else { return };
        trace!("{} {} hears {word:?}", clock.ns, self.id);
        match word {
            ToDetector::Want(wants) => {
                let now = clock.at();
                self.jobs.extend(wants.into_iter().filter_map(|wanted| self.catalog.want(now, wanted)));
            }
            ToDetector::Grant(transfers, max_bytes) => self.catalog.granted(transfers, max_bytes),
            ToDetector::NotTaken(transfer) => self.catalog.not_taken(clock.at(), transfer),
            ToDetector::Landed(offers) => self.catalog.landed(clock.at(), &offers),
            ToDetector::Stored(offers) => self.catalog.stored(&offers),
            ToDetector::Fell(offers) => self.catalog.fell(&offers),
            ToDetector::Shift(announced) => {
                let (shift, began) = (announced.shift, announced.began);
                let since = self.link.as_ref().map_or(clock.ns, |link| link.since);
                truth.ages_blurred |= began != Began::Now && clock.ns - since > WORD_WAIT_NS;
                self.catalog.shift_began(self.moment(clock), announced);
                let made = !random.one_in(10);
                truth.marks_failed |= !made;
                self.tend(clock, made);
                if began == Began::Now {
                    truth.heard(usize::from(self.index.0), shift, clock);
                }
            }
        }
    }
}

/// Streams.
impl Machine {
    pub fn start_send(&mut self, clock: &Clock) {
        let Some(job) = self.jobs.pop_front() else { return };
        let declined = |why, identity| SendOutcome::Declined { why, identity };
        let Some((_, ino)) = self.inode_at(&job.path) else {
            return self.sent(clock, job.transfer, declined(Decline::Vanished, None));
        };
        let (identity, Inode { content, writers, .. }) = (self.identity(ino), self.inodes[&ino]);
        if writers > 0 {
            self.sent(clock, job.transfer, declined(Decline::Busy, Some(identity)));
        } else if identity != job.identity {
            self.sent(clock, job.transfer, declined(Decline::Changed, Some(identity)));
        } else if job.known_hash == Some(hash(content)) {
            let unchanged = Decline::Unchanged { identity, settled: self.is_settled(clock, &identity) };
            self.sent(clock, job.transfer, declined(unchanged, Some(identity)));
        } else {
            self.flights.push_back(Flight { job, ino, identity, content });
        }
    }

    pub fn end_send(&mut self, clock: &Clock) {
        let Some(Flight { job, ino, identity, content }) = self.flights.pop_front() else { return };
        let Inode { content: now, writers, .. } = self.inodes[&ino];
        let named = self.names.values().any(|other| *other == ino);
        let unchanged = self.identity(ino) == identity && now == content && writers == 0 && named;
        let (sent, outcome) = if unchanged {
            let settled = self.is_settled(clock, &identity);
            (Some((identity, content)), SendOutcome::Sent { identity, settled })
        } else {
            let has_name = if named {
                Some(&ino)
            } else {
                self.names.iter().find(|(name, _)| path(**name) == job.path).map(|(_, ino)| ino)
            };
            (None, SendOutcome::Changed { identity: has_name.map(|ino| self.identity(*ino)) })
        };
        if let Some(link) = &mut self.link {
            link.data.push_back((job.transfer, sent));
        }
        self.sent(clock, job.transfer, outcome);
    }

    /// No later write can have the same time stamp.
    pub fn is_settled(&self, clock: &Clock, identity: &Identity) -> bool {
        identity.ctime_ns < clock.stamp(self.ahead_ns)
    }

    fn sent(&mut self, clock: &Clock, transfer: TransferId, outcome: SendOutcome) {
        trace!("{} {} sent {transfer:?}: {outcome:?}", clock.ns, self.id);
        self.catalog.sent(clock.at(), SendReport { transfer, outcome });
    }
}

/// The thread that releases.
impl Machine {
    pub fn release(&mut self, clock: &Clock, is_safe: impl Fn(&RelPath, u64) -> bool, truth: &mut Truth) {
        let Some(order) = self.catalog.next_release() else { return };
        let (path, outcome) = match order {
            release::Order::Take { path, identity } => {
                let outcome = self.take(&path, identity, clock, truth);
                (path, outcome)
            }
            release::Order::Delete { path } => {
                let (name, ino) = self.taken.remove(&path).expect("deleted, and was not taken");
                let content = self.inodes[&ino].content;
                assert!(
                    is_safe(&path, content),
                    "{} {path} with {content} is released and not safe",
                    self.id
                );
                if !self.names.contains_key(&name) {
                    self.released.insert(name, content);
                }
                (path, Outcome::Deleted)
            }
            release::Order::PutBack { path } => {
                let (name, ino) = self.taken.remove(&path).expect("put back, and was not taken");
                let outcome = self.put_back(name, ino, clock);
                (path, outcome)
            }
        };
        trace!("{} {} release {path}: {outcome:?}", clock.ns, self.id);
        self.reports.push_back(release::Report { path, outcome });
    }

    fn take(&mut self, wanted: &RelPath, expected: Identity, clock: &Clock, truth: &mut Truth) -> Outcome {
        match self.inode_at(wanted) {
            Some((name, ino)) if self.identity(ino) == expected && self.inodes[&ino].writers == 0 => {
                self.names.remove(&name);
                self.inodes.get_mut(&ino).unwrap().ctime = clock.stamp(self.ahead_ns);
                assert_eq!(self.taken.insert(wanted.clone(), (name, ino)), None, "taken twice");
                let token = truth.new_content();
                self.queue.extend([FsEvent::Gone(name), FsEvent::Taken(token)]);
                Outcome::Taken { token: token.to_le_bytes().into() }
            }
            _ => Outcome::Left("gone, changed, or written".to_owned()),
        }
    }

    fn put_back(&mut self, name: u8, ino: u64, clock: &Clock) -> Outcome {
        if self.names.contains_key(&name) {
            return Outcome::Kept("something newer has its name".to_owned());
        }
        self.names.insert(name, ino);
        self.inodes.get_mut(&ino).unwrap().ctime = clock.stamp(self.ahead_ns);
        self.queue.push_back(FsEvent::Closed(name));
        Outcome::Back
    }

    pub fn release_report(&mut self, clock: &Clock) {
        if let Some(report) = self.reports.pop_front() {
            self.catalog.release_report(clock.at(), report);
        }
    }

    pub fn is_releasing(&self) -> bool {
        self.catalog.is_releasing() || !self.taken.is_empty()
    }
}
