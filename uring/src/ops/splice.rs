//! SPLICE: splice(2).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};
use rustix::pipe::SpliceFlags;

use super::uninterrupted;
use crate::fd::Fd;

/// Moves up to `len` bytes; one side is a pipe. Being short is normal, 0 is the end of `from`.
#[derive(Debug)]
pub struct Splice {
    /// Source.
    pub from: Fd,
    /// Where in the source; `None` for a pipe or a socket.
    pub from_at: Option<u64>,
    /// Destination.
    pub to: Fd,
    /// Where in the destination; `None` for a pipe or a socket.
    pub to_at: Option<u64>,
    /// At most this many bytes.
    pub len: u32,
    /// More will follow at once: a socket need not push a partial segment.
    pub more: bool,
    /// EAGAIN instead of waiting for a pipe that is empty, or full.
    pub nonblock: bool,
}

impl Splice {
    pub(super) fn asked(&self) -> u32 {
        self.len
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let fits = |at: Option<u64>| at.is_none_or(|at| i64::try_from(at).is_ok());
        if self.len > super::OP_BYTES_MAX {
            return Err("longer than OP_BYTES_MAX");
        }
        if fits(self.from_at) && fits(self.to_at) { Ok(()) } else { Err("offset beyond i64") }
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        let at = |at: Option<u64>| at.map_or(-1, |at| at as i64);
        opcode::Splice::new(
            types::Fd(self.from.as_raw_fd()),
            at(self.from_at),
            types::Fd(self.to.as_raw_fd()),
            at(self.to_at),
            self.len,
        )
        .flags(self.flags().bits())
        .build()
    }

    pub(super) fn run(&mut self, stop: &AtomicBool) -> io::Result<u32> {
        uninterrupted(stop, || {
            let (mut from_at, mut to_at) = (self.from_at, self.to_at);
            let len = self.len as usize;
            let moved = rustix::pipe::splice(
                &self.from,
                from_at.as_mut(),
                &self.to,
                to_at.as_mut(),
                len,
                self.flags(),
            )?;
            Ok(moved as u32)
        })
    }

    fn flags(&self) -> SpliceFlags {
        let mut flags = SpliceFlags::empty();
        flags.set(SpliceFlags::MORE, self.more);
        flags.set(SpliceFlags::NONBLOCK, self.nonblock);
        flags
    }
}
