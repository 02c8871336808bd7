//! The detector's role: start order, wiring, shutdown order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ppu_config::Detector;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::engine::{self, EngineChoice};
use super::lock::{LockError, StateLock};
use super::{key, runtime, signals};
use crate::model::catalog::{Catalog, Event};
use crate::model::offer::Heartbeat;
use crate::rooted::{Root, RootError};
use crate::send::listen::{self, Door};
use crate::send::session::{Desk, StartStream};
use crate::send::stream;
use crate::watch as watching;
use crate::wire::handshake::Key;

/// How long the end waits for sessions.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Events taken from the watch in one go, so that sessions get their turn.
const BATCH_EVENTS: usize = 1024;

/// Why the daemon does not start; one line for people.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// A second daemon, or no state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The ramdisk.
    #[error("ramdisk: {0}")]
    Ramdisk(#[from] RootError),
    /// Neither engine.
    #[error(transparent)]
    Engine(#[from] ppu_uring::EngineError),
    /// The ramdisk cannot be watched.
    #[error("{path}: {source}", path = .path.display())]
    Watch {
        /// The ramdisk.
        path: PathBuf,
        /// Why not.
        source: watching::WatchError,
    },
    /// The port.
    #[error("listen = {address}: {source}{}", in_use(.source))]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn in_use(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": the port is in use; does another daemon run? (ss -ltnp)",
        _ => "",
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`DetectorError`]: nothing was started.
pub fn run(config: Detector) -> Result<(), DetectorError> {
    signals::ignore_lease_and_pipe();
    let _lock = StateLock::take(&config.state_dir)?;
    let key = key::load(config.key_file.as_deref())?;
    let engine = engine::choose(config.engine)?;
    let listener = std::net::TcpListener::bind(config.listen)
        .map_err(|source| DetectorError::Listen { address: config.listen, source })?;
    let ramdisk = Arc::new(Root::open(&config.ramdisk)?);
    let (events, seen) = mpsc::unbounded_channel();
    let watch = watching::start(&config, events)
        .map_err(|source| DetectorError::Watch { path: config.ramdisk.clone(), source })?;
    tracing::info!(listen = %config.listen, engine = %engine.engine(), "ppu-uringd detector is running");
    let served = runtime::block_on(engine.engine(), serve(&config, key, engine, listener, ramdisk, &watch, seen));
    watch.stop();
    served.map_err(|source| DetectorError::Io { operation: "run the control plane", source })?
}

async fn serve(
    config: &Detector,
    key: Key,
    engine: EngineChoice,
    listener: std::net::TcpListener,
    ramdisk: Arc<Root>,
    watch: &watching::Watch,
    seen: mpsc::UnboundedReceiver<Event>,
) -> Result<(), DetectorError> {
    let io = |operation| move |source| DetectorError::Io { operation, source };
    listener.set_nonblocking(true).map_err(io("listen"))?;
    let listener = TcpListener::from_std(listener).map_err(io("listen"))?;
    let skipped = watch.skipped();
    let vitals_of = Arc::clone(&ramdisk);
    let vitals = move || {
        let space = vitals_of.space().ok();
        Heartbeat {
            skipped: skipped.load(std::sync::atomic::Ordering::Relaxed),
            ramdisk_total: space.as_ref().map_or(0, |space| space.bytes_total),
            ramdisk_free: space.as_ref().map_or(0, |space| space.bytes_free),
            ..Heartbeat::default()
        }
    };
    let desk = Rc::new(Desk::new(Catalog::new(Instant::now()), Box::new(vitals)));
    let door = Door { open_to_others: config.key_file.is_some() || config.insecure, key };
    let (stop, stopped) = watch::channel(false);
    let start_stream: StartStream = stream::starter(ramdisk, engine.choice()).map_err(io("probe the ramdisk"))?;
    let listening =
        tokio::task::spawn_local(listen::serve(listener, door, Rc::clone(&desk), start_stream, stopped));
    let noticing = tokio::task::spawn_local(notice(Rc::clone(&desk), seen));
    let signal = signals::end().await;
    tracing::info!("{signal}: stopping");
    let _ = stop.send(true);
    if tokio::time::timeout(LAST_WAIT, listening).await.is_err() {
        tracing::warn!("a data connection does not end; leaving it");
    }
    noticing.abort();
    Ok(())
}

/// Passes on to the catalog what the watch sees, and time.
async fn notice(desk: Rc<Desk>, mut seen: mpsc::UnboundedReceiver<Event>) {
    let mut events = Vec::new();
    loop {
        let next_tick = desk.catalog.borrow().next_tick();
        let tick = async {
            match next_tick {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = seen.recv_many(&mut events, BATCH_EVENTS) => if count == 0 { return },
            () = tick => {}
        }
        {
            let mut catalog = desk.catalog.borrow_mut();
            let now = Instant::now();
            for event in events.drain(..) {
                catalog.event(now, event);
            }
            catalog.tick(now);
        }
        desk.news.notify_one();
        tokio::task::yield_now().await;
    }
}
