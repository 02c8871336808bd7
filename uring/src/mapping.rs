//! A file's pages as the source of writes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::buf::PAGE_BYTES;

/// A file mapped for reading, as the source of [`crate::ops::Write`].
///
/// Nothing in this process ever dereferences it: if the file is truncated, touching the lost pages would kill the process by
/// SIGBUS, and a concurrent writer would make a slice of it unsound. The kernel reads it instead, and reports lost pages as EFAULT.
#[derive(Debug, Clone)]
pub struct Mapping {
    pages: Arc<Mmap>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(file: impl AsFd, len: usize) -> io::Result<Self> {
        // SAFETY: the mapping is never dereferenced here, only handed to the kernel as an address (see the type).
        let pages = unsafe { MmapOptions::new().len(len).map(file.as_fd().as_raw_fd()) }?;
        Ok(Self { pages: Arc::new(pages), len })
    }

    /// Bytes of the file that were mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// [`Mapping::len`] rounded up to whole pages: what may be written from it. The tail behind the file's end reads as zeros.
    pub fn padded_len(&self) -> usize {
        self.len.next_multiple_of(PAGE_BYTES)
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.pages.as_ptr()
    }
}
