//! Files through the product's own streams: detector's jobs to published files, over data connections on loopback.

use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ppu_uring::{Choice, open_engine};
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

use crate::arena::Arena;

/// Two data connections, as configured by default.
pub const STREAMS: usize = 2;

/// Both ends of a detector's data connections, idle.
pub struct Plane {
    jobs: Arc<Jobs>,
    expect: Arc<Expect>,
    landed: Receiver<LandReport>,
    threads: Vec<std::thread::JoinHandle<()>>,
    ends: tokio::sync::mpsc::Receiver<String>,
}

/// A drain's files.
pub struct Work {
    jobs: Vec<(SendJob, LandJob)>,
    /// All of them together.
    pub bytes: u64,
}

impl Plane {
    /// Connects and starts every thread.
    ///
    /// # Errors
    /// No socket, no thread.
    pub fn start(arena: &Arena, engine: Choice, verify: bool) -> io::Result<Self> {
        let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let root = Arc::new(Root::open(&arena.target()).map_err(|e| other(&e))?);
        let staging = Arc::new(Staging::open(root).map_err(|e| other(&e))?);
        let landing = Landing { staging, links_to: None, verify, engine };
        let (jobs, expect) = (Arc::new(Jobs::default()), Arc::new(Expect::default()));
        let (report, landed) = channel();
        let (ended, ends) = tokio::sync::mpsc::channel(STREAMS);
        let mut threads = Vec::new();
        for _ in 0..STREAMS {
            let (near, far) = connection()?;
            let report = report.clone();
            let report = move |landed| drop(report.send(landed));
            landing.start(far, Arc::clone(&expect), report, ended.clone())?;
            let (jobs, source) = (Arc::clone(&jobs), arena.source());
            let sending = move || send(near, &jobs, &source, engine);
            threads.push(std::thread::Builder::new().name("send".to_owned()).spawn(sending)?);
        }
        Ok(Self { jobs, expect, landed, threads, ends })
    }

    /// Until the last file is visible.
    pub fn drain(&self, arena: &Arena, work: &Work) -> Duration {
        let start = Instant::now();
        for (job, landing) in &work.jobs {
            self.expect.add(job.transfer, landing.clone());
            self.jobs.push(job.clone());
        }
        for _ in &work.jobs {
            let report = self.landed.recv().expect("the streams end early");
            let landed = report.outcome.unwrap_or_else(|why| panic!("{:?}: {why}", report.transfer));
            arena.landed(landed.identity.size).expect("memory is freed");
        }
        start.elapsed()
    }

    /// Ends every thread.
    pub fn stop(mut self) {
        self.jobs.close();
        for thread in self.threads.drain(..) {
            thread.join().expect("a sending thread ends");
        }
        while self.ends.blocking_recv().is_some_and(|_| true) && self.landed.recv().is_ok() {}
    }
}

impl Work {
    /// Everything in the source, in order.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub fn of(arena: &Arena, count: usize) -> io::Result<Self> {
        let shift = Arc::new(Shift::new(ShiftId(1), 0, 0, "", Vec::new()).map_err(io::Error::other)?);
        let detector_id: Arc<str> = "bench".into();
        let mut work = Self { jobs: Vec::new(), bytes: 0 };
        for n in 0..count {
            let path = RelPath::new(n.to_string().as_bytes()).map_err(io::Error::other)?;
            let stat = FileStat::of(File::open(arena.source().join(path.as_path()))?)?;
            let FileStat { size, mtime_ns, ino, ctime_ns, .. } = stat;
            let identity = Identity { size, mtime_ns, ino, ctime_ns };
            let transfer = TransferId(n as u64);
            let land = LandJob {
                detector: DetectorIndex(0),
                detector_id: Arc::clone(&detector_id),
                shift: Arc::clone(&shift),
                path: path.clone(),
                at: path.clone(),
                to: None,
                offered: identity,
                replace_past: false,
                compare_only: false,
            };
            work.jobs.push((SendJob { transfer, path, identity, known_hash: None }, land));
            work.bytes += size;
        }
        Ok(work)
    }
}

/// Both ends of a tuned loopback connection, the sending one first: cubic, whatever the host's default.
///
/// # Errors
/// No socket.
pub fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    ppu_uring::socket::tune_listener(&listener);
    let far = TcpStream::connect(listener.local_addr()?)?;
    let near = listener.accept()?.0;
    for stream in [&near, &far] {
        ppu_uring::socket::tune(stream, Duration::from_secs(30))?;
    }
    Ok((near, far))
}

fn send(connection: TcpStream, jobs: &Jobs, source: &Path, engine: Choice) {
    let mut opened = open_engine(engine, stream::LIMITS).expect("an engine");
    let root = Root::open(source).expect("the source");
    let open = |path: &RelPath| -> io::Result<OwnedFd> {
        root.open_file(path).map(|(fd, _)| fd).map_err(|error| error.errno.into())
    };
    let settings = stream::Settings {
        connection,
        jobs,
        open: &open,
        settling: Settling::probe(File::open(source).expect("the source")),
        report: &mut |_| {},
    };
    stream::run(settings, &mut *opened.driver).expect("nothing goes wrong");
}
