//! The PPU's role: start order, wiring, shutdown order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ppu_config::{Direct, Ppu, StorageKind, Verify};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::acks::Acks;
use super::bulletin::{Bulletin, Wish};
use super::dashboard::Dashboard;
use super::engine::{self, EngineChoice};
use super::events::{self, EventFeed};
use super::halves::Halves;
use super::hub::{Hub, Input, now};
use super::intake::{self, Intake};
use super::keeping::{self, KeepingError};
use super::lock::{LockError, StateLock};
use super::lookout::Lookout;
use super::ports;
use super::runtime;
use super::verify::{self, Verifier};
use super::waiting::Waiting;
use super::which::Known;
use super::{key, limits, restore, self_check, shifts, signals};
use crate::host::inbox::{Sender, inbox};
use crate::host::priority::OnTheWay;
use crate::host::wakeup::QuickWakeups;
use crate::journal::{self, JournalError, News, Origin, Queries};
use crate::land::link::{Link, Notice, StartLanding};
use crate::land::{landing, link};
use crate::model::extra::EXTRA;
use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::half::Half;
use crate::model::history::{Sample, news};
use crate::model::host::Role;
use crate::model::ledger::{DetectorSettings, Fact, Order, Patience, Retried, Settings, StorageSettings};
use crate::model::message::{Code, Message};
use crate::model::pacing::Pauses;
use crate::model::record::LiveVersion;
use crate::model::replica_path::TargetError;
use crate::model::shift_request::ShiftError;
use crate::rooted::{Handed, Root, RootError, Staging, mount};
use crate::serve::control::{Answer, ControlError, ControlSocket, Request, Response};
use crate::serve::hook;
use crate::serve::http::HttpError;
use crate::serve::ports::PortError;
use crate::serve::ports::messages::Subjects;
use crate::store::{self, writer::Writer};
use crate::wire::handshake::{Key, PpuId, SOFTWARE};

/// How long the end waits for a storage that hangs, and for the journal.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Names this PPU towards its detectors, below the state directory.
const PPU_ID_FILE: &str = "ppu-id";

/// Why the daemon does not start; one line for people.
#[derive(Debug, thiserror::Error)]
pub enum PpuError {
    /// A second daemon, or no state directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// The ramdisk.
    #[error("ramdisk: {0}")]
    Ramdisk(#[from] RootError),
    /// A target.
    #[error("detector {id}: target {target} {reason}")]
    Target {
        /// Whose.
        id: String,
        /// As configured.
        target: String,
        /// Why.
        reason: TargetError,
    },
    /// The first shift.
    #[error("the first shift, as configured: {0}")]
    Shift(ShiftError),
    /// A source or a user directory.
    #[error("{what} {value}: {reason}")]
    Path {
        /// Which key.
        what: &'static str,
        /// As configured.
        value: String,
        /// Why.
        reason: crate::model::path::PathError,
    },
    /// Neither engine.
    #[error(transparent)]
    Engine(#[from] ppu_uring::EngineError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The dashboard.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A storage that can never be written as it is configured.
    #[error("storage {id}: {reason}")]
    Storage {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
    /// What takes files away.
    #[error(transparent)]
    Keeping(#[from] KeepingError),
    /// Anything else.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: String,
        /// Why not.
        source: io::Error,
    },
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`PpuError`]: nothing was started.
pub fn run(config: Ppu) -> Result<(), PpuError> {
    signals::ignore_lease_and_pipe();
    let _lock = StateLock::take(&config.state_dir)?;
    let key = key::load(config.key_file.as_deref())?;
    let engine = engine::choose(config.engine)?;
    let id = ppu_id(&config.state_dir)?;
    let ramdisk = Arc::new(Root::open(&config.ramdisk)?);
    let staging = Arc::new(Staging::open(Arc::clone(&ramdisk))?);
    staging.sweep()?;
    let pipes = config.detectors.iter().map(|detector| u64::from(detector.streams)).sum();
    let advice = self_check::run(Role::Ppu, &ramdisk, pipes, config.low_latency);
    let control = ControlSocket::bind(&config.interfaces.control)?;
    let descriptors = limits::raise_descriptor_limit();
    let dashboard = Dashboard::bind(&config.interfaces, descriptors)?;
    let ports = ports::bind(&config.interfaces, descriptors)?;

    let defaults = shifts::defaults(&config)?;
    let mut opened = open_journal(&config)?;
    let (current, is_new) = shifts::current(&opened.loaded.shifts, &defaults, now())?;
    if is_new {
        // Before a detector hears of it: it must be there after a crash.
        opened.journal.remember_shift(&current)?;
    }
    let (ledger, mut orders) =
        restore::ledger(settings(&config), &current, is_new, &mut opened, &ramdisk, staging.brands(), now());
    orders.push(Order::PrepareShift(current));
    let shift = ledger.current_shift().id.stamp();
    let damaged = matches!(opened.origin, Origin::SetAside { .. });

    let (inputs, hub_inputs) = inbox();
    let event_places = events::places(&config, &opened.loaded);
    let event_base = opened.journal.event_base();
    let journal = journal::start(opened.journal, report_journal(inputs.clone()));
    let journal::Running { records, queries, thread: journal_thread } =
        journal.map_err(io_error("start the journal's thread"))?;
    let handed = Arc::new(Handed::default());
    let intake =
        Intake::start(Arc::clone(&handed), inputs.clone()).map_err(io_error("start the intake's thread"))?;
    let mut writers = Vec::new();
    let mut outlets: Vec<Box<dyn Fn(crate::model::job::CopyJob) + Send>> = Vec::new();
    let mut steps = Vec::new();
    for storage in 0..config.storages.len() {
        let writer = start_writer(&config, storage, &engine, &ramdisk, &handed, inputs.clone())?;
        let inlet = writer.inlet();
        outlets.push(Box::new(move |job| {
            if !inlet.copy(job) {
                tracing::error!(
                    "a storage's thread has ended: its files stay pending until the daemon is restarted"
                );
            }
        }));
        steps.push(writer.steps());
        writers.push(writer);
    }
    let bulletin = Bulletin::new(opened.loaded.messages);
    let events = EventFeed::new(event_base, event_places);
    let subjects =
        Subjects { messages: bulletin.reader(), events: events.events(queries.clone()), software: SOFTWARE };
    let hook = hook::start(events::hook(&config.hook), subjects.events.clone())
        .map_err(io_error("start the hook's thread"))?;
    let ports = ports.start(inputs.clone(), subjects).map_err(io_error("start the thread of the ports"))?;
    let (keeping, keepers) = keeping::start(&config, &staging, &ledger, &queries, &inputs)?;
    let hub = Hub {
        ledger,
        ramdisk: Arc::clone(&ramdisk),
        writers: outlets,
        steps,
        journal: records,
        // Extra files count for one more detector, which nobody speaks to.
        outlets: std::iter::repeat_with(|| None).take(config.detectors.len() + 1).collect(),
        acks: Acks::new(config.detectors.len() + 1),
        waiting: Waiting::new(Arc::clone(&handed)),
        intake: intake.clone(),
        lookout: Lookout::new(&config, engine.engine(), advice, Box::new(keeping.describe())),
        bulletin,
        events,
        keepers,
        known: Known::new(&config),
        shifts: shifts::Shifts::new(defaults, Arc::clone(&staging)),
        halves: Halves::default(),
        wakeups: QuickWakeups::new(config.low_latency),
        last_image: None,
    };
    let hub_thread = thread::Builder::new()
        .name("ledger".into())
        .spawn(move || hub.run(&hub_inputs, orders))
        .map_err(io_error("start the ledger's thread"))?;
    if damaged {
        let long = "The journal was damaged and was set aside; a new one was begun from what is on the ramdisk. Counts of past shifts are \
                    gone, files are not.";
        let message = Message::new(Code::JournalError, "journal.db", long);
        let _ = inputs.send(Input::Tell(message));
    }

    let start_landing = start_landing(&config, &engine, &staging, inputs.clone());
    tracing::info!(shift, engine = %engine.engine(), "ppu-uringd ppu is running");
    let verifier = verifier(&config, queries);
    let dashboard = dashboard.start(inputs.clone()).map_err(io_error("start the dashboard's thread"))?;
    intake::start_pipes(&config.interfaces, &handed, &inputs);
    let control = (control, verifier, intake);
    let _way = OnTheWay::take();
    let served =
        runtime::block_on(engine.engine(), serve(&config, key, id, control, start_landing, inputs.clone()));
    dashboard.stop();
    let deadline = Instant::now() + LAST_WAIT;
    keeping.ask_to_stop();
    // Nobody lands any more. What the stages still have is told, then the ledger ends, then what it feeds.
    let _ = inputs.send(Input::Stop);
    drop(inputs);
    let _ = hub_thread.join();
    ports.stop();
    for writer in writers {
        if !writer.stop(deadline.saturating_duration_since(Instant::now())) {
            tracing::warn!(
                "a storage hangs; leaving it. What was on its way there is copied anew at the next start"
            );
        }
    }
    keeping.stop(deadline);
    // Its programs are ending since the ledger has.
    hook.stop();
    // It ends by itself within its own time, also when its disk hangs.
    let _ = journal_thread.join();
    served.map_err(io_error("run the control plane"))?
}

/// The control plane, until a signal.
async fn serve(
    config: &Ppu,
    key: Key,
    ppu: PpuId,
    (control, verifier, intake): (ControlSocket, Verifier, Intake),
    start_landing: StartLanding,
    inputs: Sender<Input>,
) -> Result<(), PpuError> {
    let (stop, stopped) = watch::channel(false);
    let mut links = JoinSet::new();
    for (index, detector) in config.detectors.iter().enumerate() {
        let link = Link {
            detector: DetectorIndex(index as u16),
            address: detector.address.clone(),
            streams: detector.streams,
            key: key.clone(),
            ppu,
        };
        let inputs = inputs.clone();
        let notify = move |notice: Notice| drop(inputs.send(Input::Notice(notice)));
        links.spawn_local(link::run(link, notify, Arc::clone(&start_landing), stopped.clone()));
    }
    let answer = move |request: Request, answer: Answer| {
        let input = match request {
            Request::Status => Input::Status(Box::new(move |report| {
                drop(answer.send(Response::Status(Box::new(report))));
            })),
            Request::History { after_ms } => Input::History(Box::new(move |samples| {
                let samples = news(&samples, after_ms).iter().map(|sample| Sample::clone(sample)).collect();
                drop(answer.send(Response::History { samples }));
            })),
            Request::Add { path } => return intake.add(path, answer),
            Request::Await { file } => Input::Await(file, answer),
            Request::Messages { since, codes, follow } => {
                Input::Listen(Wish { since, codes, follow }, answer)
            }
            Request::Retry(which) => Input::Retry(
                which,
                Box::new(move |retried| {
                    drop(answer.send(match retried {
                        Ok(Retried { copies, files }) => Response::Retried { copies, files },
                        Err(reason) => Response::Error(reason),
                    }));
                }),
            ),
            Request::StartShift(request) => Input::StartShift(
                request,
                Box::new(move |started| {
                    drop(answer.send(match started {
                        Ok(started) => Response::ShiftStarted(Box::new(started)),
                        Err(reason) => Response::Error(reason),
                    }));
                }),
            ),
            Request::Pause { half } => switch(half, true, answer),
            Request::Resume { half } => switch(half, false, answer),
            Request::Shifts { last } => Input::Shifts(
                usize::try_from(last).unwrap_or(usize::MAX),
                Box::new(move |shifts| drop(answer.send(Response::Shifts(shifts)))),
            ),
            Request::Verify(which) => {
                let verifier = verifier.clone();
                Input::Select(
                    which,
                    Box::new(move |selection| match selection {
                        Ok(selection) => verifier.start(selection, answer),
                        Err(reason) => drop(answer.send(Response::Error(reason))),
                    }),
                )
            }
        };
        drop(inputs.send(input));
    };
    tokio::select! {
        served = control.serve(answer) => served?,
        signal = signals::end() => tracing::info!("{signal}: stopping"),
    }
    let _ = stop.send(true);
    let ended = tokio::time::timeout(LAST_WAIT, async { while links.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("a data connection does not end; leaving it");
        links.shutdown().await;
    }
    Ok(())
}

fn switch(half: Half, pause: bool, answer: Answer) -> Input {
    Input::Switch(half, pause, Box::new(move |switched| drop(answer.send(Response::Switched(switched)))))
}

fn start_landing(
    config: &Ppu,
    engine: &EngineChoice,
    staging: &Arc<Staging>,
    inputs: Sender<Input>,
) -> StartLanding {
    let landing = landing::Landing {
        staging: Arc::clone(staging),
        links_to: keeping::links_from_ramdisk(config),
        verify: config.verify == Verify::Publish,
        engine: engine.choice(),
    };
    let inputs = std::sync::Mutex::new(inputs);
    Arc::new(move |connection, expect, ended| {
        let inputs = inputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let report = move |report| drop(inputs.send(Input::Fact(Fact::Landing(report))));
        landing.start(connection, expect, report, ended)
    })
}

fn start_writer(
    config: &Ppu,
    index: usize,
    engine: &EngineChoice,
    ramdisk: &Arc<Root>,
    handed: &Arc<Handed>,
    inputs: Sender<Input>,
) -> Result<Writer, PpuError> {
    let storage = &config.storages[index];
    let settings = store::writer::Settings {
        index: StorageIndex(index as u16),
        id: storage.id.clone(),
        place: place(storage),
        queue_depth: usize::from(storage.queue_depth),
        direct: storage.direct == Direct::Auto,
        preserve_uid: config.preserve_uid,
        preserve_gid: config.preserve_gid,
        replace_other_shift: config.replace_other_shift,
        ramdisk: Arc::clone(ramdisk),
        places: config.storages.iter().map(place).collect(),
        links_to: keeping::links_from(config, storage),
        handed: Arc::clone(handed),
    };
    let choice = engine.choice();
    let open_driver = move |limits| ppu_uring::open_engine(choice, limits).map(|opened| opened.driver);
    let report = move |report| drop(inputs.send(Input::Fact(Fact::Copying(report))));
    Writer::start(settings, open_driver, report)
        .map_err(|error| PpuError::Storage { id: storage.id.clone(), reason: error.to_string() })
}

pub(super) fn place(storage: &ppu_config::Storage) -> mount::Place {
    mount::Place {
        target: storage.target.clone(),
        mountpoint: storage.mountpoint.clone(),
        allow_root_fs: storage.allow_root_fs,
    }
}

fn verifier(config: &Ppu, queries: Queries) -> Verifier {
    let storages = config.storages.iter().map(|storage| verify::Storage {
        id: storage.id.clone(),
        place: place(storage),
        internal: storage.kind == StorageKind::Internal,
        overwrites: config.replace_other_shift,
    });
    Verifier::new(queries, storages.collect())
}

fn open_journal(config: &Ppu) -> Result<journal::Opened<Vec<LiveVersion>>, JournalError> {
    let detectors = config.detectors.iter().map(|detector| detector.id.clone());
    let detectors = detectors.chain([EXTRA.to_owned()]).collect();
    let storages = config.storages.iter().map(|storage| storage.id.clone()).collect();
    let settings = journal::Settings::new(&config.state_dir, detectors, storages);
    journal::open(settings, |live: &mut Vec<LiveVersion>, version| live.push(version))
}

fn report_journal(inputs: Sender<Input>) -> impl FnMut(News) + Send {
    move |news| {
        let fact = match news {
            News::Committed { up_to } => Fact::Committed { up_to },
            News::Trouble(text) => Fact::JournalTrouble(Some(text)),
            News::Healed => Fact::JournalTrouble(None),
        };
        let _ = inputs.send(Input::Fact(fact));
    }
}

fn settings(config: &Ppu) -> Settings {
    Settings {
        detectors: config
            .detectors
            .iter()
            .map(|detector| DetectorSettings {
                id: detector.id.as_str().into(),
                address: detector.address.to_string(),
                pauses: Pauses { min: detector.min_pause, interrun: detector.interrun_pause },
            })
            .chain([DetectorSettings::extra()])
            .collect(),
        storages: config
            .storages
            .iter()
            .map(|storage| StorageSettings {
                id: storage.id.as_str().into(),
                at: keeping::mount_point(storage).into(),
                linked: config.create_links && keeping::links_lead_to(storage),
                internal: storage.kind == StorageKind::Internal,
                external: storage.kind == StorageKind::External,
                queue_depth: usize::from(storage.queue_depth),
                copy_tries: storage.retries.saturating_add(1),
                retry_pause: storage.retry_pause,
                retry_pause_max: storage.retry_pause_max,
                patience: Patience {
                    hung_after: storage.hung_after,
                    slow_after: storage.slow_after,
                    quarantine: storage.retry_pause,
                    quarantine_max: storage.retry_pause_max,
                },
            })
            .collect(),
        ramdisk: keeping::shown_path(&config.ramdisk),
    }
}

/// Made once; the same PPU may replace its own dead session with a detector.
fn ppu_id(state_dir: &Path) -> Result<PpuId, PpuError> {
    let path: PathBuf = state_dir.join(PPU_ID_FILE);
    let error = |operation: &str| io_error(format!("{operation} {}", path.display()));
    match fs::read(&path) {
        Ok(bytes) if bytes.len() == 16 => {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes);
            return Ok(PpuId(id));
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error("read")(source)),
        _ => {}
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|source| error("make")(io::Error::other(source.to_string())))?;
    fs::write(&path, id).map_err(error("write"))?;
    Ok(PpuId(id))
}

fn io_error(operation: impl Into<String>) -> impl FnOnce(io::Error) -> PpuError {
    let operation = operation.into();
    move |source| PpuError::Io { operation, source }
}
