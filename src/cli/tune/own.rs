//! Directories of tune's own, of which nothing stays behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ppu_uringd::rooted::MEASURING_PREFIX;
use rustix::fs::{FlockOperation, OFlags, flock};
use tempfile::TempDir;

/// One of them. It goes when this is dropped; of a process that was killed, with the next one that is made beside it.
#[derive(Debug)]
pub(super) struct Own {
    dir: TempDir,
    /// Locked: the kernel gives it back, however the process ends.
    _held: File,
}

impl Own {
    /// An empty one in `place`, 0700.
    pub(super) fn new(place: &Path) -> io::Result<Self> {
        // Until this one is held: it looks left behind before. Where nothing can be locked (some NFS), nothing is removed.
        let turn = File::open(place)?;
        if flock(&turn, FlockOperation::LockExclusive).is_ok() {
            remove_left(place);
        }
        let mode = fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix(MEASURING_PREFIX).permissions(mode).tempdir_in(place)?;
        let held = File::open(dir.path())?;
        let _ = flock(&held, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { dir, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Now. Where that is not done, it is tried when this is dropped, and not told.
    pub(super) fn close(self) -> io::Result<()> {
        self.dir.close()
    }
}

/// What nobody holds any more.
fn remove_left(place: &Path) {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(MEASURING_PREFIX.as_bytes()) {
            continue;
        }
        let Ok(held) = File::options().read(true).custom_flags(flags).open(entry.path()) else { continue };
        if flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Another user's: that one may do it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_one_has_left_goes_with_the_next_one() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(format!("{MEASURING_PREFIX}left"));
        fs::create_dir_all(left.join("source")).unwrap();
        fs::write(left.join("source/0"), "0").unwrap();
        let mine = place.path().join("mine");
        fs::create_dir(&mine).unwrap();
        let link = place.path().join(format!("{MEASURING_PREFIX}link"));
        std::os::unix::fs::symlink(&mine, &link).unwrap();

        let first = Own::new(place.path()).unwrap();
        assert!(!left.exists() && mine.exists() && link.exists());
        let second = Own::new(place.path()).unwrap();
        assert!(first.path().exists() && second.path().exists(), "somebody measures there");
        let path = first.path().to_owned();
        first.close().unwrap();
        drop(second);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
