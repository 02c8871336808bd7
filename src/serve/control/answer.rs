//! An answer in the making: handed to whoever knows it, on whichever thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::{Peer, Response};

/// Lines that wait for a client; one that lets more come together is dropped.
const LINES_MAX: usize = 64;

/// Where a request's answer goes: any number of lines by [`say`](Self::say) or [`wait_and_say`](Self::wait_and_say), and
/// the last one by [`send`](Self::send). Dropped without that, the client hears that the daemon is stopping.
#[derive(Debug)]
pub struct Answer {
    peer: Peer,
    file: Option<OwnedFd>,
    lines: mpsc::Sender<Response>,
    last: oneshot::Sender<Response>,
    too_slow: Arc<AtomicBool>,
}

/// What the connection's task sees of it.
pub(super) struct Saying {
    /// All but the last one.
    pub(super) lines: mpsc::Receiver<Response>,
    pub(super) last: oneshot::Receiver<Response>,
    pub(super) too_slow: Arc<AtomicBool>,
}

impl Answer {
    pub(super) fn new(peer: Peer, file: Option<OwnedFd>) -> (Self, Saying) {
        let (lines, lines_said) = mpsc::channel(LINES_MAX);
        let (last, last_said) = oneshot::channel();
        let too_slow = Arc::new(AtomicBool::new(false));
        let saying = Saying { lines: lines_said, last: last_said, too_slow: Arc::clone(&too_slow) };
        (Self { peer, file, lines, last, too_slow }, saying)
    }

    /// Who asks.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The descriptor that came with the request.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }

    /// A line before the last one. Never waits: `false` if the client is gone, or has let too many lines come together. It is
    /// cut off then; go on with something else.
    #[must_use]
    pub fn say(&self, response: Response) -> bool {
        match self.lines.try_send(response) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.too_slow.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    /// As [`say`](Self::say), but waits for a client that is slow: some seconds at most, then it is dropped. For a thread
    /// that works for this client alone; panics on a thread that runs the control plane.
    #[must_use]
    pub fn wait_and_say(&self, response: Response) -> bool {
        self.lines.blocking_send(response).is_ok()
    }

    /// Whether nobody listens any more.
    pub fn is_abandoned(&self) -> bool {
        self.last.is_closed()
    }

    /// The last line.
    ///
    /// # Errors
    /// Gives it back where nobody listens any more.
    pub fn send(self, response: Response) -> Result<(), Response> {
        self.last.send(response)
    }
}
