//! Takes away what may leave, as [`Departures`](crate::model::departures::Departures) says: which and when is decided there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::ground::{Ground, link_text};
use super::keeper::Told;
use super::{Shown, Situation};
use crate::journal::{Queries, Safe, StoredOn, Unanswered};
use crate::model::departures::{Departures, Outcome, Outlook, Step, Why};
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::residents::{Home, Resident};
use crate::rooted::{Expected, Instead, Link, StillOpen, TakeError, Taking};

/// How long the journal may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
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
    departures: Departures<Safe>,
    /// What has left, and others have open; with its bytes.
    held: Vec<(StillOpen, u64)>,
}

impl Leaver {
    pub(super) fn new(id: String, leaving: Leaving, shown: Arc<Shown>, stop: Arc<AtomicBool>) -> Self {
        let departures = Departures::new(leaving.create_links);
        Self { id, leaving, shown, stop, departures, held: Vec::new() }
    }

    /// Of what has left, and others still have open.
    pub(super) fn held_bytes(&mut self) -> u64 {
        self.held.retain(|(file, _)| file.is_held());
        self.held.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes that must be free there before the image fits that waits for room.
    pub(super) fn room_needed(&self, home: Home) -> u64 {
        match home {
            Home::Ramdisk => self.leaving.situation.get().room_needed,
            Home::Internal => 0,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One round, in which so many bytes are `wanted`, in a `hurry` perhaps. True: there is more to do at once.
    pub(super) fn work(
        &mut self,
        ground: &mut Ground,
        (wanted, hurry): (Option<u64>, bool),
        tell: &Told,
    ) -> bool {
        while let Ok(resident) = self.leaving.residents.try_recv() {
            self.departures.add(resident);
        }
        let view = self.leaving.situation.get();
        let doubtful = self.leaving.stored_on.iter().any(|storage| view.doubtful.contains(storage));
        let gentle = view.landing && !hurry;
        let outlook = Outlook { current: view.current.id, wanted, doubtful, gentle };
        self.departures.begin(Instant::now(), outlook);
        let kept = ground.directories_of(&view.current);
        let may_go = |path: &RelPath| !kept.iter().any(|kept| kept == path || kept.below(path).is_some());
        loop {
            let on = || self.leaving.stored_on.clone();
            let queries = &self.leaving.queries;
            match self.departures.next(Instant::now()) {
                Step::NextVersion => match queries.next_version(PATIENCE) {
                    Ok(end) => self.departures.next_version(end),
                    Err(error) => self.unanswered(&error),
                },
                Step::Walk(first, until) => match queries.residents((first, until), on(), PATIENCE) {
                    Ok(found) => self.departures.walked(until, found),
                    Err(error) => self.unanswered(&error),
                },
                Step::Prove(residents) => match queries.safe(residents, on(), PATIENCE) {
                    Ok(page) => self.departures.proven(page),
                    Err(error) => self.unanswered(&error),
                },
                Step::Take(safe, why) => {
                    if !self.may_go_on(ground) {
                        self.departures.not_now(Instant::now(), &safe);
                        continue;
                    }
                    let outcome = match why {
                        Why::Evicted => self.take_for_room(ground, &safe, tell),
                        Why::Purged => self.take_or_link(ground, &safe, tell),
                    };
                    if let Outcome::Gone(bytes) = outcome {
                        self.count(why, bytes);
                        if why == Why::Purged {
                            ground.remove_empty(ground.at(&safe), may_go);
                        }
                    }
                    self.departures.done(Instant::now(), &safe, outcome);
                }
                // Ended early by who asks to stop.
                Step::Rest(time) => std::thread::park_timeout(time),
                Step::Over { more } => return more,
            }
        }
    }

    /// The journal is in trouble, and that is told elsewhere: nothing leaves.
    fn unanswered(&mut self, error: &Unanswered) {
        tracing::debug!(keeper = self.id, "{error}");
        self.departures.unanswered(Instant::now());
    }

    /// Asked before every file: nobody has stopped us, and the file system is there.
    fn may_go_on(&self, ground: &mut Ground) -> bool {
        if self.is_stopped() {
            return false;
        }
        let ready = ground.be_ready();
        if let Err(reason) = &ready {
            tracing::warn!(keeper = self.id, "{reason}");
        }
        ready.is_ok()
    }

    fn take_for_room(&mut self, ground: &mut Ground, safe: &Safe, tell: &Told) -> Outcome {
        let text = link_text(&self.leaving.link_to, safe);
        let instead = match self.leaving.create_links {
            true => Instead::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns }),
            false => Instead::Nothing,
        };
        let code = if self.leaving.create_links { Code::LinkError } else { Code::DelError };
        let taken = self.take(ground, ground.at(safe), (ground.file(safe), instead, code), tell);
        taken.unwrap_or(Outcome::Passed)
    }

    /// The file, or the link that eviction has left in its place; under the name that it got, where a later shift's has taken its place.
    fn take_or_link(&mut self, ground: &mut Ground, safe: &Safe, tell: &Told) -> Outcome {
        let text = link_text(&self.leaving.link_to, safe);
        let link = Expected::Link(Link { text: &text, mtime_ns: safe.local().ctime_ns });
        let delete = (Instead::Nothing, Code::DelError);
        for expected in [ground.file(safe), link] {
            match self.take(ground, ground.at(safe), (expected, delete.0, delete.1), tell) {
                None | Some(Outcome::Other) => {}
                Some(outcome) => return outcome,
            }
        }
        for at in ground.set_aside(safe) {
            match self.take(ground, &at, (ground.file(safe), delete.0, delete.1), tell) {
                None => break,
                Some(Outcome::Other) => {}
                Some(outcome) => return outcome,
            }
        }
        Outcome::Passed
    }

    /// `None`: nothing has the name.
    fn take(
        &mut self,
        ground: &mut Ground,
        at: &RelPath,
        (expected, instead, code): (Expected<'_>, Instead<'_>, Code),
        tell: &Told,
    ) -> Option<Outcome> {
        Some(match ground.take(&Taking { at, expected, instead }) {
            Ok(taken) => {
                if let Some(held) = taken.held
                    && self.held.len() < HELD_MAX
                {
                    self.held.push((held, taken.bytes));
                }
                Outcome::Gone(taken.bytes)
            }
            Err(TakeError::Changed) => Outcome::Other,
            Err(TakeError::Missing) => return None,
            Err(TakeError::Busy) => Outcome::Busy,
            Err(error) => {
                let long = self.failure(ground, at, &error);
                tell(Message::new(code, at.to_string(), long));
                if matches!(error, TakeError::Kept(_)) { Outcome::Passed } else { Outcome::Failed }
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

    fn count(&self, why: Why, bytes: u64) {
        self.shown.change(|kept| {
            let amount = match why {
                Why::Evicted => &mut kept.left.evicted,
                Why::Purged => &mut kept.left.purged,
            };
            amount.files += 1;
            amount.bytes += bytes;
        });
    }
}
