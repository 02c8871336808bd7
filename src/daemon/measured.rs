//! The detector's end of a measurement over the network (`tune --serve`): the detector's role, on files of the measurement's own.

use std::cell::Cell;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ppu_config::Detector;
use ppu_uring::{Choice, Engine};
use tokio::sync::mpsc;

use super::detector::{DetectorError, Parts, begin_watch, serve};
use super::{engine, lock, runtime, sending};
use crate::host::wakeup::QuickWakeups;
use crate::model::catalog::Catalog;
use crate::rooted::Root;
use crate::send::listen::Door;
use crate::send::session::{Desk, StartStream};
use crate::send::shifts::{Keeper, make_marks};
use crate::watch;
use crate::wire::handshake::{Key, PpuId};

/// How often it is looked whether this is over.
const LOOK: Duration = Duration::from_millis(100);
/// Who comes back after that long is told of again.
const NEWS_AGAIN: Duration = Duration::from_secs(10);

/// What is served, and for how long.
pub struct Settings<'a> {
    /// Its engine and who may connect; nothing of it is touched.
    pub config: &'a Detector,
    /// See [`Key::for_measuring`].
    pub key: Key,
    /// The directory whose files are sent; nobody else writes there.
    pub files: PathBuf,
    /// A directory for what the role needs beside them.
    pub state: PathBuf,
    /// Bound.
    pub listener: TcpListener,
    /// Without a PPU for that long it is over.
    pub idle: Duration,
    /// It is over when this turns true.
    pub stop: Arc<AtomicBool>,
}

/// How a PPU that measures calls itself: the engine that it wants at this end.
pub fn caller(engine: Engine) -> PpuId {
    PpuId(match engine {
        Engine::Uring => *b"tune, uring     ",
        Engine::Syscall => *b"tune, syscall   ",
    })
}

/// The detector's daemon runs on this machine.
pub fn daemon_runs(config: &Detector) -> bool {
    lock::is_held(&config.state_dir)
}

/// Sends the files to a PPU that measures, as often as it asks. `tell` is given what people want to know. Says why it is over.
///
/// # Errors
/// [`DetectorError`]: nothing was started.
pub fn run(settings: Settings<'_>, tell: impl Fn(&str) + 'static) -> Result<&'static str, DetectorError> {
    let Settings { config, key, files, state, listener, idle, stop } = settings;
    let engine = engine::choose(config.engine)?;
    let root = Root::open(&files).map_err(watch::WatchError::from)?;
    let shifts = Keeper::forgetful(&state, move || root.file_clock_ns())?;
    let mut watched = watch::Settings::new(files, Vec::new());
    watched.marks = Some(make_marks(&state)?);
    let (watch, seen) = begin_watch(watched)?;
    // Nothing is saved, so nothing is told of it.
    let (_saved, saves) = mpsc::unbounded_channel();
    let parts = Parts {
        door: Door { open_to_others: config.key_file.is_some() || config.insecure, key },
        listener,
        start_stream: start_stream(&watch.ramdisk(), engine.choice(), tell),
        catalog: Catalog::new(Instant::now()),
        shifts: Box::new(shifts),
        saves,
        release: None,
        // There are no new images that would ask for it.
        low_latency: false,
        watch,
        seen,
    };
    let mut wakeups = QuickWakeups::new(config.low_latency);
    let end = async move |desk: &Desk| {
        let mut served = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if desk.is_serving() {
                served = Instant::now();
                wakeups.image(served);
            }
            wakeups.pass(Instant::now());
            if served.elapsed() > idle {
                return "nobody measures any more";
            }
            tokio::time::sleep(LOOK).await;
        }
        "ended as asked"
    };
    runtime::block_on(engine.engine(), serve(parts, end))
        .map_err(|source| DetectorError::Io { operation: "run the control plane", source })?
}

/// With the engine that the PPU asks for.
fn start_stream(ramdisk: &watch::Ramdisk, configured: Choice, tell: impl Fn(&str) + 'static) -> StartStream {
    let starter = |choice| sending::starter(ramdisk.clone(), choice);
    let (uring, syscall) = (starter(Choice::Uring), starter(Choice::Syscall));
    let configured = starter(configured);
    let told: Cell<Option<(IpAddr, Instant)>> = Cell::new(None);
    Rc::new(move |ppu, connection, jobs, outlet| {
        let from = connection.peer_addr()?.ip().to_canonical();
        let last = told.replace(Some((from, Instant::now())));
        if last.is_none_or(|(last, at)| last != from || at.elapsed() > NEWS_AGAIN) {
            tell(&format!("{from} measures"));
        }
        let start = match ppu {
            ppu if ppu == caller(Engine::Uring) => &uring,
            ppu if ppu == caller(Engine::Syscall) => &syscall,
            _ => &configured,
        };
        start(ppu, connection, jobs, outlet)
    })
}
