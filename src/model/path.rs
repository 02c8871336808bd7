//! File names as the detector made them: bytes, and nothing that could leave a root.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Longest relative path in bytes, one below Linux' PATH_MAX with its terminating NUL.
pub const PATH_MAX_BYTES: usize = 4095;
/// Longest single name in bytes (NAME_MAX).
pub const NAME_MAX_BYTES: usize = 255;

/// Why bytes are not a path below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes at all.
    #[error("empty path")]
    Empty,
    /// Longer than [`PATH_MAX_BYTES`].
    #[error("path longer than {PATH_MAX_BYTES} bytes")]
    TooLong,
    /// A name longer than [`NAME_MAX_BYTES`].
    #[error("name longer than {NAME_MAX_BYTES} bytes")]
    NameTooLong,
    /// Leading, trailing or doubled slash.
    #[error("empty name in path (leading, trailing or doubled '/')")]
    EmptyName,
    /// `.` or `..`.
    #[error("'.' or '..' in path")]
    Dots,
    /// A NUL byte.
    #[error("NUL byte in path")]
    Nul,
}

/// A path below some root: non-empty names joined by single slashes; never absolute, never `.` or `..`,
/// no NUL. Bytes, not text: spaces, newlines and non-UTF-8 survive (SPEC 1.3).
///
/// ```
/// use ppu_uringd::model::path::RelPath;
/// let path = RelPath::new(b"run 1/a_001.cbf").unwrap();
/// assert_eq!(path.name(), b"a_001.cbf");
/// assert!(RelPath::new(b"../etc/shadow").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`PathError`] names the first rule that is broken.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        check(bytes).map(|()| Self(bytes.into()))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For the standard library's and rustix' path arguments.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The last name.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or(&self.0)
    }

    /// Everything before the last name; `None` for a single name.
    pub fn parent(&self) -> Option<RelPath> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The names from the root down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/')
    }

    /// `self/below`.
    ///
    /// # Errors
    /// [`PathError::TooLong`] where both together exceed [`PATH_MAX_BYTES`].
    pub fn join(&self, below: &RelPath) -> Result<RelPath, PathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + below.0.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(&below.0);
        if bytes.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// Another name in the same directory; `None` where it is none, or the path becomes too long.
    pub fn beside(&self, name: &[u8]) -> Option<RelPath> {
        let name = RelPath::new(name).ok().filter(|name| name.parent().is_none())?;
        match self.parent() {
            Some(parent) => parent.join(&name).ok(),
            None => Some(name),
        }
    }

    /// Where the `nth` file (from 0) of that name goes when it has to make room for another shift's: `NAME.~STAMP~` in the same directory.
    pub fn set_aside(&self, stamp: &str, nth: usize) -> Option<RelPath> {
        let name = aside_name(self.name(), stamp, nth);
        let path = match self.parent() {
            Some(parent) => [parent.as_bytes(), b"/", &name].concat(),
            None => name,
        };
        Self::new(&path).ok()
    }

    /// The rest of this path below `root`; `None` when it is not below it.
    pub fn below(&self, root: &RelPath) -> Option<RelPath> {
        let rest = self.0.strip_prefix(&*root.0)?.strip_prefix(b"/")?;
        Some(Self(rest.into()))
    }
}

/// See [`RelPath::set_aside`]; a long name is cut so that it stays one.
pub fn aside_name(name: &[u8], stamp: &str, nth: usize) -> Vec<u8> {
    let suffix = if nth == 0 { format!(".~{stamp}~") } else { format!(".~{stamp}~{nth}~") };
    let kept = name.len().min(NAME_MAX_BYTES.saturating_sub(suffix.len()));
    [&name[..kept], suffix.as_bytes()].concat()
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes.len() > PATH_MAX_BYTES {
        return Err(PathError::TooLong);
    }
    for name in bytes.split(|&b| b == b'/') {
        match name {
            b"" => return Err(PathError::EmptyName),
            b"." | b".." => return Err(PathError::Dots),
            _ if name.len() > NAME_MAX_BYTES => return Err(PathError::NameTooLong),
            _ if name.contains(&0) => return Err(PathError::Nul),
            _ => {}
        }
    }
    Ok(())
}

impl TryFrom<Vec<u8>> for RelPath {
    type Error = PathError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, PathError> {
        check(&bytes).map(|()| Self(bytes.into()))
    }
}

impl From<RelPath> for Vec<u8> {
    fn from(path: RelPath) -> Self {
        path.0.into()
    }
}

/// For people: UTF-8 as it is, everything that could confuse a terminal or a log line as `%XX`.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `bytes` as text: control characters and bytes that are not UTF-8 as `%XX`, `:` as `%3A` (SPEC 4.2).
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            text.push_str(&format!("%{byte:02X}"));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_unprintable(c) || c == ':' {
                escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// Control characters, and those that change how others are shown: what a peer or a user names must not rewrite a line of a terminal.
pub fn is_unprintable(c: char) -> bool {
    let format = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    format || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_could_leave_a_root() {
        let refused: &[(&[u8], PathError)] = &[
            (b"", PathError::Empty),
            (b"/a", PathError::EmptyName),
            (b"a/", PathError::EmptyName),
            (b"a//b", PathError::EmptyName),
            (b"a/./b", PathError::Dots),
            (b"..", PathError::Dots),
            (b"a\0b", PathError::Nul),
        ];
        for (bytes, error) in refused {
            assert_eq!(RelPath::new(bytes), Err(*error), "{}", printable(bytes));
        }
        assert_eq!(RelPath::new(&[b'x'; 256]), Err(PathError::NameTooLong));
        assert_eq!(RelPath::new(&b"a/".repeat(2500)), Err(PathError::TooLong));
    }

    #[test]
    fn below_respects_name_borders() {
        let path = |p: &str| RelPath::new(p.as_bytes()).unwrap();
        assert_eq!(path("a/b/c").below(&path("a/b")), Some(path("c")));
        assert_eq!(path("a/bc").below(&path("a/b")), None);
        assert_eq!(path("a").below(&path("a")), None);
    }

    #[test]
    fn printable_is_one_line() {
        assert_eq!(printable(b"a\nb:c\xff\xc3\xa9"), "a%0Ab%3Ac%FF\u{e9}");
        assert_eq!(printable("gpj.\u{202e}cbf".as_bytes()), "gpj.%E2%80%AEcbf", "right to left");
    }

    proptest! {
        #[test]
        fn parent_and_name_make_the_path(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = RelPath::new(&bytes) {
                let name = RelPath::new(path.name()).unwrap();
                let whole = match path.parent() {
                    Some(parent) => parent.join(&name).unwrap(),
                    None => name,
                };
                prop_assert_eq!(whole, path);
            }
        }
    }
}
