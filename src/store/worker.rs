//! What a writer's thread does: keeps `queue_depth` copies moving, oldest first, and tells how each ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use ppu_uring::ops::Sync;
use ppu_uring::{AlignedBuf, Done, Driver, Entry, Fd, Link, Op, Waker};
use rustix::io::Errno;

use super::copy::{Copy, Setback, Via, counterpart, disk_outcome, of_errno};
use super::durable::{DirPath, Durable, ToSync};
use super::fetch::{Fetched, Fetcher};
use super::writer::{Order, Settings, Steps};
use crate::model::job::{Aside, CopyJob, CopyOutcome, CopyReport, Local};
use crate::rooted::{Published, Replaced, STAGING_NAME, Staging, set_mtime};

/// An unused storage is let go after this time, so that it can be unmounted.
const IDLE: Duration = Duration::from_secs(2);

/// So many small files may be written in the place of a large one: one commit of the file system's journal makes all of them durable that wait for it.
pub(super) const SMALL_PER_PLACE: usize = 4;
/// Small is a file up to this size, through the page cache or not.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Files that wait for their directories, at most, for each small one that may be written at a time.
const PLACED_PER_FILE: usize = 2;

pub(super) struct Worker<R> {
    settings: Settings,
    inbox: Receiver<Order>,
    report: R,
    queue: VecDeque<CopyJob>,
    /// In the order in which they began.
    copies: BTreeMap<u64, Active>,
    /// Being read from other storages; none of the writer's business until they are here.
    fetching: HashMap<u64, Active>,
    /// Started with the first file to be fetched.
    fetcher: Option<Fetcher>,
    /// Of copies that have ended: one for each in work, at most.
    buffers: Vec<AlignedBuf>,
    waker: Waker,
    steps: Steps,
    mounted: Option<Mounted>,
    /// f_fsid of what was mounted last.
    last_mounted: Option<u64>,
    asked: HashMap<u64, Asked>,
    next_token: u64,
    /// Dropped last: it cancels what is in flight, and waits for that.
    driver: Box<dyn Driver>,
}

/// A storage while it is held open.
struct Mounted {
    staging: Staging,
    via: Via,
    /// Renamed, and waiting for their directories.
    durable: Durable<Placed>,
}

/// A copy under its final name.
struct Placed {
    job: CopyJob,
    file: Local,
    /// What had the name before, if that was not ours: its new name.
    set_aside: Option<Aside>,
}

struct Active {
    job: CopyJob,
    copy: Copy,
    /// It was begun anew after an error of the disk.
    second_try: bool,
    syncing: bool,
}

/// What an operation in flight is for.
enum Asked {
    Write(u64),
    Sync(u64),
    Directory(DirPath),
}

/// Whether files of these sizes may be written at a time.
fn fit(depth: usize, sizes: impl Iterator<Item = u64>) -> bool {
    let taken: usize = sizes.map(|size| if size <= SMALL_BYTES_MAX { 1 } else { SMALL_PER_PLACE }).sum();
    taken <= depth * SMALL_PER_PLACE
}

/// The engine does not work any more; for people.
struct EngineFailed(String);

impl<R: FnMut(CopyReport)> Worker<R> {
    pub(super) fn new(
        settings: Settings,
        driver: Box<dyn Driver>,
        waker: Waker,
        inbox: Receiver<Order>,
        steps: Steps,
        report: R,
    ) -> Self {
        Self {
            settings,
            inbox,
            report,
            queue: VecDeque::new(),
            copies: BTreeMap::new(),
            fetching: HashMap::new(),
            fetcher: None,
            buffers: Vec::new(),
            waker,
            steps,
            mounted: None,
            last_mounted: None,
            asked: HashMap::new(),
            next_token: 0,
            driver,
        }
    }

    pub(super) fn run(mut self) {
        if let Err(EngineFailed(reason)) = self.work() {
            tracing::error!(
                storage = self.settings.id,
                "{reason}: nothing is stored until the daemon is restarted"
            );
            self.abandon(&reason);
            while let Ok(Order::Copy(job)) = self.inbox.recv() {
                self.end(&job, CopyOutcome::Unavailable(reason.clone()));
            }
        }
    }

    /// Until it is told to stop.
    fn work(&mut self) -> Result<(), EngineFailed> {
        while self.receive() {
            self.steps.step();
            self.take_fetched();
            self.begin();
            self.submit()?;
            let flying = self.driver.in_flight() > 0;
            if !flying && (self.in_work() > 0 || !self.queue.is_empty()) {
                continue; // something ended or was set back: there is room for the next
            }
            let idle = !flying && self.fetching.is_empty();
            let at_most = (idle && self.mounted.is_some()).then_some(IDLE);
            let since = Instant::now();
            self.driver
                .wait(at_most)
                .map_err(|error| EngineFailed(format!("waiting for the disk: {error}")))?;
            if at_most.is_some_and(|at_most| since.elapsed() >= at_most) {
                self.mounted = None;
            }
            while let Some(done) = self.driver.reap() {
                self.completed(done);
            }
        }
        Ok(())
    }

    /// Takes what was ordered. False: stop.
    fn receive(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Copy(job)) => self.queue.push_back(job),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn begin(&mut self) {
        while self.queue.front().is_some_and(|job| self.has_room(job)) && self.ready() {
            if let Some(job) = self.queue.pop_front() {
                match job.local() {
                    Some(_) => self.begin_copy(job, false),
                    None => self.begin_fetch(job, false),
                }
                self.steps.step();
            }
        }
    }

    /// Has a file read from another storage; how many at a time is for those to limit who order it.
    fn begin_fetch(&mut self, job: CopyJob, second_try: bool) {
        let Some(mounted) = &self.mounted else { return };
        let copy = match Copy::begin_fetch(&job, &mounted.staging) {
            Ok(copy) => copy,
            Err(setback) => return self.set_back(job, Via::Cache, second_try, setback),
        };
        if self.fetcher.is_none() {
            match Fetcher::start(&self.settings.id, self.waker.clone(), self.steps.clone()) {
                Ok(fetcher) => self.fetcher = Some(fetcher),
                Err(error) => {
                    let text = format!("start a thread that reads {}: {error}", job.to);
                    return self.end(&job, CopyOutcome::NotNow(text));
                }
            }
        }
        let id = self.next_token();
        let asked = self
            .fetcher
            .as_ref()
            .is_some_and(|fetcher| fetcher.fetch(id, &job, &self.settings.places, copy.file()));
        if asked {
            let active = Active { job, copy, second_try, syncing: false };
            self.fetching.insert(id, active);
        } else {
            self.fetcher = None;
            self.end(&job, CopyOutcome::NotNow("the thread that reads has ended".to_owned()));
        }
    }

    /// What was fetched goes on as any other copy, at once: it is written already.
    fn take_fetched(&mut self) {
        while let Some(Fetched { id, result }) = self.fetcher.as_ref().and_then(Fetcher::fetched) {
            // Absent: the storage went away meanwhile.
            let Some(active) = self.fetching.remove(&id) else { continue };
            match result {
                Ok(()) => drop(self.copies.insert(id, active)),
                Err(outcome @ CopyOutcome::DiskError(_)) => {
                    let Active { job, second_try, copy, .. } = active;
                    drop(copy);
                    self.set_back(job, Via::Cache, second_try, Setback::DiskError(outcome));
                }
                Err(outcome) => {
                    let Active { job, copy, .. } = active;
                    drop(copy);
                    self.end(&job, outcome);
                }
            }
        }
    }

    /// What only waits for its directory takes no place from what is written: else small files would spend half of the queue on
    /// waiting for a disk that could sync more of them at once.
    fn has_room(&self, next: &CopyJob) -> bool {
        let depth = self.settings.queue_depth.max(1);
        let placed = self.mounted.as_ref().map_or(0, |mounted| mounted.durable.len());
        let sizes = self.copies.values().map(|active| active.copy.size());
        fit(depth, sizes.chain([next.brand.identity.size]))
            && placed < PLACED_PER_FILE * SMALL_PER_PLACE * depth
    }

    fn in_work(&self) -> usize {
        self.copies.len() + self.mounted.as_ref().map_or(0, |mounted| mounted.durable.len())
    }

    /// Whether the storage is mounted, and open. If not, nothing is left in work or in the queue.
    fn ready(&mut self) -> bool {
        if let Some(mounted) = &self.mounted {
            match self.settings.place.check(mounted.staging.root()) {
                Ok(()) => return true,
                // It may have been mounted again in between: what was in work is lost, what is to come is not.
                Err(gone) => self.abandon_work(&gone.0),
            }
        }
        match self.open() {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                true
            }
            Err(reason) => {
                self.abandon(&reason);
                false
            }
        }
    }

    fn open(&mut self) -> Result<Mounted, String> {
        let root = self.settings.place.open().map_err(|unavailable| unavailable.0)?;
        let id = rustix::fs::fstatvfs(&root).map_err(|errno| format!("statvfs: {errno}"))?.f_fsid;
        if self.last_mounted.replace(id).is_some_and(|last| last != id) {
            tracing::warn!(storage = self.settings.id, "another file system is mounted at {:?}", root.path());
        }
        let staging = Staging::open(Arc::new(root)).map_err(|error| error.to_string())?;
        match staging.sweep() {
            Ok(swept) if swept.kept == 0 => {}
            Ok(swept) => {
                let at = staging.root().path().join(STAGING_NAME);
                tracing::warn!(storage = self.settings.id, "{} files in {at:?} are not ours", swept.kept);
            }
            Err(error) => return Err(error.to_string()),
        }
        let via = if self.settings.direct { Via::Mapping } else { Via::Cache };
        Ok(Mounted { staging, via, durable: Durable::new() })
    }

    fn begin_copy(&mut self, job: CopyJob, second_try: bool) {
        let Some(mounted) = &self.mounted else { return };
        let via = mounted.via;
        match Copy::begin(&job, &self.settings, &mounted.staging, via) {
            Ok(mut copy) => {
                copy.lend(&mut self.buffers);
                let id = self.next_token();
                self.copies.insert(id, Active { job, copy, second_try, syncing: false });
            }
            Err(setback) => self.set_back(job, via, second_try, setback),
        }
    }

    /// Starts whatever may be started: first what ends copies, then the oldest copies' writes.
    fn submit(&mut self) -> Result<(), EngineFailed> {
        while self.driver.room() > 0
            && let Some(directory) = self.mounted.as_mut().and_then(|mounted| mounted.durable.next_due())
        {
            let ToSync { path, fd, like } = directory;
            if let Some(like) = like.and_then(|path| self.settings.ramdisk.stat(&path).ok()) {
                // The time of a directory that is not ours is not ours to set.
                let _ = set_mtime(&fd, like.mtime_ns);
            }
            self.ask(Asked::Directory(path), Op::Sync(Sync { file: Fd::from(fd), data_only: false }))?;
        }
        let ids: Vec<u64> = self.copies.keys().copied().collect();
        for id in ids {
            while self.driver.room() > 0 {
                let (Some(active), Some(mounted)) = (self.copies.get_mut(&id), &self.mounted) else { break };
                if active.syncing {
                    break;
                }
                let written = active.copy.is_written();
                let next = if written {
                    active.syncing = true;
                    self.buffers.extend(active.copy.give_back());
                    active.copy.finish(&active.job, &self.settings, &mounted.staging).map(Some)
                } else {
                    active.copy.next_write(&active.job, &mounted.staging)
                };
                match next {
                    Ok(Some(op)) => {
                        let asked = if written { Asked::Sync(id) } else { Asked::Write(id) };
                        self.ask(asked, op)?;
                    }
                    Ok(None) => break,
                    Err(setback) => self.set_back_active(id, setback),
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, asked: Asked, op: Op) -> Result<(), EngineFailed> {
        let token = self.next_token();
        self.asked.insert(token, asked);
        let submitted = self.driver.submit(vec![Entry { op, token, link: Link::No }]);
        submitted.map_err(|refused| EngineFailed(format!("asking the disk: {}", refused.cause)))
    }

    fn completed(&mut self, done: Done) {
        self.steps.step();
        match self.asked.remove(&done.token) {
            Some(Asked::Write(id)) => {
                let Op::Write(write) = done.op else { return };
                let (Some(active), Some(mounted)) = (self.copies.get_mut(&id), &self.mounted) else { return };
                if let Err(setback) = active.copy.wrote(&active.job, write, done.result, &mounted.staging) {
                    self.set_back_active(id, setback);
                }
            }
            Some(Asked::Sync(id)) => {
                let (Some(active), Some(mounted)) = (self.copies.get(&id), &self.mounted) else { return };
                match active.copy.synced(&active.job, &done.result, &mounted.staging) {
                    Ok(()) => self.place(id),
                    Err(setback) => self.set_back_active(id, setback),
                }
            }
            Some(Asked::Directory(path)) => self.directory_synced(&path, done.result),
            // Of a copy that was given up meanwhile.
            None => {}
        }
    }

    /// The data are durable: the copy takes its name.
    fn place(&mut self, id: u64) {
        if !self.still_mounted() {
            return;
        }
        let (Some(Active { job, copy, .. }), Some(mounted)) = (self.copies.remove(&id), &mut self.mounted)
        else {
            return;
        };
        let placed = copy.place(&job, &self.settings, &mounted.staging);
        let published = match placed {
            Ok(published) => published,
            Err(outcome) => return self.end(&job, outcome),
        };
        let set_aside = match &published.replaced {
            Some(Replaced::SetAside(name)) => Some(Aside::Other(name.clone())),
            Some(Replaced::GaveWay(name)) => Some(Aside::Itself(name.clone())),
            _ => None,
        };
        let file = published.local;
        let directories = directories(&job, published, mounted);
        let placed = Placed { job, file, set_aside };
        match directories {
            Ok(directories) => mounted.durable.renamed(placed, directories),
            Err(outcome) => self.end_placed(placed, outcome),
        }
    }

    fn directory_synced(&mut self, path: &DirPath, result: std::io::Result<u32>) {
        let Some(mounted) = &mut self.mounted else { return };
        let ended = mounted.durable.synced(path, result.is_ok());
        match result {
            Ok(_) if ended.is_empty() => {}
            Ok(_) => {
                let still = self.settings.place.check(mounted.staging.root());
                let outcome = still.map_or_else(CopyOutcome::from, |()| CopyOutcome::Stored);
                for placed in ended {
                    self.end_placed(placed, outcome.clone());
                }
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                for placed in ended {
                    let text = format!("sync of the directory of {}: {error}", placed.job.to);
                    self.end_placed(placed, disk_outcome(of_errno(errno, text)));
                }
            }
        }
    }

    fn still_mounted(&mut self) -> bool {
        let Some(mounted) = &self.mounted else { return false };
        match self.settings.place.check(mounted.staging.root()) {
            Ok(()) => true,
            Err(gone) => {
                self.abandon_work(&gone.0);
                false
            }
        }
    }

    fn set_back_active(&mut self, id: u64, setback: Setback) {
        if let Some(Active { job, copy, second_try, .. }) = self.copies.remove(&id) {
            let via = copy.via();
            // Before anybody hears of it: nothing of it is left.
            drop(copy);
            self.set_back(job, via, second_try, setback);
        }
    }

    /// A copy does not go on: it is begun anew where that may help.
    fn set_back(&mut self, job: CopyJob, via: Via, second_try: bool, setback: Setback) {
        match setback {
            Setback::End(outcome) => self.end(&job, outcome),
            Setback::DiskError(outcome) if second_try => self.end(&job, outcome),
            Setback::DiskError(outcome) => {
                tracing::warn!(storage = self.settings.id, "{outcome:?}: once more, into a new file");
                match job.local() {
                    Some(_) => self.begin_copy(job, true),
                    None => self.begin_fetch(job, true),
                }
            }
            Setback::Refused(outcome) => {
                let (Some(next), Some(mounted)) = (via.next(), &mut self.mounted) else {
                    return self.end(&job, outcome);
                };
                if mounted.via < next {
                    mounted.via = next;
                    tracing::info!(storage = self.settings.id, "{outcome:?}: from now on by {next:?}");
                }
                self.begin_copy(job, second_try);
            }
        }
    }

    /// The storage is gone: nothing of what is in work or waits can be stored.
    fn abandon(&mut self, reason: &str) {
        self.abandon_work(reason);
        for job in std::mem::take(&mut self.queue) {
            self.end(&job, CopyOutcome::Unavailable(reason.to_owned()));
        }
    }

    fn abandon_work(&mut self, reason: &str) {
        let copies = std::mem::take(&mut self.copies);
        let fetching = std::mem::take(&mut self.fetching);
        let jobs: Vec<CopyJob> =
            copies.into_values().chain(fetching.into_values()).map(|active| active.job).collect();
        let durable = self.mounted.take().map(|mounted| mounted.durable.into_files());
        self.asked.clear();
        for job in jobs {
            self.end(&job, CopyOutcome::Unavailable(reason.to_owned()));
        }
        for placed in durable.into_iter().flatten() {
            self.end_placed(placed, CopyOutcome::Unavailable(reason.to_owned()));
        }
    }

    fn end(&mut self, job: &CopyJob, outcome: CopyOutcome) {
        let (version, storage) = (job.version, self.settings.index);
        (self.report)(CopyReport { version, storage, outcome, file: None, set_aside: None });
    }

    fn end_placed(&mut self, placed: Placed, outcome: CopyOutcome) {
        let Placed { job, file, set_aside } = placed;
        let (version, storage, file) = (job.version, self.settings.index, Some(file));
        (self.report)(CopyReport { version, storage, outcome, file, set_aside });
    }

    fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// What must be synced before a placed file is durable.
fn directories(
    job: &CopyJob,
    published: Published,
    mounted: &mut Mounted,
) -> Result<Vec<ToSync>, CopyOutcome> {
    let like = |path: &DirPath| path.as_ref().and_then(|path| counterpart(job, path));
    let parent = job.to.parent();
    let above = mounted.durable.above(parent.as_ref(), published.new_directories);
    let own = ToSync { like: like(&parent), fd: Arc::new(published.parent), path: parent };
    let mut directories = vec![own];
    for (path, changed) in above {
        let fd = mounted.staging.root().open_dir(path.as_ref());
        let fd = fd.map_err(|error| of_errno(error.errno, error.to_string()))?;
        let like = if changed { like(&path) } else { None };
        directories.push(ToSync { like, fd: Arc::new(fd), path });
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_small_files_take_the_place_of_a_large_one() {
        const SMALL: u64 = SMALL_BYTES_MAX;
        const LARGE: u64 = SMALL + 1;
        for (small, large, fits) in
            [(8, 0, true), (9, 0, false), (0, 2, true), (0, 3, false), (4, 1, true), (5, 1, false)]
        {
            let sizes = std::iter::repeat_n(SMALL, small).chain(std::iter::repeat_n(LARGE, large));
            assert_eq!(fit(2, sizes), fits, "{small} small, {large} large");
        }
    }
}
