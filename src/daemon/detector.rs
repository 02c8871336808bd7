//! The detector's role: start order, wiring, shutdown order.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ppu_config::{Detector, Release};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch as flag};

use super::engine;
use super::lock::{LockError, StateLock};
use super::{key, releasing, runtime, self_check, sending, signals};
use crate::host::priority::OnTheWay;
use crate::host::wakeup::QuickWakeups;
use crate::model::catalog::{Catalog, Event};
use crate::model::host::Role;
use crate::model::offer::Heartbeat;
use crate::model::release::{Policy, Safe};
use crate::model::trouble::{Trouble, Troubles, What};
use crate::send::listen::{self, Door};
use crate::send::session::{Desk, StartStream};
use crate::send::shift_log::Known;
use crate::send::shifts::{KeepError, Keeper, Kept, Saved, Shifts, make_marks};
use crate::watch::{self, Watch, WatchError};

/// How often it is looked whether this machine's clock is being set.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// How long the end waits for sessions.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Batches of events under way from the watch to the catalog; while they are not taken, the kernel keeps the rest.
const BATCHES_MAX: usize = 16;
/// One for each data connection that a PPU may be configured to open.
const PIPES_MAX: u64 = 16;

/// Why the daemon does not start; one line for people.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// A second daemon, or no state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// Neither engine.
    #[error(transparent)]
    Engine(#[from] ppu_uring::EngineError),
    /// Shifts cannot be remembered.
    #[error(transparent)]
    Shifts(#[from] KeepError),
    /// The ramdisk cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The port.
    #[error("listen = {address}: {source}{}", in_use(.source))]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The control plane.
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
    let release = policy(&config);
    if config.release == Release::Landed {
        tracing::warn!(
            "release = \"landed\": images leave this ramdisk before they are on a disk, and a PPU that reboots then loses them. \"stored\" is safe."
        );
    }
    let _lock = StateLock::take(&config.state_dir)?;
    let key = key::load(config.key_file.as_deref())?;
    let engine = engine::choose(config.engine)?;
    let listener = std::net::TcpListener::bind(config.listen)
        .map_err(|source| DetectorError::Listen { address: config.listen, source })?;
    let mut settings = watch::Settings::new(config.ramdisk.clone(), config.ignore.clone());
    settings.marks = Some(make_marks(&config.state_dir)?);
    settings.release = release.is_some();
    let (watch, seen) = begin_watch(settings)?;
    self_check::run(Role::Detector, &watch.ramdisk().root(), PIPES_MAX, config.low_latency);
    tracing::info!(listen = %config.listen, engine = %engine.engine(), "ppu-uringd detector is running");
    let _way = OnTheWay::take();
    let (saved, saves) = mpsc::unbounded_channel();
    let ramdisk = watch.ramdisk();
    let clock = move || ramdisk.root().file_clock_ns();
    let tell = move |news| {
        // Nobody waits for what is saved at the end.
        let _ = saved.send(news);
    };
    let Kept { keeper, known } = Keeper::open(&config.state_dir, clock, tell)?;
    let life = getrandom::u64().map_err(|error| DetectorError::Io {
        operation: "find a random number",
        source: io::Error::other(error.to_string()),
    })?;
    let troubles = Troubles::new(life, config.ramdisk.as_os_str().as_bytes());
    let mut catalog = catalog(Instant::now(), known, troubles);
    if let Some(policy) = &release {
        catalog = catalog.with_release(policy.safe);
    }
    let parts = Parts {
        door: Door { open_to_others: config.key_file.is_some() || config.insecure, key },
        listener,
        start_stream: sending::starter(watch.ramdisk(), engine.choice()),
        catalog,
        shifts: Box::new(keeper),
        saves,
        release,
        low_latency: config.low_latency,
        watch,
        seen,
    };
    let end = async |_: &Desk| signals::end().await;
    runtime::block_on(engine.engine(), serve(parts, end))
        .map_err(|source| DetectorError::Io { operation: "run the control plane", source })?
        .map(drop)
}

/// With what it sees.
pub(super) fn begin_watch(
    settings: watch::Settings,
) -> Result<(Watch, mpsc::Receiver<Vec<Event>>), WatchError> {
    let (events, seen) = mpsc::channel(BATCHES_MAX);
    let tell = move |batch| match events.blocking_send(batch) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    Ok((watch::start(settings, tell)?, seen))
}

/// What the role is put together from.
pub(super) struct Parts {
    pub(super) door: Door,
    pub(super) listener: std::net::TcpListener,
    pub(super) start_stream: StartStream,
    pub(super) catalog: Catalog,
    pub(super) shifts: Box<dyn Shifts>,
    /// What the shifts' log has saved.
    pub(super) saves: mpsc::UnboundedReceiver<Saved>,
    pub(super) release: Option<Policy>,
    pub(super) low_latency: bool,
    pub(super) watch: Watch,
    pub(super) seen: mpsc::Receiver<Vec<Event>>,
}

/// Until `end` says why it is over.
pub(super) async fn serve(
    parts: Parts,
    end: impl AsyncFnOnce(&Desk) -> &'static str,
) -> Result<&'static str, DetectorError> {
    let Parts { door, listener, start_stream, catalog, shifts, saves, release, low_latency, watch, seen } =
        parts;
    let listening = |source| DetectorError::Io { operation: "listen", source };
    listener.set_nonblocking(true).map_err(listening)?;
    let listener = TcpListener::from_std(listener).map_err(listening)?;
    let ramdisk = watch.ramdisk();
    let desk = Rc::new(Desk::new(catalog, Box::new(move || vitals(&watch)), shifts));
    let releasing = release.map(|policy| releasing::start(policy, Rc::clone(&desk), ramdisk)).transpose();
    let releasing = releasing
        .map_err(|source| DetectorError::Io { operation: "start the thread that releases", source })?;
    let (stop, stopped) = flag::channel(false);
    let listening =
        tokio::task::spawn_local(listen::serve(listener, door, Rc::clone(&desk), start_stream, stopped));
    let wakeups = QuickWakeups::new(low_latency);
    let noticing = tokio::task::spawn_local(notice(Rc::clone(&desk), seen, saves, wakeups));
    let reason = end(&desk).await;
    drop(desk);
    tracing::info!("{reason}: stopping");
    let _ = stop.send(true);
    if tokio::time::timeout(LAST_WAIT, listening).await.is_err() {
        tracing::warn!("a data connection does not end; leaving it");
    }
    if let Some(releasing) = releasing {
        releasing.abort();
        // It was aborted; what it had taken is put back by its thread.
        let _ = releasing.await;
    }
    // Lets the watch go, which may be waiting for it.
    noticing.abort();
    let _ = noticing.await;
    Ok(reason)
}

/// That knows the shifts of earlier processes.
fn catalog(now: Instant, known: Known, troubles: Troubles) -> Catalog {
    let mut catalog = Catalog::new(now).with_troubles(troubles);
    if let Some(aside) = known.damaged {
        let kept = format!("it is kept as {}", aside.display());
        catalog.met(now, Trouble::new(What::ShiftsDamaged, kept));
    }
    catalog.restore_shifts(known.spans);
    if let Some((before, after)) = known.step {
        catalog.met(now, Trouble::new(What::ClockSet, "while ppu-uringd was not running there"));
        catalog.clock_was_set(before, after);
    }
    catalog
}

/// When files may leave the ramdisk; `None`: never.
fn policy(config: &Detector) -> Option<Policy> {
    let safe = match config.release {
        Release::Never => return None,
        Release::Landed => Safe::Landed,
        Release::Stored => Safe::Stored,
    };
    Some(Policy { safe, above: config.release_above })
}

/// What a heartbeat says beside the backlog.
fn vitals(watch: &Watch) -> Heartbeat {
    let space = watch.ramdisk().root().space().ok();
    Heartbeat {
        skipped: watch.skipped(),
        ramdisk_total: space.as_ref().map_or(0, |space| space.bytes_total),
        ramdisk_free: space.as_ref().map_or(0, |space| space.bytes_free),
        ..Heartbeat::default()
    }
}

/// Passes on to the catalog what the watch sees, what is saved, and time.
async fn notice(
    desk: Rc<Desk>,
    mut seen: mpsc::Receiver<Vec<Event>>,
    mut saves: mpsc::UnboundedReceiver<Saved>,
    mut wakeups: QuickWakeups,
) {
    let mut clock = tokio::time::interval(CLOCK_LOOK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next_tick = desk.catalog.borrow().next_tick();
        let tick = async {
            match next_tick {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let batch = tokio::select! {
            batch = seen.recv() => match batch {
                Some(batch) => {
                    if batch.iter().any(|event| matches!(event, Event::Closed { .. })) {
                        wakeups.image(Instant::now());
                    }
                    batch
                }
                None => return,
            },
            Some(saved) = saves.recv() => {
                desk.shifts_saved(saved);
                continue;
            }
            _ = clock.tick() => {
                desk.look_at_clock();
                wakeups.pass(Instant::now());
                wakeups.under_way(desk.catalog.borrow().counts().backlog_files);
                continue;
            }
            () = desk.sooner.notified() => continue,
            () = tick => Vec::new(),
        };
        desk.notice(Instant::now(), batch);
        wakeups.under_way(desk.catalog.borrow().counts().backlog_files);
        desk.news.notify_one();
        desk.safer.notify_one();
        tokio::task::yield_now().await;
    }
}
