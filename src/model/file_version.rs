//! What makes one version of a file that version, on whichever machine it is looked at.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the detector's file system says of one version of a file (SPEC, terms). Two equal identities are
/// the same content only if the later one is *settled*: read when no write of the same clock tick could follow unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch, on the detector's clock.
    pub mtime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Nanoseconds since the epoch, on the detector's clock; every write moves it, no user can set it.
    pub ctime_ns: i64,
}

/// xxh3-128 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 16]);

impl Hash {
    /// Of a whole content in memory.
    pub fn of(content: &[u8]) -> Self {
        twox_hash::XxHash3_128::oneshot(content).into()
    }
}

impl From<u128> for Hash {
    fn from(value: u128) -> Self {
        Self(value.to_be_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file version's number in the PPU's ledger and journal; later versions have higher numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct VersionId(pub u64);

/// The number that a detector gives a file version when it offers it; good for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OfferId(pub u64);

/// The number that the PPU gives to one transfer of one offered version; good for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransferId(pub u64);

/// A detector's place in the PPU's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DetectorIndex(pub u16);

/// A storage's place in the PPU's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorageIndex(pub u16);

/// Permission bits that travel with a file: no setuid, setgid or sticky bit (SPEC 1.6).
pub const MODE_MASK: u32 = 0o777;
