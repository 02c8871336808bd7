//! A port that is listened on, and how many may come.

use std::future::Future;
use std::io;
use std::net::{self, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Client;

/// Out of descriptors: some will be free again soon.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Clients at the end get so long to hear the last.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("interfaces.{key} = \"{address}\": {source}{}", advice(.key, .source))]
pub struct PortError {
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

fn advice(key: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            ": another program listens there (`ss -ltnp` names it). Stop it, or change interfaces.{key}; \"off\" closes \
             this door"
        ),
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address".to_owned(),
        _ => String::new(),
    }
}

/// What a client may take and how long it may take for it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Clients of a port at a time.
    pub clients: usize,
    /// For the first request.
    pub first_request: Duration,
    /// For a further one.
    pub idle: Duration,
    /// To take what there is for it.
    pub write: Duration,
    /// Given to a client that was told that something is wrong, to hear it.
    pub farewell: Duration,
}

impl Limits {
    /// The usual ones, where the process may have `descriptors` open: a quarter of them may be a port's clients.
    pub fn new(descriptors: u64) -> Self {
        Self {
            clients: usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(16, 4096),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(5),
            farewell: Duration::from_secs(1),
        }
    }
}

/// A port.
#[derive(Debug)]
pub struct Port {
    listener: net::TcpListener,
    key: &'static str,
    limits: Limits,
}

impl Port {
    /// Listens at `address`; `key` names it in the configuration, below `interfaces`.
    ///
    /// # Errors
    /// [`PortError`].
    pub fn bind(key: &'static str, address: SocketAddr, limits: Limits) -> Result<Self, PortError> {
        let error = |source| PortError { key, address, source };
        let listener = net::TcpListener::bind(address).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        Ok(Self { listener, key, limits })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves each client by a task of its own, which gets what is `shared`, until `stop`; then they may come to their end, for a moment.
    pub async fn serve<S, F>(
        self,
        shared: S,
        converse: impl Fn(Client, S) -> F + Send + Sync + 'static,
        mut stop: oneshot::Receiver<()>,
    ) where
        S: Clone,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, key, limits } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("interfaces.{key}: poll: {error}: nobody is served there"),
        };
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                // Who has left no longer counts when the next one comes.
                Some(left) = clients.join_next() => if let Err(error) = left {
                    tracing::error!("interfaces.{key}: {error}");
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match Client::new(stream, peer, key, limits) {
                        Ok(client) if clients.len() >= limits.clients => client.turn_away(),
                        Ok(client) => drop(clients.spawn(converse(client, shared.clone()))),
                        // It left at once.
                        Err(error) => tracing::debug!(%peer, "interfaces.{key}: {error}"),
                    },
                    Err(error) => {
                        tracing::warn!("interfaces.{key}: accept: {error}");
                        sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        }
        drop(listener);
        let _ = timeout(LAST_WAIT, async { while clients.join_next().await.is_some() {} }).await;
    }
}
