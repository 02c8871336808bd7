//! A tmpfs with `huge=within_size`, full of files, and warm memory for what lands there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// So much warm memory is free ahead of what lands: more than is in flight. 192 MB.
const AHEAD_BYTES: u64 = 192_000_000;
/// What is touched at a time.
const BLOCK_BYTES: usize = 4 << 20;

/// A ramdisk of its own, unmounted in the end.
pub struct Arena {
    dir: TempDir,
    ballast: Mutex<Ballast>,
}

/// First touch of free memory is dear in many virtual machines, and freed memory goes cold within a second: so it is held by a file, and freed
/// in step with what lands.
struct Ballast {
    file: File,
    /// May be free.
    due: u64,
    freed: u64,
    size: u64,
}

impl Arena {
    /// Mounts it.
    ///
    /// # Errors
    /// Not root, most often.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let options = c"huge=within_size,size=10g,mode=700";
        mount("ppu-bench", dir.path(), "tmpfs", MountFlags::empty(), Some(options))?;
        let file =
            File::options().create(true).truncate(true).write(true).open(dir.path().join("ballast"))?;
        let arena = Self { dir, ballast: Mutex::new(Ballast { file, due: 0, freed: 0, size: 0 }) };
        fs::create_dir(arena.source())?;
        fs::create_dir(arena.target())?;
        Ok(arena)
    }

    /// Where files come from.
    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Where they land.
    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// `count` files of `size` bytes, each written with one `write`, named by their number.
    ///
    /// # Errors
    /// No room.
    pub fn fill(&self, count: usize, size: usize) -> io::Result<()> {
        let mut bytes: Vec<u8> = (0..size).map(|i| (i * 31 + i / 257) as u8).collect();
        for n in 0..count {
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            fs::write(self.source().join(n.to_string()), &bytes)?;
        }
        Ok(())
    }

    /// Empties the target and touches as much memory as will land there.
    ///
    /// # Errors
    /// No room.
    pub fn warm(&self, bytes: u64) -> io::Result<()> {
        empty(&self.target())?;
        let mut ballast = self.lock();
        ballast.file.set_len(0)?;
        let block = vec![0x55; BLOCK_BYTES];
        let size = bytes + AHEAD_BYTES;
        let mut at = 0;
        while at < size {
            ballast.file.write_all_at(&block, at)?;
            at += BLOCK_BYTES as u64;
        }
        (ballast.due, ballast.freed) = (0, 0);
        ballast.size = at;
        ballast.free(AHEAD_BYTES)
    }

    /// `bytes` have landed: so much is freed for what lands next, in whole huge pages.
    ///
    /// # Errors
    /// Those of fallocate(2).
    pub fn landed(&self, bytes: u64) -> io::Result<()> {
        self.lock().free(bytes)
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ballast> {
        self.ballast.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Ballast {
    fn free(&mut self, bytes: u64) -> io::Result<()> {
        self.due = (self.due + bytes).min(self.size);
        let bytes = (self.due - self.freed) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        if bytes > 0 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.file, flags, self.freed, bytes)?;
            self.freed += bytes;
        }
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Err(errno) = unmount(self.dir.path(), UnmountFlags::DETACH) {
            eprintln!("umount {}: {errno}", self.dir.path().display());
        }
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}
