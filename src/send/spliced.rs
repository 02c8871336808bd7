//! A large file, alone in its batch: its pages go to the socket by reference, through a pipe, while this thread hashes them.

use std::io;

use ppu_uring::ops::{Send, Splice};
use ppu_uring::{Driver, Entry, Fd, FileHash, FileHasher, Link, Op, PAGE_BYTES, Pipe};

use super::source::Source;
use super::stream::{STALLS_MAX, StreamError, send_all, send_rest};
use crate::model::file_version::Hash;
use crate::wire::data::{Mark, SEGMENT_BYTES};

/// What is sent at a time in place of bytes that a file has lost.
const ZEROS_BYTES: u64 = 256 << 10;

/// How the payload ended.
pub(super) enum Payload {
    /// All of it was sent, as announced; the hash of what was read.
    Whole(Hash),
    /// The file is shorter than it was.
    Shrunk,
    /// It could not be read.
    Failed(String),
}

/// Sends one file's payload.
pub(super) struct Splicing<'a> {
    driver: &'a mut dyn Driver,
    socket: &'a Fd,
    pipe: &'a Pipe,
    source: &'a Source,
    hasher: &'a mut FileHasher,
    hash: FileHash,
    /// The pipe saw an error, so it must not be used for another file: what is left in it would be sent as that file's.
    pub(super) poisoned: bool,
}

impl<'a> Splicing<'a> {
    /// `pipe` is empty.
    pub(super) fn new(
        driver: &'a mut dyn Driver,
        socket: &'a Fd,
        pipe: &'a Pipe,
        source: &'a Source,
        hasher: &'a mut FileHasher,
    ) -> Self {
        let hash = FileHash::new(source.size());
        Self { driver, socket, pipe, source, hasher, hash, poisoned: false }
    }

    /// Sends `headers`, then every segment with the marks between them.
    pub(super) fn run(&mut self, headers: Vec<u8>) -> Result<Payload, StreamError> {
        let size = self.source.size();
        let mut headers = Some(headers);
        let mut start = 0;
        loop {
            let end = size.min(start + SEGMENT_BYTES);
            let cut = self.segment(start, end, headers.take())?;
            if end == size {
                return Ok(cut.unwrap_or_else(|| Payload::Whole(self.hash.finish().into())));
            }
            let mark = if cut.is_some() { Mark::EndsHere } else { Mark::GoesOn };
            send_all(self.driver, self.socket, mark.encode().to_vec(), true)?;
            if let Some(cut) = cut {
                return Ok(cut);
            }
            start = end;
        }
    }

    /// Sends the file's bytes `start..end`, with zeros in the place of what cannot be read, and says why it could not.
    fn segment(
        &mut self,
        start: u64,
        end: u64,
        mut headers: Option<Vec<u8>>,
    ) -> Result<Option<Payload>, StreamError> {
        // The pipe holds what lies between the two.
        let (mut into, mut out) = (start, start);
        let mut cut = None;
        let mut stalls = 0;
        while out < end && (cut.is_none() || out < into) {
            let until = if cut.is_none() { end } else { into };
            let chain = self.chain(headers.take(), out, into, until);
            self.driver.submit(chain).map_err(|refused| StreamError::Engine(refused.into()))?;
            if cut.is_none() {
                cut = self.hash_up_to(end);
            }
            let before = (into, out);
            for done in self.driver.finish().map_err(StreamError::Engine)? {
                self.poisoned |= done.result.is_err();
                match (&done.op, done.token) {
                    (Op::Send(_), _) => drop(send_rest(self.driver, done)?),
                    (_, INTO_PIPE) => match done.moved() {
                        Ok(0) if done.result.is_ok() => cut = cut.or(Some(Payload::Shrunk)),
                        Ok(n) => into += u64::from(n),
                        Err(error) => cut = Some(Payload::Failed(format!("splice: {error}"))),
                    },
                    _ => out += u64::from(done.moved().map_err(StreamError::Lost)?),
                }
            }
            stalls = if before == (into, out) { stalls + 1 } else { 0 };
            if stalls > STALLS_MAX {
                return Err(StreamError::stalled());
            }
        }
        while out < end {
            let zeros = (end - out).min(ZEROS_BYTES);
            send_all(self.driver, self.socket, vec![0; zeros as usize], true)?;
            out += zeros;
        }
        Ok(cut)
    }

    /// Says why, where that is not possible.
    fn hash_up_to(&mut self, end: u64) -> Option<Payload> {
        match self.hasher.advance(&mut self.hash, &self.source.file, end) {
            Ok(true) => None,
            Ok(false) => Some(Payload::Shrunk),
            Err(error) => Some(Payload::Failed(format!("read: {error}"))),
        }
    }

    /// What is still to be done, as far as it fits one chain: a short operation breaks it, then the counters tell what is left.
    fn chain(&self, headers: Option<Vec<u8>>, out: u64, into: u64, until: u64) -> Vec<Entry> {
        let link = Link::Soft;
        let mut chain = Vec::new();
        if let Some(bytes) = headers {
            let send = Send { to: self.socket.clone(), range: 0..bytes.len(), bytes, more: true };
            chain.push(Entry { op: send.into(), token: HEADERS, link });
        }
        let out_of_pipe = |bytes: u64| {
            let (from, to) = (self.pipe.out.clone(), self.socket.clone());
            let len = bytes as u32;
            let op = Splice { from, from_at: None, to, to_at: None, len, more: true, nonblock: false };
            Entry { op: op.into(), token: OUT_OF_PIPE, link }
        };
        if into > out {
            chain.push(out_of_pipe(into - out));
        }
        let mut at = into;
        while at < until && chain.len() + 2 <= self.driver.room() {
            // Whole pages: each takes a place in the pipe, a part of one too.
            let room = self.pipe.capacity as u64 - at % PAGE_BYTES as u64;
            let bytes = room.min(until - at);
            let (from, to) = (self.source.file.clone(), self.pipe.into.clone());
            let (from_at, len) = (Some(at), bytes as u32);
            // The pipe is empty by then; if it were not, waiting for room would be waiting for ourselves.
            let op = Splice { from, from_at, to, to_at: None, len, more: false, nonblock: true };
            chain.push(Entry { op: op.into(), token: INTO_PIPE, link });
            chain.push(out_of_pipe(bytes));
            at += bytes;
        }
        chain
    }
}

const HEADERS: u64 = 0;
const INTO_PIPE: u64 = 1;
const OUT_OF_PIPE: u64 = 2;

/// The hash of a whole file, before anything of it is sent; `None`: it is shorter than it was.
pub(super) fn hash_of(source: &Source, hasher: &mut FileHasher) -> io::Result<Option<Hash>> {
    let mut hash = FileHash::new(source.size());
    let whole = hasher.advance(&mut hash, &source.file, source.size())?;
    Ok(whole.then(|| hash.finish().into()))
}
