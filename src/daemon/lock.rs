//! One daemon per state directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file that is locked, below the state directory.
const LOCK_FILE: &str = "lock";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A second daemon.
    #[error("another daemon is running with state_dir {}: stop it, or give this one a state_dir of its own", .0.display())]
    Running(PathBuf),
    /// The file system said no.
    #[error("state_dir {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Held for as long as it lives; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Makes the directory where it is missing, 0700.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        let error = |source| LockError::Io { path: state_dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(error)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(state_dir.join(LOCK_FILE))
            .map_err(error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockError::Running(state_dir.to_owned())),
            Err(errno) => Err(error(errno.into())),
        }
    }
}

/// Whether a daemon holds it, without taking it: one that starts meanwhile must not find it taken.
pub(super) fn is_held(state_dir: &Path) -> bool {
    let Ok(file) = fs::metadata(state_dir.join(LOCK_FILE)) else { return false };
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| line.contains(" FLOCK ") && line.split(' ').any(|word| word == place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        assert!(!is_held(&state));
        let first = StateLock::take(&state).unwrap();
        assert!(is_held(&state));
        assert!(matches!(StateLock::take(&state), Err(LockError::Running(_))));
        drop(first);
        assert!(!is_held(&state));
        StateLock::take(&state).unwrap();
    }
}
