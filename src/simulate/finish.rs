//! The ways in which detectors' software gives a file its final name (FAULTS 21).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use super::SimulateError;

/// How a file gets its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// Written under its name and closed.
    #[default]
    Close,
    /// Written under a temporary name in the same directory, closed, renamed.
    Rename,
    /// Written under a temporary name, closed, hard-linked to its name; the temporary name is removed.
    HardLink,
    /// Written without any name (O_TMPFILE), linked to its name.
    Tmpfile,
    /// All of these in turn.
    Mixed,
}

const IN_TURN: [Finish; 4] = [Finish::Close, Finish::Rename, Finish::HardLink, Finish::Tmpfile];

impl Finish {
    /// Writes `parts` to `path`, which must not exist yet, and makes its directories. Gives back the file's mtime (ns).
    pub(super) fn write(self, index: u64, path: &Path, parts: &[&[u8]]) -> Result<i64, SimulateError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| SimulateError::Io { operation, path, source }
        };
        fs::create_dir_all(directory).map_err(failed("make directory", directory))?;
        let temporary = directory.join(format!(".simulated-{index}.part"));
        match self {
            Self::Mixed => IN_TURN[(index % IN_TURN.len() as u64) as usize].write(index, path, parts),
            Self::Close => write_new(path, parts).map_err(failed("write", path)),
            Self::Rename => {
                let mtime = write_new(&temporary, parts).map_err(failed("write", &temporary))?;
                rustix::fs::renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE)
                    .map_err(|error| discard(&temporary, error.into()))
                    .map_err(failed("rename to", path))?;
                Ok(mtime)
            }
            Self::HardLink => {
                let mtime = write_new(&temporary, parts).map_err(failed("write", &temporary))?;
                let linked = fs::hard_link(&temporary, path);
                fs::remove_file(&temporary).map_err(failed("remove", &temporary))?;
                linked.map_err(failed("link to", path))?;
                Ok(mtime)
            }
            Self::Tmpfile => nameless(directory, path, parts).map_err(failed("write and link", path)),
        }
    }
}

/// A file that failed half-way is removed: it is ours, and it is no image.
fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<i64> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    fill(&mut file, parts).map_err(|error| discard(path, error))
}

fn nameless(directory: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<i64> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?);
    let mtime = fill(&mut file, parts)?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    rustix::fs::linkat(CWD, &held, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(mtime)
}

fn fill(file: &mut File, parts: &[&[u8]]) -> io::Result<i64> {
    for part in parts {
        file.write_all(part)?;
    }
    let stat = file.metadata()?;
    Ok(stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()))
}

fn discard(path: &Path, error: io::Error) -> io::Error {
    match fs::remove_file(path) {
        Ok(()) => error,
        Err(also) => io::Error::new(error.kind(), format!("{error}; and it could not be removed: {also}")),
    }
}
