//! The wants of one session, shared by its data connections.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::send::SendJob;

/// A queue that each of a session's streams takes from. As long as the PPU's open wants at most.
#[derive(Default)]
pub struct Jobs {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<SendJob>,
    closed: bool,
}

/// What [`Jobs::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// To be sent.
    Job(SendJob),
    /// Nothing came in the given time.
    Nothing,
    /// The session has ended: jobs that were not taken end with it.
    Closed,
}

impl Jobs {
    /// Queues a job behind the others.
    pub fn push(&self, job: SendJob) {
        self.lock().queue.push_back(job);
        self.news.notify_one();
    }

    /// Ends the session for every stream.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// The oldest job, waiting for one at most so long.
    pub fn next(&self, at_most: Duration) -> Next {
        let deadline = Instant::now() + at_most;
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::Closed;
            }
            if let Some(job) = state.queue.pop_front() {
                return Next::Job(job);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            state = self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest job, if it is there now and suits.
    pub fn next_if(&self, suits: impl FnOnce(&SendJob) -> bool) -> Option<SendJob> {
        let mut state = self.lock();
        let suits = !state.closed && state.queue.front().is_some_and(suits);
        if suits { state.queue.pop_front() } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::{Identity, TransferId};
    use crate::model::path::RelPath;

    fn job(n: u64) -> SendJob {
        let identity = Identity { size: n, mtime_ns: 0, ino: 0, ctime_ns: 0 };
        SendJob { transfer: TransferId(n), path: RelPath::new(b"x").unwrap(), identity, known_hash: None }
    }

    #[test]
    fn in_order_and_only_what_suits() {
        let jobs = Jobs::default();
        assert_eq!(jobs.next(Duration::ZERO), Next::Nothing);
        (1..=3).for_each(|n| jobs.push(job(n)));
        assert_eq!(jobs.next(Duration::ZERO), Next::Job(job(1)));
        assert_eq!(jobs.next_if(|job| job.identity.size > 2), None);
        assert_eq!(jobs.next_if(|job| job.identity.size == 2), Some(job(2)));
        jobs.close();
        assert_eq!(jobs.next_if(|_| true), None);
        assert_eq!(jobs.next(Duration::ZERO), Next::Closed);
    }

    #[test]
    fn waiting_streams_wake_up() {
        let jobs = Jobs::default();
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..3).map(|_| scope.spawn(|| jobs.next(Duration::from_secs(20)))).collect();
            jobs.push(job(7));
            jobs.close();
            let ends: Vec<_> = waiting.into_iter().map(|w| w.join().unwrap()).collect();
            assert!(ends.iter().all(|end| *end != Next::Nothing), "{ends:?}");
        });
    }
}
