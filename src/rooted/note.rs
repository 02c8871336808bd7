//! What is being taken from where ([`super::take`]), kept in staging so that a start after a crash can put it back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::root::{FileStat, RootError};
use super::staging::Staging;
use super::take::link_text;
use crate::model::file_version::Hash;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// A path, a link's text, and the rest; allocated at once, so that a note fits also when nothing else does.
const NOTE_BYTES_MAX: usize = 12 << 10;
/// The hash in front of a note.
const SEAL_BYTES: usize = 16;
/// How many taken names are passed over.
const NAME_TRIES: usize = 1000;

/// See the module.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The name it is taken from, below the root.
    pub at: RelPath,
    /// Its inode.
    pub ino: u64,
    /// The text of the link that takes its place.
    pub link: Option<Vec<u8>>,
}

/// The file for the notes of one taker; removed when dropped.
#[derive(Debug)]
pub(super) struct NoteFile {
    file: OwnedFd,
    dir: Arc<OwnedFd>,
    name: Option<String>,
}

impl NoteFile {
    /// A new one, and what its name and that of the file it speaks of end with.
    pub fn new(staging: &Staging) -> Result<(Self, String), RootError> {
        let error = |errno| staging.root().error("make a note in staging of", None, errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..NAME_TRIES {
            let name = staging.unique("note");
            let suffix = name["note-".len()..].to_owned();
            // Kept by an earlier process, without its note.
            if FileStat::of_name(staging.dir(), format!("take-{suffix}").as_bytes()).is_ok() {
                continue;
            }
            match rustix::fs::openat(staging.dir(), &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => {
                    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, NOTE_BYTES_MAX as u64) {
                        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::DQUOT) => {}
                        Err(errno) => return Err(error(errno)),
                    }
                    return Ok((Self { file, dir: staging.shared_dir(), name: Some(name) }, suffix));
                }
                Err(Errno::EXIST | Errno::INTR) => {}
                Err(errno) => return Err(error(errno)),
            }
        }
        Err(error(Errno::EXIST))
    }

    /// Replaces what was noted before.
    pub fn write(&self, note: &Note) -> Result<(), Errno> {
        let body = postcard::to_stdvec(note).map_err(|_| Errno::INVAL)?;
        let whole = [&Hash::of(&body).0[..], &body].concat();
        if whole.len() > NOTE_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut written = 0;
        while written < whole.len() {
            match rustix::io::pwrite(&self.file, &whole[written..], written as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Leaves the note to the next start.
    pub fn leave(mut self) {
        self.name = None;
    }
}

impl Drop for NoteFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Whatever cannot be removed now is swept at the next start.
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// What became of a taken file that a crash left in staging.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PutBack {
    /// There was none: the note alone was left, or a link of ours that had not been used.
    Nothing,
    /// It has its name again.
    Done,
    /// It stands beside the name that something newer has.
    Beside(Vec<u8>),
    /// It stays in staging.
    Stays,
}

impl Staging {
    /// Puts back what the note under `name` speaks of. The note is gone afterwards, unless the file stays.
    pub(super) fn put_back_noted(&self, name: &[u8]) -> Result<PutBack, Errno> {
        let suffix = name.strip_prefix(b"note-").ok_or(Errno::INVAL)?;
        let taken = [b"take-", suffix].concat();
        let put_back = match FileStat::of_name(self.dir(), &taken) {
            Err(Errno::NOENT) => PutBack::Nothing,
            Err(errno) => return Err(errno),
            Ok(stat) => match self.read_note(name)? {
                Some(note) => self.put_back(&taken, &stat, &note)?,
                None => PutBack::Stays,
            },
        };
        if put_back != PutBack::Stays {
            rustix::fs::unlinkat(self.dir(), name, AtFlags::empty())?;
        }
        Ok(put_back)
    }

    fn put_back(&self, taken: &[u8], stat: &FileStat, note: &Note) -> Result<PutBack, Errno> {
        let (dir, name) = (self.dir(), note.at.name());
        if stat.kind() == FileType::Symlink && note.link.is_some() && self.text_of(dir, taken)? == note.link {
            rustix::fs::unlinkat(dir, taken, AtFlags::empty())?;
            return Ok(PutBack::Nothing);
        }
        if stat.ino != note.ino {
            return Ok(PutBack::Stays);
        }
        let Ok(parent) = self.root().open_dir(note.at.parent().as_ref()) else { return Ok(PutBack::Stays) };
        let text = std::str::from_utf8(taken).map_err(|_| Errno::INVAL)?;
        match self.rename_new(text, &parent, name) {
            Ok(()) => return Ok(PutBack::Done),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if note.link.is_some() && self.text_of(&parent, name)? == note.link {
            rustix::fs::renameat_with(dir, taken, &parent, name, RenameFlags::EXCHANGE)?;
            if self.text_of(dir, taken)? == note.link {
                rustix::fs::unlinkat(dir, taken, AtFlags::empty())?;
                return Ok(PutBack::Done);
            }
            // Somebody was faster: theirs gets the name again.
            rustix::fs::renameat_with(dir, taken, &parent, name, RenameFlags::EXCHANGE)?;
        }
        let stamp = ShiftId(stat.mtime_ns / 1_000_000).stamp();
        Ok(self.set_aside(dir, taken, &parent, name, &stamp)?.map_or(PutBack::Nothing, PutBack::Beside))
    }

    /// The text of the symlink that has a name; `None`: it is none.
    fn text_of(&self, dir: impl std::os::fd::AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags, Mode::empty()).map(|link| link_text(&link)) {
            Ok(Ok(text)) => Ok(Some(text)),
            // Of something that is no link.
            Ok(Err(Errno::NOENT | Errno::INVAL)) | Err(Errno::NOENT) => Ok(None),
            Ok(Err(errno)) | Err(errno) => Err(errno),
        }
    }

    fn read_note(&self, name: &[u8]) -> Result<Option<Note>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.dir(), name, flags, Mode::empty())?;
        let mut whole = vec![0; NOTE_BYTES_MAX];
        let mut len = 0;
        while len < whole.len() {
            match rustix::io::pread(&file, &mut whole[len..], len as u64) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let Some((seal, body)) = whole[..len].split_at_checked(SEAL_BYTES) else { return Ok(None) };
        // Behind the note there may be the rest of a longer one.
        let Ok((note, rest)) = postcard::take_from_bytes::<Note>(body) else { return Ok(None) };
        let body = &body[..body.len() - rest.len()];
        Ok((Hash::of(body).0 == seal).then_some(note))
    }
}
