//! `verify`: re-reads what the journal calls stored, a thread for each storage, at the lowest priority.
//!
//! Pages of the journal's rows, the newest version first; of a path, only what should still be there is looked at.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::host::priority::Priority;
use crate::journal::{Queries, StoredVersion};
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::ledger::Selection;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;
use crate::rooted::mount::Place;
use crate::serve::control::{Answer, Finding, Response, Tested};
use crate::store::verify::{Expected, Shelf, Verdict};

/// Versions asked of the journal at a time: nothing is committed meanwhile.
const PAGE_VERSIONS: u64 = 2000;
/// For one page. The journal answers between two commits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a client hears how far it is.
const PROGRESS: Duration = Duration::from_secs(1);
/// Verifications at a time.
const RUNS_MAX: usize = 2;

/// Verifies on demand.
#[derive(Clone)]
pub(super) struct Verifier {
    queries: Queries,
    storages: Arc<[Storage]>,
    running: Arc<AtomicUsize>,
}

/// A storage that can be verified.
pub(super) struct Storage {
    pub(super) id: String,
    pub(super) place: Place,
    /// What is not on it any more may be on the external one only.
    pub(super) internal: bool,
    /// Older shifts' files are overwritten.
    pub(super) overwrites: bool,
}

/// From a storage's thread.
enum Said {
    Line(Response),
    Ended(Tested),
}

impl Verifier {
    pub(super) fn new(queries: Queries, storages: Vec<Storage>) -> Self {
        Self { queries, storages: storages.into(), running: Arc::default() }
    }

    /// Begins, and tells the client as it goes.
    pub(super) fn start(&self, selection: Selection, answer: Answer) {
        if self.running.fetch_add(1, Ordering::Relaxed) >= RUNS_MAX {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let text = format!("{RUNS_MAX} verifications are running already: try again later");
            return drop(answer.send(Response::Error(text)));
        }
        let this = self.clone();
        let started = std::thread::Builder::new().name("verify".into()).spawn(move || {
            this.run(&selection, answer);
            this.running.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = started {
            self.running.fetch_sub(1, Ordering::Relaxed);
            tracing::error!("start a thread that verifies: {error}");
        }
    }

    fn run(&self, selection: &Selection, answer: Answer) {
        let stop = Arc::new(AtomicBool::new(false));
        let (say, said) = channel();
        let mut threads = Vec::new();
        let chosen = (0..self.storages.len())
            .filter(|index| selection.storage.is_none_or(|only| only.index() == *index));
        for index in chosen {
            let task = Task {
                verifier: self.clone(),
                index,
                shift: selection.shift,
                say: say.clone(),
                stop: Arc::clone(&stop),
                tested: Tested { storage: self.storages[index].id.clone(), ..Tested::default() },
                told: Instant::now(),
            };
            let name = format!("verify {}", self.storages[index].id);
            match std::thread::Builder::new().name(name).spawn(move || task.run()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    let text = format!("start a thread that verifies: {error}");
                    return drop(answer.send(Response::Error(text)));
                }
            }
        }
        drop(say);
        let mut storages = Vec::new();
        for said in said {
            match said {
                Said::Ended(tested) => storages.push(tested),
                Said::Line(line) => {
                    if !answer.wait_and_say(line) {
                        stop.store(true, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        // One that hangs with its storage occupies its place until that answers.
        for thread in threads {
            let _ = thread.join();
        }
        storages.sort_by_key(|tested| self.storages.iter().position(|storage| storage.id == tested.storage));
        drop(answer.send(Response::Verified { storages }));
    }
}

/// What one thread does.
struct Task {
    verifier: Verifier,
    index: usize,
    shift: Option<ShiftId>,
    say: Sender<Said>,
    stop: Arc<AtomicBool>,
    tested: Tested,
    told: Instant,
}

impl Task {
    fn run(mut self) {
        Priority::Last.take();
        if let Err(reason) = self.verify() {
            self.tested.incomplete = Some(reason);
        }
        let _ = self.say.send(Said::Ended(self.tested));
    }

    /// `Err`: it did not come to its end; for people.
    fn verify(&mut self) -> Result<(), String> {
        let storage = StorageIndex(self.index as u16);
        let mut shelf =
            Shelf::open(&self.verifier.storages[self.index].place).map_err(|gone| gone.to_string())?;
        let queries = self.verifier.queries.clone();
        let mut end = queries.next_version(PATIENCE).map_err(|error| error.to_string())?;
        let mut newest = Newest::default();
        while end.0 > 0 {
            let first = VersionId(end.0.saturating_sub(PAGE_VERSIONS));
            let page = queries.stored(storage, (first, end), PATIENCE);
            for version in page.map_err(|error| error.to_string())? {
                self.one(&mut shelf, &mut newest, &version)?;
                if self.stop.load(Ordering::Relaxed) {
                    return Err("it was stopped".to_owned());
                }
            }
            end = first;
        }
        Ok(())
    }

    fn one(&mut self, shelf: &mut Shelf, newest: &mut Newest, version: &StoredVersion) -> Result<(), String> {
        let Some(at) = newest.place(version) else { return Ok(()) };
        if self.shift.is_some_and(|only| only != version.shift) {
            return Ok(());
        }
        let set_aside = at != version.to;
        let expected = Expected { at, size: version.size, hash: version.hash };
        let mut read = 0;
        let stop = Arc::clone(&self.stop);
        let verdict = shelf.verify(&expected, |count| {
            read += count as u64;
            !stop.load(Ordering::Relaxed)
        });
        let verdict = verdict.map_err(|gone| gone.to_string())?;
        let Some(verdict) = verdict else { return Ok(()) };
        let bad = self.tested.bad();
        self.tested.files += 1;
        self.tested.bytes += read;
        let storage = &self.verifier.storages[self.index];
        // Evicted or purged, as may be once it is on the external storage; overwritten, as may be configured.
        let elsewhere = storage.internal && version.on.len() > 1;
        let count = match &verdict {
            Verdict::Same | Verdict::Newer => &mut self.tested.same,
            Verdict::Link | Verdict::Missing if elsewhere => &mut self.tested.elsewhere,
            Verdict::Missing if set_aside && storage.overwrites => &mut self.tested.elsewhere,
            Verdict::Missing => &mut self.tested.missing,
            Verdict::Different(_) | Verdict::Link => &mut self.tested.damaged,
            Verdict::Unreadable(_) => &mut self.tested.unreadable,
        };
        *count += 1;
        if self.tested.bad() > bad {
            let finding = Finding {
                storage: storage.id.clone(),
                path: storage.place.target.join(expected.at.as_path()).display().to_string(),
                what: verdict.to_string(),
            };
            self.tell(Response::Finding(finding));
        }
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            self.tell(Response::Verifying(self.tested.clone()));
        }
        Ok(())
    }

    fn tell(&self, line: Response) {
        if self.say.send(Said::Line(line)).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Which paths have had their newest version; told by a hash each, which is 8 bytes for a file in the history.
#[derive(Default)]
struct Newest {
    hasher: RandomState,
    /// Paths.
    paths: HashSet<u64>,
    /// Paths and their shifts.
    of_shifts: HashSet<u64>,
}

impl Newest {
    /// Where this version is to be found, given that all newer ones were asked for before; `None`: a newer one of its shift took its place.
    fn place(&mut self, version: &StoredVersion) -> Option<RelPath> {
        if !self.of_shifts.insert(self.hasher.hash_one((&version.to, version.shift))) {
            return None;
        }
        if self.paths.insert(self.hasher.hash_one(&version.to)) {
            return Some(version.to.clone());
        }
        // A later shift has the name: this one was set aside.
        version.to.set_aside(&version.shift.stamp(), 0)
    }
}
