//! The file system that files leave, and what they are there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::journal::Safe;
use crate::model::path::RelPath;
use crate::model::residents::Home;
use crate::model::shift::Shift;
use crate::rooted::{Expected, RootError, Space, Staging, TakeError, Taken, Taker, Taking};

/// See the module.
pub enum Ground {
    /// The PPU's ramdisk.
    Ramdisk(Box<Taker>),
}

impl Ground {
    /// The ramdisk.
    ///
    /// # Errors
    /// No place in staging.
    pub fn ramdisk(staging: Arc<Staging>) -> Result<Self, RootError> {
        Ok(Self::Ramdisk(Box::new(Taker::new(staging)?)))
    }

    pub(super) fn home(&self) -> Home {
        match self {
            Self::Ramdisk(_) => Home::Ramdisk,
        }
    }

    /// Room there now. `Err`: it cannot be looked at, for people.
    pub(super) fn space(&mut self) -> Result<Space, String> {
        match self {
            Self::Ramdisk(taker) => taker.root().space().map_err(|error| error.to_string()),
        }
    }

    /// Where a version's file is here.
    pub(super) fn at<'a>(&self, safe: &'a Safe) -> &'a RelPath {
        match self {
            Self::Ramdisk(_) => safe.at(),
        }
    }

    /// The file itself.
    pub(super) fn file(&self, safe: &Safe) -> Expected<'static> {
        match self {
            Self::Ramdisk(_) => {
                Expected::Content { local: Some(safe.local()), size: safe.size(), hash: safe.hash() }
            }
        }
    }

    pub(super) fn take(&mut self, taking: &Taking<'_>) -> Result<Taken, TakeError> {
        match self {
            Self::Ramdisk(taker) => taker.take(taking),
        }
    }

    /// Removes the directories of a file that has left, as far as they are empty and `may_go`.
    pub(super) fn remove_empty(&self, file: &RelPath, may_go: impl Fn(&RelPath) -> bool) {
        match self {
            Self::Ramdisk(taker) => taker.root().remove_empty(file.parent(), may_go),
        };
    }

    /// Directories of a shift that stay, also when they are empty: those made at its beginning.
    pub(super) fn directories_of(&self, shift: &Shift) -> Vec<RelPath> {
        let user_dir = shift.user_dir.as_ref();
        let of_place = |place: &crate::model::shift::Place| match self {
            Self::Ramdisk(_) => match (place.target.directory(), user_dir) {
                (Some(target), Some(user_dir)) => target.join(user_dir).ok(),
                (target, user_dir) => target.or_else(|| user_dir.cloned()),
            },
        };
        shift.places.iter().filter_map(of_place).collect()
    }
}

/// Where the link leads that stands for a file: to its copy on the next storage.
pub(super) fn link_text(target: &Path, safe: &Safe) -> PathBuf {
    target.join(safe.to().as_path())
}
