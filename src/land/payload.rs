//! Bytes from the socket into files. Small payloads through a buffer, in which they are hashed; large ones by splicing, and hashed in
//! the file, while the next pages arrive.

use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ppu_uring::ops::{Recv, Splice};
use ppu_uring::{AlignedBuf, Driver, Entry, Fd, FileHash, FileHasher, Link, Op, Pipe};
use rustix::io::Errno;

use super::stream::StreamError;
use crate::model::file_version::Hash;
use crate::model::job::LandFailure;
use crate::wire::data::{
    BATCH_BYTES_MAX, BATCH_FILES_MAX, DataError, FileHeader, Mark, SEGMENT_BYTES, TRAILER_BYTES,
};

/// Larger payloads are spliced: 256 KiB. Below, handing every splice to another thread costs more than the copy it saves.
const BUFFERED_MAX: u64 = 256 << 10;
/// What is received at a time: 256 KiB, stays in the processor's cache until it is hashed and written.
const RECV_BYTES: usize = 256 << 10;
/// Holds what follows the headers of any batch of small files, so that nothing in it is ever moved.
const BUFFER_BYTES: usize = BATCH_BYTES_MAX as usize + BATCH_FILES_MAX * TRAILER_BYTES;
/// How often operations may end without having moved anything before the connection is given up.
const STALLS_MAX: u32 = 100;

/// How a payload came in.
pub(super) struct Payload {
    /// It ended at a mark, before its announced size.
    pub(super) cut: bool,
    /// The hash of what was written (means nothing without `verify`), or why it could not be written.
    pub(super) written: Result<Hash, LandFailure>,
}

/// A connection and what it is received with.
pub(super) struct Receiving<'a> {
    socket: Fd,
    verify: bool,
    driver: &'a mut dyn Driver,
    /// Lent to the driver while it receives.
    buffer: AlignedBuf,
    /// Received and not yet used.
    held: Range<usize>,
    /// So many bytes that are still to come may be received before they are needed: none of them will be spliced.
    ahead: u64,
    /// Empty between payloads.
    pipe: Option<Pipe>,
    hasher: FileHasher,
}

impl<'a> Receiving<'a> {
    pub(super) fn new(connection: TcpStream, verify: bool, driver: &'a mut dyn Driver) -> Self {
        Self {
            socket: connection.into(),
            verify,
            driver,
            buffer: AlignedBuf::new(BUFFER_BYTES),
            held: 0..0,
            ahead: 0,
            pipe: None,
            hasher: FileHasher::default(),
        }
    }

    /// A record of fixed size.
    pub(super) fn record<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        self.fill(N, false)?;
        Ok(self.take(N).first_chunk().copied().unwrap_or([0; N]))
    }

    /// A record where the connection may as well have ended.
    pub(super) fn first_record<const N: usize>(&mut self) -> Result<Option<[u8; N]>, StreamError> {
        if !self.fill(N, true)? {
            return Ok(None);
        }
        Ok(self.take(N).first_chunk().copied())
    }

    /// `count` records in a row, which fit the buffer.
    pub(super) fn records<const N: usize>(
        &mut self,
        count: usize,
        each: impl FnMut(&[u8; N]) -> Result<(), DataError>,
    ) -> Result<(), StreamError> {
        self.fill(count * N, false)?;
        self.take(count * N).as_chunks().0.iter().try_for_each(each).map_err(StreamError::from)
    }

    /// What these headers announce comes next.
    pub(super) fn expect(&mut self, headers: &[FileHeader]) {
        let small = headers.iter().all(|header| header.identity.size <= BUFFERED_MAX);
        let payload: u64 = headers.iter().map(|header| header.identity.size.min(BUFFERED_MAX)).sum();
        self.ahead = if small { payload + (headers.len() * TRAILER_BYTES) as u64 } else { 0 };
    }

    /// `size` bytes with the marks between their segments, into `file`; without one they are discarded.
    pub(super) fn payload(&mut self, size: u64, file: Option<&Arc<OwnedFd>>) -> Result<Payload, StreamError> {
        let mut landing = Landing::new(file, size);
        let mut start = 0;
        loop {
            let end = size.min(start + SEGMENT_BYTES);
            if size > BUFFERED_MAX && landing.failure.is_none() {
                self.splice(start, end, &mut landing)?;
            } else {
                self.copy(start, end, &mut landing)?;
            }
            start = end;
            let cut = start < size && Mark::decode(self.record()?)? == Mark::EndsHere;
            if cut || start == size {
                let written = match landing.failure {
                    Some(failure) => Err(failure),
                    None => Ok(landing.hash.finish().into()),
                };
                return Ok(Payload { cut, written });
            }
        }
    }

    /// The bytes `start..end` of a payload, through the buffer.
    fn copy(&mut self, start: u64, end: u64, landing: &mut Landing) -> Result<(), StreamError> {
        let mut at = start;
        while at < end {
            let bytes = (end - at).min(RECV_BYTES as u64) as usize;
            self.fill(bytes, false)?;
            let verify = self.verify;
            landing.write(at, self.take(bytes), verify);
            at += bytes as u64;
        }
        Ok(())
    }

    /// The bytes `start..end` of a payload, through the pipe. After a failure the rest is received and discarded.
    fn splice(&mut self, start: u64, end: u64, landing: &mut Landing) -> Result<(), StreamError> {
        // Nothing to splice to, or no pipe (out of descriptors): the buffer does as well.
        let Some(file) = landing.file.clone() else { return self.copy(start, end, landing) };
        let Some(pipe) = self.pipe.take().or_else(|| Pipe::new().ok()) else {
            return self.copy(start, end, landing);
        };
        // The pipe holds what lies between the two.
        let (mut into, mut out) = (start, start);
        let mut stalls = 0;
        let mut poisoned = false;
        while out < end && landing.failure.is_none() {
            let pair = self.pair(&pipe, &file, into, out, end);
            self.driver.submit(pair).map_err(|refused| StreamError::Engine(refused.into()))?;
            // While the next bytes come, this thread reads what has landed.
            if self.verify {
                landing.hash_up_to(out, &mut self.hasher);
            }
            let before = (into, out);
            for done in self.driver.finish().map_err(StreamError::Engine)? {
                poisoned |= done.result.is_err();
                match done.token {
                    INTO_PIPE => match done.moved().map_err(StreamError::Lost)? {
                        0 if done.result.is_ok() => return Err(ended()),
                        n => into += u64::from(n),
                    },
                    _ => match done.moved() {
                        Ok(n) => out += u64::from(n),
                        Err(error) => landing.fail("splice", &error),
                    },
                }
            }
            stalls = if before == (into, out) { stalls + 1 } else { 0 };
            if stalls > STALLS_MAX {
                return Err(stalled());
            }
        }
        if landing.failure.is_some() {
            // What is in the pipe goes with it.
            drop(pipe);
            return self.copy(into, end, landing);
        }
        if self.verify {
            landing.hash_up_to(end, &mut self.hasher);
        }
        if !poisoned {
            self.pipe = Some(pipe);
        }
        Ok(())
    }

    /// Socket → pipe → file, as much as is there. The first is usually short, so the link is a hard one; should it not have brought
    /// anything, the second must not wait for it.
    fn pair(&self, pipe: &Pipe, file: &Fd, into: u64, out: u64, end: u64) -> Vec<Entry> {
        let mut pair = Vec::with_capacity(2);
        let held = into - out;
        let fetch = (end - into).min((pipe.capacity as u64).saturating_sub(held));
        if fetch > 0 {
            let (from, to, len) = (self.socket.clone(), pipe.into.clone(), fetch as u32);
            let op = Splice { from, from_at: None, to, to_at: None, len, more: false, nonblock: true };
            pair.push(Entry { op: op.into(), token: INTO_PIPE, link: Link::Hard });
        }
        let (from, to, len) = (pipe.out.clone(), file.clone(), (held + fetch) as u32);
        let op = Splice { from, from_at: None, to, to_at: Some(out), len, more: false, nonblock: true };
        pair.push(Entry { op: op.into(), token: OUT_OF_PIPE, link: Link::No });
        pair
    }

    /// The next `bytes` of those that are held.
    fn take(&mut self, bytes: usize) -> &[u8] {
        let start = self.held.start;
        self.held.start += bytes;
        self.buffer.get(start..start + bytes).unwrap_or_default()
    }

    /// Receives until at least `bytes` are held. False: the connection had ended before the first, and it `may_end`.
    fn fill(&mut self, bytes: usize, may_end: bool) -> Result<bool, StreamError> {
        let mut stalls = 0;
        while self.held.len() < bytes {
            if self.held.is_empty() {
                self.held = 0..0;
            }
            let missing = bytes - self.held.len();
            let ahead = usize::try_from(self.ahead).unwrap_or(usize::MAX).min(RECV_BYTES);
            let end = (self.held.end + missing.max(ahead)).min(BUFFER_BYTES);
            let range = self.held.end..end;
            let buf = std::mem::replace(&mut self.buffer, AlignedBuf::new(0));
            let all = range.len() == missing;
            let recv = Recv { from: self.socket.clone(), buf, range, all };
            let chain = vec![Entry { op: recv.into(), token: 0, link: Link::No }];
            self.driver.submit(chain).map_err(|refused| StreamError::Engine(refused.into()))?;
            let Some(done) = self.driver.finish().map_err(StreamError::Engine)?.pop() else {
                return Err(stalled());
            };
            let moved = done.moved();
            let ended_now = matches!(done.result, Ok(0));
            if let Op::Recv(recv) = done.op {
                self.buffer = recv.buf;
            }
            let moved = moved.map_err(StreamError::Lost)?;
            if ended_now {
                return if may_end && self.held.is_empty() { Ok(false) } else { Err(ended()) };
            }
            self.held.end += moved as usize;
            self.ahead = self.ahead.saturating_sub(u64::from(moved));
            stalls = if moved == 0 { stalls + 1 } else { 0 };
            if stalls > STALLS_MAX {
                return Err(stalled());
            }
        }
        Ok(true)
    }
}

const INTO_PIPE: u64 = 0;
const OUT_OF_PIPE: u64 = 1;

/// A file that is being written.
struct Landing {
    /// `None`: what comes is discarded.
    file: Option<Fd>,
    failure: Option<LandFailure>,
    hash: FileHash,
}

impl Landing {
    fn new(file: Option<&Arc<OwnedFd>>, size: u64) -> Self {
        let file = file.map(|file| Fd::from(Arc::clone(file)));
        Self { file, failure: None, hash: FileHash::new(size) }
    }

    fn fail(&mut self, doing: &str, error: &io::Error) {
        let reason = format!("{doing} the file that lands: {error}");
        self.failure = Some(match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => LandFailure::NoSpace(reason),
            _ => LandFailure::Io(reason),
        });
        self.file = None;
    }

    /// Hashes and writes bytes that are in memory.
    fn write(&mut self, at: u64, bytes: &[u8], verify: bool) {
        let Some(file) = &self.file else { return };
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(file, &bytes[written..], at + written as u64) {
                Ok(0) => return self.fail("pwrite", &io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(errno) => return self.fail("pwrite", &errno.into()),
            }
        }
        if verify {
            self.hash.write(bytes);
        }
    }

    /// Hashes what has landed.
    fn hash_up_to(&mut self, end: u64, hasher: &mut FileHasher) {
        let Some(file) = &self.file else { return };
        match hasher.advance(&mut self.hash, file, end) {
            Ok(true) => {}
            Ok(false) => self.fail("read", &io::ErrorKind::UnexpectedEof.into()),
            Err(error) => self.fail("read", &error),
        }
    }
}

fn ended() -> StreamError {
    StreamError::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle of a batch"))
}

fn stalled() -> StreamError {
    StreamError::Engine(io::Error::other("operations end without moving anything"))
}
