//! What files there are below a directory, to find at start what landed or was stored.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::root::{FileStat, Root, RootError};
use super::staging::is_own_name;
use crate::model::path::RelPath;

/// A regular file met on a walk.
#[derive(Debug)]
pub struct Found {
    /// Below the root.
    pub path: RelPath,
    /// When it was met.
    pub stat: FileStat,
    /// Open for reading, for its brand.
    pub file: OwnedFd,
}

/// What a walk did not visit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Regular files visited.
    pub files: u64,
    /// Files and directories that could not be opened, or whose paths are too long.
    pub skipped: u64,
}

impl Root {
    /// Calls `visit` for every regular file below `from` (`None`: the root), in no particular order, following no
    /// link and passing over the staging directory. Memory goes with the number of directories, not of files. What
    /// vanishes meanwhile is not met.
    ///
    /// # Errors
    /// Where `from` cannot be opened.
    pub fn walk(&self, from: Option<&RelPath>, mut visit: impl FnMut(Found)) -> Result<Walked, RootError> {
        let mut walked = Walked::default();
        let first = self.open_dir(from)?;
        let mut directories = Vec::new();
        let mut next = Some((first, from.cloned()));
        while let Some((fd, path)) = next.take() {
            self.list(fd, path.as_ref(), &mut directories, &mut walked, &mut visit);
            while let Some(path) = directories.pop() {
                match self.open_dir(Some(&path)) {
                    Ok(fd) => {
                        next = Some((fd, Some(path)));
                        break;
                    }
                    Err(error) if error.errno == Errno::NOENT => {}
                    Err(_) => walked.skipped += 1,
                }
            }
        }
        Ok(walked)
    }

    fn list(
        &self,
        fd: OwnedFd,
        path: Option<&RelPath>,
        directories: &mut Vec<RelPath>,
        walked: &mut Walked,
        visit: &mut impl FnMut(Found),
    ) {
        let Ok(entries) = Dir::read_from(&fd) else {
            walked.skipped += 1;
            return;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                walked.skipped += 1;
                return;
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || (path.is_none() && is_own_name(name)) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    FileStat::of_name(&fd, name).map_or(FileType::Unknown, |stat| stat.kind())
                }
                kind => kind,
            };
            let below = RelPath::new(name).and_then(|name| match path {
                Some(path) => path.join(&name),
                None => Ok(name),
            });
            match (kind, below) {
                (FileType::Directory, Ok(below)) => directories.push(below),
                (FileType::RegularFile, Ok(path)) => match self.open_file(&path) {
                    Ok((file, stat)) => {
                        walked.files += 1;
                        visit(Found { path, stat, file });
                    }
                    Err(error) if error.errno == Errno::NOENT => {}
                    Err(_) => walked.skipped += 1,
                },
                (FileType::Directory | FileType::RegularFile, Err(_)) => walked.skipped += 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn meets_every_regular_file_once() {
        let temp = tempfile::tempdir().unwrap();
        let names: [&[u8]; 5] = [b"a", b"d/new\nline", b"d/e/\xff\xfe", b"d/e/f/ ", b"z z/:"];
        for name in names {
            let path = temp.path().join(OsStr::from_bytes(name));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        for ours in [".ppu-uringd", ".ppu-uringd-tune-x"] {
            std::fs::create_dir(temp.path().join(ours)).unwrap();
            std::fs::write(temp.path().join(ours).join("new-1-1"), b"").unwrap();
        }
        std::os::unix::fs::symlink("/", temp.path().join("d/root")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, temp.path().join("fifo"), rustix::fs::Mode::RUSR).unwrap();

        let root = Root::open(temp.path()).unwrap();
        let mut met = Vec::new();
        let walked = root.walk(None, |found| met.push(Vec::from(found.path))).unwrap();
        assert_eq!(walked, Walked { files: 5, skipped: 0 });
        let met: BTreeSet<Vec<u8>> = met.into_iter().collect();
        assert_eq!(met, names.iter().map(|n| n.to_vec()).collect());

        let mut below = 0;
        root.walk(Some(&RelPath::new(b"d/e").unwrap()), |_| below += 1).unwrap();
        assert_eq!(below, 2);
    }
}
