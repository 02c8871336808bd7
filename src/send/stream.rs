//! One data connection of the detector: takes jobs, sends files (PROTOCOL.md, "Data connections"), reports how each ended.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ppu_uring::ops::Send;
use ppu_uring::{Done, Driver, Entry, Fd, FileHasher, Limits, Link, Op, Pipe, socket};

use super::jobs::{Jobs, Next};
use super::settle::Settling;
use super::source::{self, Source};
use super::spliced::{Payload, Splicing, hash_of};
use super::staged::{Batch, STAGED_FILE_MAX};
use crate::host::priority::OnTheWay;
use crate::model::file_version::Hash;
use crate::model::offer::Decline;
use crate::model::path::RelPath;
use crate::model::send::{SendJob, SendOutcome, SendReport};
use crate::wire::data::{Status, Trailer, encode_headers};

/// What a stream needs of its driver: the headers and a segment of 16 MiB through a pipe of 1 MiB make a chain of 33. One worker,
/// as only one chain is in flight.
pub const LIMITS: Limits = Limits { depth: 64, workers: 1 };

/// How often operations may end without having moved anything before the connection is given up.
pub(super) const STALLS_MAX: u32 = 100;

/// While there is more to send, reports wait so long for company: waking the control thread costs as much as sending a small file.
const REPORT_AFTER: Duration = Duration::from_millis(2);
/// And never for as long as a larger file takes: 8 MiB.
const HELD_UP_MAX_BYTES: u64 = 8 << 20;

/// A file of so many bytes is hashed for too long to go before others: 4 MiB take half a millisecond.
const ASIDE_MIN_BYTES: u64 = 4 << 20;

/// How often an idle stream looks whether its connection is still there.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// What a stream is given.
pub struct Settings<'a> {
    /// After the handshake; blocking.
    pub connection: TcpStream,
    /// Shared with the session's other streams.
    pub jobs: &'a Jobs,
    /// Opens a file below the ramdisk for reading, without following links.
    pub open: &'a dyn Fn(&RelPath) -> io::Result<OwnedFd>,
    /// Of the ramdisk.
    pub settling: Settling,
    /// Is told how each job ended, in order and several at a time, except those that the connection's end cut short.
    pub report: &'a mut dyn FnMut(Vec<SendReport>),
}

/// Why a stream ended early. Jobs that were not reported end with the session.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// By the peer, the network, or shutdown(2).
    #[error("data connection lost: {0}")]
    Lost(#[source] io::Error),
    /// The PPU never says anything on a data connection.
    #[error("data connection closed by the PPU")]
    Closed,
    /// Not the connection's fault.
    #[error("engine failed: {0}")]
    Engine(#[source] io::Error),
}

impl StreamError {
    pub(super) fn stalled() -> Self {
        Self::Engine(io::Error::other("operations end without moving anything"))
    }
}

/// Sends files until the jobs are closed. Another thread ends it by closing the jobs and shutdown(2) of the connection.
///
/// # Errors
/// [`StreamError`].
pub fn run(settings: Settings<'_>, driver: &mut dyn Driver) -> Result<(), StreamError> {
    let Settings { connection, jobs, open, settling, report } = settings;
    let mut stream = Stream {
        socket: connection.into(),
        jobs,
        open,
        settling,
        report,
        ended: Vec::new(),
        ended_since: Instant::now(),
        driver,
        pipe: None,
        hasher: FileHasher::default(),
        sending: None,
        spare: Vec::new(),
    };
    let way = OnTheWay::read();
    while let Some(job) = stream.next_job()? {
        match job.identity.size {
            0..=STAGED_FILE_MAX => stream.batch(job)?,
            ASIDE_MIN_BYTES.. => way.aside(|| stream.single(&job))?,
            _ => stream.single(&job)?,
        }
    }
    Ok(())
}

struct Stream<'a> {
    socket: Fd,
    jobs: &'a Jobs,
    open: &'a dyn Fn(&RelPath) -> io::Result<OwnedFd>,
    settling: Settling,
    report: &'a mut dyn FnMut(Vec<SendReport>),
    /// Ended and not reported yet, with the time when the first of them was.
    ended: Vec<SendReport>,
    ended_since: Instant,
    driver: &'a mut dyn Driver,
    /// Empty between files.
    pipe: Option<Pipe>,
    hasher: FileHasher,
    /// A batch is being sent while the next is read; true once it is sent.
    sending: Option<Vec<SendReport>>,
    spare: Vec<u8>,
}

impl Stream<'_> {
    /// `None`: no more.
    fn next_job(&mut self) -> Result<Option<SendJob>, StreamError> {
        if self.ended_since.elapsed() > REPORT_AFTER {
            self.report_all();
        }
        loop {
            let idle = self.sending.is_none() && self.ended.is_empty();
            match self.jobs.next(if idle { IDLE_CHECK } else { Duration::ZERO }) {
                Next::Job(job) => return Ok(Some(job)),
                Next::Closed => {
                    self.finish_sending()?;
                    self.report_all();
                    return Ok(None);
                }
                Next::Nothing if !idle => {
                    self.finish_sending()?;
                    self.report_all();
                }
                Next::Nothing if socket::has_news(&self.socket) => return Err(StreamError::Closed),
                Next::Nothing => {}
            }
        }
    }

    /// Sends a small file, and with it what small files are waiting now: a batch never waits for more.
    fn batch(&mut self, first: SendJob) -> Result<(), StreamError> {
        let mut batch = Batch::new(std::mem::take(&mut self.spare));
        let mut next = Some(first);
        while let Some(job) = next {
            let added =
                Source::open(&job, self.open).and_then(|source| batch.add(&job, &source, self.settling));
            if let Err(outcome) = added {
                self.tell(&job, outcome);
            }
            next = self.jobs.next_if(|job| batch.suits(job));
        }
        match batch.close() {
            Err(unused) => self.spare = unused,
            Ok(closed) => {
                self.finish_sending()?;
                let send =
                    Send { to: self.socket.clone(), bytes: closed.bytes, range: closed.range, more: false };
                submit(self.driver, send)?;
                self.sending = Some(closed.reports);
            }
        }
        Ok(())
    }

    /// Sends a large file.
    fn single(&mut self, job: &SendJob) -> Result<(), StreamError> {
        self.finish_sending()?;
        if job.identity.size > HELD_UP_MAX_BYTES {
            self.report_all();
        }
        match self.prepare(job) {
            Err(outcome) => self.tell(job, outcome),
            Ok((source, pipe)) => {
                let outcome = self.splice(&source, pipe)?;
                self.tell(job, outcome);
            }
        }
        Ok(())
    }

    /// Everything that can fail before the PPU is told that a file comes.
    fn prepare(&mut self, job: &SendJob) -> Result<(Source, Pipe), SendOutcome> {
        let declined = |why, identity| SendOutcome::Declined { why, identity };
        let failed =
            |doing: &str, error: io::Error| declined(Decline::Failed(format!("{doing}: {error}")), None);
        let source = Source::open(job, self.open)?;
        if job.known_hash.is_some() {
            let hash = hash_of(&source, &mut self.hasher).map_err(|error| failed("hash", error))?;
            let now = source.now().map_err(|error| failed("statx", error))?;
            let Some(identity) = now.filter(|now| *now == job.identity && hash.is_some()) else {
                return Err(declined(Decline::Changed, now));
            };
            if hash == job.known_hash {
                let settled = self.settling.is_settled(identity.ctime_ns);
                return Err(declined(Decline::Unchanged { identity, settled }, Some(identity)));
            }
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => Pipe::new().map_err(|error| failed("pipe", error))?,
        };
        Ok((source, pipe))
    }

    fn splice(&mut self, source: &Source, pipe: Pipe) -> Result<SendOutcome, StreamError> {
        let mut headers = Vec::new();
        encode_headers(&[source.header], &mut headers);
        let mut splicing = Splicing::new(self.driver, &self.socket, &pipe, source, &mut self.hasher);
        let payload = splicing.run(headers)?;
        if !splicing.poisoned {
            self.pipe = Some(pipe);
        }
        let before = source.header.identity;
        let (status, hash, now) = match (payload, source.now()) {
            (Payload::Failed(reason), _) => (Err(reason), None, None),
            (_, Err(error)) => (Err(format!("statx: {error}")), None, None),
            (Payload::Whole(hash), Ok(now)) => (Ok(now == Some(before)), Some(hash), now),
            (Payload::Shrunk, Ok(now)) => (Ok(false), None, now),
        };
        let identity = now.unwrap_or(before);
        let settled = status == Ok(true) && self.settling.is_settled(identity.ctime_ns);
        let (status, outcome) = match status {
            Ok(true) => (Status::Unchanged, SendOutcome::Sent { identity, settled }),
            Ok(false) => (Status::Changed, SendOutcome::Changed { identity: now }),
            Err(reason) => (Status::Failed, SendOutcome::Failed(reason)),
        };
        let hash = hash.unwrap_or(Hash([0; 16]));
        let mut trailer = Vec::new();
        Trailer { transfer: source.header.transfer, status, settled, hash, identity }.encode(&mut trailer);
        send_all(self.driver, &self.socket, trailer, false)?;
        Ok(outcome)
    }

    /// Waits for the batch under way, if any.
    fn finish_sending(&mut self) -> Result<(), StreamError> {
        let Some(reports) = self.sending.take() else { return Ok(()) };
        for done in self.driver.finish().map_err(StreamError::Engine)? {
            self.spare = send_rest(self.driver, done)?;
        }
        reports.into_iter().for_each(|report| self.note(report));
        Ok(())
    }

    fn tell(&mut self, job: &SendJob, mut outcome: SendOutcome) {
        if let SendOutcome::Changed { identity: nowhere @ None }
        | SendOutcome::Declined { why: Decline::Changed, identity: nowhere @ None } = &mut outcome
        {
            // It was deleted, or another file was renamed over it: then it is not lost.
            *nowhere = source::found(&job.path, self.open);
        }
        self.note(SendReport { transfer: job.transfer, outcome });
    }

    fn note(&mut self, report: SendReport) {
        if self.ended.is_empty() {
            self.ended_since = Instant::now();
        }
        // Of a file that went out well the PPU will say more itself.
        let went_out = matches!(report.outcome, SendOutcome::Sent { .. });
        self.ended.push(report);
        if !went_out {
            self.report_all();
        }
    }

    fn report_all(&mut self) {
        if !self.ended.is_empty() {
            (self.report)(std::mem::take(&mut self.ended));
        }
    }
}

fn submit(driver: &mut dyn Driver, send: Send) -> Result<(), StreamError> {
    let chain = vec![Entry { op: send.into(), token: 0, link: Link::No }];
    driver.submit(chain).map_err(|refused| StreamError::Engine(refused.into()))
}

/// Sends all of `bytes`. Nothing else is in flight.
pub(super) fn send_all(
    driver: &mut dyn Driver,
    socket: &Fd,
    bytes: Vec<u8>,
    more: bool,
) -> Result<(), StreamError> {
    submit(driver, Send { to: socket.clone(), range: 0..bytes.len(), bytes, more })?;
    for done in driver.finish().map_err(StreamError::Engine)? {
        send_rest(driver, done)?;
    }
    Ok(())
}

/// Sends what an ended send has left; gives the buffer back.
pub(super) fn send_rest(driver: &mut dyn Driver, done: Done) -> Result<Vec<u8>, StreamError> {
    let mut done = done;
    let mut stalls = 0;
    loop {
        let moved = done.moved().map_err(StreamError::Lost)? as usize;
        let Op::Send(mut send) = done.op else { return Ok(Vec::new()) };
        send.range.start += moved;
        if send.range.is_empty() {
            return Ok(send.bytes);
        }
        stalls = if moved == 0 { stalls + 1 } else { 0 };
        if stalls > STALLS_MAX {
            return Err(StreamError::stalled());
        }
        submit(driver, send)?;
        match driver.finish().map_err(StreamError::Engine)?.pop() {
            Some(next) => done = next,
            None => return Err(StreamError::stalled()),
        }
    }
}
