//! A held directory and what may be opened below it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::model::path::{RelPath, printable};

/// What no path below a root may do.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// f_type of tmpfs (linux/magic.h).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A directory held open. Whatever happens to its own name later, it stays the directory that was opened.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Holds the directory at `path`, an absolute path from the configuration: symlinks in it are followed.
    ///
    /// # Errors
    /// Whatever open(2) says.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| RootError {
            operation: "open",
            path: printable_path(path),
            errno,
        })?;
        Ok(Self { dir, path: path.to_path_buf() })
    }

    /// Takes over a directory that is open already; `path` is what it is called in messages.
    pub fn hold(dir: OwnedFd, path: PathBuf) -> Self {
        Self { dir, path }
    }

    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file to read. Never blocks on what only looks like one; the time of last access stays where
    /// the file system lets us.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where a symlink or a file is in the way, `EINVAL` where it is no regular file, or
    /// whatever openat2(2) says.
    pub fn open_file(&self, path: &RelPath) -> Result<(OwnedFd, FileStat), RootError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let at = |errno| self.error("open", Some(path), errno);
        let fd = match self.openat2(path.as_path(), flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.openat2(path.as_path(), flags),
            other => other,
        }
        .map_err(at)?;
        let stat = FileStat::of(&fd).map_err(|errno| self.error("statx", Some(path), errno))?;
        if stat.kind() != FileType::RegularFile {
            return Err(at(Errno::INVAL));
        }
        Ok((fd, stat))
    }

    /// Opens a directory to list it, to sync it, to name what is in it; `None` is the root itself.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where a symlink or a file is in the way, or whatever openat2(2) says.
    pub fn open_dir(&self, path: Option<&RelPath>) -> Result<OwnedFd, RootError> {
        let name = path.map_or(Path::new("."), RelPath::as_path);
        self.openat2(name, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| self.error("open", path, errno))
    }

    /// What is at `path` now, of whatever kind, a symlink not followed.
    ///
    /// # Errors
    /// Whatever openat2(2) says.
    pub fn stat(&self, path: &RelPath) -> Result<FileStat, RootError> {
        self.openat2(path.as_path(), OFlags::PATH | OFlags::NOFOLLOW)
            .and_then(|fd| FileStat::of(&fd))
            .map_err(|errno| self.error("stat", Some(path), errno))
    }

    /// Room on the file system.
    ///
    /// # Errors
    /// Whatever fstatvfs(3) says.
    pub fn space(&self) -> Result<Space, RootError> {
        let fs = rustix::fs::fstatvfs(&self.dir).map_err(|errno| self.error("statvfs", None, errno))?;
        Ok(Space {
            bytes_total: fs.f_blocks.saturating_mul(fs.f_frsize),
            bytes_free: fs.f_bavail.saturating_mul(fs.f_frsize),
            inodes_total: fs.f_files,
            inodes_free: fs.f_favail,
        })
    }

    /// Which file system this is, and how it was mounted.
    ///
    /// # Errors
    /// Whatever fstatfs(2), statx(2) or reading `/proc/self/mountinfo` says.
    pub fn file_system(&self) -> Result<FileSystem, RootError> {
        let fs = rustix::fs::fstatfs(&self.dir).map_err(|errno| self.error("statfs", None, errno))?;
        let mount_id = self.mount_id()?;
        let table = std::fs::read("/proc/self/mountinfo").map_err(|error| RootError {
            operation: "read",
            path: "/proc/self/mountinfo".into(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })?;
        let huge = mount_options(&table, mount_id).and_then(|options| huge_option(&options));
        Ok(FileSystem { tmpfs: fs.f_type == TMPFS_MAGIC, huge, mount_id })
    }

    /// The number of the mount that the held directory is on, as in `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// Whatever statx(2) says.
    pub fn mount_id(&self) -> Result<u64, RootError> {
        let flags = AtFlags::EMPTY_PATH;
        match rustix::fs::statx(&self.dir, c"", flags, StatxFlags::MNT_ID) {
            Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(stat.stx_mnt_id),
            Ok(_) => Err(self.error("statx (mount id)", None, Errno::NOSYS)),
            Err(errno) => Err(self.error("statx", None, errno)),
        }
    }

    pub(super) fn openat2(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(self.dir.as_fd(), path, flags)
    }

    pub(crate) fn error(&self, operation: &'static str, path: Option<&RelPath>, errno: Errno) -> RootError {
        let whole = path.map_or_else(|| self.path.clone(), |path| self.path.join(path.as_path()));
        RootError { operation, path: printable_path(&whole), errno }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// openat2(2) that never leaves `dir` and follows no link.
pub(super) fn openat2(dir: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE) {
            // A signal, or a rename elsewhere that made the kernel unsure of the way: ask again.
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// An operation below a root that failed: which, on what, why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {path}: {errno}")]
pub struct RootError {
    /// The system call, or what it was for.
    pub operation: &'static str,
    /// Fit for a log line.
    pub path: String,
    /// The cause.
    pub errno: Errno,
}

impl RootError {
    /// The file system has no room left, in bytes, inodes or quota.
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno, Errno::NOSPC | Errno::DQUOT)
    }

    /// A symlink or a file stands where a directory should be.
    pub fn is_in_the_way(&self) -> bool {
        matches!(self.errno, Errno::LOOP | Errno::NOTDIR | Errno::XDEV)
    }
}

/// What statx says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub nlink: u32,
}

impl FileStat {
    /// Of an open file.
    ///
    /// # Errors
    /// Whatever statx(2) says.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self::from)
    }

    /// Of a name in a directory, not followed.
    pub(super) fn of_name(dir: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map(Self::from)
    }

    /// Regular file, directory, symlink, ...
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

impl From<Statx> for FileStat {
    fn from(stat: Statx) -> Self {
        // Times outside the years 1678 to 2262 are nobody's; they saturate.
        let ns = |sec: i64, nsec: u32| sec.saturating_mul(1_000_000_000).saturating_add(nsec.into());
        Self {
            size: stat.stx_size,
            mtime_ns: ns(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime_ns: ns(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            ino: stat.stx_ino,
            mode: stat.stx_mode.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            nlink: stat.stx_nlink,
        }
    }
}

/// Room on a file system, as an unprivileged user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub bytes_total: u64,
    /// Free bytes.
    pub bytes_free: u64,
    /// Inodes; 0 where the file system does not count them.
    pub inodes_total: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// How a root's file system is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// In memory.
    pub tmpfs: bool,
    /// tmpfs' `huge=` option; `None` where it is not given (4 kB pages).
    pub huge: Option<String>,
    /// As in `/proc/self/mountinfo`.
    pub mount_id: u64,
}

/// The options of mount `id`: its own and its file system's, from the text of `/proc/self/mountinfo`.
fn mount_options(table: &[u8], id: u64) -> Option<String> {
    let line = table.split(|&b| b == b'\n').find(|line| {
        let first = line.split(|&b| b == b' ').next();
        first.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()) == Some(id)
    })?;
    let options = line.rsplit(|&b| b == b' ').next()?;
    Some(String::from_utf8_lossy(options).into_owned())
}

fn huge_option(options: &str) -> Option<String> {
    options.split(',').find_map(|option| option.strip_prefix("huge=")).map(str::to_owned)
}

pub(super) fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_option_of_a_mount() {
        let table = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            46 27 0:39 / /ram\\040disk rw,relatime shared:5 - tmpfs tmpfs rw,size=1k,huge=within_size\n";
        assert_eq!(mount_options(table, 46).and_then(|o| huge_option(&o)).as_deref(), Some("within_size"));
        assert_eq!(mount_options(table, 22).and_then(|o| huge_option(&o)), None);
        assert_eq!(mount_options(table, 4), None);
    }

    #[test]
    fn opens_regular_files_below_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::open(temp.path()).unwrap();
        let path = |p: &str| RelPath::new(p.as_bytes()).unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("d/f"), b"12345").unwrap();
        std::os::unix::fs::symlink("d", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("outside")).unwrap();
        rustix::fs::mkfifoat(&root, "fifo", Mode::RUSR).unwrap();

        assert_eq!(root.open_file(&path("d/f")).unwrap().1.size, 5);
        let refuse = |p: &str| root.open_file(&path(p)).unwrap_err().errno;
        assert_eq!(refuse("d"), Errno::INVAL);
        assert_eq!(refuse("fifo"), Errno::INVAL);
        assert_eq!(refuse("outside"), Errno::LOOP);
        assert_eq!(refuse("link/f"), Errno::LOOP);
        assert_eq!(refuse("d/f/x"), Errno::NOTDIR);
        assert_eq!(root.open_dir(Some(&path("link"))).unwrap_err().errno, Errno::LOOP);
        assert_eq!(root.stat(&path("outside")).unwrap().kind(), FileType::Symlink);
    }

    #[test]
    fn space_and_file_system_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::open(temp.path()).unwrap();
        let space = root.space().unwrap();
        assert!(space.bytes_free > 0 && space.bytes_total >= space.bytes_free);
        assert_eq!(root.file_system().unwrap().mount_id, root.mount_id().unwrap());
    }
}
