//! What commands print: text for people, JSON for scripts. docs/command-line.md describes the JSON; a test keeps the two the same.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ppu_uringd::model::path::printable;
use serde::Serialize;

use super::Failure;

/// The `version` of every object but the status, which brings its own. Keys are added within a version, never changed.
const JSON_VERSION: u32 = 1;

/// To standard output; `| head` may have seen enough.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::Failed(format!("standard output: {error}"))),
    }
}

/// As [`print`], and a newline.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// A line to standard error. Nobody can be told that it cannot be written.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// One object, for a command that has one thing to say.
pub(super) fn object(content: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(&versioned(content)).map_err(Failure::failed)?)
}

/// One object on a line, for a command that says several things.
pub(super) fn object_line(content: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(&versioned(content)).map_err(Failure::failed)?)
}

/// What becomes an object of ours.
pub(super) fn versioned(content: &impl Serialize) -> impl Serialize {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        content: &'a T,
    }
    Versioned { version: JSON_VERSION, content }
}

/// Where text for people goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum People {
    /// Standard output is theirs.
    Output,
    /// It is for a script.
    Error,
}

impl People {
    pub(super) fn unless(json: bool) -> Self {
        if json { Self::Error } else { Self::Output }
    }

    pub(super) fn line(self, text: &str) -> Result<(), Failure> {
        match self {
            Self::Output => line(text),
            Self::Error => {
                note(text);
                Ok(())
            }
        }
    }
}

/// A path for scripts: as text, and in its very bytes where they are no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Name {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl Name {
    pub(super) fn new(path: &[u8]) -> Self {
        match std::str::from_utf8(path) {
            Ok(text) => Self { path: text.to_owned(), path_base64: None },
            Err(_) => Self { path: printable(path), path_base64: Some(STANDARD.encode(path)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_has_its_bytes() {
        let json = |path: &[u8]| serde_json::to_string(&versioned(&Name::new(path))).unwrap();
        assert_eq!(json("/a\n\"ü".as_bytes()), r#"{"version":1,"path":"/a\n\"ü"}"#);
        let name = Name::new(b"/a\xff");
        assert_eq!(name.path_base64.as_deref(), Some("L2H/"));
    }
}
