//! A keeper's thread: looks at its file system continually, and takes away what may leave.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::ground::{Ground, link_text};
use super::{Shown, Situation, View};
use crate::journal::{Queries, Safe, StoredOn};
use crate::model::file_version::VersionId;
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::pressure::{Level, Marks, Pressure};
use crate::model::residents::{Home, PutOff, Resident, Residents};
use crate::model::status::Room;
use crate::rooted::{Expected, Instead, Link, StillOpen, TakeError, Taking};

/// How often the fill state is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Versions that the journal is asked about at a time; no record is committed meanwhile.
const PAGE: usize = 256;
/// The same at the start, where little is asked of each.
const WALK_VERSIONS: u64 = 2000;
/// How long the journal may take for a page.
const PATIENCE: Duration = Duration::from_secs(5);
/// What somebody has open for writing is looked at again after that time.
const BUSY: Duration = Duration::from_millis(500);
/// What is still being copied likewise.
const COPYING: Duration = Duration::from_secs(2);
/// What could not be taken likewise.
const FAILED: Duration = Duration::from_secs(30);
/// While the journal does not answer, it is not asked again for that time.
const UNANSWERED: Duration = Duration::from_millis(500);
/// Files that have left and that others have open, watched at a time.
const HELD_MAX: usize = 128;
/// Added to the nice value: landing and reading come first.
const NICE: i32 = 10;

/// What a keeper works with.
pub struct Settings {
    /// Of the thread and in the log: `ramdisk`, or a storage's id.
    pub id: String,
    /// The mount point, for messages.
    pub name: String,
    /// The file system.
    pub ground: Ground,
    /// When it is too full.
    pub marks: Marks,
    /// What leaves it.
    pub leaving: Leaving,
    /// The rest of the world.
    pub situation: Arc<Situation>,
    /// For the status.
    pub shown: Arc<Shown>,
}

/// See [`Settings`].
pub struct Leaving {
    /// A version must be stored on all of these, the last of which links lead to.
    pub stored_on: StoredOn,
    /// The target of that storage.
    pub link_to: PathBuf,
    /// A link takes an evicted file's place.
    pub create_links: bool,
    /// To the journal.
    pub queries: Queries,
    /// What may leave.
    pub residents: Receiver<Resident>,
}

/// Takes messages for people.
pub type Told = Box<dyn Fn(Message) + Send>;

/// The running thread.
pub struct Keeper {
    id: String,
    thread: Thread,
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// No thread.
    pub fn start(settings: Settings, tell: Told) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = channel();
        let id = settings.id.clone();
        let mut work = Work::new(settings, tell, Arc::clone(&stop));
        let thread = thread::Builder::new().name(format!("keep {id}")).spawn(move || {
            // Dropped when this thread ends, however it does.
            let _end: Sender<()> = end;
            // Refused, it is only less polite.
            let _ = rustix::process::setpriority_process(None, NICE);
            work.run();
        })?;
        Ok(Self { id, thread: thread.thread().clone(), stop, ended })
    }

    /// Ends it, after the file that it has in hand. False: its file system hangs, and the thread is left to itself.
    pub fn stop(self, at_most: Duration) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
        let ended = matches!(self.ended.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected));
        if !ended {
            tracing::warn!(keeper = self.id, "a file system hangs; leaving it");
        }
        ended
    }
}

struct Work {
    id: String,
    ground: Ground,
    leaving: Leaving,
    situation: Arc<Situation>,
    shown: Arc<Shown>,
    tell: Told,
    stop: Arc<AtomicBool>,
    pressure: Pressure,
    residents: Residents,
    walk: Walk,
    /// Not before, the journal is asked again.
    ask_again: Option<Instant>,
    /// What has left, and others have open; with its bytes.
    held: Vec<(StillOpen, u64)>,
    /// Of past shifts, put off once because copies were still to be made.
    waited: HashSet<VersionId>,
    /// It could not be looked at, and that was logged.
    unseen: bool,
}

/// Through the journal once at the start, oldest first: what may leave since an earlier run.
struct Walk {
    next: VersionId,
    /// Later ones are told by the ledger; `None`: not known yet.
    end: Option<VersionId>,
}

/// What became of one file.
enum Done {
    /// Of it that many bytes come free.
    Gone(u64),
    /// Nothing to be done about it any more: replaced, changed, or taken away before.
    Passed,
    /// Later, perhaps.
    Left(Duration),
}

/// Why a file leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Evicted,
    Purged,
}

impl Work {
    fn new(settings: Settings, tell: Told, stop: Arc<AtomicBool>) -> Self {
        let Settings { id, name, ground, marks, leaving, situation, shown } = settings;
        Self {
            id,
            ground,
            leaving,
            situation,
            shown,
            tell,
            stop,
            pressure: Pressure::new(name, marks, true),
            residents: Residents::default(),
            walk: Walk { next: VersionId(0), end: None },
            ask_again: None,
            held: Vec::new(),
            waited: HashSet::new(),
            unseen: false,
        }
    }

    fn run(&mut self) {
        while !self.is_stopped() {
            let wanted = self.look();
            if !self.work(wanted) {
                thread::park_timeout(LOOK);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells what there is to tell of the fill state. How many bytes are to leave; `None`: it cannot be looked at.
    fn look(&mut self) -> Option<u64> {
        let space = match self.ground.space() {
            Ok(space) => space,
            Err(reason) => {
                if !std::mem::replace(&mut self.unseen, true) {
                    tracing::error!(keeper = self.id, "{reason}");
                }
                return None;
            }
        };
        self.unseen = false;
        self.held.retain(|(file, _)| file.is_held());
        let held = self.held.iter().map(|(_, bytes)| bytes).sum();
        let level = Level { total: space.bytes_total, free: space.bytes_free, held };
        let mut messages = Vec::new();
        let wanted = self.pressure.look(level, &mut messages);
        messages.into_iter().for_each(&self.tell);
        let evicting = self.pressure.is_evicting();
        self.shown.change(|kept| {
            kept.room = Room { total_bytes: level.total, free_bytes: level.free };
            kept.left.evicting = evicting;
        });
        Some(wanted)
    }

    /// True: there is more to do at once.
    fn work(&mut self, wanted: Option<u64>) -> bool {
        let now = Instant::now();
        self.residents.pass(now);
        while let Ok(resident) = self.leaving.residents.try_recv() {
            self.residents.add(resident);
        }
        if self.ask_again.is_some_and(|at| now < at) {
            return false;
        }
        self.ask_again = None;
        let walks = self.walk();
        let view = self.situation.get();
        // What cannot be read elsewhere at the moment stays, whatever the journal says: it may be needed.
        let doubtful = self.leaving.stored_on.iter().any(|storage| view.doubtful.contains(storage));
        let Some(wanted) = wanted.filter(|_| !doubtful) else { return walks };
        let purges = self.purge(&view);
        let evicts = wanted > 0 && self.evict(wanted, walks);
        walks || purges || evicts
    }

    /// One page of the start's walk. True: it is not at its end.
    fn walk(&mut self) -> bool {
        let queries = &self.leaving.queries;
        let end = match self.walk.end {
            Some(end) => end,
            None => match queries.next_version(PATIENCE) {
                Ok(end) => *self.walk.end.insert(end),
                Err(_) => return self.unanswered(),
            },
        };
        if self.walk.next >= end {
            return false;
        }
        let until = VersionId(self.walk.next.0.saturating_add(WALK_VERSIONS)).min(end);
        let stored_on = self.leaving.stored_on.clone();
        match queries.residents((self.walk.next, until), stored_on, PATIENCE) {
            Ok(residents) => {
                residents.into_iter().for_each(|resident| self.residents.add(resident));
                self.walk.next = until;
                true
            }
            Err(_) => self.unanswered(),
        }
    }

    /// The journal is in trouble, and says so itself: nothing leaves. False.
    fn unanswered(&mut self) -> bool {
        self.ask_again = Some(Instant::now() + UNANSWERED);
        false
    }

    /// One page of past shifts' files. True: there may be more.
    fn purge(&mut self, view: &View) -> bool {
        let residents = self.residents.take_past(view.current.id, PAGE);
        if residents.is_empty() {
            return false;
        }
        let Some(page) = self.prove(residents) else { return false };
        let kept = self.ground.directories_of(&view.current);
        for safe in page {
            if self.is_stopped() {
                return false;
            }
            let resident = safe.resident();
            // What is being copied is read from here as long as that is no hindrance; a second look shows whether it may take long.
            if !safe.is_copied() && self.waited.insert(resident.version) {
                self.residents.put_off(resident, Instant::now() + COPYING, PutOff::Copying);
                continue;
            }
            self.waited.remove(&resident.version);
            let done = self.take_or_link(&safe);
            if matches!(done, Done::Gone(_)) {
                let may_go =
                    |path: &RelPath| !kept.iter().any(|kept| kept == path || kept.below(path).is_some());
                self.ground.remove_empty(self.ground.at(&safe), may_go);
            }
            self.done(resident, &done, Why::Purged);
        }
        true
    }

    /// One page of the oldest files, until `wanted` bytes are on their way. `walks`: not all are known yet. True: there may be more.
    fn evict(&mut self, wanted: u64, walks: bool) -> bool {
        let mut last_resort = false;
        let mut residents = self.residents.take_oldest(PAGE);
        if residents.is_empty() && !walks {
            last_resort = true;
            residents = self.residents.take_copying(PAGE);
        }
        if residents.is_empty() {
            return false;
        }
        let Some(page) = self.prove(residents) else { return false };
        let mut freed = 0;
        for safe in page {
            let resident = safe.resident();
            if freed >= wanted || self.is_stopped() {
                self.residents.add(resident);
                continue;
            }
            if !safe.is_copied() && !last_resort {
                self.residents.put_off(resident, Instant::now() + COPYING, PutOff::Copying);
                continue;
            }
            let done = match self.take_for_room(&safe) {
                Some(done) => done,
                None => {
                    // A link, perhaps, from before the start.
                    self.residents.leave_link(resident);
                    continue;
                }
            };
            if let Done::Gone(bytes) = done {
                freed += bytes;
                if self.leaving.create_links {
                    self.residents.leave_link(resident);
                }
            }
            self.done(resident, &done, Why::Evicted);
        }
        true
    }

    /// The proofs for those that may leave; the others are of no interest any more. `None`: the journal does not answer.
    fn prove(&mut self, residents: Vec<Resident>) -> Option<Vec<Safe>> {
        let stored_on = self.leaving.stored_on.clone();
        match self.leaving.queries.safe(residents.clone(), stored_on, PATIENCE) {
            Ok(page) => Some(page),
            Err(error) => {
                tracing::debug!(keeper = self.id, "{error}");
                residents.into_iter().for_each(|resident| self.residents.add(resident));
                self.unanswered();
                None
            }
        }
    }

    /// `None`: something else is there.
    fn take_for_room(&mut self, safe: &Safe) -> Option<Done> {
        let text = link_text(&self.leaving.link_to, safe);
        let instead = match self.leaving.create_links {
            true => Instead::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns }),
            false => Instead::Nothing,
        };
        let code = if self.leaving.create_links { Code::LinkError } else { Code::DelError };
        self.take(safe, self.ground.file(safe), instead, code)
    }

    /// The file, or the link that eviction has left in its place.
    fn take_or_link(&mut self, safe: &Safe) -> Done {
        if let Some(done) = self.take(safe, self.ground.file(safe), Instead::Nothing, Code::DelError) {
            return done;
        }
        let text = link_text(&self.leaving.link_to, safe);
        let link = Expected::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns });
        self.take(safe, link, Instead::Nothing, Code::DelError).unwrap_or(Done::Passed)
    }

    /// `None`: something else is there.
    fn take(
        &mut self,
        safe: &Safe,
        expected: Expected<'_>,
        instead: Instead<'_>,
        code: Code,
    ) -> Option<Done> {
        let at = self.ground.at(safe);
        Some(match self.ground.take(&Taking { at, expected, instead }) {
            Ok(taken) => {
                if let Some(held) = taken.held
                    && self.held.len() < HELD_MAX
                {
                    self.held.push((held, taken.bytes));
                }
                Done::Gone(taken.bytes)
            }
            Err(TakeError::Changed) => return None,
            Err(TakeError::Missing) => Done::Passed,
            Err(TakeError::Busy) => Done::Left(BUSY),
            Err(error) => {
                let long = self.failure(at, &error);
                (self.tell)(Message::new(code, at.to_string(), long));
                if matches!(error, TakeError::Kept(_)) { Done::Passed } else { Done::Left(FAILED) }
            }
        })
    }

    fn failure(&self, at: &RelPath, error: &TakeError) -> String {
        let place = match self.ground.home() {
            Home::Ramdisk => "the ramdisk".to_owned(),
            Home::Internal => format!("storage {}", self.id),
        };
        let advice = match error {
            TakeError::Kept(_) => {
                "Look at both files; the one that was kept may be removed when it is not needed"
            }
            _ => "It is tried again; nothing is lost, but its room does not come free. See the cause",
        };
        format!("{at} could not be taken from {place}: {error}. {advice}.")
    }

    fn done(&mut self, resident: Resident, done: &Done, why: Why) {
        match done {
            Done::Gone(bytes) => self.shown.change(|kept| {
                let amount = match why {
                    Why::Evicted => &mut kept.left.evicted,
                    Why::Purged => &mut kept.left.purged,
                };
                amount.files += 1;
                amount.bytes += bytes;
            }),
            Done::Passed => {}
            Done::Left(pause) => self.residents.put_off(resident, Instant::now() + *pause, PutOff::Busy),
        }
    }
}
