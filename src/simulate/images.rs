//! What the simulated detector writes, under which names.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::SimulateError;
use super::cbf::{Frame, Geometry};
use crate::model::path::RelPath;

/// Frames that are computed beforehand; each file is one of them under a header of its own.
const POOL_FRAMES: u64 = 8;

/// Contents and names.
#[derive(Debug)]
pub struct Images(Kind);

#[derive(Debug)]
enum Kind {
    Made { pool: Vec<Frame>, per_run: u64 },
    Replayed { root: PathBuf, files: Vec<RelPath> },
}

/// Where a simulation's names begin, so that nothing that is there already is met.
#[derive(Debug)]
pub(super) struct Names {
    first_run: u64,
}

/// One file to write: `head` then `body`.
pub(super) struct Image<'a> {
    pub(super) name: RelPath,
    pub(super) head: Vec<u8>,
    pub(super) body: Cow<'a, [u8]>,
}

impl Images {
    /// CBF images of about `size` bytes, `per_run` of them in each directory `run_NNN`. Equal seeds give equal counts.
    pub fn made(size: u64, per_run: u64, seed: u64) -> Self {
        let geometry = Geometry::for_size(size);
        let pool = (0..POOL_FRAMES).map(|frame| Frame::new(geometry, seed.wrapping_add(frame))).collect();
        Self(Kind::Made { pool, per_run: per_run.max(1) })
    }

    /// The regular files below `root`, in the order of their names, with their own names. Links are not followed.
    ///
    /// # Errors
    /// `root` cannot be read, or holds no regular file.
    pub fn replayed_from(root: &Path) -> Result<Self, SimulateError> {
        let mut files = Vec::new();
        collect(root, root, &mut files).map_err(|source| SimulateError::Io {
            operation: "read directory",
            path: root.into(),
            source,
        })?;
        if files.is_empty() {
            return Err(SimulateError::NothingToReplay(root.into()));
        }
        files.sort();
        Ok(Self(Kind::Replayed { root: root.into(), files }))
    }

    /// Number of files of a replay.
    pub fn replayed(&self) -> Option<u64> {
        match &self.0 {
            Kind::Made { .. } => None,
            Kind::Replayed { files, .. } => Some(files.len() as u64),
        }
    }

    /// Bytes of one file, on average.
    ///
    /// # Errors
    /// A file to replay cannot be looked at.
    pub fn mean_bytes(&self) -> Result<u64, SimulateError> {
        match &self.0 {
            Kind::Made { pool, .. } => {
                let bytes: usize = pool.iter().map(|frame| frame.head(1, 1).len() + frame.body().len()).sum();
                Ok(bytes as u64 / POOL_FRAMES)
            }
            Kind::Replayed { root, files } => {
                let mut bytes = 0;
                for file in files {
                    let path = root.join(file.as_path());
                    bytes += fs::symlink_metadata(&path)
                        .map_err(|source| SimulateError::Io { operation: "look at", path, source })?
                        .len();
                }
                Ok(bytes / files.len() as u64)
            }
        }
    }

    pub(super) fn names(&self, target: &Path) -> Result<Names, SimulateError> {
        let failed = |source| SimulateError::Io { operation: "read directory", path: target.into(), source };
        let mut first_run = 1;
        for entry in fs::read_dir(target).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("run_")?.parse::<u64>().ok());
            first_run = first_run.max(number.map_or(1, |number| number.saturating_add(1)));
        }
        Ok(Names { first_run })
    }

    pub(super) fn image(&self, names: &Names, index: u64) -> Result<Image<'_>, SimulateError> {
        match &self.0 {
            Kind::Made { pool, per_run } => {
                let (run, number) = (names.first_run + index / per_run, 1 + index % per_run);
                let frame = &pool[(index % POOL_FRAMES) as usize];
                let name = format!("run_{run:03}/frame_{run:03}_{number:05}.cbf");
                Ok(Image {
                    name: path(name.as_bytes())?,
                    head: frame.head(run, number),
                    body: Cow::Borrowed(frame.body()),
                })
            }
            Kind::Replayed { root, files } => {
                let (pass, at) = (index / files.len() as u64, (index % files.len() as u64) as usize);
                let source = root.join(files[at].as_path());
                let content = fs::read(&source).map_err(|error| SimulateError::Io {
                    operation: "read",
                    path: source,
                    source: error,
                })?;
                let name = match pass {
                    0 => files[at].clone(),
                    // The same files again, beside the first ones.
                    _ => {
                        let above = path(format!("pass_{:03}", pass + 1).as_bytes())?;
                        above.join(&files[at]).map_err(|error| bad_path(above.as_path(), error))?
                    }
                };
                Ok(Image { name, head: Vec::new(), body: Cow::Owned(content) })
            }
        }
    }
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<RelPath>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let at = entry.path();
        if kind.is_dir() {
            collect(root, &at, files)?;
        } else if kind.is_file() {
            let below = at.strip_prefix(root).map_err(io::Error::other)?;
            files.push(RelPath::new(below.as_os_str().as_bytes()).map_err(io::Error::other)?);
        }
    }
    Ok(())
}

fn path(bytes: &[u8]) -> Result<RelPath, SimulateError> {
    RelPath::new(bytes).map_err(|error| bad_path(Path::new(std::ffi::OsStr::from_bytes(bytes)), error))
}

fn bad_path(path: &Path, error: crate::model::path::PathError) -> SimulateError {
    SimulateError::Io { operation: "name", path: path.into(), source: io::Error::other(error) }
}
