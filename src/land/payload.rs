//! Bytes from the socket into files, through a buffer that stays in the processor's cache: there they are hashed, and from there written.

use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;

use ppu_uring::ops::Recv;
use ppu_uring::{AlignedBuf, Driver, Entry, Fd, FileHash, Link, Op};
use rustix::io::Errno;

use super::stream::StreamError;
use crate::model::file_version::Hash;
use crate::model::job::LandFailure;
use crate::wire::data::{
    BATCH_BYTES_MAX, BATCH_FILES_MAX, DataError, FileHeader, Mark, SEGMENT_BYTES, TRAILER_BYTES,
};

/// What is received at a time, and hashed: 512 KiB.
const RECV_BYTES: usize = 512 << 10;
/// What is written at a time: 2 MiB, a huge page, which the kernel need not clear if it is written as a whole.
const WRITE_BYTES: usize = 2 << 20;
/// Holds that, and what follows the headers of any batch of small files, so that nothing in it is ever moved.
const BUFFER_BYTES: usize = WRITE_BYTES;
const _: () = assert!(BATCH_BYTES_MAX as usize + BATCH_FILES_MAX * TRAILER_BYTES <= BUFFER_BYTES);
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
    /// So many bytes are certain to come, and may be received before they are needed.
    ahead: u64,
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
        let payload: u64 = headers.iter().map(|header| header.identity.size).sum();
        // A larger payload is one file's: received in pieces of its own, each in its place.
        let fits = payload <= BATCH_BYTES_MAX;
        self.ahead = if fits { payload + (headers.len() * TRAILER_BYTES) as u64 } else { 0 };
    }

    /// `size` bytes with the marks between their segments, into `file`; without one they are discarded.
    pub(super) fn payload(&mut self, size: u64, file: Option<&OwnedFd>) -> Result<Payload, StreamError> {
        let mut landing = Landing { file, failure: None, hash: FileHash::new(size) };
        let mut start = 0;
        loop {
            let end = size.min(start + SEGMENT_BYTES);
            self.segment(start, end, &mut landing)?;
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

    /// The bytes `start..end` of a payload.
    fn segment(&mut self, start: u64, end: u64, landing: &mut Landing<'_>) -> Result<(), StreamError> {
        let mut at = start;
        while at < end {
            let bytes = (end - at).min(WRITE_BYTES as u64) as usize;
            self.receive(bytes, landing)?;
            landing.write(at, self.take(bytes));
            at += bytes as u64;
        }
        Ok(())
    }

    /// Until `bytes` are held; hashes them as they come, unless they are discarded.
    fn receive(&mut self, bytes: usize, landing: &mut Landing<'_>) -> Result<(), StreamError> {
        let mut received = 0;
        while received < bytes {
            let before = received;
            received += RECV_BYTES.min(bytes - received);
            self.fill(received, false)?;
            if self.verify && landing.file.is_some() {
                let start = self.held.start;
                landing.hash.write(self.buffer.get(start + before..start + received).unwrap_or_default());
            }
        }
        Ok(())
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

/// A file that is being written.
struct Landing<'f> {
    /// `None`: what comes is discarded.
    file: Option<&'f OwnedFd>,
    failure: Option<LandFailure>,
    hash: FileHash,
}

impl Landing<'_> {
    fn fail(&mut self, doing: &str, error: &io::Error) {
        let reason = format!("{doing} the file that lands: {error}");
        self.failure = Some(match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => LandFailure::NoSpace(reason),
            _ => LandFailure::Io(reason),
        });
        self.file = None;
    }

    /// Writes the next bytes.
    fn write(&mut self, at: u64, bytes: &[u8]) {
        let Some(file) = self.file else { return };
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(file, &bytes[written..], at + written as u64) {
                Ok(0) => return self.fail("pwrite", &io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(errno) => return self.fail("pwrite", &errno.into()),
            }
        }
    }
}

fn ended() -> StreamError {
    StreamError::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle of a batch"))
}

fn stalled() -> StreamError {
    StreamError::Engine(io::Error::other("operations end without moving anything"))
}
