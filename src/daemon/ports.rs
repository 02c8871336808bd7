//! The ports for programs: on a thread of their own, so that whoever asks much takes nothing from the sessions with the detectors.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::{self, JoinHandle};

use ppu_config::Interfaces;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::hub::Input;
use crate::host::inbox::Sender;
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

/// Listens at the configured ports. So many `descriptors` are allowed to this process.
pub(super) fn bind(config: &Interfaces, descriptors: u64) -> Result<Ports, PortError> {
    let limits = Limits::new(descriptors);
    let bind = |key, address: Option<_>| address.map(|address| Port::bind(key, address, limits)).transpose();
    Ok(Ports { status: bind("status", config.status)?, messages: bind("messages", config.messages)? })
}

impl Ports {
    /// Starts their thread. Subscribers hear the last word of `subjects`, which must end before [`Served::stop`] is called.
    pub(super) fn start(self, inputs: Sender<Input>, subjects: Subjects) -> io::Result<Served> {
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
            serving.push(Box::pin(status::serve(port, Box::new(ask), stop())));
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
