//! Messages for people and for beamline scripts (SPEC 4.2): a code, the thing meant, and what to do.
//!
//! **What is a message, and what is only logged.** Whatever keeps an image, or a file that somebody handed over, from landing, from being stored or from
//! leaving, until a person does something, is a message; so is what changes where people find a file, and what others have decided that people must
//! know of (a pause). It goes to `messages`, to the ports and into the log; what lasts is a line of `status` as well (`model/attention`). Only in the log is what
//! passes by itself (a copy that is tried again, a connection that was refused), what ends the daemon (whoever starts it reads why), and
//! what concerns one client alone, who gets it as an answer. What is wrong on a detector is told by its daemon (`model/trouble`), and becomes a message here likewise.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::is_unprintable;

/// What happened. The first six are the predecessor's and keep name and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
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
    /// Somebody has paused half of the work.
    Paused,
    /// Somebody has let it go on.
    Resumed,
}

impl Code {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 16] = [
        Self::FillstateLimit,
        Self::AlmostOverflow,
        Self::DiskOverflow,
        Self::CopyError,
        Self::LinkError,
        Self::DelError,
        Self::LandError,
        Self::DataLost,
        Self::FileReplaced,
        Self::StorageUnavailable,
        Self::DetectorLink,
        Self::IntegrityError,
        Self::JournalError,
        Self::ClockOffset,
        Self::Paused,
        Self::Resumed,
    ];

    /// `COPY_ERROR`, for example: the same on every interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::FillstateLimit => "FILLSTATE_LIMIT",
            Self::AlmostOverflow => "ALMOST_OVERFLOW",
            Self::DiskOverflow => "DISK_OVERFLOW",
            Self::CopyError => "COPY_ERROR",
            Self::LinkError => "LINK_ERROR",
            Self::DelError => "DEL_ERROR",
            Self::LandError => "LAND_ERROR",
            Self::DataLost => "DATA_LOST",
            Self::FileReplaced => "FILE_REPLACED",
            Self::StorageUnavailable => "STORAGE_UNAVAILABLE",
            Self::DetectorLink => "DETECTOR_LINK",
            Self::IntegrityError => "INTEGRITY_ERROR",
            Self::JournalError => "JOURNAL_ERROR",
            Self::ClockOffset => "CLOCK_OFFSET",
            Self::Paused => "PAUSED",
            Self::Resumed => "RESUMED",
        }
    }

    /// One of the predecessor's six: old clients know no others.
    pub fn is_old(self) -> bool {
        self <= Self::DelError
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Code {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let same = |code: &Self| code.name().eq_ignore_ascii_case(name);
        Self::ALL
            .into_iter()
            .find(same)
            .ok_or_else(|| format!("no such code; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        Self { code, short: one_line(short.into()), long: one_line(long.into()) }
    }

    /// As a client of the predecessor gets it, which looks codes up in a table of six: a failed landing and a storage that cannot be
    /// written are COPY_ERROR to it (SPEC 4.2), with a short text of the form `src:dest` that it expects. `None`: nothing for it.
    pub fn for_old_clients(&self) -> Option<Self> {
        let short = match self.code {
            code if code.is_old() => return Some(self.clone()),
            Code::LandError => format!("{}:ramdisk", self.short),
            Code::StorageUnavailable => format!("ramdisk:{}", self.short),
            _ => return None,
        };
        Some(Self { code: Code::CopyError, short, long: self.long.clone() })
    }
}

/// Names in it are escaped where they are put in (`path::printable`); this is for what an error's text may bring along.
pub(super) fn one_line(text: String) -> String {
    if !text.contains(is_unprintable) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unprintable(c) {
            true => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| line += &format!("%{byte:02X}")),
            false => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert_eq!(code.name().parse(), Ok(code));
            assert_eq!(code.name().to_lowercase().parse(), Ok(code));
        }
        assert!("COPY".parse::<Code>().unwrap_err().contains("COPY_ERROR, LINK_ERROR"));
    }

    #[test]
    fn old_clients_get_their_six_and_hear_of_the_worst_of_the_others() {
        for code in Code::ALL {
            let message = Message::new(code, "a%3Ab", "Do this.");
            let old = match code {
                code if code.is_old() => Some((code, "a%3Ab")),
                Code::LandError => Some((Code::CopyError, "a%3Ab:ramdisk")),
                Code::StorageUnavailable => Some((Code::CopyError, "ramdisk:a%3Ab")),
                _ => None,
            };
            let expected = old.map(|(code, short)| Message::new(code, short, "Do this."));
            assert_eq!(message.for_old_clients(), expected, "{code}");
        }
        assert_eq!(Code::ALL.iter().filter(|code| code.is_old()).count(), 6);
    }

    #[test]
    fn a_message_is_one_line_whatever_an_error_says() {
        let message = Message::new(Code::CopyError, "a\nb", "why\x1b[2J \u{85}é");
        assert_eq!((&*message.short, &*message.long), ("a%0Ab", "why%1B[2J %C2%85é"));
    }
}
