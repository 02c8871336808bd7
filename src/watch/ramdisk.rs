//! The ramdisk as it is mounted now: it may be unmounted and mounted again under a running daemon.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::rooted::{Root, RootError};

/// A handle; its clones show the same ramdisk.
#[derive(Debug, Clone)]
pub struct Ramdisk {
    path: PathBuf,
    root: Arc<RwLock<Arc<Root>>>,
}

/// What is at the ramdisk's path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The directory that is held.
    Here,
    /// Nothing that could be the ramdisk. For people.
    Lost(String),
    /// Another one.
    Another,
}

/// Which directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    device: (u32, u32),
    ino: u64,
    mount_id: u64,
    is_mount_point: bool,
}

impl Ramdisk {
    pub(super) fn open(path: &Path) -> Result<Self, RootError> {
        let root = Arc::new(RwLock::new(Arc::new(Root::open(path)?)));
        Ok(Self { path: path.to_owned(), root })
    }

    /// To be asked again for every file.
    pub fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compares what is held with what is at the path.
    pub(super) fn presence(&self) -> Presence {
        let there = match Place::of(CWD, &self.path, AtFlags::NO_AUTOMOUNT) {
            Ok(there) => there,
            Err(errno) => return Presence::Lost(errno.to_string()),
        };
        match Place::of(&*self.root(), Path::new(""), AtFlags::EMPTY_PATH) {
            Ok(held) if held == there => Presence::Here,
            // Else the bare directory below an unmounted ramdisk would pass for an empty one.
            Ok(held) if held.is_mount_point && !there.is_mount_point => {
                Presence::Lost("nothing is mounted there".to_owned())
            }
            _ => Presence::Another,
        }
    }

    /// Takes what is at the path now.
    pub(super) fn reopen(&self) -> Result<(), RootError> {
        let root = Arc::new(Root::open(&self.path)?);
        *self.root.write().unwrap_or_else(PoisonError::into_inner) = root;
        Ok(())
    }
}

impl Place {
    fn of(dir: impl AsFd, path: &Path, flags: AtFlags) -> Result<Self, Errno> {
        let stat = rustix::fs::statx(dir, path, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        Ok(Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            mount_id: stat.stx_mnt_id,
            is_mount_point: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }
}
