//! The thread that owns the ledger: facts in, orders out. It waits for no disk and no peer.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::acks::{Ack, Acks};
use super::bulletin::{Bulletin, Wish};
use super::events::EventFeed;
use super::halves::Halves;
use super::intake::{Intake, TakenIn};
use super::keeping::Keepers;
use super::lookout::Lookout;
use super::shifts::{Reply, Shifts};
use super::waiting::Waiting;
use super::which::Known;
use crate::host::inbox::Receiver;
use crate::host::priority::OnTheWay;
use crate::host::wakeup::QuickWakeups;
use crate::land::expect::Expect;
use crate::land::link::Notice;
use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::half::{Half, Switched};
use crate::model::history::Sample;
use crate::model::job::CopyJob;
use crate::model::ledger::{Fact, Ledger, Now, Order, Retried, Selection, Space};
use crate::model::message::{Code, Message};
use crate::model::observation::Observation;
use crate::model::path::RelPath;
use crate::model::record::Record;
use crate::model::shift_report::{ShiftReport, Started};
use crate::model::shift_request::ShiftRequest;
use crate::model::status::{StatusReport, Told};
use crate::rooted::Root;
use crate::serve::control::{Answer, Which};
use crate::store::writer::Steps;
use crate::wire::control::FromPpu;

/// How often time passes for the ledger, and the ramdisk's free room is looked up.
const TICK: Duration = Duration::from_millis(50);
/// Facts taken before orders are given: acknowledgements of a burst share a frame.
const BATCH_FACTS: usize = 4096;
/// With so many files asked for there is work enough on both sides while facts gather.
const MANY_WANTED: u64 = 16;
/// So long they do then: waking this thread, and what it wakes, for every single file costs more than all else that it
/// does. A file that comes alone is never delayed.
const GATHER: Duration = Duration::from_millis(1);

/// So long after an image more are expected: what is in no hurry lets them go first.
const LANDING: Duration = Duration::from_secs(1);

/// Messages that the status shows.
const MESSAGES_SHOWN: usize = 100;

/// What comes to the hub.
pub enum Input {
    /// From a link.
    Notice(Notice),
    /// From any other stage.
    Fact(Fact),
    /// Somebody asks how things are.
    Status(Box<dyn FnOnce(StatusReport) + Send>),
    /// Somebody wants to see everything; of what was told, what has a higher number.
    Observe(u64, Reply<Observation>),
    /// Somebody asks how things were.
    History(Reply<Vec<Arc<Sample>>>),
    /// What had failed is to be tried again; with a word on how much that is, or on what is wrong with the question.
    Retry(Which, Box<dyn FnOnce(Result<Retried, String>) + Send>),
    /// What is meant by that?
    Select(Which, Box<dyn FnOnce(Result<Selection, String>) + Send>),
    /// An extra file.
    Extra(Box<TakenIn>),
    /// Somebody waits until an extra file is stored.
    Await(RelPath, Answer),
    /// Nothing.
    Idle,
    /// Somebody wants to hear what was told.
    Listen(Wish, Answer),
    /// A shift is to begin.
    StartShift(ShiftRequest, Reply<Result<Started, String>>),
    /// The last shifts, that many.
    Shifts(usize, Reply<Vec<ShiftReport>>),
    /// Half of the work is to be paused, or (`false`) to go on.
    Switch(Half, bool, Reply<Switched>),
    /// Something to tell people that follows from no fact.
    Tell(Message),
    /// The end.
    Stop,
}

/// Where the hub's orders go.
pub struct Hub {
    /// The state.
    pub ledger: Ledger,
    /// The PPU's ramdisk.
    pub ramdisk: Arc<Root>,
    /// To each storage's thread, in the order of their indices.
    pub writers: Vec<Box<dyn Fn(CopyJob) + Send>>,
    /// What each storage's thread has done, likewise.
    pub steps: Vec<Steps>,
    /// To the journal.
    pub journal: Sender<(u64, Record)>,
    /// To each detector with a session.
    pub outlets: Vec<Option<Outlet>>,
    /// What waits to be told to them.
    pub acks: Acks,
    /// What the status says beside the ledger's own.
    pub lookout: Lookout,
    /// Those who wait for extra files.
    pub waiting: Waiting,
    /// Where extra files are looked at.
    pub intake: Intake,
    /// What people are told.
    pub bulletin: Bulletin,
    /// What consumers hear of files.
    pub events: EventFeed,
    /// Who takes away what may leave.
    pub keepers: Keepers,
    /// What people may name.
    pub known: Known,
    /// Who waits for a shift to begin.
    pub shifts: Shifts,
    /// Who waits for a pause to be kept.
    pub halves: Halves,
    /// Asked for while images come.
    pub wakeups: QuickWakeups,
    /// When the last came.
    pub last_image: Option<Instant>,
}

/// A session's ear.
pub struct Outlet {
    messages: mpsc::UnboundedSender<FromPpu>,
    expect: Arc<Expect>,
}

impl Hub {
    /// Until [`Input::Stop`], or until nobody is left to speak.
    pub fn run(mut self, inputs: &Receiver<Input>, mut orders: Vec<Order>) {
        let _way = OnTheWay::take();
        let mut next_tick = Instant::now();
        loop {
            let now = now();
            if now.at >= next_tick {
                next_tick = now.at + TICK;
                self.tick(now, &mut orders);
            }
            self.ledger.work(now, &mut orders);
            self.obey(&mut orders);
            self.wakeups.under_way(self.ledger.wanted_files());
            self.waiting.committed(&self.ledger);
            self.shifts.answer(&self.ledger, now);
            self.halves.answer(&self.ledger, now);
            let wake = [self.ledger.pause_ends(now), self.acks.due()]
                .into_iter()
                .flatten()
                .fold(next_tick, Instant::min);
            let mut input = match inputs.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if input.is_some() && self.ledger.wanted_files() >= MANY_WANTED {
                std::thread::sleep(GATHER);
            }
            let mut taken = 0;
            while let Some(next) = input {
                match next {
                    Input::Stop => return self.end(),
                    Input::Status(reply) => reply(self.report()),
                    Input::Observe(after, reply) => reply(self.observe(after)),
                    Input::History(reply) => reply(self.lookout.samples()),
                    Input::Select(which, reply) => reply(self.known.select(&self.ledger, &which)),
                    Input::Retry(which, reply) => {
                        let selection = self.known.select(&self.ledger, &which);
                        reply(selection.map(|selection| self.ledger.retry(&selection, &mut orders)));
                    }
                    Input::Idle => {}
                    Input::Extra(taken_in) => self.extra(*taken_in, &mut orders),
                    Input::Await(path, answer) => self.waiting.for_end(&self.ledger, path, answer),
                    Input::Listen(wish, answer) => self.bulletin.answer(wish, answer),
                    Input::StartShift(request, reply) => {
                        self.shifts.start(&mut self.ledger, now, &request, reply, &mut orders);
                    }
                    Input::Shifts(count, reply) => reply(self.shifts.list(&self.ledger, count)),
                    Input::Switch(half, pause, reply) => {
                        self.halves.switch(&mut self.ledger, now, (half, pause), reply, &mut orders);
                    }
                    Input::Tell(message) => orders.push(Order::Tell(message)),
                    Input::Notice(notice) => self.notice(notice, &mut orders),
                    Input::Fact(fact) => self.fact(fact, &mut orders),
                }
                taken += 1;
                input = if taken < BATCH_FACTS { inputs.try_recv().ok() } else { None };
            }
        }
    }

    fn tick(&mut self, now: Now, orders: &mut Vec<Order>) {
        match self.ramdisk.space() {
            Ok(space) => {
                let free_inodes = if space.inodes_total == 0 { u64::MAX } else { space.inodes_free };
                let space =
                    Space { total_bytes: space.bytes_total, free_bytes: space.bytes_free, free_inodes };
                self.ledger.apply(now, Fact::Space(space), orders);
            }
            Err(error) => {
                let long = format!(
                    "The PPU's ramdisk cannot be looked at: {error}. Nothing lands without it; images wait on their detectors. See that it is \
                     mounted, then restart the daemon."
                );
                let at = self.ledger.ramdisk().to_owned();
                orders.push(Order::Tell(Message::new(Code::LandError, at, long)));
            }
        }
        self.wakeups.pass(now.at);
        self.lookout.pass(&mut self.ledger, now);
        let landing = self.last_image.is_some_and(|at| now.at.duration_since(at) < LANDING);
        self.keepers.look(&self.ledger, landing);
        self.waiting.pass(&self.ledger);
        let told = self.bulletin.pass(now);
        self.keep(told);
        for (storage, steps) in self.steps.iter().enumerate() {
            let storage = StorageIndex(storage as u16);
            let fact = Fact::Steps { storage, steps: steps.count(), reads: steps.reads() };
            self.ledger.apply(now, fact, orders);
        }
    }

    fn extra(&mut self, taken_in: TakenIn, orders: &mut Vec<Order>) {
        let (file, answer) = self.waiting.hold(taken_in);
        let path = file.path.clone();
        self.fact(Fact::Extra(Box::new(file)), orders);
        if let Some(answer) = answer {
            self.waiting.for_commit(self.ledger.recorded(), path, answer);
        }
    }

    /// What was counted and not told yet is told, and the journal hears of it.
    fn end(&mut self) {
        let told = self.bulletin.rest(now());
        self.keep(told);
    }

    fn notice(&mut self, notice: Notice, orders: &mut Vec<Order>) {
        let (detector, outlet) = match &notice {
            Notice::Up { detector, outlet, expect, .. } => {
                let outlet = Outlet { messages: outlet.clone(), expect: Arc::clone(expect) };
                (*detector, Some(outlet))
            }
            Notice::Fact(Fact::LinkDown { detector, .. }) => (*detector, None),
            Notice::Fact(_) => return self.notice_fact(notice, orders),
        };
        // What was meant for the session before must not reach the next one.
        self.obey(orders);
        self.flush(detector);
        self.outlets[detector.index()] = outlet;
        self.notice_fact(notice, orders);
    }

    fn notice_fact(&mut self, notice: Notice, orders: &mut Vec<Order>) {
        if let Notice::Fact(fact) = notice {
            self.fact(fact, orders);
        }
    }

    fn fact(&mut self, fact: Fact, orders: &mut Vec<Order>) {
        let now = now();
        if matches!(fact, Fact::Offered { .. } | Fact::Coming { .. } | Fact::Landing(_)) {
            self.wakeups.image(now.at);
            self.last_image = Some(now.at);
        }
        let committed = if let Fact::Committed { up_to } = &fact { Some(*up_to) } else { None };
        self.ledger.apply(now, fact, orders);
        if let Some(up_to) = committed {
            self.events.committed(up_to, now.wall_ms);
        }
    }

    fn report(&self) -> StatusReport {
        self.lookout.report(&self.ledger, now(), self.bulletin.last(MESSAGES_SHOWN))
    }

    fn observe(&self, after: u64) -> Observation {
        let (visible, stored) = self.ledger.times();
        Observation {
            report: self.report(),
            samples: self.lookout.samples(),
            visible,
            stored,
            raised: self.bulletin.raised(),
            told: self.bulletin.since(after),
        }
    }

    /// Carries out `orders` and leaves the list empty.
    fn obey(&mut self, orders: &mut Vec<Order>) {
        let mut told = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Want { detector, wants } => {
                    let Some(outlet) = &self.outlets[detector.index()] else { continue };
                    let mut wanted = Vec::with_capacity(wants.len());
                    for (want, job) in wants {
                        outlet.expect.add(want.transfer, job);
                        wanted.push(want);
                    }
                    self.say(detector, FromPpu::Want { wants: wanted });
                }
                Order::Grant { detector, transfers, max_bytes } => {
                    let Some(outlet) = &self.outlets[detector.index()] else { continue };
                    outlet.expect.grant(&transfers, max_bytes);
                    self.say(detector, FromPpu::Grant { transfers, max_bytes });
                }
                Order::Coming { detector, transfer, job } => {
                    let Some(outlet) = &self.outlets[detector.index()] else { continue };
                    let taken = job.is_some();
                    outlet.expect.tell(transfer, job);
                    if !taken {
                        self.say(detector, FromPpu::NotTaken { transfer });
                    }
                }
                Order::Have { detector, offers } => self.acks.add(detector, Ack::Have, offers),
                Order::AckLanded { detector, offers } => self.acks.add(detector, Ack::Landed, offers),
                Order::AckStored { detector, offers } => self.acks.add(detector, Ack::Stored, offers),
                Order::Fell { detector, offers } => self.say(detector, FromPpu::Fell { offers }),
                Order::Noted { detector, number } => self.say(detector, FromPpu::Noted { number }),
                Order::AnnounceShift { detector, shift, source, began, more } => {
                    self.say(detector, FromPpu::ShiftBegan { shift, source, began, more });
                }
                Order::PrepareShift(shift) => {
                    tracing::info!(
                        shift = shift.id.stamp(),
                        uid = shift.uid,
                        gid = shift.gid,
                        "a shift begins"
                    );
                    for message in self.shifts.prepare(&shift) {
                        told.extend(self.bulletin.raise(now(), message));
                    }
                }
                Order::LookAgain { path } => {
                    if let Some(file) = self.waiting.handed().held(&path) {
                        self.intake.look_again(path, file);
                    }
                }
                Order::MayLeave { home, resident } => self.keepers.may_leave(home, resident),
                Order::Copy { storage, job } => (self.writers[storage.index()])(job),
                Order::Record { sequence, record } => {
                    self.log(&record);
                    self.events.recorded(&self.ledger, sequence, &record);
                    self.record(sequence, record);
                }
                Order::Tell(message) => told.extend(self.bulletin.raise(now(), message)),
            }
        }
        self.events.publish();
        self.keep(told);
        self.acknowledge();
    }

    /// What became of each file, for who looks for one.
    fn log(&self, record: &Record) {
        match record {
            Record::Landed(landed) => tracing::debug!(
                version = landed.version.0,
                shift = landed.shift.stamp(),
                bytes = landed.identity.size,
                path = %landed.at,
                "landed"
            ),
            Record::Stored { version, storage, .. } => {
                tracing::debug!(version = version.0, storage = self.ledger.storage_id(*storage), "stored");
            }
            _ => {}
        }
    }

    fn record(&self, sequence: u64, record: Record) {
        if self.journal.send((sequence, record)).is_err() {
            tracing::error!("the journal's thread has ended: nothing more will be called stored");
        }
    }

    /// What was told goes into the journal.
    fn keep(&mut self, told: Vec<Told>) {
        let mut records = Vec::new();
        told.into_iter().for_each(|told| self.ledger.note(Record::Message(told), &mut records));
        for order in records {
            if let Order::Record { sequence, record } = order {
                self.record(sequence, record);
            }
        }
    }

    /// Acknowledges what has waited long enough.
    fn acknowledge(&mut self) {
        if self.acks.are_due() {
            (0..self.outlets.len()).for_each(|detector| self.flush(DetectorIndex(detector as u16)));
        }
    }

    fn flush(&mut self, detector: DetectorIndex) {
        for message in self.acks.take(detector) {
            self.send(detector, message);
        }
    }

    /// Says it behind all that was acknowledged before.
    fn say(&mut self, detector: DetectorIndex, message: FromPpu) {
        self.flush(detector);
        self.send(detector, message);
    }

    fn send(&self, detector: DetectorIndex, message: FromPpu) {
        if let Some(outlet) = &self.outlets[detector.index()] {
            // A session that has just ended needs nothing more.
            let _ = outlet.messages.send(message);
        }
    }
}

/// The time, for the ledger.
pub(super) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::now(), wall_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
}
