//! A user shift: whose images they are, since when.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::{PathError, RelPath};
use super::replica_path::Target;

/// A shift's identity: its start in milliseconds since the epoch on the PPU's clock, strictly increasing
/// from one shift to the next even where that clock steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ShiftId(pub i64);

/// How long a shift's start waits for the detectors' words (SPEC 2.2). A word that comes later may come when others have gone on.
pub const WORD_WAIT: Duration = Duration::from_secs(2);

/// When a shift began, as the PPU tells it to a detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Began {
    /// It is the first of all: what was there before is its, too.
    Ever,
    /// This moment.
    Now,
    /// A while before this moment; no clock is asked.
    Ago {
        /// Microseconds.
        us: u64,
    },
}

/// Who gets the files (SPEC 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// Start time and name.
    pub id: ShiftId,
    /// Owner of landed files.
    pub uid: u32,
    /// Group of landed files.
    pub gid: u32,
    /// Directory below each detector's target, `$UID`, `$GID`, `$SHIFT` already filled in.
    pub user_dir: Option<RelPath>,
    /// Per detector: what is taken from where to where.
    pub places: Vec<Place>,
}

/// A detector's part in a shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The detector's `id`.
    pub detector: String,
    /// Below the detector's ramdisk; `None` = all of it.
    pub source: Option<RelPath>,
    /// Below the PPU's ramdisk.
    pub target: Target,
}

impl Shift {
    /// Fills in `pattern` (`user_dir` of the config): `$UID`, `$GID` and `$SHIFT`, the shift's start as
    /// `YYYYMMDD-HHMMSS` in UTC (SPEC 1.5).
    ///
    /// # Errors
    /// [`PathError`] where the result is not a path below the target.
    pub fn new(
        id: ShiftId,
        uid: u32,
        gid: u32,
        pattern: &str,
        places: Vec<Place>,
    ) -> Result<Self, PathError> {
        let filled = pattern
            .replace("$UID", &uid.to_string())
            .replace("$GID", &gid.to_string())
            .replace("$SHIFT", &id.stamp());
        let user_dir = match filled.trim_matches('/') {
            "" => None,
            filled => Some(RelPath::new(filled.as_bytes())?),
        };
        Ok(Self { id, uid, gid, user_dir, places })
    }

    /// A detector's part.
    pub fn place(&self, detector: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.detector == detector)
    }
}

impl ShiftId {
    /// No shift that there is: what a detector says of files whose shift it cannot tell.
    pub const UNKNOWN: Self = Self(0);

    /// `20260131-235959`, UTC: sorts as time does and suits a file name.
    pub fn stamp(self) -> String {
        let start = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        start.strftime("%Y%m%d-%H%M%S").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_dir_patterns() {
        let dir = |pattern: &str| {
            let shift = Shift::new(ShiftId(1_785_542_399_000), 500, 501, pattern, vec![]).unwrap();
            shift.user_dir.map(|d| d.to_string())
        };
        assert_eq!(dir("$UID_$GID").as_deref(), Some("500_501"));
        assert_eq!(dir("").as_deref(), None);
        assert_eq!(dir("users/$UID/$SHIFT").as_deref(), Some("users/500/20260731-235959"));
        assert!(Shift::new(ShiftId(0), 1, 1, "../$UID", vec![]).is_err());
    }

    #[test]
    fn stamp_across_leap_days() {
        assert_eq!(ShiftId(0).stamp(), "19700101-000000");
        assert_eq!(ShiftId(951_782_400_000).stamp(), "20000229-000000");
        assert_eq!(ShiftId(-1000).stamp(), "19691231-235959");
    }
}
