//! The two halves of the PPU's work, and which of them people have paused (SPEC 5.5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Each goes on without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// From the detectors to the ramdisk.
    Fetch,
    /// From there to the storages.
    Store,
}

impl Half {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fetch, Self::Store];

    /// As it is written on every interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Store => "store",
        }
    }

    /// What a pause does, for people: a sentence's end.
    pub fn while_paused(self) -> &'static str {
        match self {
            Self::Fetch => "images wait on their detectors; what is on its way still lands",
            Self::Store => {
                "images land on the ramdisk and no copy begins; what has no room there in the end waits on its detector"
            }
        }
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Half {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|half| half.name() == name);
        found.ok_or_else(|| "write fetch (detectors to ramdisk) or store (ramdisk to storages)".to_owned())
    }
}

/// Since when each half is paused, milliseconds since the epoch; `None`: it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paused {
    /// [`Half::Fetch`].
    pub fetch_ms: Option<i64>,
    /// [`Half::Store`].
    pub store_ms: Option<i64>,
}

impl Paused {
    /// Since when.
    pub fn since(&self, half: Half) -> Option<i64> {
        match half {
            Half::Fetch => self.fetch_ms,
            Half::Store => self.store_ms,
        }
    }

    /// Pauses a half, or lets it work again.
    pub fn set(&mut self, half: Half, since_ms: Option<i64>) {
        match half {
            Half::Fetch => self.fetch_ms = since_ms,
            Half::Store => self.store_ms = since_ms,
        }
    }
}

/// What came of a wish to pause or to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// Which.
    pub half: Half,
    /// Since when it is paused now; `None`: it works.
    pub since_ms: Option<i64>,
    /// It was not so before.
    pub changed: bool,
    /// The journal has it: it will be so after a restart, too.
    pub kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for half in Half::ALL {
            assert_eq!(half.name().parse(), Ok(half));
            assert_eq!(serde_json::to_value(half).unwrap(), half.name());
            let mut paused = Paused::default();
            paused.set(half, Some(7));
            assert_eq!(paused.since(half), Some(7));
            assert_eq!(Half::ALL.into_iter().filter(|half| paused.since(*half).is_some()).count(), 1);
        }
        assert!("both".parse::<Half>().unwrap_err().contains("fetch"));
    }
}
