//! What a writer's thread does: keeps `queue_depth` copies moving, oldest first, and tells how each ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use ppu_uring::ops::Sync;
use ppu_uring::{Done, Driver, Entry, Fd, Link, Op};
use rustix::io::Errno;

use super::copy::{Copy, Setback, Via, counterpart, of_errno};
use super::durable::{DirPath, Durable, ToSync};
use super::writer::{Order, Settings};
use crate::model::job::{CopyJob, CopyOutcome, CopyReport};
use crate::model::path::printable;
use crate::rooted::{Published, Replaced, STAGING_NAME, Staging, set_mtime};

/// An unused storage is let go after this time, so that it can be unmounted.
const IDLE: Duration = Duration::from_secs(2);

pub(super) struct Worker<R> {
    settings: Settings,
    inbox: Receiver<Order>,
    report: R,
    queue: VecDeque<CopyJob>,
    /// In the order in which they began.
    copies: BTreeMap<u64, Active>,
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
    durable: Durable<CopyJob>,
}

struct Active {
    job: CopyJob,
    copy: Copy,
    via: Via,
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

/// The engine does not work any more; for people.
struct EngineFailed(String);

impl<R: FnMut(CopyReport)> Worker<R> {
    pub(super) fn new(
        settings: Settings,
        driver: Box<dyn Driver>,
        inbox: Receiver<Order>,
        report: R,
    ) -> Self {
        Self {
            settings,
            inbox,
            report,
            queue: VecDeque::new(),
            copies: BTreeMap::new(),
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
            self.begin();
            self.submit()?;
            let flying = self.driver.in_flight() > 0;
            if !flying && (self.in_work() > 0 || !self.queue.is_empty()) {
                continue; // something ended or was set back: there is room for the next
            }
            let at_most = (!flying && self.mounted.is_some()).then_some(IDLE);
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
        while !self.queue.is_empty() && self.in_work() < self.settings.queue_depth.max(1) && self.ready() {
            if let Some(job) = self.queue.pop_front() {
                self.begin_copy(job, false);
            }
        }
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
            Ok(copy) => {
                let id = self.next_token();
                self.copies.insert(id, Active { job, copy, via, second_try, syncing: false });
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
        match placed.and_then(|published| directories(&job, published, mounted)) {
            Ok(directories) => mounted.durable.renamed(job, directories),
            Err(outcome) => self.end(&job, outcome),
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
                for job in ended {
                    self.end(&job, outcome.clone());
                }
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                for job in ended {
                    let text = format!("sync of the directory of {}: {error}", job.to);
                    self.end(&job, of_errno(errno, text));
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
        if let Some(Active { job, copy, via, second_try, .. }) = self.copies.remove(&id) {
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
                self.begin_copy(job, true);
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
        let copies = std::mem::take(&mut self.copies).into_values().map(|active| active.job);
        let durable = self.mounted.take().map(|mounted| mounted.durable.into_files());
        let jobs: Vec<CopyJob> = copies.chain(durable.into_iter().flatten()).collect();
        self.asked.clear();
        for job in jobs {
            self.end(&job, CopyOutcome::Unavailable(reason.to_owned()));
        }
    }

    fn end(&mut self, job: &CopyJob, outcome: CopyOutcome) {
        (self.report)(CopyReport { version: job.version, storage: self.settings.index, outcome });
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
    if let Some(Replaced::SetAside(name)) = &published.replaced {
        tracing::warn!("another shift's {} was renamed to {}", job.to, printable(name));
    }
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
