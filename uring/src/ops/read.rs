//! READ: pread(2).

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};

use super::{check_range, uninterrupted};
use crate::buf::AlignedBuf;
use crate::fd::Fd;

/// Reads into `buf[range]` from offset `at`. May be short, as pread(2); 0 is the end of the file.
#[derive(Debug)]
pub struct Read {
    /// A file.
    pub from: Fd,
    /// Offset in it.
    pub at: u64,
    /// Where to.
    pub buf: AlignedBuf,
    /// Which part of it.
    pub range: Range<usize>,
}

impl Read {
    pub(super) fn asked(&self) -> u32 {
        self.range.len() as u32
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_range(&self.range, self.buf.len())
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        let part = &mut self.buf[self.range.clone()];
        opcode::Read::new(types::Fd(self.from.as_raw_fd()), part.as_mut_ptr(), part.len() as u32)
            .offset(self.at)
            .build()
    }

    pub(super) fn run(&mut self, stop: &AtomicBool) -> io::Result<u32> {
        let part = &mut self.buf[self.range.clone()];
        uninterrupted(stop, || Ok(rustix::io::pread(&self.from, &mut *part, self.at)? as u32))
    }
}
