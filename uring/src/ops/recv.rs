//! RECV: recv(2).

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, MsgFlags};

use super::{check_range, uninterrupted};
use crate::buf::AlignedBuf;
use crate::fd::Fd;

/// Receives into `buf[range]`: at least one byte, or, with `all`, everything unless the connection ends. 0 is the end.
#[derive(Debug)]
pub struct Recv {
    /// A stream socket.
    pub from: Fd,
    /// Where to.
    pub buf: AlignedBuf,
    /// Which part of it.
    pub range: Range<usize>,
    /// Wait until the range is full.
    pub all: bool,
}

impl Recv {
    pub(super) fn asked(&self) -> u32 {
        // Without `all` any positive number is all that was asked for.
        if self.all { self.range.len() as u32 } else { self.range.len().min(1) as u32 }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_range(&self.range, self.buf.len())
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        let flags = if self.all { MsgFlags::MSG_WAITALL } else { MsgFlags::empty() };
        let part = &mut self.buf[self.range.clone()];
        opcode::Recv::new(types::Fd(self.from.as_raw_fd()), part.as_mut_ptr(), part.len() as u32)
            .flags(flags.bits())
            .build()
    }

    pub(super) fn run(&mut self, moved: u32, wait: bool, stop: &AtomicBool) -> io::Result<u32> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let mut received = moved as usize;
        let part = &mut self.buf[self.range.clone()];
        while received < part.len() {
            let rest = &mut part[received..];
            let result = uninterrupted(stop, || Ok(socket::recv(self.from.as_raw_fd(), rest, flags)?));
            match result {
                Ok(0) => break,
                Ok(n) => received += n,
                Err(_) if received > 0 => break,
                Err(e) => return Err(e),
            }
            if !self.all {
                break;
            }
        }
        Ok(received as u32)
    }
}
