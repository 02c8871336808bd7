//! Taking a file away: the one helper of release, eviction and purge.
//!
//! Never is a name checked and then acted on. The file is opened and looked at; its name is moved into staging (or exchanged
//! with a link made there); and only what was really *taken* is deleted, if it is the file that was looked at, unchanged, and nobody
//! has it open for writing. Anything else is put back, and never on top of something newer.
//!
//! Before the move, a note in staging says what is taken from where, so that a start after a crash puts it back
//! ([`Staging::sweep`]).

mod hold;

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ppu_uring::sys::{Writers, is_open_elsewhere, writers};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::content::hash_content;
use super::note::{Note, NoteFile};
use super::publish::set_mtime_of_link;
use super::root::{FileStat, Root, RootError, openat2};
use super::staging::Staging;
use crate::model::file_version::{Hash, Identity};
use crate::model::job::Local;
use crate::model::path::{RelPath, printable};
use crate::model::shift::ShiftId;
pub use hold::{NotTaken, OutOfSight};

/// Kept allocated, without a name, so that on a file system without a free byte or inode a link can be made: the first
/// eviction then makes room for the next.
const BALLAST_BYTES: u64 = 64 << 10;

/// What is to be taken away.
#[derive(Debug, Clone, Copy)]
pub struct Taking<'a> {
    /// Below the root.
    pub at: &'a RelPath,
    /// What must be there; anything else stays.
    pub expected: Expected<'a>,
    /// What has the name afterwards.
    pub instead: Instead<'a>,
}

/// See [`Taking`].
#[derive(Debug, Clone, Copy)]
pub enum Expected<'a> {
    /// Exactly this file: inode, size and both times.
    Identity(Identity),
    /// The file that we brought. Where its ctime moved (a chmod, a hard link) the content decides.
    Content {
        /// As it was published; `None`: not known, the content decides.
        local: Option<Local>,
        /// Bytes.
        size: u64,
        /// Of the content.
        hash: Hash,
    },
    /// Exactly this symlink.
    Link(Link<'a>),
}

/// See [`Taking`].
#[derive(Debug, Clone, Copy)]
pub enum Instead<'a> {
    /// Nothing.
    Nothing,
    /// This symlink, in one atomic step.
    Link(Link<'a>),
}

/// A symlink of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// Where it leads.
    pub text: &'a Path,
    /// Its own time of last modification, ns since the epoch: the moment at which the version that it stands for landed. So the link of
    /// one version is told from that of another under the same name.
    pub mtime_ns: i64,
}

/// A file that is gone from its name.
#[derive(Debug)]
pub struct Taken {
    /// What comes free once nobody reads it any more; 0 for a link, and for a file with further names.
    pub bytes: u64,
    /// Somebody has it open or mapped, so that nothing of it comes free yet.
    pub held: Option<StillOpen>,
}

/// A deleted file that others have open. This has it open, too, so that it can be told when they close it: drop it then.
#[derive(Debug)]
pub struct StillOpen(OwnedFd);

impl StillOpen {
    /// The others have not closed it yet.
    pub fn is_held(&self) -> bool {
        is_open_elsewhere(&self.0)
    }
}

/// Why nothing was taken away.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Nothing has the name.
    #[error("it is not there")]
    Missing,
    /// The name holds something else, or the file was changed. It stays.
    #[error("something else has its place, or it was changed")]
    Changed,
    /// It stays, for now.
    #[error("somebody has it open for writing")]
    Busy,
    /// It had to be put back, and something newer had its name already.
    #[error("it was changed while it was taken away, and is kept as {0}")]
    Kept(String),
    /// The file system said no. It stays.
    #[error(transparent)]
    Failed(#[from] RootError),
}

/// Takes files away, one at a time.
#[derive(Debug)]
pub struct Taker {
    staging: Arc<Staging>,
    slot: Slot,
    /// See [`BALLAST_BYTES`]; `None` where even that did not fit.
    ballast: Option<OwnedFd>,
}

/// Where in staging a taken file is for a moment, and the note about it.
#[derive(Debug)]
struct Slot {
    note: NoteFile,
    taken: String,
}

/// What was looked at, held open: its inode's number cannot come to mean another file.
struct Held {
    fd: OwnedFd,
    stat: FileStat,
}

impl Taker {
    /// Prepares a place for taken files in staging.
    ///
    /// # Errors
    /// Whatever making a file there says.
    pub fn new(staging: Arc<Staging>) -> Result<Self, RootError> {
        let slot = Slot::new(&staging)?;
        let ballast = ballast(&staging);
        Ok(Self { staging, slot, ballast })
    }

    /// The root that files are taken from.
    pub fn root(&self) -> &Arc<Root> {
        self.staging.root()
    }

    /// Takes one file (or link) away.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take(&mut self, taking: &Taking<'_>) -> Result<Taken, TakeError> {
        let root = Arc::clone(self.staging.root());
        let error = |operation, errno| root.error(operation, Some(taking.at), errno);
        let parent = self.parent_of(taking.at)?;
        let held = self.look(&parent, taking)?;
        let note = Note {
            at: taking.at.clone(),
            ino: held.stat.ino,
            link: match taking.instead {
                Instead::Nothing => None,
                Instead::Link(link) => Some(link.text.as_os_str().as_bytes().to_vec()),
            },
        };
        // Before anything is in the slot: after a crash, what is there is what the note speaks of.
        self.slot.note.write(&note).map_err(|errno| error("note down", errno))?;
        let link = match taking.instead {
            Instead::Nothing => None,
            Instead::Link(link) => Some(self.make_link(taking.at, link)?),
        };
        if let Err((operation, errno)) = self.move_in(&parent, taking.at.name(), link.is_some()) {
            if link.is_some() {
                self.clear();
            }
            return match errno {
                Errno::NOENT => Err(TakeError::Missing),
                errno => Err(error(operation, errno).into()),
            };
        }
        let taken = match self.is_what_was_looked_at(taking, &held) {
            Ok(()) => self.delete(taking.at, held),
            Err(why) => Err(self.put_back(&parent, taking.at, link, why)),
        };
        if self.ballast.is_none() {
            self.ballast = ballast(&self.staging);
        }
        taken
    }

    fn parent_of(&self, at: &RelPath) -> Result<OwnedFd, TakeError> {
        match self.staging.root().open_dir(at.parent().as_ref()) {
            Err(found) if found.errno == Errno::NOENT => Err(TakeError::Missing),
            Err(found) if found.is_in_the_way() => Err(TakeError::Changed),
            opened => Ok(opened?),
        }
    }

    /// Opens what has the name, if it is what is expected.
    fn look(&self, parent: &OwnedFd, taking: &Taking<'_>) -> Result<Held, TakeError> {
        let error = |operation, errno| self.staging.root().error(operation, Some(taking.at), errno);
        let name = Path::new(OsStr::from_bytes(taking.at.name()));
        let (flags, kind) = match taking.expected {
            Expected::Link(_) => (OFlags::PATH | OFlags::NOFOLLOW, FileType::Symlink),
            _ => (
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME,
                FileType::RegularFile,
            ),
        };
        let opened = match openat2(parent.as_fd(), name, flags) {
            // Not our file, or a file system without it.
            Err(Errno::PERM) => openat2(parent.as_fd(), name, flags - OFlags::NOATIME),
            opened => opened,
        };
        let fd = match opened {
            Err(Errno::NOENT) => return Err(TakeError::Missing),
            Err(Errno::LOOP | Errno::NXIO) => return Err(TakeError::Changed),
            opened => opened.map_err(|errno| error("open", errno))?,
        };
        let stat = FileStat::of(&fd).map_err(|errno| error("statx", errno))?;
        if stat.kind() != kind || !fits(taking.expected, &fd, &stat).map_err(|errno| error("read", errno))? {
            return Err(TakeError::Changed);
        }
        self.nobody_writes(taking, &fd)?;
        Ok(Held { fd, stat })
    }

    fn nobody_writes(&self, taking: &Taking<'_>, file: &OwnedFd) -> Result<(), TakeError> {
        if matches!(taking.expected, Expected::Link(_)) {
            return Ok(());
        }
        match writers(file) {
            Writers::None => Ok(()),
            Writers::Some => Err(TakeError::Busy),
            Writers::Unknown => {
                let root = self.staging.root();
                Err(root.error("find out who writes to", Some(taking.at), Errno::OPNOTSUPP).into())
            }
        }
    }

    /// The link that is to have the name, in the slot. Gives its inode's number.
    fn make_link(&mut self, at: &RelPath, link: Link<'_>) -> Result<u64, TakeError> {
        let root = Arc::clone(self.staging.root());
        let error = |operation, errno| TakeError::from(root.error(operation, Some(at), errno));
        if !self.staging.rename_flags() {
            return Err(error("exchange atomically with a link", Errno::OPNOTSUPP));
        }
        let make = || rustix::fs::symlinkat(link.text, self.staging.dir(), &self.slot.taken);
        let made = match make() {
            Err(Errno::NOSPC | Errno::DQUOT) if self.ballast.take().is_some() => make(),
            made => made,
        };
        made.map_err(|errno| error("make a link for", errno))?;
        let taken = &self.slot.taken;
        let dated = set_mtime_of_link(self.staging.dir(), taken, link.mtime_ns)
            .and_then(|()| FileStat::of_name(self.staging.dir(), taken.as_bytes()));
        match dated {
            Ok(stat) => Ok(stat.ino),
            Err(errno) => {
                let failed = error("make a link for", errno);
                self.clear();
                Err(failed)
            }
        }
    }

    fn move_in(&self, parent: &OwnedFd, name: &[u8], exchange: bool) -> Result<(), (&'static str, Errno)> {
        let (dir, taken) = (self.staging.dir(), &self.slot.taken);
        let moved = match (exchange, self.staging.rename_flags()) {
            (true, _) => rustix::fs::renameat_with(dir, taken, parent, name, RenameFlags::EXCHANGE),
            (false, true) => rustix::fs::renameat_with(parent, name, dir, taken, RenameFlags::NOREPLACE),
            (false, false) => rustix::fs::renameat(parent, name, dir, taken),
        };
        moved.map_err(|errno| ("move into staging", errno))
    }

    /// The name was moved; is it the file's, and is the file as it was? From here on nobody can open it by a name.
    fn is_what_was_looked_at(&self, taking: &Taking<'_>, held: &Held) -> Result<(), TakeError> {
        let error = |errno| self.staging.root().error("statx", Some(taking.at), errno);
        let taken = FileStat::of_name(self.staging.dir(), self.slot.taken.as_bytes()).map_err(error)?;
        if (taken.ino, taken.kind()) != (held.stat.ino, held.stat.kind()) {
            return Err(TakeError::Changed);
        }
        self.nobody_writes(taking, &held.fd)?;
        // Its ctime was moved by the rename itself. Who wrote since the look has moved its mtime as well.
        let now = FileStat::of(&held.fd).map_err(error)?;
        match (now.size, now.mtime_ns) == (held.stat.size, held.stat.mtime_ns) {
            true => Ok(()),
            false => Err(TakeError::Changed),
        }
    }

    fn delete(&mut self, at: &RelPath, held: Held) -> Result<Taken, TakeError> {
        match rustix::fs::unlinkat(self.staging.dir(), &self.slot.taken, AtFlags::empty()) {
            Ok(()) => {
                if held.stat.nlink > 1 || held.stat.kind() != FileType::RegularFile {
                    return Ok(Taken { bytes: 0, held: None });
                }
                let still_open = is_open_elsewhere(&held.fd).then_some(StillOpen(held.fd));
                Ok(Taken { bytes: held.stat.size, held: still_open })
            }
            Err(errno) => {
                let error = self.staging.root().error("delete", Some(at), errno);
                self.keep_in_staging();
                Err(error.into())
            }
        }
    }

    /// Gives back what should not have been taken. `link`: the inode that has the name now, if nobody changed that.
    fn put_back(&mut self, parent: &OwnedFd, at: &RelPath, link: Option<u64>, why: TakeError) -> TakeError {
        let (dir, taken) = (self.staging.dir(), self.slot.taken.as_bytes());
        let exchange = || rustix::fs::renameat_with(dir, taken, parent, at.name(), RenameFlags::EXCHANGE);
        if let Some(link) = link {
            match exchange().and_then(|()| FileStat::of_name(dir, taken)) {
                Ok(back) if back.ino == link => {
                    self.clear();
                    return why;
                }
                // Something newer has taken the link's place: it gets its name again.
                Ok(_) => {
                    if exchange().is_err() {
                        return self.keep(parent, at);
                    }
                }
                Err(_) => {}
            }
        }
        match self.staging.rename_new(&self.slot.taken, parent, at.name()) {
            Ok(()) => why,
            Err(_) => self.keep(parent, at),
        }
    }

    /// Beside the name that something newer has, or in staging.
    fn keep(&mut self, parent: &OwnedFd, at: &RelPath) -> TakeError {
        let (dir, taken) = (self.staging.dir(), self.slot.taken.as_bytes());
        let stamp = FileStat::of_name(dir, taken).map_or(0, |stat| stat.mtime_ns / 1_000_000);
        let moved = self.staging.set_aside(dir, taken, parent, at.name(), &ShiftId(stamp).stamp());
        let beside = match moved {
            Ok(Some(aside)) => at.beside(&aside),
            Ok(None) => return TakeError::Missing,
            Err(_) => None,
        };
        let kept = match beside {
            Some(path) => self.staging.root().path().join(path.as_path()),
            None => self.staging.path().join(self.keep_in_staging()),
        };
        TakeError::Kept(printable(kept.as_os_str().as_bytes()))
    }

    /// Under a name that no sweep touches.
    fn keep_in_staging(&mut self) -> String {
        let kept = self.staging.unique("kept");
        let renamed = rustix::fs::renameat(self.staging.dir(), &self.slot.taken, self.staging.dir(), &kept);
        if renamed.is_ok() {
            return kept;
        }
        // The slot stays as it is, with its note; the next start sees to it.
        let left = self.slot.taken.clone();
        if let Ok(slot) = Slot::new(&self.staging) {
            std::mem::replace(&mut self.slot, slot).note.leave();
        }
        left
    }

    /// Removes a link of ours from the slot.
    fn clear(&mut self) {
        if rustix::fs::unlinkat(self.staging.dir(), &self.slot.taken, AtFlags::empty()).is_err() {
            self.keep_in_staging();
        }
    }
}

impl Slot {
    fn new(staging: &Staging) -> Result<Self, RootError> {
        let (note, suffix) = NoteFile::new(staging)?;
        Ok(Self { note, taken: format!("take-{suffix}") })
    }
}

fn ballast(staging: &Staging) -> Option<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(staging.dir(), c".", flags, Mode::RUSR | Mode::WUSR).ok()?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Some(file),
        Err(_) => None,
    }
}

/// Whether an open file is the expected one.
fn fits(expected: Expected<'_>, file: &OwnedFd, stat: &FileStat) -> Result<bool, Errno> {
    match expected {
        Expected::Identity(Identity { size, mtime_ns, ino, ctime_ns }) => {
            Ok((stat.size, stat.mtime_ns, stat.ino, stat.ctime_ns) == (size, mtime_ns, ino, ctime_ns))
        }
        Expected::Link(Link { text, mtime_ns }) => {
            // Some file systems keep whole seconds.
            let whole = stat.mtime_ns % 1_000_000_000 == 0;
            let second = mtime_ns.div_euclid(1_000_000_000).saturating_mul(1_000_000_000);
            let its_time = stat.mtime_ns == mtime_ns || whole && stat.mtime_ns == second;
            Ok(its_time && link_text(file)? == text.as_os_str().as_bytes())
        }
        Expected::Content { local, size, hash } => {
            if stat.size != size || local.is_some_and(|local| local.ino != stat.ino) {
                return Ok(false);
            }
            if local.is_some_and(|local| local.ctime_ns == stat.ctime_ns) {
                return Ok(true);
            }
            let same = hash_content(file)? == hash;
            Ok(same && FileStat::of(file)?.ctime_ns == stat.ctime_ns)
        }
    }
}

/// What a symlink, opened as a path, says.
pub(super) fn link_text(link: &OwnedFd) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(link, c"", Vec::with_capacity(256)).map(CString::into_bytes)
}
