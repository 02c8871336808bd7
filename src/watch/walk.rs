//! Listing directories piece by piece, so that events are read in between.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags};
use rustix::io::Errno;

use crate::model::path::RelPath;
use crate::model::trouble::What;
use crate::rooted::{FileStat, Root};

/// A walk below some directories.
#[derive(Default)]
pub(super) struct Walk {
    /// `None` is the root.
    ahead: Vec<Option<RelPath>>,
    here: Option<Listing>,
}

struct Listing {
    path: Option<RelPath>,
    fd: OwnedFd,
    entries: Dir,
}

/// What a walk does with what it meets.
pub(super) trait Visitor {
    /// A directory, before it is listed: the time to watch it. `false`: pass it over.
    fn enter(&mut self, path: Option<&RelPath>, fd: &OwnedFd) -> bool;
    /// Whether a name is of interest, before anything is asked of the file system.
    fn wants(&self, directory: Option<&RelPath>, name: &[u8]) -> bool;
    /// A regular file.
    fn file(&mut self, path: RelPath, stat: FileStat);
    /// Something else, or a path that is too long.
    fn other(&mut self);
    /// A directory or a file that is there and cannot be used.
    fn trouble(&mut self, what: What, path: Option<RelPath>, why: Errno);
}

impl Walk {
    /// To be walked; `None` is the root.
    pub(super) fn add(&mut self, directory: Option<RelPath>) {
        self.ahead.push(directory);
    }

    pub(super) fn is_over(&self) -> bool {
        self.here.is_none() && self.ahead.is_empty()
    }

    /// Goes on for about `entries`.
    pub(super) fn step(&mut self, root: &Root, entries: usize, visitor: &mut impl Visitor) {
        for _ in 0..entries {
            if self.here.is_none() && !self.enter(root, visitor) {
                return;
            }
            let Some(listing) = &mut self.here else { continue };
            match listing.entries.next() {
                None => self.here = None,
                Some(Ok(entry)) => {
                    let (name, kind) = (entry.file_name().to_bytes(), entry.file_type());
                    if let Some(directory) = meet(listing, name, kind, visitor) {
                        self.ahead.push(Some(directory));
                    }
                }
                Some(Err(errno)) => {
                    visitor.trouble(What::Unlisted, listing.path.take(), errno);
                    self.here = None;
                }
            }
        }
    }

    /// The next directory. `false` if there is none.
    fn enter(&mut self, root: &Root, visitor: &mut impl Visitor) -> bool {
        let Some(path) = self.ahead.pop() else { return false };
        let fd = match root.open_dir(path.as_ref()) {
            Ok(fd) => fd,
            Err(error) => {
                if error.errno != Errno::NOENT && !error.is_in_the_way() {
                    visitor.trouble(What::Unlisted, path, error.errno);
                }
                return true;
            }
        };
        if visitor.enter(path.as_ref(), &fd) {
            match Dir::read_from(&fd) {
                Ok(entries) => self.here = Some(Listing { path, fd, entries }),
                Err(errno) => visitor.trouble(What::Unlisted, path, errno),
            }
        }
        true
    }
}

/// A subdirectory is given back.
fn meet(listing: &Listing, name: &[u8], kind: FileType, visitor: &mut impl Visitor) -> Option<RelPath> {
    let Listing { path: directory, fd, .. } = listing;
    if matches!(name, b"." | b"..") || !visitor.wants(directory.as_ref(), name) {
        return None;
    }
    let path = RelPath::new(name).and_then(|name| match directory {
        Some(directory) => directory.join(&name),
        None => Ok(name),
    });
    let stat = match kind {
        FileType::Directory => return path.map_err(|_| visitor.other()).ok(),
        FileType::RegularFile | FileType::Unknown => match stat_of(fd, name) {
            Ok(stat) => stat,
            Err(errno) => {
                if let (Ok(path), false) = (path, errno == Errno::NOENT) {
                    visitor.trouble(What::Unseen, Some(path), errno);
                }
                return None;
            }
        },
        _ => {
            visitor.other();
            return None;
        }
    };
    match (stat.kind(), path) {
        (FileType::RegularFile, Ok(path)) => visitor.file(path, stat),
        (FileType::Directory, Ok(path)) => return Some(path),
        _ => visitor.other(),
    }
    None
}

/// A name in an open directory, not followed.
fn stat_of(directory: impl AsFd, name: &[u8]) -> Result<FileStat, Errno> {
    rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map(FileStat::from)
}
