//! One atomic step from staging to a public name; landing and storing share it (SPEC 1.7, 2.5).

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::directory::{DirAttributes, Made};
use super::root::{FileStat, RootError, openat2};
use super::staging::{Staged, Staging};
use super::take::link_text;
use crate::model::file_version::MODE_MASK;
use crate::model::job::{Brand, Local};
use crate::model::path::{RelPath, aside_name};
use crate::model::shift::ShiftId;

/// How often a name that changes under our eyes is tried again.
const PLACE_TRIES: usize = 16;
/// How many names are tried for a file that is set aside.
const ASIDE_TRIES: usize = 100;

/// What a published file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Owner; `None` leaves it to the operating system.
    pub uid: Option<u32>,
    /// Group; `None` leaves it to the operating system.
    pub gid: Option<u32>,
    /// Permission bits; others are dropped.
    pub mode: u32,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
}

/// What to do with a file under the name that is not an older version of the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// Nothing: [`PublishError::Foreign`].
    Refuse,
    /// Nothing, but that the same file of another shift is replaced.
    Past,
    /// Rename it to `NAME.~SHIFT~` first, unless it is another file of the same shift (SPEC 2.5, 3.2). A later shift's keeps the name, and the
    /// new file is published as `NAME.~SHIFT~`.
    SetAside,
    /// The same, but what we brought for an earlier shift is replaced, and a later shift's stays (`replace_other_shift`).
    Overwrite,
}

/// How a staged file becomes public.
#[derive(Clone, Copy)]
pub struct Publication<'a> {
    /// Below the root.
    pub at: &'a RelPath,
    /// Of the file.
    pub attributes: Attributes,
    /// Of the directories made for it, asked for each one's path.
    pub directories: &'a dyn Fn(&RelPath) -> DirAttributes,
    /// What it is.
    pub brand: &'a Brand,
    /// Where the name is taken.
    pub occupied: Occupied,
    /// The text of a symlink that stands for an older version, and is ours to replace.
    pub link: Option<&'a Path>,
    /// The last word, right before the name is taken: false gives up with [`PublishError::Superseded`].
    pub just_before_rename: &'a dyn Fn() -> bool,
}

/// A file that is public now.
#[derive(Debug)]
pub struct Published {
    /// The file, to notice later that somebody changed or replaced it.
    pub local: Local,
    /// The directory that it is in.
    pub parent: OwnedFd,
    /// How many directories, counted from the parent upwards, were made for it.
    pub new_directories: usize,
    /// What had the name before.
    pub replaced: Option<Replaced>,
}

/// What had the name before a file was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaced {
    /// An older version (or the same one, left by a crash), or another shift's file that was to be overwritten; it is gone.
    Older,
    /// A file of another shift or of somebody else: it has this name now, in the same directory.
    SetAside(Vec<u8>),
    /// Nothing: a later shift's file keeps the name, and the published file has this one, in the same directory.
    GaveWay(Vec<u8>),
}

/// Why a file was not published. Nothing of it is left, and what had the name still has it.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name, or one of its directories', holds something else: a file with another brand or none, a symlink, a directory.
    #[error("the name is taken by something that is no version of this file")]
    Foreign {
        /// Of the file in the way.
        brand: Option<Box<Brand>>,
    },
    /// [`Publication::just_before_rename`] said so, or a later shift's file has the name and one of both is to be.
    #[error("superseded")]
    Superseded,
    /// The file system said no.
    #[error(transparent)]
    Failed(#[from] RootError),
}

impl Staging {
    /// Gives `staged` its attributes and its name.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, staged: Staged, publication: &Publication<'_>) -> Result<Published, PublishError> {
        self.publish_in(None, staged, publication)
    }

    /// The same, where the caller has just opened the directory for another file: finding it again costs more than the rename. A file that is
    /// renamed into a directory which was moved meanwhile is where it would be, had it come a moment earlier.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish_in(
        &self,
        parent: Option<OwnedFd>,
        staged: Staged,
        publication: &Publication<'_>,
    ) -> Result<Published, PublishError> {
        self.dress(&staged, publication)?;
        self.place_in(parent, staged, publication)
    }

    /// The first half of [`Staging::publish`]: brand, owner, mode and time; for those who sync in between.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn dress(&self, staged: &Staged, publication: &Publication<'_>) -> Result<(), RootError> {
        let Attributes { uid, gid, mode, mtime_ns } = publication.attributes;
        let file = staged.file();
        let error = |operation| move |errno| self.root().error(operation, Some(publication.at), errno);
        // The brand first: users' attributes can only be set while the file may still be written.
        self.brands().write(file, publication.brand).map_err(error("set brand of"))?;
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
                .map_err(error("chown"))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & MODE_MASK)).map_err(error("chmod"))?;
        set_mtime(file, mtime_ns).map_err(error("set time of"))
    }

    /// The second half: the directories that are missing, and the rename.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn place(&self, staged: Staged, publication: &Publication<'_>) -> Result<Published, PublishError> {
        self.place_in(None, staged, publication)
    }

    fn place_in(
        &self,
        mut known: Option<OwnedFd>,
        mut staged: Staged,
        publication: &Publication<'_>,
    ) -> Result<Published, PublishError> {
        let Publication { at, directories, just_before_rename, brand, .. } = *publication;
        let error = |operation, errno| self.root().error(operation, Some(at), errno);
        let above = at.parent();
        let mut replaced = None;
        let mut new_directories = 0;
        // Once it has given way, how often another file had that name, too.
        let mut gives_way: Option<usize> = None;
        for _ in 0..PLACE_TRIES {
            let parent = match known.take() {
                Some(fd) => Made { fd, new: 0 },
                None => self.make_dirs(above.as_ref(), directories).map_err(|error| {
                    if error.is_in_the_way() { PublishError::Foreign { brand: None } } else { error.into() }
                })?,
            };
            new_directories = new_directories.max(parent.new);
            if !just_before_rename() {
                return Err(PublishError::Superseded);
            }
            let aside = gives_way.and_then(|nth| at.set_aside(&brand.shift.stamp(), nth));
            let here = Publication { at: aside.as_ref().unwrap_or(at), ..*publication };
            match self.rename_new(staged.name(), &parent.fd, here.at.name()) {
                Ok(()) => staged.disown(),
                // Somebody removed the directory between the two calls.
                Err(Errno::NOENT) => continue,
                Err(Errno::EXIST) if aside.is_some() => match self.inspect(&parent.fd, &staged, &here)? {
                    Occupant::Vanished => continue,
                    // Left there by a crash, or by an older version.
                    Occupant::Ours(seen, _held) => {
                        if self.exchange(&mut staged, &parent.fd, &here, seen)?.is_none() {
                            continue;
                        }
                    }
                    Occupant::Foreign(..) => {
                        gives_way = gives_way.map(|nth| nth + 1);
                        continue;
                    }
                },
                Err(Errno::EXIST) => match self.replace(&mut staged, &parent.fd, publication)? {
                    Way::Taken => replaced = replaced.or(Some(Replaced::Older)),
                    Way::Freed(aside) => {
                        replaced = replaced.or(Some(Replaced::SetAside(aside)));
                        continue;
                    }
                    Way::Changed => continue,
                    Way::Later => {
                        gives_way = Some(0);
                        continue;
                    }
                },
                Err(errno) => return Err(error("rename into", errno).into()),
            }
            if let Some(aside) = &aside {
                replaced = replaced.or_else(|| Some(Replaced::GaveWay(aside.name().to_vec())));
            }
            let stat = FileStat::of(staged.file()).map_err(|errno| error("statx", errno))?;
            let local = Local { ino: stat.ino, ctime_ns: stat.ctime_ns };
            return Ok(Published { local, parent: parent.fd, new_directories, replaced });
        }
        Err(error("rename into", Errno::BUSY).into())
    }

    /// The name is taken: takes it over, frees it, or finds that it must not or that it changed again.
    fn replace(
        &self,
        staged: &mut Staged,
        parent: &OwnedFd,
        publication: &Publication<'_>,
    ) -> Result<Way, PublishError> {
        let name = publication.at.name();
        let taken = |exchanged: Option<Replaced>| exchanged.map_or(Way::Changed, |_| Way::Taken);
        // `_held` keeps the inode number from being given to another file.
        let (seen, brand, _held) = match self.inspect(parent, staged, publication)? {
            Occupant::Vanished => return Ok(Way::Changed),
            Occupant::Ours(seen, _held) => {
                return self.exchange(staged, parent, publication, seen).map(taken);
            }
            Occupant::Foreign(seen, brand, held) => (seen, brand, held),
        };
        // A name belongs to the first file of a shift that took it (SPEC 3.2). An image does not wait for a user's extra file, and
        // that moves nothing but the same user's same file (SPEC 3.9).
        let ours = publication.brand;
        let refused = match &brand {
            Some(brand) if ours.is_extra() => {
                brand.shift == ours.shift || !brand.is_extra() || brand.path != ours.path
            }
            Some(brand) => brand.shift == ours.shift && !brand.is_extra(),
            None => ours.is_extra(),
        };
        let regular = seen.kind() == FileType::RegularFile;
        let same_file = |brand: &Brand| {
            (&brand.detector, &brand.path) == (&publication.brand.detector, &publication.brand.path)
        };
        let refused = refused
            || match publication.occupied {
                Occupied::Refuse => true,
                Occupied::Past if regular && !refused && brand.as_deref().is_some_and(same_file) => {
                    return self.exchange(staged, parent, publication, seen).map(taken);
                }
                Occupied::Past => true,
                Occupied::SetAside | Occupied::Overwrite => false,
            };
        if refused || !regular {
            return Err(PublishError::Foreign { brand });
        }
        // The newest version wins, in whatever order they come (SPEC 3.5).
        if brand
            .as_ref()
            .is_some_and(|brand| !brand.is_extra() && !ours.is_extra() && brand.shift > ours.shift)
        {
            return match publication.occupied {
                Occupied::Overwrite => Err(PublishError::Superseded),
                _ => Ok(Way::Later),
            };
        }
        if publication.occupied == Occupied::Overwrite
            && brand.as_ref().is_some_and(|brand| brand.is_extra() == ours.is_extra())
        {
            return self.exchange(staged, parent, publication, seen).map(taken);
        }
        let shift = brand.map_or(ShiftId(seen.mtime_ns / 1_000_000), |brand| brand.shift);
        let moved = self.set_aside(parent, name, parent, name, &shift.stamp());
        moved
            .map(|aside| aside.map_or(Way::Changed, Way::Freed))
            .map_err(|errno| self.root().error("set aside", Some(publication.at), errno).into())
    }

    /// What has the name.
    fn inspect(
        &self,
        parent: &OwnedFd,
        staged: &Staged,
        publication: &Publication<'_>,
    ) -> Result<Occupant, RootError> {
        let name = publication.at.name();
        let error = |errno| self.root().error("look at", Some(publication.at), errno);
        let seen = match FileStat::of_name(parent, name) {
            Err(Errno::NOENT) => return Ok(Occupant::Vanished),
            stat => stat.map_err(error)?,
        };
        if seen.kind() == FileType::Symlink
            && let Some(text) = publication.link
        {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let link = match openat2(parent.as_fd(), Path::new(OsStr::from_bytes(name)), flags) {
                Err(Errno::NOENT) => return Ok(Occupant::Vanished),
                link => link.map_err(error)?,
            };
            let seen = FileStat::of(&link).map_err(error)?;
            if seen.kind() == FileType::Symlink
                && link_text(&link).map_err(error)? == text.as_os_str().as_bytes()
            {
                return Ok(Occupant::Ours(seen, Some(link)));
            }
        }
        if seen.kind() != FileType::RegularFile {
            return Ok(Occupant::Foreign(seen, None, None));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = openat2(parent.as_fd(), Path::new(OsStr::from_bytes(name)), flags);
        let (seen, brand, file) = match opened {
            Ok(file) => (FileStat::of(&file).map_err(error)?, self.brands().read(&file), Some(file)),
            Err(Errno::NOENT) => return Ok(Occupant::Vanished),
            // A brand that nobody lets us read is none.
            Err(Errno::ACCESS | Errno::PERM) => (seen, None, None),
            Err(Errno::LOOP) => return Ok(Occupant::Foreign(seen, None, None)),
            Err(errno) => return Err(error(errno)),
        };
        let ours = match &brand {
            Some(brand) => is_same_file(brand, publication.brand),
            // Where there is no room for brands, only the very version that is to be published is known for ours.
            None if !self.brands().holds(publication.brand) => {
                let new = FileStat::of(staged.file()).map_err(error)?;
                (seen.size, seen.mtime_ns, seen.uid) == (new.size, new.mtime_ns, new.uid)
            }
            None => false,
        };
        Ok(if ours { Occupant::Ours(seen, file) } else { Occupant::Foreign(seen, brand.map(Box::new), file) })
    }

    /// Takes the place of `seen`, and of nothing else.
    fn exchange(
        &self,
        staged: &mut Staged,
        parent: &OwnedFd,
        publication: &Publication<'_>,
        seen: FileStat,
    ) -> Result<Option<Replaced>, PublishError> {
        let name = publication.at.name();
        let error = |errno| self.root().error("exchange", Some(publication.at), errno);
        if !(publication.just_before_rename)() {
            return Err(PublishError::Superseded);
        }
        if !self.rename_flags() {
            // What somebody put there since `inspect` is lost; the file system offers nothing better.
            rustix::fs::renameat(self.dir(), staged.name(), parent, name).map_err(error)?;
            staged.disown();
            return Ok(Some(Replaced::Older));
        }
        let new = FileStat::of(staged.file()).map_err(error)?;
        // The name tells the next start that what has it may not be ours.
        staged.rename(self.unique("swap")).map_err(error)?;
        let swap = || {
            rustix::fs::renameat_with(self.dir(), staged.name(), parent, name, RenameFlags::EXCHANGE)?;
            FileStat::of_name(self.dir(), staged.name().as_bytes())
        };
        match swap() {
            Ok(taken) if taken.ino == seen.ino => return Ok(Some(Replaced::Older)),
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(error(errno).into()),
        }
        // Somebody else's came under the name in between: back with it.
        match swap() {
            Ok(back) if back.ino == new.ino => return Ok(None),
            // They replaced or removed ours meanwhile: it is gone, and what we hold is theirs.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => {
                staged.disown();
                return Err(error(errno).into());
            }
        }
        let swapped = staged.name().to_owned();
        staged.disown();
        if self.rename_new(&swapped, parent, name).is_err() {
            let stamp = ShiftId(seen.mtime_ns / 1_000_000).stamp();
            self.set_aside(self.dir(), swapped.as_bytes(), parent, name, &stamp).map_err(error)?;
        }
        Err(PublishError::Foreign { brand: None })
    }

    /// Renames `from` in `dir` to `NAME.~STAMP~` in `parent`, and says its name there. `None`: it has vanished.
    pub(super) fn set_aside(
        &self,
        dir: impl AsFd,
        from: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        stamp: &str,
    ) -> Result<Option<Vec<u8>>, Errno> {
        for n in 0..ASIDE_TRIES {
            let aside = aside_name(name, stamp, n);
            let renamed = if self.rename_flags() {
                rustix::fs::renameat_with(&dir, from, parent, &aside, RenameFlags::NOREPLACE)
            } else {
                rustix::fs::linkat(&dir, from, parent, &aside, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(&dir, from, AtFlags::empty()))
            };
            match renamed {
                Ok(()) => return Ok(Some(aside)),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }
}

/// What came of a name that was taken.
enum Way {
    /// The new file has it.
    Taken,
    /// It is free: what had it has this one now.
    Freed(Vec<u8>),
    /// It is to be looked at again.
    Changed,
    /// A later shift's file has it, and keeps it.
    Later,
}

/// What has a name that is to be taken.
enum Occupant {
    /// Nothing any more.
    Vanished,
    /// An older version of the same file, held open where we may.
    Ours(FileStat, Option<OwnedFd>),
    /// Anything else, with its brand and held open if it is such a file.
    Foreign(FileStat, Option<Box<Brand>>, Option<OwnedFd>),
}

fn is_same_file(a: &Brand, b: &Brand) -> bool {
    a.detector == b.detector && a.shift == b.shift && a.path == b.path
}

/// As [`set_mtime`], of a symlink itself.
pub(super) fn set_mtime_of_link(dir: impl AsFd, name: &str, mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::utimensat(dir, name, &only_mtime(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the time of last modification and leaves that of last access.
///
/// # Errors
/// Whatever utimensat(2) says.
pub fn set_mtime(file: impl AsFd, mtime_ns: i64) -> Result<(), Errno> {
    rustix::fs::futimens(file, &only_mtime(mtime_ns))
}

fn only_mtime(mtime_ns: i64) -> Timestamps {
    let last_modification =
        Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access, last_modification }
}
