//! A storage's writer: a thread of its own, on which every call to that storage is made. It may hang there, and
//! nothing else does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ppu_uring::{Driver, Limits, Waker};

use super::worker::{SMALL_PER_PLACE, Worker};
use crate::host::priority::Priority;
use crate::model::file_version::StorageIndex;
use crate::model::job::{CopyJob, CopyReport};
use crate::rooted::mount::Place;
use crate::rooted::{Handed, Root};

/// Threads that run what blocks (where the ring cannot wait by itself), for each file in flight: two pieces, or a sync for each small one in its place.
const WORKERS_PER_FILE: u32 = SMALL_PER_PLACE as u32;
/// Operations in flight for each file: the same, and syncs of directories.
const DEPTH_PER_FILE: u32 = 2 * WORKERS_PER_FILE;

/// What a writer is told about its storage.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its number.
    pub index: StorageIndex,
    /// Its name, for messages.
    pub id: String,
    /// Where it is.
    pub place: Place,
    /// Files in flight.
    pub queue_depth: usize,
    /// O_DIRECT where the file system takes it; else through the page cache.
    pub direct: bool,
    /// Owners as on the ramdisk; else left to the operating system.
    pub preserve_uid: bool,
    /// Groups as on the ramdisk; else left to the operating system.
    pub preserve_gid: bool,
    /// Another shift's file is overwritten instead of renamed (SPEC 2.5).
    pub replace_other_shift: bool,
    /// Where the files are copied from.
    pub ramdisk: Arc<Root>,
    /// Of all storages, in the order of their numbers: where files are copied from that have left the ramdisk.
    pub places: Arc<[Place]>,
    /// Where links lead that eviction leaves here in files' places: newer versions replace them.
    pub links_to: Option<PathBuf>,
    /// Extra files, which lie elsewhere.
    pub handed: Arc<Handed>,
}

/// A running writer. Dropped without [`Writer::stop`], it ends by itself some time later.
pub struct Writer {
    inlet: Inlet,
    steps: Steps,
    ended: Receiver<()>,
}

/// What a writer's thread has done so far, counted: while it has work and the count stands still, the storage hangs.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    writing: Arc<AtomicU64>,
    /// Of the thread that reads other storages for this one.
    reading: Arc<AtomicU64>,
}

/// Takes copies for a writer, from any thread. Never waits.
#[derive(Debug, Clone)]
pub struct Inlet {
    orders: Sender<Order>,
    waker: Waker,
}

pub(super) enum Order {
    Copy(CopyJob),
    Stop,
}

impl Writer {
    /// Starts the thread; `open_driver` is called on it. Every copy is answered by exactly one report, unless the writer
    /// is stopped before.
    ///
    /// # Errors
    /// No thread, or no driver.
    pub fn start<D, E>(
        settings: Settings,
        open_driver: D,
        report: impl FnMut(CopyReport) + Send + 'static,
    ) -> io::Result<Self>
    where
        D: FnOnce(Limits) -> Result<Box<dyn Driver>, E> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (orders, inbox) = channel();
        let (opened, opening) = channel();
        let (end, ended) = channel();
        let steps = Steps::default();
        let counted = steps.clone();
        std::thread::Builder::new().name(format!("store {}", settings.id)).spawn(move || {
            // Dropped when this thread ends, however it does.
            let _end: Sender<()> = end;
            // And of those that work for it.
            Priority::Background.take();
            let depth = u32::try_from(settings.queue_depth.max(1)).unwrap_or(u32::MAX / DEPTH_PER_FILE);
            let limits = Limits {
                depth: depth.saturating_mul(DEPTH_PER_FILE),
                workers: depth.saturating_mul(WORKERS_PER_FILE),
            };
            let open = || {
                let mut driver = open_driver(limits).map_err(io::Error::other)?;
                let waker = driver.waker()?;
                Ok((driver, waker))
            };
            match open() {
                Ok((driver, waker)) => {
                    if opened.send(Ok(waker.clone())).is_ok() {
                        Worker::new(settings, driver, waker, inbox, counted, report).run();
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        })?;
        let waker =
            opening.recv().unwrap_or_else(|_| Err(io::Error::other("the writer's thread has ended")))?;
        Ok(Self { inlet: Inlet { orders, waker }, steps, ended })
    }

    /// Where copies go.
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Shows that the thread moves.
    pub fn steps(&self) -> Steps {
        self.steps.clone()
    }

    /// Ends the thread; what is not stored by then is not reported. False: the storage hangs, and the thread is left
    /// to itself.
    pub fn stop(self, at_most: Duration) -> bool {
        self.inlet.send(Order::Stop);
        matches!(self.ended.recv_timeout(at_most), Err(RecvTimeoutError::Disconnected))
    }
}

impl Steps {
    /// So many until now.
    pub fn count(&self) -> u64 {
        self.writing.load(Ordering::Relaxed)
    }

    /// And so many in reading other storages.
    pub fn reads(&self) -> u64 {
        self.reading.load(Ordering::Relaxed)
    }

    pub(super) fn step(&self) {
        self.writing.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) {
        self.reading.fetch_add(1, Ordering::Relaxed);
    }
}

impl Inlet {
    /// Queues a copy. False: the writer has ended.
    pub fn copy(&self, job: CopyJob) -> bool {
        self.send(Order::Copy(job))
    }

    fn send(&self, order: Order) -> bool {
        let sent = self.orders.send(order).is_ok();
        self.waker.wake();
        sent
    }
}
