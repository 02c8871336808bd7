//! A private directory on the root's own file system, where files are made before they are published.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::brand::BrandSpace;
use super::note::PutBack;
use super::root::{FileStat, Root, RootError};

/// Name of the staging directory in its root.
pub const STAGING_NAME: &str = ".ppu-uringd";
/// What the names of a measurement's directories (`tune`) begin with, likewise.
pub const MEASURING_PREFIX: &str = ".ppu-uringd-tune-";
/// How many taken names [`Staging::stage`] passes over.
const NAME_TRIES: usize = 1000;
/// Numbers the names that this process gives, whichever [`Staging`] gives them: several may serve one directory.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What this program keeps in a root itself, by its name there: no images.
pub fn is_own_name(name: &[u8]) -> bool {
    name == STAGING_NAME.as_bytes() || name.starts_with(MEASURING_PREFIX.as_bytes())
}

/// The staging directory of a root: 0700, ours, on the same mount.
#[derive(Debug)]
pub struct Staging {
    root: Arc<Root>,
    /// Shared with every staged file, which outlives neither it nor its root's mount.
    dir: Arc<OwnedFd>,
    /// Part of every name given, to tell what others left from what is in hand.
    hand: Hand,
    brands: BrandSpace,
    /// renameat2 takes NOREPLACE and EXCHANGE here; NFS, for one, takes neither.
    rename_flags: bool,
}

/// What [`Staging::sweep`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Unpublished remains that were removed.
    pub removed: usize,
    /// Files that were being taken away, put back for whoever has a reason to take them again.
    pub put_back: usize,
    /// Things that may be somebody's, left where they are.
    pub kept: usize,
}

impl Staging {
    /// Opens the staging directory of `root`, made if it is missing.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` where the name is no directory, `EPERM` where it belongs to somebody else; or whatever
    /// mkdirat(2), openat2(2), fchmod(2) say.
    pub fn open(root: Arc<Root>) -> Result<Self, RootError> {
        let error = |operation, errno| {
            let mut error = root.error(operation, None, errno);
            error.path = format!("{}/{STAGING_NAME}", error.path);
            error
        };
        match rustix::fs::mkdirat(&root, STAGING_NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error("mkdir", errno)),
        }
        let dir = root
            .openat2(Path::new(STAGING_NAME), OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| error("open", errno))?;
        let stat = FileStat::of(&dir).map_err(|errno| error("statx", errno))?;
        if stat.uid != rustix::process::geteuid().as_raw() {
            return Err(error("staging directory of another user", Errno::PERM));
        }
        if stat.mode & 0o7777 != 0o700 {
            rustix::fs::fchmod(&dir, Mode::RWXU).map_err(|errno| error("chmod", errno))?;
        }
        let brands = BrandSpace::probe(&dir);
        let mut staging =
            Self { root: root.clone(), dir: Arc::new(dir), hand: Hand::new(), brands, rename_flags: true };
        staging.rename_flags = staging.takes_rename_flags().map_err(|errno| error("rename in", errno))?;
        Ok(staging)
    }

    /// The root that this stages for.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Where brands are kept on this file system.
    pub fn brands(&self) -> BrandSpace {
        self.brands
    }

    /// Removes what an earlier process left, and puts back what it was taking away.
    ///
    /// # Errors
    /// Whatever listing the directory says. What cannot be removed is counted as kept.
    pub fn sweep(&self) -> Result<Swept, RootError> {
        let error = |errno| self.root.error("sweep staging of", None, errno);
        let mut swept = Swept::default();
        let mut entries = rustix::fs::Dir::read_from(&self.dir)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(error)?;
        // Notes before what they speak of.
        entries.sort_by_key(|entry| !entry.file_name().to_bytes().starts_with(b"note-"));
        for entry in entries {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || Hand::holds(name.to_bytes()) {
                continue;
            }
            let removed = match name.to_bytes().split(|&b| b == b'-').next() {
                Some(b"note") => {
                    self.sweep_noted(name.to_bytes(), &mut swept);
                    continue;
                }
                // Counted with its note.
                Some(b"take") if FileStat::of_name(&self.dir, name.to_bytes()).is_err() => continue,
                Some(b"new") => rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()),
                Some(b"dir") => rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR),
                // Left by an exchange: a file of ours, or one that somebody put there in that very moment.
                Some(b"swap") if self.is_ours(name.to_bytes()) => {
                    rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())
                }
                _ => Err(Errno::EXIST),
            };
            match removed {
                Ok(()) => swept.removed += 1,
                Err(_) => swept.kept += 1,
            }
        }
        Ok(swept)
    }

    fn sweep_noted(&self, note: &[u8], swept: &mut Swept) {
        let shown = crate::model::path::printable(note);
        match self.put_back_noted(note) {
            Ok(PutBack::Nothing) => swept.removed += 1,
            Ok(PutBack::Done) => swept.put_back += 1,
            Ok(PutBack::Beside(name)) => {
                swept.put_back += 1;
                let name = crate::model::path::printable(&name);
                tracing::warn!(
                    "{}: a file that was being taken away is kept as {name}",
                    self.path().display()
                );
            }
            // The file itself is counted as kept.
            Ok(PutBack::Stays) => {
                tracing::warn!(
                    "{}: what {shown} speaks of stays in staging: look at it",
                    self.path().display()
                );
            }
            Err(errno) => tracing::warn!("{}: {shown}: {errno}", self.path().display()),
        }
    }

    /// A new empty file, 0600, which nobody else can reach.
    ///
    /// # Errors
    /// [`RootError::is_no_space`], or whatever openat(2) says.
    pub fn stage(&self) -> Result<Staged, RootError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..NAME_TRIES {
            let name = self.unique("new");
            match rustix::fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => {
                    let dir = self.dir.clone();
                    return Ok(Staged { file: Arc::new(file), dir, name, named: true });
                }
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(self.root.error("create a file in staging of", None, errno)),
            }
        }
        Err(self.root.error("create a file in staging of", None, Errno::EXIST))
    }

    /// A name that no other file of this process has.
    pub(super) fn unique(&self, kind: &str) -> String {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{}-{n}", self.hand.token)
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn shared_dir(&self) -> Arc<OwnedFd> {
        self.dir.clone()
    }

    /// For messages.
    pub(super) fn path(&self) -> PathBuf {
        self.root.path().join(STAGING_NAME)
    }

    pub(super) fn rename_flags(&self) -> bool {
        self.rename_flags
    }

    /// Names what is `temp` in staging `name` in `to`, which must be free.
    pub(super) fn rename_new(&self, temp: &str, to: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        if self.rename_flags {
            return rustix::fs::renameat_with(&self.dir, temp, to, name, RenameFlags::NOREPLACE);
        }
        if FileStat::of_name(&self.dir, temp.as_bytes())?.kind() == FileType::Directory {
            // Replaces nothing but an empty directory.
            return rustix::fs::renameat(&self.dir, temp, to, name);
        }
        rustix::fs::linkat(&self.dir, temp, to, name, AtFlags::empty())?;
        rustix::fs::unlinkat(&self.dir, temp, AtFlags::empty())
    }

    /// What is made from now on is an earlier process's.
    #[cfg(test)]
    pub(super) fn be_another_process(&mut self, token: &str) {
        self.hand = Hand { token: token.to_owned() };
    }

    /// As on a file system without extended attributes and rename flags.
    #[cfg(test)]
    pub(super) fn degrade(&mut self) {
        self.brands = BrandSpace::None;
        self.rename_flags = false;
    }

    fn takes_rename_flags(&self) -> Result<bool, Errno> {
        let (a, b) = (self.unique("dir"), self.unique("dir"));
        rustix::fs::mkdirat(&self.dir, &a, Mode::RWXU)?;
        let renamed = rustix::fs::renameat_with(&self.dir, &a, &self.dir, &b, RenameFlags::NOREPLACE);
        let left = if renamed.is_ok() { &b } else { &a };
        rustix::fs::unlinkat(&self.dir, left, AtFlags::REMOVEDIR)?;
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty());
        file.is_ok_and(|file| self.brands.read(file).is_some())
    }
}

/// Marks the names that one [`Staging`] gives, until it ends: what bears the mark of one that has ended is nobody's, also where
/// that was in this process (a disk lost its power, and was mounted again).
#[derive(Debug)]
struct Hand {
    token: String,
}

/// Tokens of those that have not ended.
static HANDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Hand {
    fn new() -> Self {
        let token = format!("{:x}.{}", process_token(), NEXT.fetch_add(1, Ordering::Relaxed));
        HANDS.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
        Self { token }
    }

    /// Whether `name` was given by one that has not ended.
    fn holds(name: &[u8]) -> bool {
        let token = name.split(|&b| b == b'-').nth(1).and_then(|token| std::str::from_utf8(token).ok());
        token.is_some_and(|token| HANDS.lock().unwrap_or_else(PoisonError::into_inner).contains(token))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        HANDS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

/// Unlike a process id, never an earlier process's (in a container every one may be 1).
fn process_token() -> u64 {
    static TOKEN: OnceLock<u64> = OnceLock::new();
    *TOKEN.get_or_init(|| {
        // Without randomness at hand (early at boot), the time tells processes apart.
        getrandom::u64().unwrap_or_else(|_| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.as_nanos() as u64)
        })
    })
}

/// A file without a public name yet. Dropped before it is published, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    file: Arc<OwnedFd>,
    dir: Arc<OwnedFd>,
    name: String,
    named: bool,
}

impl Staged {
    /// Open for reading and writing. Shared, so that an operation in flight may keep it.
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes another name in staging.
    pub(super) fn rename(&mut self, name: String) -> Result<(), Errno> {
        rustix::fs::renameat(&self.dir, &self.name, &self.dir, &name)?;
        self.name = name;
        Ok(())
    }

    /// It has left staging, or what is under its name there is not it any more.
    pub(super) fn disown(&mut self) {
        self.named = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.named {
            // Whatever cannot be removed now is swept at the next start.
            let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn staging(path: &Path) -> Result<Staging, RootError> {
        Staging::open(Root::open(path).unwrap().into())
    }

    #[test]
    fn private_whatever_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let at = temp.path().join(STAGING_NAME);
        std::fs::create_dir(&at).unwrap();
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o777)).unwrap();
        staging(temp.path()).unwrap();
        assert_eq!(at.metadata().unwrap().mode() & 0o7777, 0o700);
        std::fs::remove_dir(&at).unwrap();

        std::os::unix::fs::symlink("/tmp", &at).unwrap();
        assert_eq!(staging(temp.path()).unwrap_err().errno, Errno::LOOP);
        std::fs::remove_file(&at).unwrap();

        if rustix::process::geteuid().is_root() {
            std::fs::create_dir(&at).unwrap();
            std::os::unix::fs::chown(&at, Some(1234), None).unwrap();
            assert_eq!(staging(temp.path()).unwrap_err().errno, Errno::PERM);
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let staging = staging(temp.path()).unwrap();
        let count = || temp.path().join(STAGING_NAME).read_dir().unwrap().count();
        let staged = (staging.stage().unwrap(), staging.stage().unwrap());
        assert_eq!(count(), 2);
        assert_eq!(FileStat::of(staged.0.file()).unwrap().mode & 0o7777, 0o600);
        drop(staged);
        assert_eq!(count(), 0);
    }

    #[test]
    fn what_is_in_hand_stays_and_what_one_left_that_has_ended_goes() {
        let temp = tempfile::tempdir().unwrap();
        let at = temp.path().join(STAGING_NAME);
        let first = staging(temp.path()).unwrap();
        let second = staging(temp.path()).unwrap();
        let staged = first.stage().unwrap();
        let name = staged.name().to_owned();
        assert_eq!(second.sweep().unwrap(), Swept::default());
        assert!(at.join(&name).exists());
        drop((staged, first));
        // It comes back with its disk.
        std::fs::write(at.join(&name), "").unwrap();
        assert_eq!(second.sweep().unwrap(), Swept { removed: 1, ..Swept::default() });
    }

    #[test]
    fn remains_of_a_crash_are_swept_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let staging = staging(temp.path()).unwrap();
        let at = temp.path().join(STAGING_NAME);
        for name in ["new-1-1", "new-1-2", "swap-1-3", "users.txt"] {
            std::fs::write(at.join(name), name).unwrap();
        }
        std::fs::create_dir(at.join("dir-1-4")).unwrap();
        assert_eq!(staging.sweep().unwrap(), Swept { removed: 3, put_back: 0, kept: 2 });
        assert!(at.join("swap-1-3").exists() && at.join("users.txt").exists());
    }
}
