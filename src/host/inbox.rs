//! A channel between threads of which some run in real time.
//!
//! Those of the standard library wait for a sender that was interrupted in the middle by giving up the processor again and again
//! (`sched_yield`). A thread in real time that does so never lets the interrupted one run on the same processor, until the kernel stops it
//! after 0.95 s (`sched_rt_runtime_us`). Here everybody who waits sleeps.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For any number of threads.
pub struct Sender<T>(Arc<Shared<T>>);

/// For one thread.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Nobody will ever receive it.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

struct Shared<T> {
    state: Mutex<State<T>>,
    news: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    received: bool,
}

/// Holds whatever is sent, until it is received.
pub fn inbox<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, received: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), news: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Behind all that was sent before.
    ///
    /// # Errors
    /// [`Closed`], with what was to be sent.
    pub fn send(&self, message: T) -> Result<(), Closed<T>> {
        let mut state = self.0.lock();
        if !state.received {
            return Err(Closed(message));
        }
        state.queue.push_back(message);
        drop(state);
        self.0.news.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.news.notify_one();
    }
}

impl<T> Receiver<T> {
    /// The oldest message, waiting for one at most so long.
    ///
    /// # Errors
    /// As [`std::sync::mpsc::Receiver::recv_timeout`].
    pub fn recv_timeout(&self, at_most: Duration) -> Result<T, RecvTimeoutError> {
        let deadline = Instant::now() + at_most;
        let mut state = self.0.lock();
        loop {
            if let Some(message) = state.queue.pop_front() {
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecvTimeoutError::Timeout);
            }
            state = self.0.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest message, if there is one now.
    ///
    /// # Errors
    /// As [`std::sync::mpsc::Receiver::try_recv`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match state.queue.pop_front() {
            Some(message) => Ok(message),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.received = false;
        let rest = std::mem::take(&mut state.queue);
        // What is dropped with it may send something.
        drop(state);
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn in_order_until_the_last_sender_has_gone() {
        let (sender, receiver) = inbox();
        let other = sender.clone();
        sender.send(1).unwrap();
        other.send(2).unwrap();
        drop(sender);
        assert_eq!((receiver.try_recv(), receiver.recv_timeout(LONG)), (Ok(1), Ok(2)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        drop(other);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn who_waits_is_woken_by_a_message_and_by_the_end() {
        let (sender, receiver) = inbox();
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || (receiver.recv_timeout(LONG), receiver.recv_timeout(LONG)));
            sender.send("message").unwrap();
            drop(sender);
            assert_eq!(waits.join().unwrap(), (Ok("message"), Err(RecvTimeoutError::Disconnected)));
        });
    }

    #[test]
    fn nothing_is_sent_to_nobody() {
        let (sender, receiver) = inbox();
        let held = Arc::new(());
        sender.send(Arc::clone(&held)).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&held), 1, "what waited is gone");
        assert_eq!(sender.send(held), Err(Closed(Arc::new(()))));
    }
}
