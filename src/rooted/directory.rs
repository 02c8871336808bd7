//! Directories made for files: component by component, each complete with owner and mode when it appears.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::root::{FileStat, Root, RootError, openat2};
use super::staging::Staging;
use crate::model::file_version::MODE_MASK;
use crate::model::path::RelPath;

/// How often a component that appears and disappears again is tried before giving up.
const MAKE_TRIES: usize = 16;
/// Set-group-id: what is made in such a directory belongs to the directory's group.
const SETGID: u32 = 0o2000;

/// What a new directory gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirAttributes {
    /// Owner; `None` leaves it to the operating system.
    pub uid: Option<u32>,
    /// Group; `None` leaves it to the operating system.
    pub gid: Option<u32>,
    /// Permission bits. A set-group-id bit inherited from the parent stays whatever is said here.
    pub mode: u32,
}

/// A directory that exists now.
#[derive(Debug)]
pub struct Made {
    /// Of the directory.
    pub fd: OwnedFd,
    /// How many components, counted from the deepest, are new.
    pub new: usize,
}

impl Staging {
    /// Makes `path` (`None`: the root itself) and what is missing above it, and opens it; `attributes` is asked for each
    /// new directory's path. Others may make the same directories meanwhile: what they made is left as it is.
    ///
    /// # Errors
    /// [`RootError::is_in_the_way`] where a file or a symlink has one of the names; or whatever mkdirat(2), fchown(2),
    /// fchmod(2) or renameat2(2) say. A directory never appears without its owner and mode.
    pub fn make_dirs(
        &self,
        path: Option<&RelPath>,
        attributes: &dyn Fn(&RelPath) -> DirAttributes,
    ) -> Result<Made, RootError> {
        match (self.root().open_dir(path), path) {
            (Ok(fd), _) => Ok(Made { fd, new: 0 }),
            (Err(error), Some(path)) if error.errno == Errno::NOENT => self.make_missing(path, attributes),
            (Err(error), _) => Err(error),
        }
    }

    fn make_missing(
        &self,
        path: &RelPath,
        attributes: &dyn Fn(&RelPath) -> DirAttributes,
    ) -> Result<Made, RootError> {
        let mut made = Made { fd: self.root().open_dir(None)?, new: 0 };
        let mut here: Option<RelPath> = None;
        for name in path.names() {
            let below = match &here {
                Some(above) => RelPath::new(&[above.as_bytes(), b"/", name].concat()),
                None => RelPath::new(name),
            }
            .map_err(|_| self.root().error("mkdir", Some(path), Errno::INVAL))?;
            let (fd, new) = self.enter(&made.fd, &below, attributes)?;
            made = Made { fd, new: if new { made.new + 1 } else { 0 } };
            here = Some(below);
        }
        Ok(made)
    }

    /// Opens the last name of `here` in `parent`, made if it is missing. True: made by us.
    fn enter(
        &self,
        parent: &OwnedFd,
        here: &RelPath,
        attributes: &dyn Fn(&RelPath) -> DirAttributes,
    ) -> Result<(OwnedFd, bool), RootError> {
        let error = |(operation, errno)| self.root().error(operation, Some(here), errno);
        for _ in 0..MAKE_TRIES {
            match open_child(parent, here.name()) {
                Err(Errno::NOENT) => {}
                Ok(fd) => return Ok((fd, false)),
                Err(errno) => return Err(error(("open", errno))),
            }
            if let Some(fd) = self.make_one(parent, here.name(), attributes(here)).map_err(error)? {
                return Ok((fd, true));
            }
        }
        Err(error(("mkdir", Errno::BUSY)))
    }

    /// Made where nobody else can reach it, dressed, then named: its owner's friends never see it half made, and what
    /// is chowned is the directory that was made, whatever they do to names. `None`: somebody else was faster.
    fn make_one(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        attributes: DirAttributes,
    ) -> Result<Option<OwnedFd>, (&'static str, Errno)> {
        let temp = self.unique("dir");
        rustix::fs::mkdirat(self.dir(), &temp, Mode::RWXU).map_err(|errno| ("mkdir", errno))?;
        let made = open_child(self.dir(), temp.as_bytes())
            .map_err(|errno| ("open", errno))
            .and_then(|fd| dress(&fd, parent, attributes).map(|()| fd))
            .and_then(|fd| match self.rename_new(&temp, parent, name) {
                Ok(()) => Ok(Some(fd)),
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(("rename", errno)),
            });
        if !matches!(made, Ok(Some(_))) {
            // Whatever is left is swept at the next start.
            let _ = rustix::fs::unlinkat(self.dir(), &temp, AtFlags::REMOVEDIR);
        }
        made
    }
}

impl Root {
    /// Removes `directory` and those above it, as long as they are empty and `may_go`; nothing else ever goes with them.
    pub fn remove_empty(&self, directory: Option<RelPath>, may_go: impl Fn(&RelPath) -> bool) -> usize {
        let mut removed = 0;
        let mut next = directory;
        while let Some(path) = next.filter(&may_go) {
            let Ok(parent) = self.open_dir(path.parent().as_ref()) else { break };
            if rustix::fs::unlinkat(&parent, path.name(), AtFlags::REMOVEDIR).is_err() {
                break;
            }
            removed += 1;
            next = path.parent();
        }
        removed
    }
}

fn open_child(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat2(parent.as_fd(), Path::new(OsStr::from_bytes(name)), OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Gives `file`, which was made elsewhere, the group that it would have inherited from its directory: as far as we may.
///
/// # Errors
/// Whatever fchown(2) says, but for a refusal: groups are left to the operating system here.
pub fn inherit_gid(file: impl AsFd, gid: u32) -> Result<(), Errno> {
    match rustix::fs::fchown(file, None, Some(Gid::from_raw(gid))) {
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Owner and mode of a new directory, and what mkdir(2) in `parent` itself would have inherited from it.
fn dress(fd: &OwnedFd, parent: &OwnedFd, attributes: DirAttributes) -> Result<(), (&'static str, Errno)> {
    let above = FileStat::of(parent).map_err(|errno| ("statx", errno))?;
    let inherits = above.mode & SETGID != 0;
    let uid = attributes.uid.map(Uid::from_raw);
    let gid = attributes.gid.map(Gid::from_raw);
    if gid.is_none() && inherits {
        inherit_gid(fd, above.gid).map_err(|errno| ("chown", errno))?;
    }
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(fd, uid, gid).map_err(|errno| ("chown", errno))?;
    }
    let setgid = if inherits { SETGID } else { 0 };
    let mode = Mode::from_raw_mode((attributes.mode & MODE_MASK) | setgid);
    rustix::fs::fchmod(fd, mode).map_err(|errno| ("chmod", errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const PLAIN: DirAttributes = DirAttributes { uid: None, gid: None, mode: 0o750 };

    #[test]
    fn new_components_are_dressed_and_old_ones_left() {
        let temp = tempfile::tempdir().unwrap();
        let staging = Staging::open(Root::open(temp.path()).unwrap().into()).unwrap();
        let old = temp.path().join("a");
        std::fs::create_dir(&old).unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o2777)).unwrap();
        let path = RelPath::new(b"a/b/c").unwrap();
        let made = staging.make_dirs(Some(&path), &|_| PLAIN).unwrap();
        assert_eq!(made.new, 2);
        assert_eq!(old.metadata().unwrap().mode() & 0o7777, 0o2777);
        assert_eq!(old.join("b").metadata().unwrap().mode() & 0o7777, 0o2750, "inherited setgid stays");
        assert_eq!(staging.make_dirs(Some(&path), &|_| PLAIN).unwrap().new, 0);
    }

    #[test]
    fn files_and_links_in_the_way() {
        let temp = tempfile::tempdir().unwrap();
        let staging = Staging::open(Root::open(temp.path()).unwrap().into()).unwrap();
        std::fs::write(temp.path().join("file"), b"").unwrap();
        std::os::unix::fs::symlink("/tmp", temp.path().join("link")).unwrap();
        for path in [&b"file/x"[..], b"link/x", b"link", b"file"] {
            let error = staging.make_dirs(Some(&RelPath::new(path).unwrap()), &|_| PLAIN).unwrap_err();
            assert!(error.is_in_the_way(), "{error}");
        }
    }

    #[test]
    fn as_deep_as_a_path_can_be() {
        let temp = tempfile::tempdir().unwrap();
        let staging = Staging::open(Root::open(temp.path()).unwrap().into()).unwrap();
        let deep = RelPath::new(&b"d/".repeat(2048)[..4095]).unwrap();
        assert_eq!(staging.make_dirs(Some(&deep), &|_| PLAIN).unwrap().new, 2048);
        assert!(staging.root().open_dir(Some(&deep)).is_ok());
    }

    #[test]
    fn many_make_the_same_directories() {
        let temp = tempfile::tempdir().unwrap();
        let staging = Staging::open(Root::open(temp.path()).unwrap().into()).unwrap();
        let path = RelPath::new(b"1/2/3/4/5/6").unwrap();
        let new: usize = std::thread::scope(|scope| {
            let make = || staging.make_dirs(Some(&path), &|_| PLAIN).unwrap().new;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!(new >= 1);
        assert!(staging.root().open_dir(Some(&path)).is_ok());
    }
}
