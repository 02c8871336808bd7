//! The detector's eyes: tells of every regular file that is closed, appears, or goes, below the ramdisk (SPEC 1.2, 1.3).
//!
//! One thread, one inotify instance. A directory that appears is watched first and listed then, so that nothing falls between; when
//! the kernel's queue overflows, when the ramdisk is mounted anew, and every [`Settings::reconcile`], everything is listed again.
//! Names are bytes; no link is ever followed (`rooted`).

mod candidates;
mod ignore;
mod ramdisk;
mod staging;
mod tree;
mod walk;
mod watcher;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::model::catalog::Event;
use crate::rooted::RootError;
use ignore::Ignore;
pub use ramdisk::Ramdisk;
use watcher::Watcher;

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory below which files are looked for; absolute.
    pub ramdisk: PathBuf,
    /// Names of files that are of no interest, with `*` and `?`.
    pub ignore: Vec<String>,
    /// How often everything is listed, to catch what slipped.
    pub reconcile: Duration,
    /// A directory of our own: a file made there tells where in the queue its making is. Absolute.
    pub marks: Option<PathBuf>,
    /// How long a file that was linked in must be left alone before it is complete.
    pub quiet: Duration,
    /// Files are released: the watch tells of what is taken into staging.
    pub release: bool,
}

impl Settings {
    /// The usual times.
    pub fn new(ramdisk: PathBuf, ignore: Vec<String>) -> Self {
        Self {
            ramdisk,
            ignore,
            reconcile: Duration::from_secs(30),
            marks: None,
            quiet: Duration::from_millis(500),
            release: false,
        }
    }
}

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The ramdisk.
    #[error("ramdisk: {0}")]
    Ramdisk(#[from] RootError),
    /// Most often too many instances of this user.
    #[error("inotify: {0} (sysctl fs.inotify.max_user_instances allows too few?)")]
    Inotify(io::Error),
    /// The directory of marks.
    #[error("watch {}: {source}", path.display())]
    Marks {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An `ignore` that is none.
    #[error("ignore: {0}")]
    Ignore(#[from] globset::Error),
    /// No thread, no descriptor.
    #[error("start the watch: {0}")]
    Start(io::Error),
}

/// The running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    ramdisk: Ramdisk,
    skipped: Arc<AtomicU64>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Begins: `tell` gets what is seen, in its order, in batches, on the watch's thread. While it blocks, the kernel's queue holds what
/// happens, and where that overflows everything is listed again: memory is bounded whatever the consumer does. `Break` ends
/// the watch.
///
/// # Errors
/// [`WatchError`].
pub fn start(
    settings: Settings,
    tell: impl FnMut(Vec<Event>) -> ControlFlow<()> + Send + 'static,
) -> Result<Watch, WatchError> {
    let ignore = Ignore::new(&settings.ignore)?;
    let ramdisk = Ramdisk::open(&settings.ramdisk)?;
    let skipped = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| WatchError::Start(errno.into()))?);
    let watcher = Watcher::new(settings, ignore, ramdisk.clone(), Arc::clone(&skipped), tell)?;
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watcher.run(&stopped))
        .map_err(WatchError::Start)?;
    Ok(Watch { ramdisk, skipped, stop, thread: Some(thread) })
}

impl Watch {
    /// The ramdisk as it is mounted at any time.
    pub fn ramdisk(&self) -> Ramdisk {
        self.ramdisk.clone()
    }

    /// Symlinks, devices, sockets that were passed over so far.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    /// Waits for the thread, so whoever blocks it in `tell` has to let it go first.
    fn drop(&mut self) {
        // Cannot fail: an eventfd takes 2^64 - 2 of these.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch's thread has panicked");
        }
    }
}
