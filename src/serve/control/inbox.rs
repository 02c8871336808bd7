//! What a client says: lines, and descriptors that it hands over with them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::MAX_REQUEST_BYTES;

/// Descriptors in one piece of a stream; the kernel closes further ones.
const FILES_MAX: usize = 1;
/// Read at a time.
const PIECE_BYTES: usize = 4096;

/// A client's side of the conversation that has arrived and was not yet looked at.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// The last one that came. One request takes one, so what a client sends more is closed.
    file: Option<OwnedFd>,
}

/// One request.
pub(super) struct Line {
    /// With its newline, unless it is too long or the client has hung up.
    pub(super) bytes: Vec<u8>,
    pub(super) file: Option<OwnedFd>,
}

impl Inbox {
    /// The next line, or as much of it as fits; empty: the client has hung up. Cancelled, it loses nothing.
    pub(super) async fn line(&mut self, stream: &UnixStream) -> io::Result<Line> {
        let mut searched = 0;
        loop {
            if let Some(newline) = self.bytes[searched..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.take(searched + newline + 1));
            }
            searched = self.bytes.len();
            if self.bytes.len() >= MAX_REQUEST_BYTES || self.fill(stream).await? == 0 {
                return Ok(self.take(self.bytes.len()));
            }
        }
    }

    /// Until the client hangs up, or closes its sending side. A request that comes meanwhile waits.
    pub(super) async fn hang_up(&mut self, stream: &UnixStream) {
        while self.bytes.is_empty() {
            if !matches!(self.fill(stream).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }

    fn take(&mut self, end: usize) -> Line {
        let rest = self.bytes.split_off(end);
        Line { bytes: std::mem::replace(&mut self.bytes, rest), file: self.file.take() }
    }

    /// Reads once; 0: the end.
    async fn fill(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut piece = [0; PIECE_BYTES];
        let (count, file) = stream.async_io(Interest::READABLE, || receive(stream, &mut piece)).await?;
        self.bytes.extend_from_slice(&piece[..count]);
        self.file = file.or(self.file.take());
        Ok(count)
    }
}

fn receive(stream: &UnixStream, piece: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(piece)], &mut ancillary, flags)?;
    let mut file = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            for next in files {
                file = Some(next);
            }
        }
    }
    Ok((received.bytes, file))
}
