//! A driver that does one thing wrong, for tests: the Nth operation fails, is short, is cancelled or is late.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::driver::{Done, Driver, Entry, Link, Refused, Waker, check};
use crate::engine::Engine;
use crate::ops::Op;

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not done at all; ends with this errno.
    Error(i32),
    /// Really done, but only for half of the bytes. (One byte, or a sync, cannot be short.)
    Short,
    /// Not done at all; ends with ECANCELED.
    Cancelled,
    /// Done, but its end becomes known only after this time.
    Late(Duration),
}

/// Wraps a driver and applies one fault to the Nth operation that is submitted; what depends on that operation behaves as its link
/// says. Deterministic: no randomness, and the count is that of submission.
pub struct Faulty {
    inner: Box<dyn Driver>,
    fault: Fault,
    nth: u64,
    seen: Arc<AtomicU64>,
    /// The chain that holds the Nth operation, while it is under way.
    split: Option<Split>,
    /// Users' tokens of what is in `inner`, by our token.
    tokens: Vec<Option<Ticket>>,
    done: VecDeque<Done>,
    late: Option<(Instant, Done)>,
}

/// An operation in the inner driver.
struct Ticket {
    token: u64,
    /// Of the chain that holds the Nth operation, and before it or itself.
    split: Option<Link>,
    /// What the operation was before it was shortened.
    whole: Option<Whole>,
}

/// The rest of the chain that holds the Nth operation.
struct Split {
    /// What is in the inner driver of it.
    running: usize,
    /// A soft link was broken.
    broken: bool,
    victim: Option<Entry>,
    rest: Vec<Entry>,
}

impl Faulty {
    /// The operation number `nth` (the first is 0) gets `fault`. With `u64::MAX`, only counts.
    pub fn new(inner: Box<dyn Driver>, nth: u64, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            nth,
            seen: Arc::default(),
            split: None,
            tokens: Vec::new(),
            done: VecDeque::new(),
            late: None,
        }
    }

    /// How many operations were submitted so far; can be kept after the driver is gone.
    pub fn seen(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.seen)
    }

    fn held(&self) -> usize {
        self.split.as_ref().map_or(0, |s| s.rest.len() + usize::from(s.victim.is_some()))
    }

    fn pass(&mut self, chain: Vec<Entry>, split: bool, whole: Option<Whole>) -> Result<(), Refused> {
        let mut whole = whole;
        let mut ours = Vec::with_capacity(chain.len());
        let chain = chain.into_iter().map(|mut entry| {
            let ticket =
                Ticket { token: entry.token, split: split.then_some(entry.link), whole: whole.take() };
            let free = self.tokens.iter().position(Option::is_none).unwrap_or_else(|| {
                self.tokens.push(None);
                self.tokens.len() - 1
            });
            self.tokens[free] = Some(ticket);
            ours.push(free);
            entry.token = free as u64;
            entry
        });
        let chain = chain.collect();
        self.inner.submit(chain).map_err(|mut refused| {
            for (entry, our) in refused.chain.iter_mut().zip(ours) {
                if let Some(ticket) = self.tokens[our].take() {
                    entry.token = ticket.token;
                }
            }
            refused
        })
    }

    /// Takes what has completed below, and goes on with the chain that holds the Nth operation.
    fn harvest(&mut self) {
        while let Some(mut done) = self.inner.reap() {
            let Some(ticket) = self.tokens.get_mut(done.token as usize).and_then(Option::take) else {
                continue;
            };
            done.token = ticket.token;
            if let Some(whole) = ticket.whole {
                whole.restore(&mut done.op);
            }
            let Some((link, split)) = ticket.split.zip(self.split.as_mut()) else {
                self.done.push_back(done);
                continue;
            };
            split.running -= 1;
            split.broken |= link == Link::Soft && !complete(&done);
            let was_victim = split.victim.is_none();
            match self.fault {
                Fault::Late(late) if was_victim => self.late = Some((Instant::now() + late, done)),
                _ => self.done.push_back(done),
            }
            self.advance();
        }
        if self.late.as_ref().is_some_and(|(due, _)| *due <= Instant::now()) {
            self.done.extend(self.late.take().map(|(_, done)| done));
            self.advance();
        }
    }

    /// The next step of the split chain, if nothing of it is under way.
    fn advance(&mut self) {
        let Some(split) = self.split.as_mut().filter(|s| s.running == 0) else { return };
        if self.late.is_some() {
            return;
        }
        if let Some(mut victim) = split.victim.take() {
            let errno = match self.fault {
                _ if split.broken => Some(libc::ECANCELED),
                Fault::Error(errno) => Some(errno),
                Fault::Cancelled => Some(libc::ECANCELED),
                Fault::Short | Fault::Late(_) => None,
            };
            match errno {
                Some(errno) => {
                    split.broken = (split.broken && victim.link != Link::No) || victim.link == Link::Soft;
                    self.fail(victim, errno);
                }
                None => {
                    split.running = 1;
                    let whole =
                        (self.fault == Fault::Short).then(|| Whole::shorten(&mut victim.op)).flatten();
                    return self.pass_on(vec![victim], true, whole);
                }
            }
        }
        let Some(split) = self.split.take() else { return };
        let mut broken = split.broken;
        let mut rest = split.rest.into_iter();
        while broken {
            let Some(entry) = rest.next() else { return };
            broken = entry.link != Link::No;
            self.fail(entry, libc::ECANCELED);
        }
        let rest: Vec<_> = rest.collect();
        if !rest.is_empty() {
            self.pass_on(rest, false, None);
        }
    }

    /// There is room, since it was counted when the chain came; should the engine fail nevertheless, the operations fail.
    fn pass_on(&mut self, chain: Vec<Entry>, split: bool, whole: Option<Whole>) {
        if let Err(refused) = self.pass(chain, split, whole) {
            refused.chain.into_iter().for_each(|entry| self.fail(entry, libc::EIO));
        }
    }

    fn fail(&mut self, entry: Entry, errno: i32) {
        let result = Err(io::Error::from_raw_os_error(errno));
        self.done.push_back(Done { op: entry.op, token: entry.token, result });
    }
}

fn complete(done: &Done) -> bool {
    done.result.as_ref().is_ok_and(|&n| n >= done.op.asked())
}

impl Driver for Faulty {
    fn submit(&mut self, mut chain: Vec<Entry>) -> Result<(), Refused> {
        if let Err(cause) = check(&mut chain, self.room()) {
            return Err(Refused { chain, cause });
        }
        let len = chain.len() as u64;
        let first = self.seen.load(Ordering::Relaxed);
        if !(first..first + len).contains(&self.nth) {
            self.pass(chain, false, None)?;
        } else {
            let mut from_victim = chain.split_off((self.nth - first) as usize);
            let rest = from_victim.split_off(1);
            let split = Split { running: chain.len(), broken: false, victim: from_victim.pop(), rest };
            self.split = Some(split);
            if chain.is_empty() { self.advance() } else { self.pass_on(chain, true, None) }
        }
        self.seen.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        self.harvest();
        if !self.done.is_empty() {
            return Ok(());
        }
        let late = self.late.as_ref().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let at_most = [at_most, late].into_iter().flatten().min();
        self.inner.wait(at_most)
    }

    fn wait_all(&mut self) -> io::Result<()> {
        loop {
            self.harvest();
            match &self.late {
                Some((due, _)) => self.inner.wait(Some(due.saturating_duration_since(Instant::now())))?,
                None if self.inner.in_flight() + self.held() == 0 => return Ok(()),
                None => self.inner.wait(None)?,
            }
        }
    }

    fn reap(&mut self) -> Option<Done> {
        self.harvest();
        self.done.pop_front()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.done.len() + self.held() + usize::from(self.late.is_some())
    }

    fn room(&self) -> usize {
        self.inner.room().saturating_sub(self.done.len() + self.held() + usize::from(self.late.is_some()))
    }

    fn waker(&mut self) -> io::Result<Waker> {
        self.inner.waker()
    }

    fn engine(&self) -> Engine {
        self.inner.engine()
    }
}

/// What a shortened operation was.
enum Whole {
    Len(u32),
    RangeEnd(usize),
}

impl Whole {
    fn shorten(op: &mut Op) -> Option<Self> {
        if op.asked() < 2 {
            return None;
        }
        let half = |range: &mut std::ops::Range<usize>| {
            let end = range.end;
            range.end -= range.len() / 2;
            Some(Self::RangeEnd(end))
        };
        match op {
            Op::Splice(op) => {
                let len = op.len;
                op.len /= 2;
                Some(Self::Len(len))
            }
            Op::Send(op) => half(&mut op.range),
            Op::Recv(op) => half(&mut op.range),
            Op::Write(op) => half(&mut op.range),
            Op::Read(op) => half(&mut op.range),
            Op::Sync(_) => None,
        }
    }

    fn restore(self, op: &mut Op) {
        match (self, op) {
            (Self::Len(len), Op::Splice(op)) => op.len = len,
            (Self::RangeEnd(end), Op::Send(op)) => op.range.end = end,
            (Self::RangeEnd(end), Op::Recv(op)) => op.range.end = end,
            (Self::RangeEnd(end), Op::Write(op)) => op.range.end = end,
            (Self::RangeEnd(end), Op::Read(op)) => op.range.end = end,
            _ => {}
        }
    }
}
