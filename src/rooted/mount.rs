//! The mount guard: a storage is written only while it is mounted where the configuration says (SPEC 3.6).
//!
//! It is asked per file and again before a file is called stored. What counts is the mount, not the device: the mount
//! id under the mountpoint's name must be that of the directory that we hold. Both are read at that moment, and a held
//! mount's id is given to no other. After `umount -l` the held directory still takes writes, but its mount has no name
//! any more, and that is noticed here.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::root::Root;

/// STATX_ATTR_MOUNT_ROOT (linux/stat.h, Linux 5.8).
const MOUNT_ROOT: u64 = 0x2000;
/// f_type of an automount point that nothing is mounted on yet (linux/magic.h).
const AUTOFS_MAGIC: i64 = 0x0187;
/// Mode of a target directory that does not exist yet.
const TARGET_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// Where a storage is, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory that files are stored below; absolute.
    pub target: PathBuf,
    /// Must be a mount point while the target, which is at or below it, is written.
    pub mountpoint: Option<PathBuf>,
    /// Without a mountpoint: the target may lie on the system's own disk.
    pub allow_root_fs: bool,
}

/// Why a storage cannot be written at all. For people; names the directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

impl Place {
    /// Opens the target, made if it is missing, on the mounted file system and nowhere else.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn open(&self) -> Result<Root, Unavailable> {
        self.open_or(true)
    }

    /// Opens the target to read what is there; nothing is made.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn open_as_is(&self) -> Result<Root, Unavailable> {
        self.open_or(false)
    }

    fn open_or(&self, make: bool) -> Result<Root, Unavailable> {
        let dir = match &self.mountpoint {
            Some(mountpoint) => self.open_below(mountpoint, make)?,
            None => self.open_unguarded(make)?,
        };
        let root = Root::hold(dir, self.target.clone());
        self.check(&root)?;
        Ok(root)
    }

    /// Whether `root`, which [`Place::open`] gave, still is what is mounted there.
    ///
    /// # Errors
    /// [`Unavailable`]; open it anew then.
    pub fn check(&self, root: &Root) -> Result<(), Unavailable> {
        let held = stat_fd(root).map_err(|errno| failed("statx", &self.target, errno))?;
        if let Some(mountpoint) = &self.mountpoint {
            let named = stat(mountpoint).map_err(|errno| failed("statx", mountpoint, errno))?;
            is_mount_root(&named, mountpoint)?;
            if named.stx_mnt_id != held.stx_mnt_id {
                return Err(Unavailable(format!("{} has been mounted anew", shown(mountpoint))));
            }
        }
        let named = stat(&self.target).map_err(|errno| failed("statx", &self.target, errno))?;
        if (named.stx_mnt_id, named.stx_ino) != (held.stx_mnt_id, held.stx_ino) {
            return Err(Unavailable(format!("{} is another directory than before", shown(&self.target))));
        }
        Ok(())
    }

    /// The target below a mounted mountpoint, resolved from the mount's own root: it cannot miss it.
    fn open_below(&self, mountpoint: &Path, make: bool) -> Result<OwnedFd, Unavailable> {
        let open = |dir: &OwnedFd, name: &Path| {
            rustix::fs::openat(
                dir,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        // Opened to read, an automount point mounts what belongs there.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = rustix::fs::open(mountpoint, flags, Mode::empty())
            .map_err(|errno| failed("open", mountpoint, errno))?;
        let mounted = stat_fd(&dir).map_err(|errno| failed("statx", mountpoint, errno))?;
        is_mount_root(&mounted, mountpoint)?;
        let fs = rustix::fs::fstatfs(&dir).map_err(|errno| failed("statfs", mountpoint, errno))?;
        if fs.f_type == AUTOFS_MAGIC {
            return Err(Unavailable(format!("{} is an automount point without a mount", shown(mountpoint))));
        }
        self.refuse_root_fs(&mounted)?;
        let Ok(below) = self.target.strip_prefix(mountpoint) else {
            let (target, mountpoint) = (shown(&self.target), shown(mountpoint));
            return Err(Unavailable(format!("{target} is not below its mountpoint {mountpoint}")));
        };
        for name in below {
            let next = match open(&dir, Path::new(name)) {
                Err(Errno::NOENT) if make => {
                    match rustix::fs::mkdirat(&dir, name, TARGET_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(failed("mkdir", &self.target, errno)),
                    }
                    // What is stored below it is durable only if it is.
                    rustix::fs::fsync(&dir).map_err(|errno| failed("sync above", &self.target, errno))?;
                    open(&dir, Path::new(name))
                }
                other => other,
            };
            dir = next.map_err(|errno| failed("open", &self.target, errno))?;
            let at = stat_fd(&dir).map_err(|errno| failed("statx", &self.target, errno))?;
            if at.stx_mnt_id != mounted.stx_mnt_id {
                let (target, mountpoint) = (shown(&self.target), shown(mountpoint));
                return Err(Unavailable(format!("{target} is not on what is mounted at {mountpoint}")));
            }
        }
        Ok(dir)
    }

    fn open_unguarded(&self, make: bool) -> Result<OwnedFd, Unavailable> {
        if make && self.allow_root_fs {
            std::fs::create_dir_all(&self.target)
                .map_err(|error| Unavailable(format!("mkdir {}: {error}", shown(&self.target))))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.target, flags, Mode::empty())
            .map_err(|errno| failed("open", &self.target, errno))?;
        let at = stat_fd(&dir).map_err(|errno| failed("statx", &self.target, errno))?;
        self.refuse_root_fs(&at)?;
        Ok(dir)
    }

    fn refuse_root_fs(&self, at: &Statx) -> Result<(), Unavailable> {
        if self.allow_root_fs {
            return Ok(());
        }
        let system = stat(Path::new("/")).map_err(|errno| failed("statx", Path::new("/"), errno))?;
        let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
        // A directory of the system's disk that was mounted on purpose (a bind mount) is as good as another disk.
        let same_device = self.mountpoint.is_none() && device(at) == device(&system);
        if at.stx_mnt_id == system.stx_mnt_id || same_device {
            return Err(Unavailable(format!(
                "{} is on the root file system; give its mountpoint, or allow_root_fs = true",
                shown(&self.target)
            )));
        }
        Ok(())
    }
}

fn stat(path: &Path) -> Result<Statx, Errno> {
    rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT, WANTED)
}

fn stat_fd(fd: impl AsFd) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED)
}

const WANTED: StatxFlags = StatxFlags::INO.union(StatxFlags::MNT_ID);

fn is_mount_root(stat: &Statx, mountpoint: &Path) -> Result<(), Unavailable> {
    if stat.stx_attributes_mask.bits() & MOUNT_ROOT == 0 || stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Unavailable("this kernel does not tell mount points (Linux 5.8 does)".into()));
    }
    if stat.stx_attributes.bits() & MOUNT_ROOT == 0 {
        return Err(Unavailable(format!("nothing is mounted at {}", shown(mountpoint))));
    }
    Ok(())
}

fn failed(operation: &str, path: &Path, errno: Errno) -> Unavailable {
    Unavailable(format!("{operation} {}: {errno}", shown(path)))
}

fn shown(path: &Path) -> String {
    super::root::printable_path(path)
}
