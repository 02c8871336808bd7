//! The seam between those who move bytes and the engine that moves them.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::ops::Op;
use crate::threads;

/// Runs chains of operations. One thread owns a driver; only a [`Waker`] may be used from others.
///
/// Chains run concurrently with each other; the operations of one chain run in order. Every submitted operation comes back through
/// [`Driver::reap`] exactly once, whatever happens to it.
pub trait Driver {
    /// Starts a chain. An operation begins when the one before it has ended, see [`Link`].
    ///
    /// # Errors
    /// The whole chain comes back with the cause; nothing of it was started.
    fn submit(&mut self, chain: Vec<Entry>) -> Result<(), Refused>;

    /// Returns when an operation completed, a [`Waker`] woke it, or the time is up; at once if a completion is already there.
    /// May return early for no reason. With nothing in flight, only a waker or the time end it.
    ///
    /// # Errors
    /// The engine itself failed; operations may still be in flight.
    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()>;

    /// Returns when everything that was submitted has completed, and can be reaped. No [`Waker`] ends it.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    fn wait_all(&mut self) -> io::Result<()>;

    /// The next completed operation, if any.
    fn reap(&mut self) -> Option<Done>;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// The longest chain that can be submitted now.
    fn room(&self) -> usize;

    /// Ends [`Driver::wait`] from another thread.
    ///
    /// # Errors
    /// Those of eventfd(2).
    fn waker(&mut self) -> io::Result<Waker>;

    /// What is underneath.
    fn engine(&self) -> Engine;
}

impl dyn Driver + '_ {
    /// Runs one chain to its end and gives everything back, in the order of completion. Nothing else may be in flight.
    ///
    /// # Errors
    /// The chain was refused, or the engine failed.
    pub fn run(&mut self, chain: Vec<Entry>) -> io::Result<Vec<Done>> {
        self.submit(chain)?;
        self.finish()
    }

    /// Waits for everything in flight and gives it back, in the order of completion.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    pub fn finish(&mut self) -> io::Result<Vec<Done>> {
        self.wait_all()?;
        Ok(std::iter::from_fn(|| self.reap()).collect())
    }
}

/// One operation of a chain.
#[derive(Debug)]
pub struct Entry {
    /// What to do.
    pub op: Op,
    /// Comes back with the result; means nothing to the driver.
    pub token: u64,
    /// How the next entry depends on this one; without meaning for the last.
    pub link: Link,
}

/// When the next operation of the chain begins, once this one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Independently of this one.
    No,
    /// Only if this one did all of what it was asked for; otherwise the rest of the chain up to the next [`Link::No`] ends with
    /// ECANCELED.
    Soft,
    /// Whatever came of this one, also if it failed or was short. (If this one was itself cancelled by a broken soft link, so is
    /// the next.)
    Hard,
}

/// An ended operation, with everything it owned.
#[derive(Debug)]
pub struct Done {
    /// As submitted.
    pub op: Op,
    /// As submitted.
    pub token: u64,
    /// Bytes moved (0 for a sync).
    pub result: io::Result<u32>,
}

impl Done {
    /// Bytes moved, where none are moved by an operation that did not really fail: it was cancelled, interrupted, or would have had
    /// to wait. Such an operation can be submitted again.
    ///
    /// # Errors
    /// All others.
    pub fn moved(&self) -> io::Result<u32> {
        match &self.result {
            Ok(n) => Ok(*n),
            Err(e) => match e.raw_os_error() {
                Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => Ok(0),
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Err(io::Error::new(e.kind(), e.to_string())),
            },
        }
    }
}

/// A chain that was not started.
pub struct Refused {
    /// As given.
    pub chain: Vec<Entry>,
    /// Why.
    pub cause: Refusal,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain of {} refused: {}", self.chain.len(), self.cause)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::other(refused.to_string())
    }
}

/// Why a chain was not started.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No entries.
    #[error("empty chain")]
    Empty,
    /// More than fits now: reap, then try again. (A chain longer than the driver's depth never fits.)
    #[error("no room for {wanted} operations, only for {room}")]
    Full {
        /// Length of the chain.
        wanted: usize,
        /// What would fit.
        room: usize,
    },
    /// An operation cannot mean what it says.
    #[error("invalid operation: {0}")]
    Invalid(&'static str),
    /// The engine cannot take any more.
    #[error("engine failed: {0}")]
    Engine(io::Error),
}

/// Wakes a driver's `wait`. A wake-up that comes while the driver is not waiting ends the next wait.
#[derive(Debug, Clone)]
pub struct Waker(pub(crate) WakerKind);

#[derive(Debug, Clone)]
pub(crate) enum WakerKind {
    EventFd(Arc<OwnedFd>),
    Threads(threads::WakeHandle),
}

impl Waker {
    /// Ends the current or the next wait.
    pub fn wake(&self) {
        match &self.0 {
            // A full counter (EAGAIN) is a wake-up already under way.
            WakerKind::EventFd(fd) => drop(rustix::io::write(fd, &1u64.to_ne_bytes())),
            WakerKind::Threads(handle) => handle.wake(),
        }
    }
}

/// What every backend checks before it takes a chain.
pub(crate) fn check(chain: &mut [Entry], room: usize) -> Result<(), Refusal> {
    let Some((_, before_last)) = chain.split_last() else { return Err(Refusal::Empty) };
    if chain.len() > room {
        return Err(Refusal::Full { wanted: chain.len(), room });
    }
    // The kernel does not let a failed fsync break a chain, so nothing may depend on one.
    if before_last.iter().any(|e| matches!(e.op, Op::Sync(_)) && e.link == Link::Soft) {
        return Err(Refusal::Invalid("an operation soft-linked to a sync"));
    }
    chain.iter().try_for_each(|entry| entry.op.check().map_err(Refusal::Invalid))
}
