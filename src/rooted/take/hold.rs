//! Taking in two steps: out of sight first, deleted only at a later word.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Expected, FileStat, Held, Instead, Slot, TakeError, Taker, Taking};
use crate::model::file_version::Identity;
use crate::model::path::RelPath;
use crate::rooted::directory::DirAttributes;
use crate::rooted::note::Note;
use crate::rooted::root::RootError;
use crate::rooted::staging::Staging;

/// A file in staging: nobody can open it by a name. A crash gives it its name back, as [`Staging::sweep`] does.
pub struct OutOfSight {
    taker: Taker,
    parent: OwnedFd,
    at: RelPath,
    held: Held,
    /// Right after it was moved, which moved its ctime.
    as_taken: FileStat,
}

/// Why a file is not out of sight.
#[derive(Debug)]
pub struct NotTaken {
    /// For people; [`TakeError::Kept`]: it is not under its name either.
    pub why: TakeError,
    /// It was moved, and given its name back.
    pub back: bool,
    /// Good for the next file, if it has moved nothing.
    pub taker: Option<Box<Taker>>,
}

impl Taker {
    /// One that never puts a link in a file's place.
    ///
    /// # Errors
    /// Whatever making a file in staging says.
    pub fn without_links(staging: Arc<Staging>) -> Result<Self, RootError> {
        let slot = Slot::new(&staging)?;
        Ok(Self { staging, slot, ballast: None })
    }

    /// Moves the file out of sight, if it is exactly this one and nobody has it open for writing.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn hold(mut self, at: RelPath, identity: Identity) -> Result<OutOfSight, NotTaken> {
        let taking = Taking { at: &at, expected: Expected::Identity(identity), instead: Instead::Nothing };
        let (parent, held) = match self.move_out(&taking) {
            Ok(moved) => moved,
            Err(why) => return Err(NotTaken { why, back: false, taker: Some(Box::new(self)) }),
        };
        let checked = self.is_what_was_looked_at(&taking, &held);
        match checked.and_then(|()| self.stat_of(&at, &held)) {
            Ok(as_taken) => Ok(OutOfSight { taker: self, parent, at, held, as_taken }),
            Err(why) => {
                let why = self.put_back(&parent, &at, None, why);
                Err(NotTaken { back: !matches!(why, TakeError::Kept(_)), why, taker: None })
            }
        }
    }

    fn move_out(&mut self, taking: &Taking<'_>) -> Result<(OwnedFd, Held), TakeError> {
        let parent = self.parent_of(taking.at)?;
        let held = self.look(&parent, taking)?;
        let note = Note { at: taking.at.clone(), ino: held.stat.ino, link: None };
        let moved = self.slot.note.write(&note).map_err(|errno| ("note down", errno));
        match moved.and_then(|()| self.move_in(&parent, taking.at.name(), false)) {
            Ok(()) => Ok((parent, held)),
            Err((_, Errno::NOENT)) => Err(TakeError::Missing),
            Err((operation, errno)) => {
                Err(self.staging.root().error(operation, Some(taking.at), errno).into())
            }
        }
    }

    fn stat_of(&self, at: &RelPath, held: &Held) -> Result<FileStat, TakeError> {
        let error = |errno| self.staging.root().error("statx", Some(at), errno);
        Ok(FileStat::of(&held.fd).map_err(error)?)
    }
}

impl OutOfSight {
    /// Its name in staging.
    pub fn name(&self) -> &str {
        &self.taker.slot.taken
    }

    /// Deletes it, unless it was written since, by another name of its or a descriptor: then it gets its name back.
    ///
    /// # Errors
    /// [`TakeError::Kept`] where it has no name now; after any other it has its name.
    pub fn delete(mut self) -> Result<Taker, TakeError> {
        let taking = Taking {
            at: &self.at,
            expected: Expected::Identity(identity(&self.as_taken)),
            instead: Instead::Nothing,
        };
        let same = |now: FileStat| {
            if identity(&now) == identity(&self.as_taken) { Ok(()) } else { Err(TakeError::Changed) }
        };
        let checked = self.taker.nobody_writes(&taking, &self.held.fd);
        match checked.and_then(|()| self.taker.stat_of(&self.at, &self.held)).and_then(same) {
            Ok(()) => {
                self.taker.delete(&self.at, self.held)?;
                Ok(self.taker)
            }
            Err(why) => Err(self.give_back(why)),
        }
    }

    /// Gives it its name back, and its directory, where that was removed meanwhile.
    ///
    /// # Errors
    /// [`TakeError::Kept`] where something newer has its name.
    pub fn put_back(mut self) -> Result<Taker, TakeError> {
        match self.give_back(TakeError::Changed) {
            TakeError::Changed => Ok(self.taker),
            why => Err(why),
        }
    }

    fn give_back(&mut self, why: TakeError) -> TakeError {
        if FileStat::of(&self.parent).is_ok_and(|stat| stat.nlink == 0) {
            let FileStat { uid, gid, .. } = self.as_taken;
            let attributes = DirAttributes { uid: Some(uid), gid: Some(gid), mode: 0o755 };
            if let Ok(made) = self.taker.staging.make_dirs(self.at.parent().as_ref(), &|_| attributes) {
                self.parent = made.fd;
            }
        }
        self.taker.put_back(&self.parent, &self.at, None, why)
    }
}

fn identity(stat: &FileStat) -> Identity {
    let FileStat { size, mtime_ns, ctime_ns, ino, .. } = *stat;
    Identity { size, mtime_ns, ino, ctime_ns }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::rooted::{Root, STAGING_NAME};

    struct Rig {
        dir: tempfile::TempDir,
        staging: Arc<Staging>,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let staging = Staging::open(Root::open(dir.path()).unwrap().into()).unwrap().into();
            fs::create_dir(dir.path().join("d")).unwrap();
            fs::write(dir.path().join("d/f"), b"content").unwrap();
            Self { dir, staging }
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("d/f")
        }

        fn hold(&self) -> Result<OutOfSight, NotTaken> {
            let at = RelPath::new(b"d/f").unwrap();
            let identity = identity(&self.staging.root().stat(&at).unwrap());
            Taker::without_links(Arc::clone(&self.staging)).unwrap().hold(at, identity)
        }

        fn left(&self) -> usize {
            fs::read_dir(self.dir.path().join(STAGING_NAME)).unwrap().count()
        }
    }

    fn holds(path: &Path, content: &[u8]) -> bool {
        fs::read(path).is_ok_and(|found| found == content)
    }

    #[test]
    fn out_of_sight_then_deleted_or_back() {
        let rig = Rig::new();
        let held = rig.hold().unwrap();
        assert!(!rig.path().exists());
        let taker = held.put_back().unwrap();
        assert!(holds(&rig.path(), b"content"));
        drop(taker);
        drop(rig.hold().unwrap().delete().unwrap());
        assert!(!rig.path().exists());
        assert_eq!(rig.left(), 0);
    }

    #[test]
    fn what_was_written_by_another_name_meanwhile_comes_back() {
        let rig = Rig::new();
        let other = rig.dir.path().join("other");
        fs::hard_link(rig.path(), &other).unwrap();
        let held = rig.hold().unwrap();
        fs::write(&other, b"newer").unwrap();
        assert!(matches!(held.delete(), Err(TakeError::Changed)));
        assert!(holds(&rig.path(), b"newer"));

        let held = rig.hold().unwrap();
        let writer = fs::File::options().write(true).open(&other).unwrap();
        assert!(matches!(held.delete(), Err(TakeError::Busy)));
        assert!(matches!(rig.hold(), Err(NotTaken { why: TakeError::Busy, back: false, taker: Some(_) })));
        drop(writer);

        // As only its other name's removal tells.
        let held = rig.hold().unwrap();
        fs::remove_file(&other).unwrap();
        assert!(matches!(held.delete(), Err(TakeError::Changed)));
        assert!(holds(&rig.path(), b"newer"));
    }

    #[test]
    fn a_newer_file_keeps_its_name_and_the_older_one_is_kept() {
        let rig = Rig::new();
        let held = rig.hold().unwrap();
        fs::write(rig.path(), b"newer").unwrap();
        let Err(TakeError::Kept(kept)) = held.put_back() else { panic!("it has no name") };
        assert!(holds(&rig.path(), b"newer") && holds(Path::new(&kept), b"content"));
    }

    #[test]
    fn its_directory_is_made_again() {
        let rig = Rig::new();
        let held = rig.hold().unwrap();
        fs::remove_dir(rig.dir.path().join("d")).unwrap();
        drop(held.put_back().unwrap());
        assert!(holds(&rig.path(), b"content"));
        assert_eq!(rig.left(), 0);
    }
}
