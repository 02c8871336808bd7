//! One wanted file on the detector's ramdisk: opened, and known to be the version that was offered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ppu_uring::Fd;
use ppu_uring::sys::{self, Writers};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::model::file_version::Identity;
use crate::model::offer::Decline;
use crate::model::path::RelPath;
use crate::model::send::{SendJob, SendOutcome};
use crate::rooted::FileStat;
use crate::wire::data::FileHeader;

/// A file that nobody is writing, as it was offered.
pub(super) struct Source {
    pub(super) file: Fd,
    pub(super) header: FileHeader,
}

impl Source {
    /// Opens the file of `job`; or says why nothing will travel.
    pub(super) fn open(
        job: &SendJob,
        open: &dyn Fn(&RelPath) -> io::Result<OwnedFd>,
    ) -> Result<Self, SendOutcome> {
        let declined = |why, identity| SendOutcome::Declined { why, identity };
        let file = open(&job.path).map_err(|error| declined(why_not(&error), None))?;
        // First the writers, then the identity: what a writer did before the probe shows in it.
        if sys::writers(&file) == Writers::Some {
            return Err(declined(Decline::Busy, None));
        }
        let failed = |error: io::Error| declined(Decline::Failed(format!("statx: {error}")), None);
        let stat = FileStat::of(&file).map_err(|errno| failed(errno.into()))?;
        let found = identity(&stat);
        if found != job.identity || FileType::from_raw_mode(stat.mode) != FileType::RegularFile {
            return Err(declined(Decline::Changed, Some(found)));
        }
        let header = FileHeader { transfer: job.transfer, identity: found, mode: stat.mode };
        Ok(Self { file: file.into(), header })
    }

    /// The identity now; `None` for a file that has lost its name.
    pub(super) fn now(&self) -> io::Result<Option<Identity>> {
        let stat = FileStat::of(&self.file)?;
        Ok((stat.nlink > 0).then(|| identity(&stat)))
    }

    /// Bytes, as announced.
    pub(super) fn size(&self) -> u64 {
        self.header.identity.size
    }

    /// Reads from `at` until `buf` is full or the file ends; how much that was.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        read_at(&self.file, at, buf)
    }
}

fn read_at(file: impl AsFd, at: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match rustix::io::pread(&file, &mut buf[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

/// The file that has this name now, if any.
pub(super) fn found(path: &RelPath, open: &dyn Fn(&RelPath) -> io::Result<OwnedFd>) -> Option<Identity> {
    let stat = FileStat::of(&open(path).ok()?).ok()?;
    (FileType::from_raw_mode(stat.mode) == FileType::RegularFile).then(|| identity(&stat))
}

fn identity(stat: &FileStat) -> Identity {
    let FileStat { size, mtime_ns, ctime_ns, ino, .. } = *stat;
    Identity { size, mtime_ns, ino, ctime_ns }
}

fn why_not(error: &io::Error) -> Decline {
    match Errno::from_io_error(error) {
        // A directory above it may have been replaced by a file.
        Some(Errno::NOENT | Errno::NOTDIR) => Decline::Vanished,
        // A symlink or a device took its place.
        Some(Errno::LOOP | Errno::NXIO) => Decline::Changed,
        _ => Decline::Failed(format!("open: {error}")),
    }
}
