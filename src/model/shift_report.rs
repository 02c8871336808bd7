//! Shifts as `shift start`, `show` and `list` print them: plain data, the same as text and as JSON.

use serde::{Deserialize, Serialize};

use super::path::printable;
use super::shift::{Shift, ShiftId};

/// One shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftReport {
    /// Its start, milliseconds since the epoch, which is its number.
    pub start_ms: ShiftId,
    /// Its name: that time in UTC, as in `$SHIFT` and in `NAME.~SHIFT~`.
    pub name: String,
    /// What is closed now belongs to it.
    pub current: bool,
    /// Owner of its files.
    pub uid: u32,
    /// Group of its files.
    pub gid: u32,
    /// Below every target; empty = none.
    pub user_dir: String,
    /// Of every detector that takes part.
    pub detectors: Vec<PlaceReport>,
}

/// A detector's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceReport {
    /// Its `id`.
    pub id: String,
    /// Below its ramdisk; `/` = all of it.
    pub source: String,
    /// As it is configured: with the PPU's ramdisk, and `/./` if it has one.
    pub target: String,
    /// It tells its files of this shift from those before; `None`: it is not configured any more.
    pub word: Option<bool>,
}

/// The answer to a shift's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The one that has begun.
    pub shift: ShiftReport,
    /// Detectors whose word did not come in time.
    pub silent: Vec<Silent>,
    /// What to think of; for people.
    pub warnings: Vec<String>,
}

/// A detector that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Its `id`.
    pub detector: String,
    /// For people.
    pub why: String,
}

impl ShiftReport {
    /// `word` knows whether a detector, by its id, has given its word.
    pub fn new(shift: &Shift, current: bool, ramdisk: &[u8], word: impl Fn(&str) -> Option<bool>) -> Self {
        let place = |place: &super::shift::Place| PlaceReport {
            id: place.detector.clone(),
            source: format!("/{}", place.source.as_ref().map_or(String::new(), ToString::to_string)),
            target: printable(&place.target.written(ramdisk)),
            word: word(&place.detector),
        };
        Self {
            start_ms: shift.id,
            name: shift.id.stamp(),
            current,
            uid: shift.uid,
            gid: shift.gid,
            user_dir: shift.user_dir.as_ref().map_or(String::new(), ToString::to_string),
            detectors: shift.places.iter().map(place).collect(),
        }
    }
}
