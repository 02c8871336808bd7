//! The ports for programs: on a thread of their own, so that whoever asks much takes nothing from the sessions with the detectors.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ppu_config::Interfaces;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::hub::Input;
use crate::serve::ports::messages::Subjects;
use crate::serve::ports::{Limits, Port, PortError, messages, status};

/// Ports that are listened on.
pub(super) struct Ports {
    status: Option<Port>,
    messages: Option<Port>,
}

/// Ports that are served.
pub(super) struct Served {
    stops: Vec<oneshot::Sender<()>>,
    thread: JoinHandle<()>,
}

/// Listens at the configured ports.
pub(super) fn bind(config: &Interfaces) -> Result<Ports, PortError> {
    let limits = Limits::new(raise_descriptor_limit());
    let bind = |key, address: Option<_>| address.map(|address| Port::bind(key, address, limits)).transpose();
    Ok(Ports { status: bind("status", config.status)?, messages: bind("messages", config.messages)? })
}

impl Ports {
    /// Starts their thread. Subscribers hear the last word of `subjects`, which must end before [`Served::stop`] is called. At most
    /// `history` shifts are told of.
    pub(super) fn start(
        self,
        inputs: Sender<Input>,
        subjects: Subjects,
        history: usize,
    ) -> io::Result<Served> {
        let ask = move |reply: oneshot::Sender<_>| {
            // Who has lost patience is not there any more; a ledger that has ended drops the question.
            let _ = inputs.send(Input::Status(Box::new(move |report| drop(reply.send(report)))));
        };
        let mut stops = Vec::new();
        let mut stop = || {
            let (stop, stopped) = oneshot::channel();
            stops.push(stop);
            stopped
        };
        let mut serving: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        if let Some(port) = self.status {
            serving.push(Box::pin(status::serve(port, Box::new(ask), history, stop())));
        }
        if let Some(port) = self.messages {
            let (messages, relay_messages) = subjects.messages.relayed();
            let (events, relay_events) = subjects.events.relayed();
            serving.push(Box::pin(relay_messages));
            serving.push(Box::pin(relay_events));
            let subjects = Subjects { messages, events, ..subjects };
            serving.push(Box::pin(messages::serve(port, subjects, stop())));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("ports".into()).spawn(move || {
            runtime.block_on(async {
                let mut ports = JoinSet::new();
                serving.into_iter().for_each(|serving| drop(ports.spawn(serving)));
                while ports.join_next().await.is_some() {}
            });
            // A question to a journal whose disk hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Served { stops, thread })
    }
}

impl Served {
    /// Within a second.
    pub(super) fn stop(self) {
        drop(self.stops);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the ports has panicked");
        }
    }
}

/// Every client costs a descriptor, and the usual limit of 1,024 is there for programs that use select(2). Returns what is allowed now.
fn raise_descriptor_limit() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!("cannot ask how many files may be open: {error}");
            return 1024;
        }
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
            soft
        }
    }
}
