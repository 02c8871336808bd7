//! Files through the daemons' own streams, from one directory of the ramdisk to another: engines and connections.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ppu_config::Verify;
use ppu_uring::{Choice, Engine, open_engine};
use ppu_uringd::land::expect::Expect;
use ppu_uringd::land::landing::Landing;
use ppu_uringd::model::file_version::{DetectorIndex, Identity, TransferId};
use ppu_uringd::model::job::{LandJob, LandReport};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::send::SendJob;
use ppu_uringd::model::shift::{Shift, ShiftId};
use ppu_uringd::rooted::{FileStat, Root, Staging};
use ppu_uringd::send::jobs::Jobs;
use ppu_uringd::send::settle::Settling;
use ppu_uringd::send::stream;
use serde::{Serialize, Serializer};

use super::super::Failure;
use super::super::output::note;
use super::table::{self, ROUNDS, Row};
use super::{Bench, STREAMS};

/// Asked for at a time, as the daemon asks: bounded, so that the ramdisk is.
const WANTED_BYTES: u64 = 64_000_000;
const WANTED_FILES: u64 = 256;
/// An engine is changed only where the other one is so much better.
const ENGINE_GAIN: f64 = 1.1;
/// Without a file for that long something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection whose peer is gone.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// How files are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Way {
    #[serde(serialize_with = "word")]
    pub(super) engine: Engine,
    pub(super) streams: u16,
}

fn word<S: Serializer>(engine: &Engine, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(engine)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, streams {}", self.engine, self.streams)
    }
}

/// Each engine that this host allows.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Row<Way>>, Failure> {
    let mut ways = Vec::new();
    for engine in [Engine::Uring, Engine::Syscall] {
        match open_engine(choice(engine), stream::LIMITS) {
            Ok(_) => ways.extend(STREAMS.map(|streams| Way { engine, streams })),
            Err(error) => {
                note(&format!("engine {engine}: {error}"));
                bench.done += STREAMS.len() * ROUNDS;
            }
        }
    }
    table::rounds(&ways, |way| {
        let row = one(bench, way).map_err(|error| Failure::Failed(format!("{way}: {error}")))?;
        bench.progress(&format!("{way}: {:.0} MB/s", row.rate() / 1e6));
        Ok(row)
    })
}

/// What the daemon takes now, if that was measured.
pub(super) fn now(configured: ppu_config::Engine, rows: &[Row<Way>]) -> Option<Engine> {
    let measured = |engine| rows.iter().any(|row| row.way.engine == engine);
    match configured {
        ppu_config::Engine::Syscall => Some(Engine::Syscall),
        ppu_config::Engine::Uring => Some(Engine::Uring),
        // It falls back.
        ppu_config::Engine::Auto if measured(Engine::Uring) => Some(Engine::Uring),
        ppu_config::Engine::Auto => Some(Engine::Syscall),
    }
    .filter(|engine| measured(*engine))
}

/// By its best number of connections; another one than now only if it wins clearly.
pub(super) fn best_engine(rows: &[Row<Way>], now: Option<Engine>) -> Option<Engine> {
    let top = |engine| rows.iter().filter(|row| row.way.engine == engine).map(Row::rate).fold(0.0, f64::max);
    let best = if top(Engine::Uring) >= top(Engine::Syscall) { Engine::Uring } else { Engine::Syscall };
    match now {
        Some(now) if top(best) <= ENGINE_GAIN * top(now) => Some(now),
        _ => Some(best).filter(|best| top(*best) > 0.0),
    }
}

fn choice(engine: Engine) -> Choice {
    match engine {
        Engine::Uring => Choice::Uring,
        Engine::Syscall => Choice::Syscall,
    }
}

fn one(bench: &Bench<'_>, way: Way) -> Result<Row<Way>, String> {
    let text = |error: io::Error| error.to_string();
    let plane = Plane::start(bench, way, choice(way.engine)).map_err(text)?;
    let row = plane.drain(bench, way);
    plane.stop();
    row
}

/// Both ends of a detector's data connections.
struct Plane {
    jobs: Arc<Jobs>,
    expect: Arc<Expect>,
    landed: Receiver<LandReport>,
    threads: Vec<JoinHandle<()>>,
    ends: tokio::sync::mpsc::Receiver<String>,
}

impl Plane {
    fn start(bench: &Bench<'_>, way: Way, engine: Choice) -> io::Result<Self> {
        let root = Arc::new(Root::open(&bench.place.target()).map_err(io::Error::other)?);
        let staging = Arc::new(Staging::open(root).map_err(io::Error::other)?);
        let landing =
            Landing { staging, links_to: None, verify: bench.config.verify == Verify::Publish, engine };
        let (jobs, expect) = (Arc::new(Jobs::default()), Arc::new(Expect::default()));
        let (report, landed) = channel();
        let (ended, ends) = tokio::sync::mpsc::channel(usize::from(way.streams));
        let mut plane = Self { jobs, expect, landed, threads: Vec::new(), ends };
        for _ in 0..way.streams {
            let (near, far) = connection()?;
            let report = report.clone();
            let report = move |landed| drop(report.send(landed));
            landing.start(far, Arc::clone(&plane.expect), report, ended.clone())?;
            let (jobs, source) = (Arc::clone(&plane.jobs), bench.place.source());
            let sending = move || {
                if let Err(error) = send(near, &jobs, &source, engine) {
                    note(&format!("sending: {error}"));
                }
            };
            plane.threads.push(std::thread::Builder::new().name("send".to_owned()).spawn(sending)?);
        }
        Ok(plane)
    }

    /// For the time of one measurement. Each file that has landed is removed: the same ones come again and again.
    fn drain(&self, bench: &Bench<'_>, way: Way) -> Result<Row<Way>, String> {
        let work = Work::new(bench)?;
        let target = bench.place.target();
        let in_flight_max = (WANTED_BYTES / bench.place.file_bytes).clamp(2, WANTED_FILES);
        let start = Instant::now();
        let (mut asked, mut files, mut bytes) = (0, 0, 0);
        let mut names = HashMap::new();
        loop {
            let goes_on = start.elapsed() < bench.time && !bench.is_stopped();
            if goes_on && asked - files < in_flight_max {
                let (send, land) = work.numbered(asked)?;
                names.insert(send.transfer, land.at.clone());
                self.expect.add(send.transfer, land);
                self.jobs.push(send);
                asked += 1;
                continue;
            }
            if asked == files {
                break;
            }
            let report =
                self.landed.recv_timeout(PATIENCE).map_err(|_| "no file lands any more".to_owned())?;
            let landed = report.outcome.map_err(|why| why.to_string())?;
            files += 1;
            bytes += landed.identity.size;
            if let Some(name) = names.remove(&report.transfer) {
                std::fs::remove_file(target.join(name.as_path())).map_err(|error| error.to_string())?;
            }
        }
        if bench.is_stopped() {
            return Err("interrupted".to_owned());
        }
        Ok(Row { way, files, bytes, took: start.elapsed() })
    }

    /// Ends every thread. What a stream has in hand ends first.
    fn stop(mut self) {
        self.jobs.close();
        for thread in self.threads.drain(..) {
            // It has said why.
            let _ = thread.join();
        }
        drop(self.landed);
        while self.ends.blocking_recv().is_some() {}
    }
}

/// The files, each as both ends see it.
struct Work {
    files: Vec<(RelPath, Identity)>,
    shift: Arc<Shift>,
    detector_id: Arc<str>,
}

impl Work {
    fn new(bench: &Bench<'_>) -> Result<Self, String> {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let shift = Shift::new(ShiftId(1), uid, gid, "", Vec::new()).map_err(|error| error.to_string())?;
        let file = |n: u64| {
            let path = RelPath::new(n.to_string().as_bytes()).map_err(|error| error.to_string())?;
            let opened =
                File::open(bench.place.source().join(path.as_path())).map_err(|error| error.to_string())?;
            let FileStat { size, mtime_ns, ino, ctime_ns, .. } =
                FileStat::of(opened).map_err(|error| error.to_string())?;
            Ok::<_, String>((path, Identity { size, mtime_ns, ino, ctime_ns }))
        };
        let files = (0..bench.place.files).map(file).collect::<Result<_, _>>()?;
        Ok(Self { files, shift: Arc::new(shift), detector_id: "tune".into() })
    }

    fn numbered(&self, n: u64) -> Result<(SendJob, LandJob), String> {
        let (path, identity) = &self.files[(n % self.files.len() as u64) as usize];
        let transfer = TransferId(n);
        let at = RelPath::new(format!("run/{n}").as_bytes()).map_err(|error| error.to_string())?;
        let land = LandJob {
            detector: DetectorIndex(0),
            detector_id: Arc::clone(&self.detector_id),
            shift: Arc::clone(&self.shift),
            path: path.clone(),
            at,
            to: None,
            offered: *identity,
            replace_past: false,
            compare_only: false,
        };
        Ok((SendJob { transfer, path: path.clone(), identity: *identity, known_hash: None }, land))
    }
}

/// Both ends of a connection set up as the daemons do, the sending one first.
fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ppu_uring::socket::tune_listener(&listener);
    let far = TcpStream::connect(listener.local_addr()?)?;
    let near = listener.accept()?.0;
    for stream in [&near, &far] {
        ppu_uring::socket::tune(stream, DEAD_AFTER)?;
    }
    Ok((near, far))
}

fn send(connection: TcpStream, jobs: &Jobs, source: &Path, engine: Choice) -> io::Result<()> {
    let mut opened = open_engine(engine, stream::LIMITS).map_err(io::Error::other)?;
    let root = Root::open(source).map_err(io::Error::other)?;
    let open = |path: &RelPath| -> io::Result<OwnedFd> {
        root.open_file(path).map(|(fd, _)| fd).map_err(|error| error.errno.into())
    };
    let settings = stream::Settings {
        connection,
        jobs,
        open: &open,
        settling: Settling::probe(File::open(source)?),
        report: &mut |_| {},
    };
    stream::run(settings, &mut *opened.driver).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_changed_for_a_clear_gain_only() {
        let row = |engine, streams, bytes| {
            let way = Way { engine, streams };
            Row { way, files: 1, bytes, took: Duration::from_secs(1) }
        };
        let (uring, syscall) = (Engine::Uring, Engine::Syscall);
        let rows = [row(uring, 1, 50), row(uring, 2, 100), row(syscall, 1, 109), row(syscall, 2, 10)];
        assert_eq!(now(ppu_config::Engine::Auto, &rows), Some(uring));
        assert_eq!(best_engine(&rows, Some(uring)), Some(uring));
        assert_eq!(best_engine(&rows, Some(syscall)), Some(syscall));
        let rows = [row(uring, 2, 100), row(syscall, 1, 111)];
        assert_eq!(best_engine(&rows, Some(uring)), Some(syscall));
        // Where io_uring is forbidden.
        let rows = [row(syscall, 1, 111)];
        assert_eq!(now(ppu_config::Engine::Auto, &rows), Some(syscall));
        assert_eq!(now(ppu_config::Engine::Uring, &rows), None);
        assert_eq!(best_engine(&rows, None), Some(syscall));
        assert_eq!(best_engine(&[], None), None);
    }
}
