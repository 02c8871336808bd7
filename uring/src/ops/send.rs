//! SEND: send(2), all of it.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};
use nix::sys::socket::{self, MsgFlags};

use super::{check_range, uninterrupted};
use crate::fd::Fd;

/// Sends `bytes[range]` completely, as long as the connection holds.
#[derive(Debug)]
pub struct Send {
    /// A stream socket.
    pub to: Fd,
    /// Where the bytes are.
    pub bytes: Vec<u8>,
    /// Which of them.
    pub range: Range<usize>,
    /// More will follow at once: the socket need not push a partial segment.
    pub more: bool,
}

impl Send {
    pub(super) fn asked(&self) -> u32 {
        self.range.len() as u32
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_range(&self.range, self.bytes.len())
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        // MSG_WAITALL: the kernel goes on after a short send, and calls one that ends short failed.
        let flags = self.flags() | MsgFlags::MSG_WAITALL;
        let part = &self.bytes[self.range.clone()];
        opcode::Send::new(types::Fd(self.to.as_raw_fd()), part.as_ptr(), part.len() as u32)
            .flags(flags.bits())
            .build()
    }

    pub(super) fn run(&mut self, moved: u32, wait: bool, stop: &AtomicBool) -> io::Result<u32> {
        let mut flags = self.flags();
        flags.set(MsgFlags::MSG_DONTWAIT, !wait);
        let part = &self.bytes[self.range.clone()];
        let mut sent = moved as usize;
        while sent < part.len() {
            let result = uninterrupted(stop, || Ok(socket::send(self.to.as_raw_fd(), &part[sent..], flags)?));
            match result {
                Ok(0) => break,
                Ok(n) => sent += n,
                // As in the ring: what was sent before the error is told first.
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent as u32)
    }

    fn flags(&self) -> MsgFlags {
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::from_bits_retain(libc::MSG_MORE), self.more);
        flags
    }
}
