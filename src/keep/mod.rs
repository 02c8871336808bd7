//! Keeps file systems from filling up: *eviction* under pressure (SPEC 4.1) and *purge* of past shifts (SPEC 2.3), on the PPU's
//! ramdisk and, where there is an external storage, on the internal one. Of the other storages the fill state is watched.
//!
//! A thread for each file system, which touches that one only: a storage that hangs stops nothing elsewhere. It hears from the ledger what may leave
//! ([`Residents`](crate::model::residents::Residents)), and asks the journal for the proof ([`Safe`](crate::journal::Safe)) of every file
//! before it takes it away; how, is [`Taker`](crate::rooted::Taker)'s.

mod ground;
mod keeper;
mod leaver;

use std::sync::{Arc, Mutex, PoisonError};

pub use ground::Ground;
pub use keeper::{Keeper, Seen, Settings, Told};
pub use leaver::Leaving;

use crate::model::file_version::StorageIndex;
use crate::model::shift::Shift;
use crate::model::status::{Left, Room};

/// What a keeper must know of the rest, kept up to date by the ledger's thread.
#[derive(Debug)]
pub struct Situation(Mutex<View>);

/// See [`Situation`].
#[derive(Debug, Clone)]
pub struct View {
    /// All others are past.
    pub current: Arc<Shift>,
    /// The storages whose copies may not be to be had at the moment.
    pub doubtful: Vec<StorageIndex>,
    /// Bytes that must be free on the ramdisk before the image fits that waits for room; 0: none does.
    pub room_needed: u64,
    /// Images have come a moment ago.
    pub landing: bool,
}

impl Situation {
    /// At start.
    pub fn new(view: View) -> Self {
        Self(Mutex::new(view))
    }

    /// It has changed.
    pub fn set(&self, view: View) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// How it is now.
    pub fn get(&self) -> View {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a keeper lets the status know.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Kept>);

/// See [`Shown`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// As last looked at.
    pub room: Room,
    /// What left it.
    pub left: Left,
}

impl Shown {
    /// How it is now.
    pub fn get(&self) -> Kept {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
