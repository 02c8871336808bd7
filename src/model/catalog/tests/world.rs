//! A small world around a catalog: files that are written, renamed, linked and deleted, a watch that tells it late, streams, a PPU
//! that counts as the ledger does, messages under way, and a link that breaks. Whatever happens, in the end the PPU has what is there.

mod sequences;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::*;
use super::ppu::{Content, Ppu, ToDetector, hash};
use crate::model::file_version::TransferId;
use crate::model::offer::Decline;
use crate::model::release::{Order, Outcome, Report, Safe};
use crate::model::send::{SendJob, SendOutcome, SendReport};
use crate::model::shift::Began;

const SHIFT: ShiftId = ShiftId(1);
type Name = u8;

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write(Name),
    Delete(Name),
    /// Opened for writing, and something written.
    Open(Name),
    /// The writer's last write, and its close.
    Close(Name),
    /// Opened for writing and closed, nothing written.
    Touch(Name),
    /// Written through a mapping: no time moves.
    Map(Name),
    Chmod(Name),
    Rename(Name, Name),
    Link(Name, Name),
    /// The watch tells of one event.
    Watch,
    /// The kernel drops what is queued; everything is listed.
    Overflow,
    Time,
    ToPpu,
    ToDetector,
    StartSend,
    EndSend,
    /// The PPU has received all of a file.
    Land {
        well: bool,
    },
    Break,
    /// A landed file is taken from the PPU's ramdisk before it was stored.
    Fall(Name),
    /// All that is under way arrives; only the watch stands still.
    Flow,
    /// The ramdisk is too full by that much.
    Release(u64),
    /// The thread that releases carries out an order.
    ReleaseWork,
    /// Its word comes in.
    ReleaseReport,
    /// The PPU lets files come unasked.
    Grant,
}

#[derive(Clone, Copy)]
struct Inode {
    content: Content,
    size: u64,
    mtime: i64,
    ctime: i64,
    writers: u32,
}

#[derive(Clone, Copy)]
enum FsEvent {
    Closed(Name),
    Gone(Name),
    Taken(i64),
}

/// A stream at work on a job, and what it has read.
struct Flight {
    job: SendJob,
    read: (u64, Identity, Content),
}

struct World {
    catalog: Catalog,
    now: Instant,
    ticks: i64,
    names: BTreeMap<Name, u64>,
    inodes: BTreeMap<u64, Inode>,
    events: VecDeque<FsEvent>,
    mapped_in_queue: bool,
    jobs: VecDeque<SendJob>,
    flights: VecDeque<Flight>,
    to_ppu: VecDeque<Word>,
    to_detector: VecDeque<ToDetector>,
    /// Out on a data connection: what the PPU will have received.
    data: VecDeque<(TransferId, Option<(Identity, Content)>)>,
    ppu: Ppu,
    /// Out of sight, by the name they had.
    taken: BTreeMap<RelPath, (Name, u64, Identity)>,
    reports: VecDeque<Report>,
    /// Versions that were closed.
    produced: u64,
}

fn bytes(token: i64) -> Box<[u8]> {
    token.to_le_bytes().into()
}

fn path(name: Name) -> RelPath {
    RelPath::new(&[b'a' + name]).unwrap()
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self {
            catalog: Catalog::new(now).with_release(Safe::Stored),
            now,
            ticks: 0,
            names: BTreeMap::new(),
            inodes: BTreeMap::new(),
            events: VecDeque::new(),
            mapped_in_queue: false,
            jobs: VecDeque::new(),
            flights: VecDeque::new(),
            to_ppu: VecDeque::new(),
            to_detector: VecDeque::new(),
            data: VecDeque::new(),
            ppu: Ppu::default(),
            taken: BTreeMap::new(),
            reports: VecDeque::new(),
            produced: 0,
        };
        world.scan();
        world.connect();
        world
    }

    fn step(&mut self, step: Step) {
        self.now += Duration::from_micros(1);
        self.ticks += 1;
        match step {
            Step::Write(name) => self.write(name),
            Step::Delete(name) => {
                // That moves the ctime of the inode's other names.
                self.change(name, |inode, _, tick| inode.ctime = tick);
                if self.names.remove(&name).is_some() {
                    self.events.push_back(FsEvent::Gone(name));
                }
            }
            Step::Open(name) => self.change(name, |inode, content, tick| {
                *inode = Inode { content, mtime: tick, ctime: tick, writers: inode.writers + 1, ..*inode };
            }),
            Step::Close(name) => self.close(name),
            Step::Touch(name) => {
                if self.names.contains_key(&name) {
                    self.events.push_back(FsEvent::Closed(name));
                }
            }
            Step::Map(name) => {
                self.change(name, |inode, content, _| inode.content = content);
                self.mapped_in_queue = true;
                self.step(Step::Touch(name));
            }
            Step::Chmod(name) => self.change(name, |inode, _, tick| inode.ctime = tick),
            Step::Rename(from, to) => {
                if from != to && self.names.contains_key(&from) {
                    // Both inodes' ctimes move: the replaced one has a name less.
                    self.change(to, |inode, _, tick| inode.ctime = tick);
                    self.change(from, |inode, _, tick| inode.ctime = tick);
                    let inode = self.names.remove(&from).unwrap();
                    self.names.insert(to, inode);
                    self.events.extend([FsEvent::Gone(from), FsEvent::Closed(to)]);
                }
            }
            Step::Link(from, to) => {
                if let Some(inode) = self.names.get(&from).copied()
                    && !self.names.contains_key(&to)
                {
                    self.change(from, |inode, _, tick| inode.ctime = tick);
                    self.names.insert(to, inode);
                    self.events.push_back(FsEvent::Closed(to));
                }
            }
            Step::Watch => self.watch(),
            // A scan sees no mapping's write: only its close tells of it.
            Step::Overflow if self.mapped_in_queue => {}
            Step::Overflow => {
                self.events.clear();
                self.catalog.event(self.now, Event::Missed);
                self.scan();
            }
            Step::Time => {
                self.now += Duration::from_millis(60);
                self.catalog.tick(self.now);
            }
            Step::ToPpu => self.tell_ppu(),
            Step::ToDetector => self.tell_detector(),
            Step::StartSend => self.start_send(),
            Step::EndSend => self.end_send(),
            Step::Land { well } => {
                if let Some((transfer, received)) = self.data.pop_front() {
                    if self.ppu.waits_for_word_on(transfer) {
                        return self.data.push_front((transfer, received));
                    }
                    let received = received.filter(|_| well);
                    self.ppu.received(transfer, received, &mut self.to_detector);
                }
            }
            Step::Break => {
                self.disconnect();
                self.connect();
            }
            Step::Fall(name) => self.ppu.fall(&path(name), &mut self.to_detector),
            Step::Flow => (0..8).for_each(|_| self.flow()),
            Step::Release(excess) => self.catalog.release(self.now, excess),
            Step::ReleaseWork => self.release_work(),
            Step::Grant => self.ppu.grant(&mut self.to_detector),
            Step::ReleaseReport => {
                if let Some(report) = self.reports.pop_front() {
                    self.catalog.release_report(self.now, report);
                }
            }
        }
    }

    fn write(&mut self, name: Name) {
        let ino = *self.names.entry(name).or_insert(1000 + self.ticks as u64);
        let (content, tick) = (self.ticks as u64, self.ticks);
        let writers = self.inodes.get(&ino).map_or(0, |inode| inode.writers);
        self.inodes.insert(ino, Inode { content, size: content % 3, mtime: tick, ctime: tick, writers });
        self.produced += 1;
        if writers == 0 {
            self.events.push_back(FsEvent::Closed(name));
        }
    }

    fn close(&mut self, name: Name) {
        let open = |ino: &u64| self.inodes[ino].writers > 0;
        if self.names.get(&name).is_some_and(open) {
            self.change(name, |inode, content, tick| {
                *inode = Inode { content, mtime: tick, ctime: tick, writers: inode.writers - 1, ..*inode };
            });
            self.events.push_back(FsEvent::Closed(name));
        }
    }

    fn change(&mut self, name: Name, change: impl FnOnce(&mut Inode, Content, i64)) {
        if let Some(ino) = self.names.get(&name) {
            change(self.inodes.get_mut(ino).unwrap(), self.ticks as u64, self.ticks);
        }
    }

    fn identity(&self, ino: u64) -> Identity {
        let Inode { size, mtime, ctime, .. } = self.inodes[&ino];
        Identity { size, mtime_ns: mtime, ino, ctime_ns: ctime }
    }

    fn watch(&mut self) {
        match self.events.pop_front() {
            None => self.mapped_in_queue = false,
            Some(FsEvent::Gone(name)) => self.catalog.event(self.now, Event::Gone { path: path(name) }),
            Some(FsEvent::Taken(token)) => {
                self.catalog.event(self.now, Event::Taken { token: bytes(token) });
            }
            Some(FsEvent::Closed(name)) => {
                let path = path(name);
                let event = match self.names.get(&name) {
                    Some(ino) => Event::Closed { path, identity: self.identity(*ino), at: self.now },
                    None => Event::ClosedUnseen { path },
                };
                self.catalog.event(self.now, event);
            }
        }
    }

    fn scan(&mut self) {
        self.catalog.event(self.now, Event::ScanBegins);
        for (name, ino) in self.names.clone() {
            let event = Event::Found { path: path(name), identity: self.identity(ino), at: self.now };
            self.catalog.event(self.now, event);
        }
        self.catalog.event(self.now, Event::ScanEnds);
    }

    fn tell_ppu(&mut self) {
        let word = self.catalog.next_word(self.now);
        if let Some(Word::Coming(coming)) = &word {
            self.jobs.extend(coming.iter().map(|(_, job)| job.clone()));
        }
        self.to_ppu.extend(word);
        if let Some(word) = self.to_ppu.pop_front() {
            self.ppu.hear(word, &mut self.to_detector);
        }
    }

    fn tell_detector(&mut self) {
        match self.to_detector.pop_front() {
            None => {}
            Some(ToDetector::Want(wanted)) => self.jobs.extend(self.catalog.want(self.now, wanted)),
            Some(ToDetector::Grant(transfers)) => self.catalog.granted(transfers, 1000),
            Some(ToDetector::NotTaken(transfer)) => self.catalog.not_taken(self.now, transfer),
            Some(ToDetector::Landed(offer)) => self.catalog.landed(self.now, &[offer]),
            Some(ToDetector::Fell(offer)) => self.catalog.fell(&[offer]),
            Some(ToDetector::Stored(offer)) => self.catalog.stored(&[offer]),
        }
    }

    fn start_send(&mut self) {
        let Some(job) = self.jobs.pop_front() else { return };
        let ino = self.names.iter().find(|(name, _)| path(**name) == job.path).map(|(_, ino)| *ino);
        let Some(ino) = ino else {
            return self.report(job.transfer, declined(Decline::Vanished, None));
        };
        let (identity, inode) = (self.identity(ino), self.inodes[&ino]);
        if inode.writers > 0 {
            self.report(job.transfer, declined(Decline::Busy, Some(identity)));
        } else if identity != job.identity {
            self.report(job.transfer, declined(Decline::Changed, Some(identity)));
        } else if job.known_hash == Some(hash(inode.content)) {
            let unchanged = Decline::Unchanged { identity, settled: true };
            self.report(job.transfer, declined(unchanged, Some(identity)));
        } else {
            self.flights.push_back(Flight { job, read: (ino, identity, inode.content) });
        }
    }

    fn end_send(&mut self) {
        let Some(Flight { job, read: (ino, before, content) }) = self.flights.pop_front() else { return };
        let inode = self.inodes[&ino];
        let named = self.names.values().any(|other| *other == ino);
        if self.identity(ino) == before && inode.content == content && inode.writers == 0 && named {
            self.data.push_back((job.transfer, Some((before, content))));
            self.report(job.transfer, SendOutcome::Sent { identity: before, settled: true });
        } else {
            self.data.push_back((job.transfer, None));
            let identity = named.then(|| self.identity(ino));
            self.report(job.transfer, SendOutcome::Changed { identity });
        }
    }

    fn report(&mut self, transfer: TransferId, outcome: SendOutcome) {
        self.catalog.sent(self.now, SendReport { transfer, outcome });
    }

    fn release_work(&mut self) {
        let Some(order) = self.catalog.next_release() else { return };
        let (path, outcome) = match order {
            Order::Take { path, identity } => {
                let outcome = self.take(&path, identity);
                (path, outcome)
            }
            Order::Delete { path } => {
                let (name, ino, as_taken) = self.taken.remove(&path).expect("only what was taken is deleted");
                if self.identity(ino) != as_taken || self.inodes[&ino].writers > 0 {
                    let outcome = self.put_back(name, ino);
                    return self.reports.push_back(Report { path, outcome });
                }
                let content = self.inodes[&ino].content;
                let linked = self.names.values().any(|other| *other == ino);
                let landed = self.ppu.ever.contains(&(path.clone(), content));
                assert!(linked || landed, "{path} is deleted and nowhere else");
                (path, Outcome::Deleted)
            }
            Order::PutBack { path } => {
                let (name, ino, _) = self.taken.remove(&path).expect("only what was taken is put back");
                (path, self.put_back(name, ino))
            }
        };
        self.reports.push_back(Report { path, outcome });
    }

    fn put_back(&mut self, name: Name, ino: u64) -> Outcome {
        if self.names.contains_key(&name) {
            return Outcome::Kept("something newer has its name".to_owned());
        }
        self.names.insert(name, ino);
        self.change(name, |inode, _, tick| inode.ctime = tick);
        self.events.push_back(FsEvent::Closed(name));
        Outcome::Back
    }

    fn take(&mut self, wanted: &RelPath, expected: Identity) -> Outcome {
        let found =
            self.names.iter().find(|(name, _)| path(**name) == *wanted).map(|(name, ino)| (*name, *ino));
        let Some((name, ino)) = found else { return Outcome::Left("gone".to_owned()) };
        if self.identity(ino) != expected || self.inodes[&ino].writers > 0 {
            return Outcome::Left("changed, or written".to_owned());
        }
        self.change(name, |inode, _, tick| inode.ctime = tick);
        self.names.remove(&name);
        self.events.extend([FsEvent::Gone(name), FsEvent::Taken(self.ticks)]);
        let before = self.taken.insert(wanted.clone(), (name, ino, self.identity(ino)));
        assert_eq!(before, None, "taken twice");
        Outcome::Taken { token: bytes(self.ticks) }
    }

    fn connect(&mut self) {
        self.catalog.session_begins(self.now);
        super::hear_of(&mut self.catalog, self.now, SHIFT, None, Began::Ever);
    }

    fn disconnect(&mut self) {
        // Landing threads take what has arrived, and report, before the link counts as down.
        for (transfer, received) in std::mem::take(&mut self.data) {
            self.ppu.received(transfer, received, &mut self.to_detector);
        }
        self.jobs.clear();
        self.flights.clear();
        self.to_ppu.clear();
        self.to_detector.clear();
        self.catalog.session_ends(self.now);
        self.ppu.link_down();
    }

    fn flow(&mut self) {
        for step in [Step::ToPpu, Step::ToDetector, Step::StartSend, Step::EndSend, Step::Land { well: true }]
        {
            self.step(step);
        }
    }

    /// Nobody writes any more, and everything under way arrives.
    fn settle(&mut self) {
        for name in self.names.clone().into_keys() {
            while self.inodes[&self.names[&name]].writers > 0 {
                self.step(Step::Close(name));
            }
        }
        for _ in 0..50 {
            while !self.events.is_empty() {
                self.step(Step::Watch);
            }
            for _ in 0..20 {
                self.flow();
                self.step(Step::ReleaseWork);
                self.step(Step::ReleaseReport);
            }
            self.step(Step::Time);
        }
    }

    fn check(&mut self) {
        self.check_all_is_there();
        // A version that landed while the link broke, and was deleted then, stays known until the next manifest.
        self.step(Step::Break);
        self.settle();
        self.check_all_is_there();
        assert_eq!(self.ppu.has.len(), self.names.len(), "what is gone is known to be gone");
    }

    fn check_all_is_there(&self) {
        let there: BTreeMap<RelPath, Content> =
            self.names.iter().map(|(name, ino)| (path(*name), self.inodes[ino].content)).collect();
        let ppu: BTreeMap<RelPath, Content> =
            self.ppu.has.iter().map(|(path, has)| (path.clone(), has.content)).collect();
        for (path, content) in &there {
            assert_eq!(ppu.get(path), Some(content), "what the PPU has of {path}");
        }
        assert!(self.ppu.offers.is_empty(), "{:?}", self.ppu.offers);
        assert_eq!(self.catalog.counts().backlog_files, 0);
        assert_eq!(self.catalog.counts().files, there.len());
        assert_eq!(self.catalog.ghosts, 0);
        assert_eq!(self.catalog.unsaid(), 0);
        assert!(!self.catalog.is_releasing() && self.taken.is_empty());
    }

    /// In the end all of it may leave. One name's leaving moves the ctime of the inode's others: they are looked at anew.
    fn everything_leaves(&mut self) {
        for _ in 0..4 {
            self.catalog.release(self.now, u64::MAX);
            self.settle();
            self.scan();
            self.settle();
        }
        assert!(self.names.is_empty(), "{:?}", self.names);
        assert_eq!(self.catalog.counts().files, 0);
    }
}

fn declined(why: Decline, identity: Option<Identity>) -> SendOutcome {
    SendOutcome::Declined { why, identity }
}
