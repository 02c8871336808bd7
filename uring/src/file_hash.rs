//! xxh3-128 of a file, as fast as the file's pages allow.
//!
//! On huge pages a mapping shows the bytes without a copy, which makes hashing nearly twice as cheap. On small pages the page faults cost
//! more than the copy that they save, so there the bytes are read into a buffer. Which it is, the count of page faults tells.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::{Mmap, MmapOptions};
use twox_hash::XxHash3_128;

use crate::guard;
use crate::sys;

/// Smaller files are never mapped: 2 MiB, a huge page.
const MAP_MIN_BYTES: u64 = 2 << 20;
/// What is read, or looked at under guard, at a time: 256 KiB, stays in the processor's cache.
const PIECE_BYTES: usize = 256 << 10;
/// Small pages take a fault every 64 KiB at best, huge ones one every 2 MiB.
const FAULTS_MAX_PER_MIB: u64 = 6;
/// After small pages were met, so many files are read before one is mapped again.
const READ_AFTER_SMALL_PAGES: u32 = 64;

/// Hashes files for one thread.
#[derive(Debug, Default)]
pub struct FileHasher {
    buffer: Vec<u8>,
    /// So many files will be read without trying a mapping.
    read_next: u32,
}

/// The hash of one file, from its beginning up to some point.
pub struct FileHash {
    hash: XxHash3_128,
    at: u64,
    /// What the file will have in the end.
    size: u64,
    source: Source,
    faults: u64,
}

enum Source {
    Undecided,
    Mapped(Mmap),
    Read,
}

impl FileHash {
    /// Of a file that has `size` bytes, or will have them when the last of them is hashed.
    pub fn new(size: u64) -> Self {
        Self { hash: XxHash3_128::new(), at: 0, size, source: Source::Undecided, faults: 0 }
    }

    /// Goes on with bytes that are in memory.
    pub fn write(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
        self.at += bytes.len() as u64;
    }

    /// Of everything up to here.
    pub fn finish(&self) -> u128 {
        self.hash.finish_128()
    }
}

impl FileHasher {
    /// Goes on with the bytes of `file` up to `end`. False: it has fewer bytes than that, or lost some meanwhile; the hash is worth nothing.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn advance(&mut self, hash: &mut FileHash, file: impl AsFd, end: u64) -> io::Result<bool> {
        if hash.at >= end {
            return Ok(true);
        }
        if matches!(hash.source, Source::Undecided) {
            hash.source = self.choose(&file, hash.size);
        }
        let mapped = matches!(hash.source, Source::Mapped(_));
        let faults_before = if mapped { sys::page_faults() } else { 0 };
        while hash.at < end {
            let wanted = (end - hash.at).min(PIECE_BYTES as u64) as usize;
            let whole = match &hash.source {
                Source::Mapped(mapping) => hash_mapped(mapping, &mut hash.hash, hash.at as usize, wanted),
                _ => self.hash_read(&mut hash.hash, &file, hash.at, wanted)?,
            };
            if !whole {
                return Ok(false);
            }
            hash.at += wanted as u64;
        }
        if mapped {
            hash.faults += sys::page_faults().saturating_sub(faults_before);
            if hash.faults > FAULTS_MAX_PER_MIB * (1 + (hash.at >> 20)) {
                hash.source = Source::Read;
                self.read_next = READ_AFTER_SMALL_PAGES;
            }
        }
        Ok(true)
    }

    fn choose(&mut self, file: impl AsFd, size: u64) -> Source {
        if size < MAP_MIN_BYTES {
            return Source::Read;
        }
        if self.read_next > 0 {
            self.read_next -= 1;
            return Source::Read;
        }
        let Some(len) = usize::try_from(size).ok().filter(|_| guard::install()) else { return Source::Read };
        // SAFETY: looked at by `hash_mapped` only, see there.
        match unsafe { MmapOptions::new().len(len).map(file.as_fd().as_raw_fd()) } {
            Ok(mapping) => Source::Mapped(mapping),
            Err(_) => Source::Read,
        }
    }

    fn hash_read(
        &mut self,
        hash: &mut XxHash3_128,
        file: impl AsFd,
        at: u64,
        wanted: usize,
    ) -> io::Result<bool> {
        self.buffer.resize(PIECE_BYTES, 0);
        let mut filled = 0;
        while filled < wanted {
            match rustix::io::pread(&file, &mut self.buffer[filled..wanted], at + filled as u64) {
                Ok(0) => return Ok(false),
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        hash.write(&self.buffer[..wanted]);
        Ok(true)
    }
}

/// The bytes may change while they are read, should somebody write to the file. The hash function is the only code that sees them: it loads
/// each once, and neither an index nor a branch depends on what it loads. So all that comes of it is a hash of no version of the file, which is
/// what reading with pread(2) would give too; whoever hashes has to know by other means (size, times) that nobody wrote.
fn hash_mapped(mapping: &Mmap, hash: &mut XxHash3_128, at: usize, wanted: usize) -> bool {
    let Some(piece) = mapping.get(at..at + wanted) else { return false };
    guard::guarded(mapping.as_ptr_range(), || hash.write(piece))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 257) as u8).collect()
    }

    #[test]
    fn equals_the_hash_of_the_bytes_however_they_are_read() {
        let mut hasher = FileHasher::default();
        for len in [0, 1, 4097, 256 << 10, (2 << 20) - 1, 2 << 20, (5 << 20) + 7] {
            let bytes = content(len);
            let file = file(&bytes);
            // The second and later large files are read, as /dev/shm has small pages.
            for steps in [1, 3] {
                let mut hash = FileHash::new(len as u64);
                for step in 1..=steps {
                    let end = len as u64 * step / steps;
                    assert!(hasher.advance(&mut hash, &file, end).unwrap());
                    assert_eq!(hash.at, end);
                }
                assert_eq!(hash.finish(), XxHash3_128::oneshot(&bytes), "{len} bytes in {steps} steps");
            }
        }
    }

    #[test]
    fn a_file_that_shrinks_is_told_not_died_of() {
        let len = 8 << 20;
        let mut mapped = 0;
        for to in [0, 4096, 3 << 20] {
            let file = file(&content(len));
            let mut hasher = FileHasher::default();
            let mut hash = FileHash::new(len as u64);
            assert!(hasher.advance(&mut hash, &file, 1000).unwrap());
            mapped += u32::from(matches!(hash.source, Source::Mapped(_)));
            file.set_len(to).unwrap();
            assert!(!hasher.advance(&mut hash, &file, len as u64).unwrap());
        }
        assert_eq!(mapped, 3, "a mapping is tried first");
    }
}
