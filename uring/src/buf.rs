//! Memory for O_DIRECT, and for everything that is reused.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of buffers, and of offsets and lengths that every O_DIRECT file system accepts. Bytes.
pub const PAGE_BYTES: usize = 4096;

const PAGE: NonZeroUsize = NonZeroUsize::new(PAGE_BYTES).expect("a page has bytes");

/// An owned, zero-initialised buffer whose address is a multiple of [`PAGE_BYTES`]. It never moves or grows, so the kernel may
/// hold its address while the value itself is moved.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes; none take no memory. Aborts the process when memory is exhausted, as every allocation of the standard library does.
    pub fn new(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::without_provenance(PAGE), len };
        }
        let layout = layout(len);
        // SAFETY: the layout's size is at least one page, never zero.
        let start =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, len }
    }
}

fn layout(len: usize) -> Layout {
    let size = len.clamp(1, isize::MAX as usize - PAGE_BYTES).next_multiple_of(PAGE_BYTES);
    // SAFETY: the alignment is a power of two, and the size was just limited so that rounding up cannot overflow an isize.
    unsafe { Layout::from_size_align_unchecked(size, PAGE_BYTES) }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `new` with the layout of the same length.
            unsafe { dealloc(self.start.as_ptr(), layout(self.len)) }
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that we own; the kernel writes them only while an op owns the buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: the buffer is plain memory, owned exclusively.
unsafe impl Send for AlignedBuf {}
// SAFETY: `&AlignedBuf` gives read access only.
unsafe impl Sync for AlignedBuf {}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_zeroed_writable() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.as_ptr() as usize % PAGE_BYTES, 0);
            assert_eq!(buf.len(), len);
            assert!(buf.iter().all(|&b| b == 0));
            buf.fill(7);
        }
    }
}
