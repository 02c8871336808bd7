//! Takes away what may leave: pages of past shifts' files, and of the oldest when there is no room.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::ground::{Ground, link_text};
use super::keeper::Told;
use super::{Shown, Situation, View};
use crate::journal::{Queries, Safe, StoredOn};
use crate::model::file_version::VersionId;
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::residents::{Home, PutOff, Resident, Residents};
use crate::rooted::{Expected, Instead, Link, StillOpen, TakeError, Taking};

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
/// While the journal does not answer, or the file system is away, nothing is tried for that time.
const UNANSWERED: Duration = Duration::from_millis(500);
/// Files that have left and that others have open, watched at a time.
const HELD_MAX: usize = 128;

/// What a file system's files leave for, and who says that they may.
pub struct Leaving {
    /// A version must be stored on all of these.
    pub stored_on: StoredOn,
    /// The target of the storage that links lead to: one of those.
    pub link_to: PathBuf,
    /// A link takes an evicted file's place.
    pub create_links: bool,
    /// To the journal.
    pub queries: Queries,
    /// What may leave.
    pub residents: Receiver<Resident>,
    /// The rest of the world.
    pub situation: Arc<Situation>,
}

/// See the module.
pub(super) struct Leaver {
    id: String,
    leaving: Leaving,
    shown: Arc<Shown>,
    stop: Arc<AtomicBool>,
    residents: Residents,
    walk: Walk,
    /// Not before, anything is tried again.
    ask_again: Option<Instant>,
    /// What has left, and others have open; with its bytes.
    held: Vec<(StillOpen, u64)>,
    /// Of past shifts, put off once because copies were still to be made.
    waited: HashSet<VersionId>,
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

/// What a name holds.
enum Found {
    /// What is to leave.
    It(Done),
    /// Something else.
    Other,
    /// It is free.
    Nothing,
}

/// Why a file leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Evicted,
    Purged,
}

impl Leaver {
    pub(super) fn new(id: String, leaving: Leaving, shown: Arc<Shown>, stop: Arc<AtomicBool>) -> Self {
        Self {
            id,
            leaving,
            shown,
            stop,
            residents: Residents::default(),
            walk: Walk { next: VersionId(0), end: None },
            ask_again: None,
            held: Vec::new(),
            waited: HashSet::new(),
        }
    }

    /// Of what has left, and others still have open.
    pub(super) fn held_bytes(&mut self) -> u64 {
        self.held.retain(|(file, _)| file.is_held());
        self.held.iter().map(|(_, bytes)| bytes).sum()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// True: there is more to do at once.
    pub(super) fn work(&mut self, ground: &mut Ground, wanted: Option<u64>, tell: &Told) -> bool {
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
        let view = self.leaving.situation.get();
        // What cannot be read elsewhere at the moment stays, whatever the journal says: it may be needed.
        let doubtful = self.leaving.stored_on.iter().any(|storage| view.doubtful.contains(storage));
        let Some(wanted) = wanted.filter(|_| !doubtful) else { return walks };
        let purges = self.purge(ground, &view, tell);
        let evicts = wanted > 0 && self.evict(ground, wanted, walks, tell);
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

    /// The journal is in trouble, or the file system, and that is told elsewhere: nothing leaves. False.
    fn unanswered(&mut self) -> bool {
        self.ask_again = Some(Instant::now() + UNANSWERED);
        false
    }

    /// One page of past shifts' files. True: there may be more.
    fn purge(&mut self, ground: &mut Ground, view: &View, tell: &Told) -> bool {
        let residents = self.residents.take_past(view.current.id, PAGE);
        if residents.is_empty() {
            return false;
        }
        let Some(page) = self.prove(residents) else { return false };
        let kept = ground.directories_of(&view.current);
        for safe in page {
            let resident = safe.resident();
            if !self.may_go_on(ground) {
                self.residents.add(resident);
                continue;
            }
            // What is being copied is read from here as long as that is no hindrance; a second look shows whether it may take long.
            if !safe.is_copied() && self.waited.insert(resident.version) {
                self.residents.put_off(resident, Instant::now() + COPYING, PutOff::Copying);
                continue;
            }
            self.waited.remove(&resident.version);
            let done = self.take_or_link(ground, &safe, tell);
            if matches!(done, Done::Gone(_)) {
                let may_go =
                    |path: &RelPath| !kept.iter().any(|kept| kept == path || kept.below(path).is_some());
                ground.remove_empty(ground.at(&safe), may_go);
            }
            self.done(resident, &done, Why::Purged);
        }
        self.ask_again.is_none()
    }

    /// One page of the oldest files, until `wanted` bytes are on their way. `walks`: not all are known yet. True: there may be more.
    fn evict(&mut self, ground: &mut Ground, wanted: u64, walks: bool, tell: &Told) -> bool {
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
            if freed >= wanted || !self.may_go_on(ground) {
                self.residents.add(resident);
                continue;
            }
            if !safe.is_copied() && !last_resort {
                self.residents.put_off(resident, Instant::now() + COPYING, PutOff::Copying);
                continue;
            }
            let done = match self.take_for_room(ground, &safe, tell) {
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
        self.ask_again.is_none()
    }

    /// Asked before every file: nobody has stopped us, and the file system is there.
    fn may_go_on(&mut self, ground: &mut Ground) -> bool {
        if self.is_stopped() || self.ask_again.is_some() {
            return false;
        }
        if let Err(reason) = ground.be_ready() {
            tracing::warn!(keeper = self.id, "{reason}");
            self.unanswered();
            return false;
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
    fn take_for_room(&mut self, ground: &mut Ground, safe: &Safe, tell: &Told) -> Option<Done> {
        let text = link_text(&self.leaving.link_to, safe);
        let instead = match self.leaving.create_links {
            true => Instead::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns }),
            false => Instead::Nothing,
        };
        let code = if self.leaving.create_links { Code::LinkError } else { Code::DelError };
        match self.take(ground, ground.at(safe), (ground.file(safe), instead, code), tell) {
            Found::It(done) => Some(done),
            Found::Nothing => Some(Done::Passed),
            Found::Other => None,
        }
    }

    /// The file, or the link that eviction has left in its place; under the name that it got, where a later shift's has taken its place.
    fn take_or_link(&mut self, ground: &mut Ground, safe: &Safe, tell: &Told) -> Done {
        let text = link_text(&self.leaving.link_to, safe);
        let link = Expected::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns });
        for expected in [ground.file(safe), link] {
            let found =
                self.take(ground, ground.at(safe), (expected, Instead::Nothing, Code::DelError), tell);
            if let Found::It(done) = found {
                return done;
            }
        }
        for at in ground.set_aside(safe) {
            match self.take(ground, &at, (ground.file(safe), Instead::Nothing, Code::DelError), tell) {
                Found::It(done) => return done,
                Found::Nothing => break,
                Found::Other => {}
            }
        }
        Done::Passed
    }

    fn take(
        &mut self,
        ground: &mut Ground,
        at: &RelPath,
        (expected, instead, code): (Expected<'_>, Instead<'_>, Code),
        tell: &Told,
    ) -> Found {
        Found::It(match ground.take(&Taking { at, expected, instead }) {
            Ok(taken) => {
                if let Some(held) = taken.held
                    && self.held.len() < HELD_MAX
                {
                    self.held.push((held, taken.bytes));
                }
                Done::Gone(taken.bytes)
            }
            Err(TakeError::Changed) => return Found::Other,
            Err(TakeError::Missing) => return Found::Nothing,
            Err(TakeError::Busy) => Done::Left(BUSY),
            Err(error) => {
                let long = self.failure(ground, at, &error);
                tell(Message::new(code, at.to_string(), long));
                if matches!(error, TakeError::Kept(_)) { Done::Passed } else { Done::Left(FAILED) }
            }
        })
    }

    fn failure(&self, ground: &Ground, at: &RelPath, error: &TakeError) -> String {
        let place = match ground.home() {
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
