//! The io_uring engine.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};

use crate::driver::{Done, Driver, Entry, Link, Refusal, Refused, Waker, WakerKind, check};
use crate::engine::{DEPTH_MAX, Engine, EngineError, Limits};
use crate::ops::Op;
use crate::probe;

/// How long a drop waits for operations that cannot be cancelled; then it leaks them.
const DROP_WAIT: Duration = Duration::from_secs(5);
/// Pause between two rounds of cancelling: a hard link starts its next operation after each.
const CANCEL_PAUSE: Duration = Duration::from_millis(10);
/// How often the kernel may say that it has no memory for a request before we believe it, and the pause between.
const SUBMIT_TRIES: u32 = 200;
const SUBMIT_PAUSE: Duration = Duration::from_millis(5);

/// Longest wait of a ring that nobody can wake.
const BROKEN_WAIT: Duration = Duration::from_millis(100);

/// `user_data` of what does not come from a chain; slots are numbered from 0 up.
const WAKE: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// A [`Driver`] over one ring. Not `Send`: the kernel is told that one thread submits.
pub struct Ring {
    // Dropped only when the kernel has given every slot back, see `drop`.
    ring: mem::ManuallyDrop<IoUring>,
    slots: mem::ManuallyDrop<Slots>,
    done: VecDeque<Done>,
    depth: usize,
    waker: Option<WakeFd>,
    woken: bool,
    /// The kernel took only a part of a chain. What is left in the submission queue must never reach it: it would run out of turn.
    broken: bool,
    _one_thread: PhantomData<*mut ()>,
}

struct WakeFd {
    fd: Arc<OwnedFd>,
    /// A poll for it is in the ring.
    armed: bool,
}

impl Ring {
    /// A ring of its own for this thread.
    ///
    /// # Errors
    /// [`EngineError`] names cause and cure.
    pub fn new(limits: Limits) -> Result<Self, EngineError> {
        let depth = limits.depth.clamp(1, DEPTH_MAX);
        let ring = build(depth)?;
        probe::check(&ring)?;
        // Bounded (files) and unbounded (sockets, pipes) workers are capped apart. Best effort: Linux 5.15.
        let _ = ring.submitter().register_iowq_max_workers(&mut [limits.workers.max(1); 2]);
        Ok(Self {
            ring: mem::ManuallyDrop::new(ring),
            slots: mem::ManuallyDrop::new(Slots::new(depth as usize)),
            done: VecDeque::new(),
            depth: depth as usize,
            waker: None,
            woken: false,
            broken: false,
            _one_thread: PhantomData,
        })
    }

    /// Hands `entries` to the kernel, all in one call: a chain that is split over two calls becomes two chains.
    fn enter_chain(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: what the entries point to is owned by slots, which live until the kernel has completed them.
        if unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            // Cannot happen: the queue is empty between calls and as long as `depth`.
            return Err(io::Error::from_raw_os_error(libc::EXFULL));
        }
        let mut tries = 0;
        loop {
            match self.enter(entries.len() as u32, 0, None) {
                Ok(n) if n == entries.len() => return Ok(()),
                Ok(_) => return Err(io::Error::from_raw_os_error(libc::ENOMEM)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN))
                        && tries < SUBMIT_TRIES =>
                {
                    // The completion queue has overflowed, or no memory: make room, then again.
                    tries += 1;
                    self.harvest();
                    self.enter_and_wait(SUBMIT_PAUSE)?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn enter_and_wait(&mut self, at_most: Duration) -> io::Result<()> {
        match self.enter(0, 1, Some(at_most)) {
            Ok(_) => Ok(()),
            Err(e) if is_a_wait_that_ended(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn enter(&self, to_submit: u32, want: u32, at_most: Option<Duration>) -> io::Result<usize> {
        let submitter = self.ring.submitter();
        let flags = if want > 0 { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        match at_most {
            // SAFETY: no argument; queued entries point to what slots own.
            None => unsafe { submitter.enter::<libc::sigset_t>(to_submit, want, flags.bits(), None) },
            Some(at_most) => {
                let timeout = types::Timespec::from(at_most);
                let args = types::SubmitArgs::new().timespec(&timeout);
                // SAFETY: EXT_ARG announces the argument's type; it lives until the call returns.
                unsafe { submitter.enter(to_submit, want, (flags | EnterFlags::EXT_ARG).bits(), Some(&args)) }
            }
        }
    }

    /// Moves completions out of the ring.
    fn harvest(&mut self) {
        for cqe in self.ring.completion() {
            match cqe.user_data() {
                WAKE => {
                    if let Some(waker) = &mut self.waker {
                        waker.armed = false;
                        // Back to zero; nothing to read (EAGAIN) is as good.
                        let _ = rustix::io::read(&waker.fd, &mut [0; 8]);
                        self.woken = true;
                    }
                }
                CANCEL => {}
                slot => {
                    if let Some((op, token)) = self.slots.take(slot) {
                        self.done.push_back(Done { op, token, result: to_result(cqe.result()) });
                    }
                }
            }
        }
    }

    fn arm_waker(&mut self) -> io::Result<()> {
        let Some(waker) = self.waker.as_ref().filter(|w| !w.armed && !self.broken) else { return Ok(()) };
        let poll = opcode::PollAdd::new(types::Fd(waker.fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.enter_chain(&[poll.user_data(WAKE)])?;
        if let Some(waker) = &mut self.waker {
            waker.armed = true;
        }
        Ok(())
    }

    /// Cancels and reaps until the kernel holds nothing of ours; whether that came about.
    fn quiesce(&mut self) -> bool {
        let deadline = Instant::now() + DROP_WAIT;
        loop {
            self.harvest();
            if self.slots.used() == 0 {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let cancels: Vec<_> = self
                .slots
                .indexes()
                .map(|slot| opcode::AsyncCancel::new(slot).build().user_data(CANCEL))
                .collect();
            // In the broken state nothing more can be submitted: only wait.
            if !self.broken && self.enter_chain(&cancels).is_err() {
                self.broken = true;
            }
            if self.enter_and_wait(CANCEL_PAUSE).is_err() {
                return false;
            }
        }
    }
}

impl Driver for Ring {
    fn submit(&mut self, mut chain: Vec<Entry>) -> Result<(), Refused> {
        if self.broken {
            let cause = Refusal::Engine(io::Error::other("the kernel took only a part of an earlier chain"));
            return Err(Refused { chain, cause });
        }
        if let Err(cause) = check(&mut chain, self.room()) {
            return Err(Refused { chain, cause });
        }
        let last = chain.len() - 1;
        let mut entries = Vec::with_capacity(chain.len());
        let mut slots = Vec::with_capacity(chain.len());
        for (i, entry) in chain.into_iter().enumerate() {
            let flags = match entry.link {
                _ if i == last => squeue::Flags::empty(),
                Link::No => squeue::Flags::empty(),
                Link::Soft => squeue::Flags::IO_LINK,
                Link::Hard => squeue::Flags::IO_HARDLINK,
            };
            let (slot, encoded) = self.slots.put(entry.op, entry.token);
            entries.push(encoded.flags(flags).user_data(slot));
            slots.push(slot);
        }
        if let Err(e) = self.enter_chain(&entries) {
            // How much the kernel took is what is gone from the queue; the rest will never be started.
            self.broken = true;
            let left = self.ring.submission().len().min(slots.len());
            tracing::error!("io_uring_enter took {} of {} operations: {e}", slots.len() - left, slots.len());
            for &slot in &slots[slots.len() - left..] {
                if let Some((op, token)) = self.slots.take(slot) {
                    let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                    self.done.push_back(Done { op, token, result });
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        // A broken ring cannot hear its waker any more.
        let at_most =
            if self.broken { Some(at_most.unwrap_or(BROKEN_WAIT).min(BROKEN_WAIT)) } else { at_most };
        let deadline = at_most.and_then(|d| Instant::now().checked_add(d));
        loop {
            self.harvest();
            if mem::take(&mut self.woken) || !self.done.is_empty() {
                return Ok(());
            }
            self.arm_waker()?;
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            match self.enter(0, 1, left) {
                Err(e) if e.raw_os_error() == Some(libc::ETIME) => return Ok(()),
                Err(e) if !is_a_wait_that_ended(&e) => return Err(e),
                _ => {}
            }
        }
    }

    fn wait_all(&mut self) -> io::Result<()> {
        loop {
            self.harvest();
            let missing = self.slots.used() as u32;
            if missing == 0 {
                return Ok(());
            }
            // One change of thread for a whole chain, instead of one for each of its operations.
            match self.enter(0, missing, None) {
                Err(e) if !is_a_wait_that_ended(&e) => return Err(e),
                _ => {}
            }
        }
    }

    fn reap(&mut self) -> Option<Done> {
        if self.done.is_empty() {
            self.harvest();
        }
        self.done.pop_front()
    }

    fn in_flight(&self) -> usize {
        self.slots.used() + self.done.len()
    }

    fn room(&self) -> usize {
        if self.broken { 0 } else { self.depth - self.in_flight().min(self.depth) }
    }

    fn waker(&mut self) -> io::Result<Waker> {
        let fd = match &self.waker {
            Some(waker) => Arc::clone(&waker.fd),
            None => {
                let fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
                self.waker = Some(WakeFd { fd: Arc::clone(&fd), armed: false });
                fd
            }
        };
        Ok(Waker(WakerKind::EventFd(fd)))
    }

    fn engine(&self) -> Engine {
        Engine::Uring
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.quiesce() {
            // SAFETY: neither is used again; the kernel holds nothing that the slots own.
            unsafe {
                mem::ManuallyDrop::drop(&mut self.ring);
                mem::ManuallyDrop::drop(&mut self.slots);
            }
        } else {
            // The kernel may still read and write what the slots own: neither it nor the ring is ever freed.
            tracing::error!(
                "{} operations cannot be cancelled: their memory is left to the kernel",
                self.slots.used()
            );
        }
    }
}

/// What the kernel holds of ours: operations in flight, by number. Never moved out of before their completion.
struct Slots {
    ops: Vec<Option<(Box<Op>, u64)>>,
    free: Vec<u32>,
}

impl Slots {
    fn new(depth: usize) -> Self {
        Self { ops: (0..depth).map(|_| None).collect(), free: (0..depth as u32).rev().collect() }
    }

    /// The caller has seen that there is room.
    fn put(&mut self, op: Op, token: u64) -> (u64, squeue::Entry) {
        let mut op = Box::new(op);
        let encoded = op.encode();
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                self.ops.push(None);
                self.ops.len() - 1
            }
        };
        self.ops[slot] = Some((op, token));
        (slot as u64, encoded)
    }

    fn take(&mut self, slot: u64) -> Option<(Op, u64)> {
        let (op, token) = self.ops.get_mut(usize::try_from(slot).ok()?)?.take()?;
        self.free.push(slot as u32);
        Some((*op, token))
    }

    fn used(&self) -> usize {
        self.ops.len() - self.free.len()
    }

    fn indexes(&self) -> impl Iterator<Item = u64> {
        self.ops.iter().enumerate().filter(|(_, op)| op.is_some()).map(|(slot, _)| slot as u64)
    }
}

/// SINGLE_ISSUER (6.0) spares a lock, COOP_TASKRUN (5.19) interrupts, SUBMIT_ALL (5.18) keeps a chain together when one entry of it
/// is refused. DEFER_TASKRUN is not wanted: with it every step of a chain that runs on the kernel's workers waits for this thread to
/// enter the kernel, and this thread is busy hashing.
fn build(entries: u32) -> Result<IoUring, EngineError> {
    let best =
        IoUring::builder().setup_single_issuer().setup_coop_taskrun().setup_submit_all().build(entries);
    match best {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        result => result,
    }
    .map_err(probe::explain)
}

fn to_result(res: i32) -> io::Result<u32> {
    match u32::try_from(res) {
        Ok(n) => Ok(n),
        // ERESTARTSYS and its kind, which the kernel keeps from plain system calls: an interrupted wait.
        Err(_) if (-516..=-512).contains(&res) => Err(io::Error::from_raw_os_error(libc::EINTR)),
        Err(_) => Err(io::Error::from_raw_os_error(-res)),
    }
}

fn is_a_wait_that_ended(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
