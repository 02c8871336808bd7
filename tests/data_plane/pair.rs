//! A detector's stream and the PPU's, joined by a loopback connection, with a lander that keeps files in a directory.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ppu_uring::{Choice, Driver, Fault, Faulty, Limits, open_engine};
use ppu_uringd::land::stream::{self as land, Lander, Refusal};
use ppu_uringd::model::file_version::{Hash, Identity, TransferId};
use ppu_uringd::model::job::{LandFailure, LandReport, Landed, Local};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::send::{SendJob, SendOutcome, SendReport};
use ppu_uringd::send::jobs::Jobs;
use ppu_uringd::send::settle::Settling;
use ppu_uringd::send::stream as send;
use ppu_uringd::wire::data::{FileHeader, Trailer};
use tempfile::TempPath;

/// Nothing here takes that long.
pub const HANG: Duration = Duration::from_secs(60);

/// What one side runs on.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    pub choice: Choice,
    /// The number of the operation that goes wrong, and how.
    pub fault: Option<(u64, Fault)>,
}

pub const URING: Side = Side { choice: Choice::Uring, fault: None };
pub const SYSCALL: Side = Side { choice: Choice::Syscall, fault: None };

impl Side {
    fn open(self, limits: Limits, operations: &Mutex<Arc<AtomicU64>>) -> Box<dyn Driver> {
        let driver = open_engine(self.choice, limits).unwrap().driver;
        let (nth, fault) = self.fault.unwrap_or((u64::MAX, Fault::Cancelled));
        let faulty = Faulty::new(driver, nth, fault);
        *operations.lock().unwrap() = faulty.seen();
        Box::new(faulty)
    }
}

/// Where files are taken from and put, on tmpfs.
pub struct Room {
    pub source: PathBuf,
    pub target: PathBuf,
    _dir: tempfile::TempDir,
}

impl Room {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&target).unwrap();
        Self { source, target, _dir: dir }
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.source.join(name), bytes).unwrap();
    }

    pub fn job(&self, transfer: u64, name: &str) -> SendJob {
        SendJob {
            transfer: TransferId(transfer),
            path: RelPath::new(name.as_bytes()).unwrap(),
            identity: identity(&self.source.join(name)),
            known_hash: None,
        }
    }

    pub fn landed(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.target.join(name)).ok()
    }
}

pub fn identity(path: &Path) -> Identity {
    let stat = path.metadata().unwrap();
    Identity {
        size: stat.size(),
        mtime_ns: stat.mtime() * 1_000_000_000 + stat.mtime_nsec(),
        ino: stat.ino(),
        ctime_ns: stat.ctime() * 1_000_000_000 + stat.ctime_nsec(),
    }
}

#[derive(Debug)]
pub enum Event {
    Sent(SendReport),
    Landed(LandReport),
    SenderEnd(Result<(), send::StreamError>),
    ReceiverEnd(Result<(), land::StreamError>),
}

/// How everything ended.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: HashMap<TransferId, SendOutcome>,
    pub landed: HashMap<TransferId, Result<Landed, LandFailure>>,
    /// Operations that each side submitted.
    pub operations: (u64, u64),
    /// How each side ended before it was told to.
    pub broken: (Option<String>, Option<String>),
}

/// Runs `jobs` over one connection, until each of them has an end or the connection has.
pub fn transfer(room: &Room, jobs: &[SendJob], sender: Side, receiver: Side) -> Outcome {
    let pair = Pair::start(room, jobs, sender, receiver, Options::default());
    pair.finish()
}

/// Called with each header.
pub type OnBegin = Box<dyn FnMut(&FileHeader) -> Result<(), Refusal> + Send>;
/// A driver's count of operations, once it is there.
type Counter = Arc<Mutex<Arc<AtomicU64>>>;

/// What can be different.
pub struct Options {
    pub verify: bool,
    /// Called with each header when the file begins to land; may refuse it.
    pub on_begin: OnBegin,
    /// Where temporary files are made.
    pub staging: Option<PathBuf>,
    /// Puts something between the two ends.
    pub between: fn(TcpStream, TcpStream),
}

impl Default for Options {
    fn default() -> Self {
        Self { verify: true, on_begin: Box::new(|_| Ok(())), staging: None, between: |_, _| unreachable!() }
    }
}

pub struct Pair {
    pub jobs: Arc<Jobs>,
    pub events: Receiver<Event>,
    pub sockets: (TcpStream, TcpStream),
    counts: (Counter, Counter),
    expected: usize,
}

impl Pair {
    pub fn start(room: &Room, jobs: &[SendJob], sender: Side, receiver: Side, options: Options) -> Self {
        let (near, far) = connection();
        Self::start_between(room, jobs, (sender, near), (receiver, far), options)
    }

    pub fn start_between(
        room: &Room,
        jobs: &[SendJob],
        (sender, near): (Side, TcpStream),
        (receiver, far): (Side, TcpStream),
        options: Options,
    ) -> Self {
        let sockets = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let (events, receive_events) = mpsc::channel();
        let queue = Arc::new(Jobs::default());
        jobs.iter().for_each(|job| queue.push(job.clone()));
        let counts: (Counter, Counter) = Default::default();

        let (source, jobs_of_sender, sent, count) =
            (room.source.clone(), Arc::clone(&queue), events.clone(), Arc::clone(&counts.0));
        std::thread::spawn(move || {
            let mut driver = sender.open(send::LIMITS, &count);
            let open = |path: &RelPath| File::open(source.join(path.as_path())).map(OwnedFd::from);
            let settings = send::Settings {
                connection: near,
                jobs: &jobs_of_sender,
                open: &open,
                settling: Settling::AfterTick,
                report: &mut |ended| {
                    ended.into_iter().for_each(|report| drop(sent.send(Event::Sent(report))))
                },
            };
            let end = send::run(settings, &mut *driver);
            drop(driver);
            let _ = sent.send(Event::SenderEnd(end));
        });

        let names = jobs.iter().map(|job| (job.transfer, job.clone())).collect();
        let staging = options.staging.unwrap_or_else(|| room.target.clone());
        let mut lander = DirLander {
            target: room.target.clone(),
            staging,
            names,
            events: events.clone(),
            on_begin: options.on_begin,
        };
        let count = Arc::clone(&counts.1);
        std::thread::spawn(move || {
            let mut driver = receiver.open(land::LIMITS, &count);
            let end = land::run(far, &mut lander, options.verify, &mut *driver);
            drop(driver);
            let _ = events.send(Event::ReceiverEnd(end));
        });
        Self { jobs: queue, events: receive_events, sockets, counts, expected: jobs.len() }
    }

    /// Until every job has an end, or the connection has; then ends both sides.
    pub fn finish(self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut running = 2;
        let concluded = |outcome: &Outcome| {
            let declined = |sent: &&SendOutcome| matches!(sent, SendOutcome::Declined { .. });
            outcome.landed.len() + outcome.sent.values().filter(declined).count() >= self.expected
                && outcome.sent.len() >= self.expected
        };
        let start = Instant::now();
        while running > 0 {
            if running < 2 || concluded(&outcome) {
                self.jobs.close();
                let _ = self.sockets.0.shutdown(Shutdown::Both);
                let _ = self.sockets.1.shutdown(Shutdown::Both);
            }
            let told = concluded(&outcome);
            match self.events.recv_timeout(HANG.saturating_sub(start.elapsed())) {
                Ok(Event::Sent(report)) => drop(outcome.sent.insert(report.transfer, report.outcome)),
                Ok(Event::Landed(report)) => drop(outcome.landed.insert(report.transfer, report.outcome)),
                Ok(Event::SenderEnd(end)) => {
                    outcome.broken.0 = end.err().filter(|_| !told).map(|e| e.to_string());
                    running -= 1;
                }
                Ok(Event::ReceiverEnd(end)) => {
                    outcome.broken.1 = end.err().filter(|_| !told).map(|e| e.to_string());
                    running -= 1;
                }
                Err(_) => panic!("hangs: {outcome:?}"),
            }
        }
        let count = |counter: &Mutex<Arc<AtomicU64>>| counter.lock().unwrap().load(Ordering::Relaxed);
        outcome.operations = (count(&self.counts.0), count(&self.counts.1));
        outcome
    }
}

pub fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        ppu_uring::socket::tune(stream, Duration::from_secs(30)).unwrap();
    }
    (near, far)
}

struct DirLander {
    target: PathBuf,
    staging: PathBuf,
    names: HashMap<TransferId, SendJob>,
    events: mpsc::Sender<Event>,
    on_begin: OnBegin,
}

impl Lander for DirLander {
    type Temp = TempPath;

    fn begin(&mut self, header: &FileHeader) -> Result<(TempPath, Arc<OwnedFd>), Refusal> {
        (self.on_begin)(header)?;
        let Some(job) = self.names.get(&header.transfer) else { return Err(Refusal::Unwanted) };
        if job.identity != header.identity {
            return Err(Refusal::Unwanted);
        }
        let temp = tempfile::Builder::new().prefix(".temp").tempfile_in(&self.staging);
        let (file, path) = temp.map_err(|e| Refusal::Failed(LandFailure::Io(e.to_string())))?.into_parts();
        file.set_len(header.identity.size).unwrap();
        Ok((path, Arc::new(file.into())))
    }

    fn publish(
        &mut self,
        temp: TempPath,
        header: &FileHeader,
        trailer: &Trailer,
    ) -> Result<Landed, LandFailure> {
        let job = &self.names[&header.transfer];
        temp.persist(self.target.join(job.path.as_path())).map_err(|e| LandFailure::Io(e.to_string()))?;
        Ok(Landed {
            identity: trailer.identity,
            mode: header.mode,
            settled: trailer.settled,
            hash: trailer.hash,
            local: Local { ino: 0, ctime_ns: 0 },
            visible: Instant::now(),
        })
    }

    fn report(&mut self, report: LandReport) {
        let _ = self.events.send(Event::Landed(report));
    }
}

/// Not compressible, not repeating, so that a byte at a wrong place shows.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut x = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Every file that was published is one of the versions that were whole, every temporary file is gone.
pub fn assert_sound(room: &Room, versions: &HashMap<String, Vec<Vec<u8>>>, context: &str) {
    for entry in room.target.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let bytes = room.landed(&name).unwrap();
        let versions = versions.get(&name).unwrap_or_else(|| panic!("{context}: {name} is left over"));
        let whole = versions.iter().any(|version| Hash::of(version) == Hash::of(&bytes));
        assert!(whole, "{context}: {name} was published torn, {} bytes", bytes.len());
    }
}
