//! Files through the daemons' own streams, from one directory of the ramdisk to another: engines and connections.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ppu_uring::{Choice, Engine, open_engine};
use ppu_uringd::land::expect::Expect;
use ppu_uringd::model::file_version::{Identity, TransferId};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::send::SendJob;
use ppu_uringd::rooted::{FileStat, Root};
use ppu_uringd::send::jobs::Jobs;
use ppu_uringd::send::settle::Settling;
use ppu_uringd::send::stream;
use serde::{Serialize, Serializer};

use super::super::Failure;
use super::super::output::note;
use super::arrivals::{Arrivals, News, Supply};
use super::place::Place;
use super::table::{self, ROUNDS, Row};
use super::{Bench, STREAMS};

/// An engine is changed only where the other one is so much better.
const ENGINE_GAIN: f64 = 1.1;
/// A connection whose peer is gone.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// How files are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Way {
    #[serde(serialize_with = "word")]
    pub(super) engine: Engine,
    pub(super) streams: u16,
}

pub(super) fn word<S: Serializer>(engine: &Engine, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(engine)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, streams {}", self.engine, self.streams)
    }
}

/// Each engine that this host allows.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Row<Way>>, Failure> {
    let allowed = engines();
    bench.pace.done += (2 - allowed.len()) * STREAMS.len() * ROUNDS;
    let ways: Vec<_> =
        allowed.into_iter().flat_map(|engine| STREAMS.map(|streams| Way { engine, streams })).collect();
    table::rounds(&ways, |way| {
        let row = one(bench, way).map_err(|error| Failure::Failed(format!("{way}: {error}")))?;
        bench.pace.progress(&format!("{way}: {:.0} MB/s", row.rate() / 1e6));
        Ok(row)
    })
}

/// Which this host allows; says why one is not among them.
pub(super) fn engines() -> Vec<Engine> {
    let allowed = |engine: &Engine| match open_engine(choice(*engine), stream::LIMITS) {
        Ok(_) => true,
        Err(error) => {
            note(&format!("engine {engine}: {error}"));
            false
        }
    };
    [Engine::Uring, Engine::Syscall].into_iter().filter(allowed).collect()
}

/// What the daemon takes now, if that was measured.
pub(super) fn now<W>(
    configured: ppu_config::Engine,
    rows: &[Row<W>],
    engine: impl Fn(&W) -> Engine,
) -> Option<Engine> {
    let measured = |wanted| rows.iter().any(|row| engine(&row.way) == wanted);
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
pub(super) fn best_engine<W>(
    rows: &[Row<W>],
    engine: impl Fn(&W) -> Engine,
    now: Option<Engine>,
) -> Option<Engine> {
    let top =
        |wanted| rows.iter().filter(|row| engine(&row.way) == wanted).map(Row::rate).fold(0.0, f64::max);
    let best = if top(Engine::Uring) >= top(Engine::Syscall) { Engine::Uring } else { Engine::Syscall };
    match now {
        Some(now) if top(best) <= ENGINE_GAIN * top(now) => Some(now),
        _ => Some(best).filter(|best| top(*best) > 0.0),
    }
}

pub(super) fn choice(engine: Engine) -> Choice {
    match engine {
        Engine::Uring => Choice::Uring,
        Engine::Syscall => Choice::Syscall,
    }
}

fn one(bench: &Bench<'_>, way: Way) -> Result<Row<Way>, String> {
    let text = |error: io::Error| error.to_string();
    let arrivals =
        Arrivals::new(&bench.place.target().map_err(text)?, bench.config.verify, choice(way.engine))
            .map_err(text)?;
    let mut plane = Plane::start(&arrivals, &bench.place, way).map_err(text)?;
    let expect = Arc::clone(&plane.expect);
    let counted = arrivals.count(&mut plane, &expect, &bench.pace, bench.pace.time);
    plane.stop();
    arrivals.clear()?;
    let (files, bytes, took) = counted?;
    Ok(Row { way, files, bytes, took })
}

/// Both ends of a detector's data connections.
struct Plane {
    files: Vec<(RelPath, Identity)>,
    jobs: Arc<Jobs>,
    expect: Arc<Expect>,
    threads: Vec<JoinHandle<()>>,
    ends: tokio::sync::mpsc::Receiver<String>,
}

impl Plane {
    fn start(arrivals: &Arrivals, place: &Place, way: Way) -> io::Result<Self> {
        let (jobs, expect) = (Arc::new(Jobs::default()), Arc::new(Expect::default()));
        let (ended, ends) = tokio::sync::mpsc::channel(usize::from(way.streams));
        let files = (0..place.files).map(|n| file(place, n)).collect::<io::Result<_>>()?;
        let mut plane = Self { files, jobs, expect, threads: Vec::new(), ends };
        for _ in 0..way.streams {
            let (near, far) = connection()?;
            let tell = arrivals.tell.clone();
            let report = move |landed| drop(tell.send(News::Landed(landed)));
            arrivals.landing.start(far, Arc::clone(&plane.expect), report, ended.clone())?;
            let (jobs, source, tell) = (Arc::clone(&plane.jobs), place.source(), arrivals.tell.clone());
            let sending = move || {
                if let Err(error) = send(near, &jobs, &source, choice(way.engine)) {
                    // Nobody listens where the measurement has ended already.
                    let _ = tell.send(News::Broken(format!("sending: {error}")));
                }
            };
            plane.threads.push(std::thread::Builder::new().name("send".to_owned()).spawn(sending)?);
        }
        Ok(plane)
    }

    /// Ends every thread. What a stream has in hand ends first.
    fn stop(mut self) {
        self.jobs.close();
        for thread in self.threads.drain(..) {
            // It has said why.
            let _ = thread.join();
        }
        while self.ends.blocking_recv().is_some() {}
    }
}

impl Supply for Plane {
    fn files(&self) -> &[(RelPath, Identity)] {
        &self.files
    }

    fn ask(&mut self, wanted: &[(TransferId, usize)]) -> Result<(), String> {
        for &(transfer, at) in wanted {
            let (path, identity) = self.files[at].clone();
            self.jobs.push(SendJob { transfer, path, identity, known_hash: None });
        }
        Ok(())
    }
}

fn file(place: &Place, n: u64) -> io::Result<(RelPath, Identity)> {
    let path = RelPath::new(n.to_string().as_bytes()).map_err(io::Error::other)?;
    let opened = File::open(place.source().join(path.as_path()))?;
    let FileStat { size, mtime_ns, ino, ctime_ns, .. } = FileStat::of(opened)?;
    Ok((path, Identity { size, mtime_ns, ino, ctime_ns }))
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
        let engine = |way: &Way| way.engine;
        let rows = [row(uring, 1, 50), row(uring, 2, 100), row(syscall, 1, 109), row(syscall, 2, 10)];
        assert_eq!(now(ppu_config::Engine::Auto, &rows, engine), Some(uring));
        assert_eq!(best_engine(&rows, engine, Some(uring)), Some(uring));
        assert_eq!(best_engine(&rows, engine, Some(syscall)), Some(syscall));
        let rows = [row(uring, 2, 100), row(syscall, 1, 111)];
        assert_eq!(best_engine(&rows, engine, Some(uring)), Some(syscall));
        // Where io_uring is forbidden.
        let rows = [row(syscall, 1, 111)];
        assert_eq!(now(ppu_config::Engine::Auto, &rows, engine), Some(syscall));
        assert_eq!(now(ppu_config::Engine::Uring, &rows, engine), None);
        assert_eq!(best_engine(&rows, engine, None), Some(syscall));
        assert_eq!(best_engine(&[], engine, None), None);
    }
}
