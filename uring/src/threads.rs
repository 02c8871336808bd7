//! The syscall engine: worker threads that run chains with plain system calls, as the ring would.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::driver::{Done, Driver, Entry, Link, Refusal, Refused, Waker, WakerKind, check};
use crate::engine::{Engine, Limits};
use crate::ops::Op;
use crate::sys;

/// How long a drop waits for workers that hang in the kernel; then they are left behind with all that they own.
const DROP_WAIT: Duration = Duration::from_secs(5);
/// Pause between two interrupts of a worker: the first may come just before its system call.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(2);

/// A [`Driver`] over worker threads, started as they are needed.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    workers_max: usize,
    depth: usize,
    in_flight: usize,
}

struct Shared {
    state: Mutex<State>,
    /// A chain was queued, or it is time to stop.
    work: Condvar,
    /// An operation has ended, somebody woke the driver, or a worker has left.
    news: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    done: VecDeque<Done>,
    idle: usize,
    running: usize,
    woken: bool,
}

/// A chain; of its first operation `moved` bytes were already moved.
struct Job {
    chain: Vec<Entry>,
    moved: u32,
}

impl Threads {
    /// A driver without threads yet.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub fn new(limits: Limits) -> io::Result<Self> {
        sys::allow_interrupts()?;
        let shared = Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            news: Condvar::new(),
            stop: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
            workers: Vec::new(),
            workers_max: limits.workers.max(1) as usize,
            depth: limits.depth.max(1) as usize,
            in_flight: 0,
        })
    }

    /// Makes sure that a queued chain finds a worker.
    fn staff(&mut self) -> io::Result<()> {
        let state = self.shared.lock();
        if state.idle > state.queue.len() || self.workers.len() >= self.workers_max {
            return Ok(());
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        let name = format!("ppu-op-{}", self.workers.len());
        self.shared.lock().running += 1;
        match std::thread::Builder::new().name(name).spawn(move || shared.work()) {
            Ok(worker) => self.workers.push(worker),
            Err(e) => {
                self.shared.lock().running -= 1;
                if self.workers.is_empty() {
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

impl Driver for Threads {
    fn submit(&mut self, mut chain: Vec<Entry>) -> Result<(), Refused> {
        if let Err(cause) = check(&mut chain, self.room()) {
            return Err(Refused { chain, cause });
        }
        let len = chain.len();
        // As the ring does: first without waiting, which saves a change of thread in the busy case.
        let attempt = match &mut chain[..] {
            [only] => try_now(&mut only.op),
            _ => Attempt::MustWait(0),
        };
        self.in_flight += len;
        match attempt {
            Attempt::Ended(result) => self.shared.end(chain, result),
            Attempt::MustWait(moved) => match self.staff() {
                Ok(()) => self.shared.start(Job { chain, moved }),
                // Too late to refuse it: it ends short.
                Err(_) if moved > 0 => self.shared.end(chain, Ok(moved)),
                Err(e) => {
                    self.in_flight -= len;
                    return Err(Refused { chain, cause: Refusal::Engine(e) });
                }
            },
        }
        Ok(())
    }

    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        let deadline = at_most.and_then(|d| Instant::now().checked_add(d));
        let mut state = self.shared.lock();
        while state.done.is_empty() && !std::mem::take(&mut state.woken) {
            state = match deadline {
                None => self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.shared.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Ok(())
    }

    fn wait_all(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.done.len() < self.in_flight {
            state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn reap(&mut self) -> Option<Done> {
        let done = self.shared.lock().done.pop_front()?;
        self.in_flight -= 1;
        Some(done)
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn room(&self) -> usize {
        self.depth - self.in_flight.min(self.depth)
    }

    fn waker(&mut self) -> io::Result<Waker> {
        Ok(Waker(WakerKind::Threads(WakeHandle(Arc::clone(&self.shared)))))
    }

    fn engine(&self) -> Engine {
        Engine::Syscall
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.lock().queue.clear();
        self.shared.work.notify_all();
        let deadline = Instant::now() + DROP_WAIT;
        let mut state = self.shared.lock();
        while state.running > 0 && Instant::now() < deadline {
            self.workers.iter().for_each(sys::interrupt);
            let waited = self.shared.news.wait_timeout(state, INTERRUPT_PAUSE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let hung = state.running;
        drop(state);
        if hung > 0 {
            tracing::error!("{hung} worker threads hang in a system call: left behind with what they hold");
            return;
        }
        for worker in self.workers.drain(..) {
            // It ran nothing but system calls: a panic there was already printed, and nothing is left to undo.
            drop(worker.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No lock is held across anything that could panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, job: Job) {
        self.lock().queue.push_back(job);
        self.work.notify_one();
    }

    /// A chain of one is over already.
    fn end(&self, mut chain: Vec<Entry>, result: io::Result<u32>) {
        if let Some(entry) = chain.pop() {
            self.done(Done { op: entry.op, token: entry.token, result });
        }
    }

    /// A worker's life.
    fn work(&self) {
        let mut state = self.lock();
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                self.run(job);
                state = self.lock();
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.running -= 1;
        self.news.notify_all();
    }

    fn run(&self, Job { chain, mut moved }: Job) {
        let mut broken = false;
        for mut entry in chain {
            let result = if broken || self.stop.load(Ordering::Relaxed) {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            } else {
                let result = entry.op.run(std::mem::take(&mut moved), &self.stop);
                let complete = result.as_ref().is_ok_and(|&n| n >= entry.op.asked());
                broken = entry.link == Link::Soft && !complete;
                result
            };
            broken &= entry.link != Link::No;
            self.done(Done { op: entry.op, token: entry.token, result });
        }
    }

    fn done(&self, done: Done) {
        self.lock().done.push_back(done);
        self.news.notify_all();
    }
}

enum Attempt {
    Ended(io::Result<u32>),
    /// A thread that may block must do the rest; so many bytes were moved already.
    MustWait(u32),
}

fn try_now(op: &mut Op) -> Attempt {
    match op.try_run(&AtomicBool::new(false)) {
        None => Attempt::MustWait(0),
        Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => Attempt::MustWait(0),
        // Short of everything: the buffer was full or empty, or the connection has ended, which the worker finds out.
        Some(Ok(n)) if 0 < n && n < op.asked() => Attempt::MustWait(n),
        Some(result) => Attempt::Ended(result),
    }
}

/// The part of a waker that belongs to this engine.
#[derive(Clone)]
pub(crate) struct WakeHandle(Arc<Shared>);

impl WakeHandle {
    pub(crate) fn wake(&self) {
        self.0.lock().woken = true;
        self.0.news.notify_all();
    }
}

impl std::fmt::Debug for WakeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WakeHandle")
    }
}
