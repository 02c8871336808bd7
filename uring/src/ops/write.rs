//! WRITE: pwrite(2).

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicBool;

use io_uring::{opcode, squeue, types};

use super::{check_range, uninterrupted};
use crate::buf::AlignedBuf;
use crate::fd::Fd;
use crate::mapping::Mapping;
use crate::sys;

/// Writes `data[range]` at offset `at`. May be short, as pwrite(2); 0 bytes is to be taken for an error.
#[derive(Debug)]
pub struct Write {
    /// A file.
    pub to: Fd,
    /// Offset in it.
    pub at: u64,
    /// Where the bytes come from.
    pub data: Data,
    /// Which of them.
    pub range: Range<usize>,
}

/// Memory that is written from.
#[derive(Debug)]
pub enum Data {
    /// The range may reach to [`Mapping::padded_len`]. EFAULT: the mapped file was truncated.
    Mapped(Mapping),
    /// A buffer.
    Buf(AlignedBuf),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::Mapped(mapping) => mapping.padded_len(),
            Data::Buf(buf) => buf.len(),
        }
    }

    fn as_ptr(&self) -> *const u8 {
        match self {
            Data::Mapped(mapping) => mapping.as_ptr(),
            Data::Buf(buf) => buf.as_ptr(),
        }
    }
}

impl Write {
    pub(super) fn asked(&self) -> u32 {
        self.range.len() as u32
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_range(&self.range, self.data.len())
    }

    pub(super) fn encode(&mut self) -> squeue::Entry {
        opcode::Write::new(types::Fd(self.to.as_raw_fd()), self.start(), self.asked()).offset(self.at).build()
    }

    pub(super) fn run(&mut self, stop: &AtomicBool) -> io::Result<u32> {
        uninterrupted(stop, || {
            // SAFETY: `check` found the range inside the memory that `data` owns; the kernel only reads it.
            let written = unsafe { sys::pwrite(&self.to, self.start(), self.range.len(), self.at) }?;
            Ok(written as u32)
        })
    }

    fn start(&self) -> *const u8 {
        self.data.as_ptr().wrapping_add(self.range.start)
    }
}
