//! FSYNC: fsync(2), fdatasync(2).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};

use super::uninterrupted;
use crate::fd::Fd;

/// Makes what was written durable. A failure must never be retried on the same descriptor: the kernel has already forgotten
/// which pages were lost.
#[derive(Debug)]
pub struct Sync {
    /// A file or a directory.
    pub file: Fd,
    /// Data and size only, not the times: fdatasync(2).
    pub data_only: bool,
}

impl Sync {
    pub(super) fn asked(&self) -> u32 {
        0
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        let flags = if self.data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        opcode::Fsync::new(types::Fd(self.file.as_raw_fd())).flags(flags).build()
    }

    pub(super) fn run(&mut self, stop: &AtomicBool) -> io::Result<u32> {
        uninterrupted(stop, || {
            if self.data_only {
                rustix::fs::fdatasync(&self.file)?
            } else {
                rustix::fs::fsync(&self.file)?
            };
            Ok(0)
        })
    }
}
