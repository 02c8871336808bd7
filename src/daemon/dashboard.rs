//! HTTP: on a thread of its own, so that whoever looks on takes nothing from the sessions with the detectors.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ppu_config::Interfaces;
use tokio::sync::oneshot;

use super::hub::Input;
use crate::host::inbox::Sender;
use crate::serve::http::{HttpError, HttpServer};

/// An address that is listened on, if any.
pub(super) struct Dashboard(Option<HttpServer>);

/// A dashboard that is served, if any.
pub(super) struct Served(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Dashboard {
    /// Listens as configured. So many `descriptors` are allowed to this process.
    pub(super) fn bind(config: &Interfaces, descriptors: u64) -> Result<Self, HttpError> {
        config.http.map(|address| HttpServer::bind(address, descriptors)).transpose().map(Self)
    }

    /// Starts its thread.
    pub(super) fn start(self, inputs: Sender<Input>) -> io::Result<Served> {
        let Some(server) = self.0 else { return Ok(Served(None)) };
        let observe = move |after, reply| drop(inputs.send(Input::Observe(after, reply)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async {
            tokio::select! {
                served = server.serve(Arc::new(observe)) => {
                    // Landing and storing go on.
                    if let Err(error) = served {
                        tracing::error!("{error}");
                    }
                }
                _ = stopped => {}
            }
        };
        let thread = thread::Builder::new().name("http".into()).spawn(move || runtime.block_on(serve))?;
        Ok(Served(Some((stop, thread))))
    }
}

impl Served {
    /// At once: nobody is waited for.
    pub(super) fn stop(self) {
        if let Some((stop, thread)) = self.0 {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("the thread of the dashboard has panicked");
            }
        }
    }
}
