//! A trouble as it travels to the PPU. Bounded, because it comes from another machine.

use serde::{Deserialize, Serialize};

use crate::model::message::Code;

/// Longest [`About`]: the longest path below the longest ramdisk.
pub const ABOUT_MAX_BYTES: usize = 8192;
/// Longest [`Text`].
pub const TEXT_MAX_BYTES: usize = 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of the detector's process: numbers begin anew with each.
    pub life: u64,
    /// Grows from report to report of a life, from 1.
    pub number: u64,
    /// How long ago it began, µs.
    pub us_ago: u64,
    /// What it concerns.
    pub matter: Matter,
    /// The path that is meant.
    pub about: About,
    /// What is wrong, and what to do.
    pub text: Text,
    /// Until it is said to be over.
    pub lasts: bool,
}

/// What a detector may raise: nothing else is believed of it. Closed within a protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matter {
    /// Files cannot land, or land late.
    CannotLand,
    /// Files cannot be removed from its ramdisk.
    CannotRemove,
    /// Files are gone.
    Lost,
    /// What it has to remember cannot be written.
    State,
    /// Its clock.
    Clock,
}

impl Matter {
    /// What people get.
    pub fn code(self) -> Code {
        match self {
            Self::CannotLand => Code::LandError,
            Self::CannotRemove => Code::DelError,
            Self::Lost => Code::DataLost,
            Self::State => Code::JournalError,
            Self::Clock => Code::ClockOffset,
        }
    }
}

/// An absolute path on the detector, as bytes; empty: the detector as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct About(Vec<u8>);

/// For people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

/// Longer than [`ABOUT_MAX_BYTES`] or [`TEXT_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than {0} bytes")]
pub struct TooLong(usize);

impl About {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Text {
    /// `text`, cut where it is too long.
    pub fn cut(text: &str) -> Self {
        Self(cut(text, TEXT_MAX_BYTES).to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As much of its beginning as `most` bytes hold.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

impl TryFrom<Vec<u8>> for About {
    type Error = TooLong;
    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        if bytes.len() > ABOUT_MAX_BYTES { Err(TooLong(ABOUT_MAX_BYTES)) } else { Ok(Self(bytes)) }
    }
}

impl From<About> for Vec<u8> {
    fn from(about: About) -> Self {
        about.0
    }
}

impl TryFrom<String> for Text {
    type Error = TooLong;
    fn try_from(text: String) -> Result<Self, TooLong> {
        if text.len() > TEXT_MAX_BYTES { Err(TooLong(TEXT_MAX_BYTES)) } else { Ok(Self(text)) }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 2), "a");
        let long = "é".repeat(TEXT_MAX_BYTES);
        assert_eq!(Text::cut(&long).as_str().len(), TEXT_MAX_BYTES);
        assert_eq!(Text::try_from(long), Err(TooLong(TEXT_MAX_BYTES)));
        assert!(Text::try_from("x".repeat(TEXT_MAX_BYTES)).is_ok());
        assert!(About::try_from(vec![0; ABOUT_MAX_BYTES]).is_ok());
        assert_eq!(About::try_from(vec![0; ABOUT_MAX_BYTES + 1]), Err(TooLong(ABOUT_MAX_BYTES)));
    }
}
