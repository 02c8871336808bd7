//! The watch's thread: kernel events in, the catalog's events out.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inotify::{EventMask, Inotify, WatchMask, Watches};
use ppu_uring::sys::{Writers, writers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::candidates::Candidates;
use super::ignore::Ignore;
use super::ramdisk::{Presence, Ramdisk};
use super::staging::{self, Prepared};
use super::tree::{Tree, Wd};
use super::walk::{Visitor, Walk};
use super::{Settings, WatchError};
use crate::host::priority::OnTheWay;
use crate::model::catalog::Event;
use crate::model::file_version::Identity;
use crate::model::path::RelPath;
use crate::model::trouble::{Trouble, What};
use crate::rooted::{FileStat, is_own_name};

/// Holds a few hundred events with long names.
const BUFFER_BYTES: usize = 64 << 10;
/// Most events told at a time.
const BATCH_EVENTS: usize = 1024;
/// Directory entries listed between two looks at the kernel's queue, which holds 16,384 events by default.
const SLICE_ENTRIES: usize = 512;
/// Pause between slices of a listing that nobody waits for.
const IDLE_PAUSE: Duration = Duration::from_millis(2);
/// How often the ramdisk is looked for: nothing tells of a lazy unmount.
const RAMDISK_CHECK: Duration = Duration::from_secs(1);
/// Pause between listings where the kernel grants too few watches.
const RECONCILE_UNWATCHED: Duration = Duration::from_secs(3);

const MASK: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::MOVE)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR)
    .union(WatchMask::EXCL_UNLINK);

pub(super) struct Watcher<T> {
    inotify: Inotify,
    /// Directories that have just appeared.
    urgent: Walk,
    full: Option<FullScan>,
    reconcile_at: Instant,
    ramdisk_at: Instant,
    lost: bool,
    /// The ramdisk was mounted anew, and is not watched yet.
    unwatched: bool,
    view: View<T>,
}

/// Everything is listed.
struct FullScan {
    walk: Walk,
    /// Nobody waits for it.
    idle: bool,
}

/// Why everything is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Start,
    Overflow,
    Reconcile,
}

/// What is watched, and what was seen.
struct View<T> {
    settings: Settings,
    ignore: Ignore,
    ramdisk: Ramdisk,
    watches: Watches,
    tree: Tree,
    /// Of the directory of marks.
    marks: Option<Wd>,
    /// Of the staging directory, if files are released.
    staging: Option<Wd>,
    candidates: Candidates,
    skipped: Arc<AtomicU64>,
    /// Counts what is skipped: not in a listing of what was listed before.
    counting: bool,
    limit: Limit,
    batch: Vec<Event>,
    tell: T,
    told: ControlFlow<()>,
}

/// Whether the kernel grants as many watches as there are directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Enough,
    /// It did not, in the listing before this one.
    TooFewBefore,
    TooFew,
}

impl<T: FnMut(Vec<Event>) -> ControlFlow<()>> Watcher<T> {
    pub(super) fn new(
        settings: Settings,
        ignore: Ignore,
        ramdisk: Ramdisk,
        skipped: Arc<AtomicU64>,
        tell: T,
    ) -> Result<Self, WatchError> {
        let inotify = Inotify::init().map_err(WatchError::Inotify)?;
        let now = Instant::now();
        let mut view = View {
            candidates: Candidates::new(settings.quiet),
            settings,
            ignore,
            ramdisk,
            watches: inotify.watches(),
            tree: Tree::default(),
            marks: None,
            staging: None,
            skipped,
            counting: true,
            limit: Limit::Enough,
            batch: Vec::new(),
            tell,
            told: ControlFlow::Continue(()),
        };
        view.watch_marks()?;
        view.prepare_staging();
        let urgent = Walk::default();
        Ok(Self {
            inotify,
            urgent,
            full: None,
            reconcile_at: now,
            ramdisk_at: now + RAMDISK_CHECK,
            lost: false,
            unwatched: false,
            view,
        })
    }

    /// Until `stop` becomes readable, or nobody listens any more.
    pub(super) fn run(mut self, stop: &OwnedFd) {
        let _way = OnTheWay::take();
        let mut buffer = vec![0; BUFFER_BYTES];
        self.scan_everything(Cause::Start);
        while self.view.told.is_continue() {
            match self.wait(stop) {
                Ok(true) => return,
                Ok(false) => {}
                Err(errno) => {
                    self.view.met(What::WatchEnded, format!("poll: {errno}"));
                    return self.view.flush();
                }
            }
            self.read_events(&mut buffer);
            let now = Instant::now();
            self.view.look_at_candidates(now);
            if now >= self.ramdisk_at {
                self.ramdisk_at = now + RAMDISK_CHECK;
                self.look_for_ramdisk();
            }
            if now >= self.reconcile_at && self.full.is_none() && !self.lost {
                self.scan_everything(Cause::Reconcile);
            }
            self.scan();
            self.view.flush();
        }
    }

    /// `true`: the end.
    fn wait(&self, stop: &OwnedFd) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN)];
        let time = self.time_left();
        let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        match poll(&mut fds, Some(&time)) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn time_left(&self) -> Duration {
        if !self.urgent.is_over() {
            return Duration::ZERO;
        }
        match &self.full {
            Some(FullScan { idle: false, .. }) => return Duration::ZERO,
            Some(FullScan { idle: true, .. }) => return IDLE_PAUSE,
            None => {}
        }
        let mut next = self.reconcile_at.min(self.ramdisk_at);
        if self.lost {
            next = self.ramdisk_at;
        }
        if let Some(due) = self.view.candidates.next_due() {
            next = next.min(due);
        }
        // A millisecond more, so that it is over when poll returns.
        next.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
    }

    fn scan(&mut self) {
        let root = self.view.ramdisk.root();
        self.urgent.step(&root, SLICE_ENTRIES, &mut self.view);
        if !self.urgent.is_over() {
            return;
        }
        let Some(full) = &mut self.full else { return };
        full.walk.step(&root, SLICE_ENTRIES, &mut self.view);
        if full.walk.is_over() {
            self.full = None;
            self.view.counting = true;
            self.view.push(Event::ScanEnds);
            self.view.settle_limit();
            let pause = match self.view.limit {
                Limit::TooFew => RECONCILE_UNWATCHED.min(self.view.settings.reconcile),
                _ => self.view.settings.reconcile,
            };
            self.reconcile_at = Instant::now() + pause;
        }
    }

    /// From the root, and from the beginning where it is under way already.
    fn scan_everything(&mut self, cause: Cause) {
        let mut walk = Walk::default();
        walk.add(None);
        let idle = cause == Cause::Reconcile && self.view.limit == Limit::Enough;
        self.full = Some(FullScan { walk, idle });
        self.view.counting = cause == Cause::Start;
        if cause == Cause::Overflow {
            self.view.push(Event::Missed);
        }
        if self.view.limit == Limit::TooFew {
            self.view.limit = Limit::TooFewBefore;
        }
        self.view.push(Event::ScanBegins);
    }

    fn look_for_ramdisk(&mut self) {
        let ramdisk = &self.view.ramdisk;
        match ramdisk.presence() {
            Presence::Here if !self.unwatched => {
                if std::mem::take(&mut self.lost) {
                    self.view.push(Event::Over(What::RamdiskLost));
                }
            }
            Presence::Lost(why) => {
                if !std::mem::replace(&mut self.lost, true) {
                    let path = self.view.settings.ramdisk.display();
                    self.view.met(What::RamdiskLost, format!("{path}: {why}"));
                }
            }
            Presence::Here | Presence::Another => {
                // What is held is the new one from here on, whatever becomes of its watch.
                self.unwatched = true;
                match ramdisk.reopen().map_err(WatchError::from).and_then(|()| self.begin_anew()) {
                    Ok(()) => {
                        self.unwatched = false;
                        self.view.push(Event::Over(What::RamdiskLost));
                        self.view.push(Event::Over(What::RamdiskUnwatched));
                        self.view.met(What::RamdiskAnew, self.view.settings.ramdisk.display().to_string());
                    }
                    Err(error) => self.view.met(What::RamdiskUnwatched, error.to_string()),
                }
            }
        }
    }

    fn begin_anew(&mut self) -> Result<(), WatchError> {
        self.inotify = Inotify::init().map_err(WatchError::Inotify)?;
        self.view.watches = self.inotify.watches();
        self.view.tree = Tree::default();
        self.view.watch_marks()?;
        self.view.push(Event::MarksLost);
        self.view.prepare_staging();
        self.urgent = Walk::default();
        self.lost = false;
        self.scan_everything(Cause::Start);
        Ok(())
    }

    fn read_events(&mut self, buffer: &mut [u8]) {
        // As many times as the queue may hold, not without end.
        for _ in 0..SLICE_ENTRIES {
            let events = match self.inotify.read_events(buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.view.met(What::WatchEnded, format!("inotify: read: {error}")),
            };
            let at = Instant::now();
            for event in events {
                self.event(at, event.wd.get_watch_descriptor_id(), event.mask, event.name);
            }
        }
    }

    fn event(&mut self, at: Instant, wd: Wd, mask: EventMask, name: Option<&OsStr>) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            tracing::warn!(
                "more happened than the kernel keeps (sysctl fs.inotify.max_queued_events): everything is listed again"
            );
            return self.scan_everything(Cause::Overflow);
        }
        if self.view.marks == Some(wd) {
            return self.view.mark(name);
        }
        if self.view.staging == Some(wd) {
            return self.view.staging_event(mask, name);
        }
        let Some(name) = name else { return self.directory_itself(wd, mask) };
        let name = name.as_bytes();
        let path = match self.view.tree.path(wd, name) {
            Some(Ok(path)) => path,
            Some(Err(_)) => return self.view.skip(),
            None => return, // told before its directory was moved away or removed
        };
        if self.view.is_ours(&path) {
            return;
        }
        if mask.contains(EventMask::ISDIR) {
            if mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
                self.view.directory_gone(wd, name);
            }
            if mask.contains(EventMask::MOVED_FROM) {
                // A deleted one is empty: its files were told one by one.
                self.view.push(Event::GoneBelow { directory: path });
            } else if mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
                self.urgent.add(Some(path));
            }
        } else if !self.view.ignore.matches(name) {
            self.view.file(at, path, mask);
        }
    }

    /// What is below it was told by its parent; only the root has none.
    fn directory_itself(&mut self, wd: Wd, mask: EventMask) {
        let over = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
        if !mask.intersects(over) {
            return;
        }
        if self.view.tree.is_root(wd) {
            self.ramdisk_at = Instant::now();
        } else if mask.contains(EventMask::IGNORED) {
            self.view.tree.remove(wd);
        }
    }
}

impl<T: FnMut(Vec<Event>) -> ControlFlow<()>> View<T> {
    fn file(&mut self, at: Instant, path: RelPath, mask: EventMask) {
        tracing::debug!(%path, ?mask, "seen");
        if mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
            self.candidates.remove(&path);
            return self.push(Event::Gone { path });
        }
        let Some(stat) = self.look(&path) else { return self.push(Event::ClosedUnseen { path }) };
        let linked_in = stat.nlink > 1; // nobody creates a file with two names to write it
        if mask.contains(EventMask::CREATE) && !linked_in {
            self.candidates.put(at, path, identity(&stat));
        } else {
            self.candidates.remove(&path);
            self.push(Event::Closed { path, identity: identity(&stat), at });
        }
    }

    fn watch_marks(&mut self) -> Result<(), WatchError> {
        let Some(path) = &self.settings.marks else { return Ok(()) };
        let mask = WatchMask::CREATE.union(WatchMask::ONLYDIR);
        let failed = |source| WatchError::Marks { path: path.clone(), source };
        let watch = self.watches.add(path, mask).map_err(failed)?;
        self.marks = Some(watch.get_watch_descriptor_id());
        Ok(())
    }

    /// Marks are numbered; whatever else somebody puts there means nothing.
    fn mark(&mut self, name: Option<&OsStr>) {
        if let Some(number) = name.and_then(OsStr::to_str).and_then(|name| name.parse().ok()) {
            self.push(Event::Mark(number));
        }
    }

    /// A candidate that was left alone is complete, unless somebody has it open still.
    fn look_at_candidates(&mut self, now: Instant) {
        while let Some((path, before)) = self.candidates.take_due(now) {
            let Ok((file, stat)) = self.ramdisk.root().open_file(&path) else { continue };
            if identity(&stat) == before && writers(&file) != Writers::Some {
                self.push(Event::Closed { path, identity: identity(&stat), at: now });
            } else {
                self.candidates.put(now, path, identity(&stat));
            }
        }
    }

    /// Where it turns up again it is watched and listed as a new one.
    fn directory_gone(&mut self, parent: Wd, name: &[u8]) {
        let Some(child) = self.tree.child(parent, name) else { return };
        for watch in self.tree.remove(child) {
            // The kernel has dropped the watch of a deleted directory already.
            let _ = self.watches.remove(watch);
        }
    }

    /// A regular file; anything else is skipped, what is gone is told by another event.
    fn look(&mut self, path: &RelPath) -> Option<FileStat> {
        match self.ramdisk.root().stat(path) {
            Ok(stat) if stat.kind() == FileType::RegularFile => Some(stat),
            Ok(stat) => {
                if stat.kind() != FileType::Directory {
                    self.skip();
                }
                None
            }
            Err(error) => {
                if error.errno != Errno::NOENT && !error.is_in_the_way() {
                    self.push(Event::Met(Trouble::with(
                        What::Unseen,
                        Some(path.clone()),
                        error.errno.to_string(),
                    )));
                }
                None
            }
        }
    }

    /// First of all: what an earlier process was taking away gets its name back before it is looked for. Watched ahead of everything
    /// else, so that the kernel does not grant too few watches for it.
    fn prepare_staging(&mut self) {
        self.staging = None;
        match staging::prepare(&self.ramdisk.root(), self.settings.release) {
            Ok(Prepared { directory, kept }) => {
                if let Some(kept) = kept {
                    self.met(What::StagingKept, kept);
                }
                match directory.map(|directory| self.watches.add(of(&directory), staging::MASK)) {
                    None => {}
                    Some(Ok(watch)) => self.staging = Some(watch.get_watch_descriptor_id()),
                    Some(Err(error)) => {
                        self.met(What::StagingUnusable, format!("staging cannot be watched: {error}"));
                    }
                }
            }
            Err(error) => self.met(What::StagingUnusable, error.to_string()),
        }
        if self.staging.is_some() {
            self.push(Event::Over(What::StagingUnusable));
        }
    }

    fn staging_event(&mut self, mask: EventMask, name: Option<&OsStr>) {
        match name {
            Some(name) if mask.contains(EventMask::MOVED_TO) => {
                self.push(Event::Taken { token: name.as_bytes().into() });
            }
            _ if mask.contains(EventMask::IGNORED) => self.staging = None,
            _ => {}
        }
    }

    /// What this program keeps there itself.
    fn is_ours(&self, path: &RelPath) -> bool {
        is_own_name(path.as_bytes()) && path.parent().is_none()
    }

    fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Something is wrong with the detector as a whole.
    fn met(&mut self, what: What, why: impl Into<String>) {
        self.push(Event::Met(Trouble::new(what, why)));
    }

    fn push(&mut self, event: Event) {
        self.batch.push(event);
        if self.batch.len() >= BATCH_EVENTS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() && self.told.is_continue() {
            self.told = (self.tell)(std::mem::take(&mut self.batch));
        }
    }

    fn watch(&mut self, path: Option<&RelPath>, fd: &OwnedFd) -> io::Result<()> {
        let parent = match path {
            None => None,
            Some(path) => match self.tree.find(path.parent().as_ref()) {
                None => return Ok(()), // moved away meanwhile, or not watched for lack of watches
                parent => parent,
            },
        };
        let watch = self.watches.add(of(fd), MASK)?;
        match (parent, path) {
            (Some(parent), Some(path)) => {
                for replaced in self.tree.insert(parent, path.name(), watch) {
                    let _ = self.watches.remove(replaced);
                }
            }
            _ => self.tree.set_root(watch),
        }
        Ok(())
    }

    fn too_few_watches(&mut self) {
        if self.limit != Limit::TooFew {
            self.met(What::TooFewWatches, "");
        }
        self.limit = Limit::TooFew;
    }

    fn settle_limit(&mut self) {
        if self.limit == Limit::TooFewBefore {
            self.limit = Limit::Enough;
        }
    }
}

impl<T: FnMut(Vec<Event>) -> ControlFlow<()>> Visitor for View<T> {
    fn enter(&mut self, path: Option<&RelPath>, fd: &OwnedFd) -> bool {
        match self.watch(path, fd) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => self.too_few_watches(),
            Err(error) => {
                let trouble = Trouble::with(What::Unwatched, path.cloned(), error.to_string());
                self.push(Event::Met(trouble));
            }
        }
        true
    }

    fn wants(&self, directory: Option<&RelPath>, name: &[u8]) -> bool {
        directory.is_some() || !is_own_name(name)
    }

    fn file(&mut self, path: RelPath, stat: FileStat) {
        if !self.ignore.matches(path.name()) && !self.candidates.contains(&path) {
            self.push(Event::Found { path, identity: identity(&stat), at: closed_at(&stat) });
        }
    }

    fn other(&mut self) {
        if self.counting {
            self.skip();
        }
    }

    fn trouble(&mut self, what: What, path: Option<RelPath>, why: Errno) {
        self.push(Event::Met(Trouble::with(what, path, why.to_string())));
    }
}

/// The link in /proc is followed on purpose: it leads to the descriptor that was opened without following any.
fn of(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

fn identity(stat: &FileStat) -> Identity {
    Identity { size: stat.size, mtime_ns: stat.mtime_ns, ino: stat.ino, ctime_ns: stat.ctime_ns }
}

/// When a file was closed whose close nobody saw: at its ctime, as far as the clock can be trusted.
fn closed_at(stat: &FileStat) -> Instant {
    let now = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ctime = Duration::from_nanos(u64::try_from(stat.ctime_ns).unwrap_or(0));
    let ago = since_epoch.checked_sub(ctime).unwrap_or_default();
    now.checked_sub(ago).unwrap_or(now)
}
