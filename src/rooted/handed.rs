//! Files that were handed over by descriptor: they lie below no root, and are held open until they are stored.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};

use super::root::FileStat;
use crate::model::extra::ExtraPath;
use crate::model::job::Local;
use crate::model::path::RelPath;

/// Descriptors held at a time.
const HELD_MAX: usize = 256;

/// See the module. Shared by those who take files in and those who copy them.
#[derive(Debug, Default)]
pub struct Handed(Mutex<HashMap<RelPath, (Local, OwnedFd)>>);

impl Handed {
    /// No further one should be taken in now.
    pub fn is_full(&self) -> bool {
        self.files().len() >= HELD_MAX
    }

    /// Keeps `file` open under its encoded path, instead of an older version.
    pub fn hold(&self, path: RelPath, local: Local, file: OwnedFd) {
        self.files().insert(path, (local, file));
    }

    /// A descriptor of the held file.
    pub fn held(&self, path: &RelPath) -> Option<OwnedFd> {
        self.files().get(path).and_then(|(_, file)| file.try_clone().ok())
    }

    /// Lets go what `is_wanted` says no of.
    pub fn release(&self, is_wanted: impl Fn(&RelPath) -> bool) {
        self.files().retain(|path, _| is_wanted(path));
    }

    /// The very file that was handed over as `path`: as it is held, or, after a restart, opened under its name again.
    ///
    /// # Errors
    /// For people: why not.
    pub fn open(&self, path: &RelPath, local: Local) -> Result<OwnedFd, String> {
        if let Some((held, file)) = self.files().get(path)
            && *held == local
        {
            return file.try_clone().map_err(|error| format!("dup: {error}"));
        }
        reopen(path, local)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<RelPath, (Local, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one place where a path that a user named is followed from `/`, links and all, with our rights. What it leads to is only
/// looked at (O_PATH opens nothing), and is read only if it is the same inode, unchanged, of the same owner that was handed over
/// by somebody who could read it.
fn reopen(path: &RelPath, local: Local) -> Result<OwnedFd, String> {
    let extra = ExtraPath::decode(path).ok_or("no such extra file")?;
    let from = Path::new("/").join(extra.from.as_path());
    let failed = |errno: rustix::io::Errno| format!("open /{}: {errno}", extra.from);
    let seen = rustix::fs::open(&from, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let stat = FileStat::of(&seen).map_err(failed)?;
    let same = (stat.ino, stat.ctime_ns, stat.uid) == (local.ino, local.ctime_ns, extra.uid);
    if !same || stat.kind() != FileType::RegularFile {
        return Err(format!("/{} is no longer the file that was handed over: add it again", extra.from));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{}", seen.as_raw_fd()), flags, Mode::empty()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "it").unwrap();
        let stat = FileStat::of(std::fs::File::open(&path).unwrap()).unwrap();
        let local = Local { ino: stat.ino, ctime_ns: stat.ctime_ns };
        let of = |uid| ExtraPath::parse(uid, path.to_str().unwrap().as_bytes()).unwrap().encoded();
        let handed = Handed::default();
        let file = handed.open(&of(stat.uid), local).unwrap();
        assert_eq!(std::io::read_to_string(std::fs::File::from(file)).unwrap(), "it");
        for (path, local) in [
            (of(stat.uid + 1), local),
            (of(stat.uid), Local { ino: local.ino + 1, ..local }),
            (of(stat.uid), Local { ctime_ns: local.ctime_ns + 1, ..local }),
        ] {
            let why = handed.open(&path, local).unwrap_err();
            assert!(why.ends_with("is no longer the file that was handed over: add it again"), "{why}");
        }
        // Held, it needs no name.
        handed.hold(of(stat.uid), local, std::fs::File::open(&path).unwrap().into());
        std::fs::remove_file(&path).unwrap();
        handed.open(&of(stat.uid), local).unwrap();
        handed.release(|_| false);
        assert!(handed.open(&of(stat.uid), local).unwrap_err().contains("No such file"));
    }
}
