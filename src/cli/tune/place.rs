//! Directories of its own: files to be sent and copied on the ramdisk, and where they go.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::Failure;
use super::super::machine::{free_bytes, nearest_existing};
use super::own::Own;

/// Of the files together: they do not fit into the processors' caches.
const FILES_BYTES: u64 = 256_000_000;
/// At most this part of what is free is taken on any file system.
const PART: u64 = 4;
const FILES_MIN: u64 = 4;
const FILES_MAX: u64 = 4096;

/// The ramdisk's part.
pub(super) struct Place {
    dir: Own,
    /// Files, named by their numbers.
    pub(super) files: u64,
    pub(super) file_bytes: u64,
}

impl Place {
    pub(super) fn new(ramdisk: &Path, file_bytes: u64) -> Result<Self, Failure> {
        let free = free_bytes(ramdisk).map_err(|error| at(ramdisk, &error))?;
        // The same again is on its way at most.
        let fit = free / PART / 2 / file_bytes.max(4096);
        let files = (FILES_BYTES / file_bytes).clamp(FILES_MIN, FILES_MAX).min(fit);
        if files < FILES_MIN {
            return Err(Failure::Failed(format!(
                "{}: {free} bytes are free, too few to measure with files of {file_bytes}: make room, or use a smaller --size",
                ramdisk.display()
            )));
        }
        let dir = Own::new(ramdisk).map_err(|error| at(ramdisk, &error))?;
        let place = Self { dir, files, file_bytes };
        place.fill().map_err(|error| at(ramdisk, &error))?;
        Ok(place)
    }

    /// What is sent and copied.
    pub(super) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Where files land.
    pub(super) fn target(&self) -> io::Result<PathBuf> {
        self.own("target")
    }

    /// One more directory, made where it is missing.
    pub(super) fn own(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// All of it. Where that is not done, it is tried when this is dropped, and not told.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(|error| at(&path, &error))
    }

    /// Incompressible, so that no storage makes it easy for itself.
    fn fill(&self) -> io::Result<()> {
        fs::create_dir(self.source())?;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut bytes = Vec::with_capacity(self.file_bytes as usize + 8);
        while bytes.len() < self.file_bytes as usize {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(self.file_bytes as usize);
        for n in 0..self.files {
            let head = bytes.len().min(8);
            bytes[..head].copy_from_slice(&n.to_le_bytes()[..head]);
            fs::write(self.source().join(n.to_string()), &bytes)?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files of {} bytes in {}", self.files, self.file_bytes, self.dir.path().display())
    }
}

/// A directory below a storage's target, or above it where that does not exist yet; and how many bytes may go there.
pub(super) fn below(target: &Path) -> io::Result<(Own, u64)> {
    let existing = nearest_existing(target)?;
    let room = room(&existing)?;
    Ok((Own::new(&existing)?, room))
}

/// Bytes that may be taken on a file system.
pub(super) fn room(path: &Path) -> io::Result<u64> {
    Ok(free_bytes(path)? / PART)
}

/// An empty directory of its own on the ramdisk.
pub(super) fn empty(ramdisk: &Path) -> Result<Own, Failure> {
    Own::new(ramdisk).map_err(|error| at(ramdisk, &error))
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}
