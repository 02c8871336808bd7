//! The file system that files leave, and what they are there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::journal::Safe;
use crate::model::departures::Proof;
use crate::model::file_version::StorageIndex;
use crate::model::path::RelPath;
use crate::model::residents::Home;
use crate::model::shift::{Place as ShiftPlace, Shift};
use crate::rooted::mount::Place;
use crate::rooted::{Expected, Root, RootError, Space, Staging, TakeError, Taken, Taker, Taking};

/// So many files of one shift that gave way under one name are looked at.
const ASIDE_MAX: usize = 8;

/// See the module.
pub enum Ground {
    /// The PPU's ramdisk.
    Ramdisk(Box<Taker>),
    /// A storage.
    Storage(Shelf),
}

/// A storage, held only while files leave it, so that it can be unmounted.
pub struct Shelf {
    index: StorageIndex,
    place: Place,
    held: Option<Box<Taker>>,
    /// What an earlier process left there was put back.
    swept: bool,
}

impl Ground {
    /// The ramdisk.
    ///
    /// # Errors
    /// No place in staging.
    pub fn ramdisk(staging: Arc<Staging>) -> Result<Self, RootError> {
        Ok(Self::Ramdisk(Box::new(Taker::new(staging)?)))
    }

    /// A storage, as it was configured.
    pub fn storage(index: StorageIndex, place: Place) -> Self {
        Self::Storage(Shelf { index, place, held: None, swept: false })
    }

    pub(super) fn is_storage(&self) -> bool {
        matches!(self, Self::Storage(_))
    }

    pub(super) fn home(&self) -> Home {
        match self {
            Self::Ramdisk(_) => Home::Ramdisk,
            Self::Storage(_) => Home::Internal,
        }
    }

    /// Room there now. `Err`: it cannot be looked at, for people.
    pub(super) fn space(&mut self) -> Result<Space, String> {
        let space = match self {
            Self::Ramdisk(taker) => taker.root().space(),
            Self::Storage(shelf) => shelf.root()?.space(),
        };
        space.map_err(|error| error.to_string())
    }

    /// Asked before every file: it is there, and what is held is what is mounted.
    ///
    /// # Errors
    /// For people.
    pub(super) fn be_ready(&mut self) -> Result<(), String> {
        match self {
            Self::Ramdisk(_) => Ok(()),
            Self::Storage(shelf) => shelf.taker().map(|_| ()),
        }
    }

    /// Nothing leaves for the moment.
    pub(super) fn let_go(&mut self) {
        if let Self::Storage(shelf) = self {
            shelf.held = None;
        }
    }

    /// Where a version's file is here.
    pub(super) fn at<'a>(&self, safe: &'a Safe) -> &'a RelPath {
        match self {
            Self::Ramdisk(_) => safe.at(),
            Self::Storage(_) => safe.to(),
        }
    }

    /// Where it may be as well: a later shift's file of the same name has made it give way there (SPEC 2.5).
    pub(super) fn set_aside(&self, safe: &Safe) -> impl Iterator<Item = RelPath> + use<> {
        let (at, stamp) = (self.at(safe).clone(), safe.resident().shift.stamp());
        let most = if self.is_storage() { ASIDE_MAX } else { 0 };
        (0..most).map_while(move |nth| at.set_aside(&stamp, nth))
    }

    /// The file itself.
    pub(super) fn file(&self, safe: &Safe) -> Expected<'static> {
        let local = match self {
            Self::Ramdisk(_) => Some(safe.local()),
            Self::Storage(shelf) => safe.stored(shelf.index),
        };
        Expected::Content { local, size: safe.size(), hash: safe.hash() }
    }

    pub(super) fn take(&mut self, taking: &Taking<'_>) -> Result<Taken, TakeError> {
        match self {
            Self::Ramdisk(taker) => taker.take(taking),
            Self::Storage(shelf) => match &mut shelf.held {
                Some(taker) => taker.take(taking),
                None => Err(TakeError::Missing),
            },
        }
    }

    /// Removes the directories of a file that has left, as far as they are empty and `may_go`.
    pub(super) fn remove_empty(&self, file: &RelPath, may_go: impl Fn(&RelPath) -> bool) {
        let taker = match self {
            Self::Ramdisk(taker) => Some(taker),
            Self::Storage(shelf) => shelf.held.as_ref(),
        };
        if let Some(taker) = taker {
            taker.root().remove_empty(file.parent(), may_go);
        }
    }

    /// Directories of a shift that stay, also when they are empty.
    pub(super) fn directories_of(&self, shift: &Shift) -> Vec<RelPath> {
        let user_dir = shift.user_dir.as_ref();
        let of_place = |place: &ShiftPlace| {
            let target = match self {
                Self::Ramdisk(_) => place.target.directory(),
                Self::Storage(_) => place.target.replicated().cloned(),
            };
            match (target, user_dir) {
                (Some(target), Some(user_dir)) => target.join(user_dir).ok(),
                (target, user_dir) => target.or_else(|| user_dir.cloned()),
            }
        };
        shift.places.iter().filter_map(of_place).collect()
    }
}

impl Shelf {
    /// What is mounted there now.
    fn root(&mut self) -> Result<Arc<Root>, String> {
        if let Some(taker) = &self.held {
            match self.place.check(taker.root()) {
                Ok(()) => return Ok(Arc::clone(taker.root())),
                Err(_) => self.held = None,
            }
        }
        let root = self.place.open().map_err(|gone| gone.to_string())?;
        Ok(Arc::new(root))
    }

    fn taker(&mut self) -> Result<&mut Taker, String> {
        let root = self.root()?;
        if self.held.is_none() {
            let staging = Staging::open(root).map_err(|error| error.to_string())?;
            if !self.swept {
                staging.sweep().map_err(|error| error.to_string())?;
                self.swept = true;
            }
            let taker = Taker::new(Arc::new(staging)).map_err(|error| error.to_string())?;
            self.held = Some(Box::new(taker));
        }
        self.held.as_deref_mut().ok_or_else(|| "it is not held".to_owned())
    }
}

/// Where the link leads that stands for a file: to its copy on the next storage.
pub(super) fn link_text(target: &Path, safe: &Safe) -> PathBuf {
    target.join(safe.to().as_path())
}
