//! Messages for people and for beamline scripts (SPEC 4.2): a code, the thing meant, and what to do.

use serde::{Deserialize, Serialize};

/// What happened. The first six are the predecessor's and keep name and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// Eviction begins. Not an error.
    FillstateLimit,
    /// A file system is nearly full.
    AlmostOverflow,
    /// A file system is full.
    DiskOverflow,
    /// A copy was given up for now; `src:dest`.
    CopyError,
    /// A link could not be made.
    LinkError,
    /// A file could not be removed.
    DelError,
    /// A file cannot land.
    LandError,
    /// A file vanished from its detector before it had landed.
    DataLost,
    /// Another shift's file was set aside under a new name.
    FileReplaced,
    /// A storage cannot be written.
    StorageUnavailable,
    /// A detector cannot be reached, or refuses.
    DetectorLink,
    /// A file was damaged on the way and is sent again.
    IntegrityError,
    /// The journal cannot be written.
    JournalError,
    /// The clocks of a detector and the PPU differ.
    ClockOffset,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What happened.
    pub code: Code,
    /// The thing meant: a mount point, `src:dest`, a file, a detector; one line, safe to print.
    pub short: String,
    /// For people, with what to do.
    pub long: String,
}

impl Message {
    /// Builds one.
    pub fn new(code: Code, short: impl Into<String>, long: impl Into<String>) -> Self {
        Self { code, short: short.into(), long: long.into() }
    }
}
