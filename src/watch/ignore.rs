//! Names that are never sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{Glob, GlobBuilder, GlobSet};

/// The patterns of the configuration's `ignore`: `*` is any text, `?` any one byte, and everything else is itself.
#[derive(Debug)]
pub(super) struct Ignore(GlobSet);

impl Ignore {
    pub(super) fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSet::builder();
        for pattern in patterns {
            set.add(glob(pattern)?);
        }
        set.build().map(Self)
    }

    /// Of the last name of a path.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.0.is_match(OsStr::from_bytes(name))
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    let mut literal = String::new();
    for c in pattern.chars() {
        match c {
            '[' | ']' | '{' | '}' | '\\' => literal.extend(['[', c, ']']),
            c => literal.push(c),
        }
    }
    GlobBuilder::new(&literal).backslash_escape(false).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_star_and_question_mark_are_special() {
        let matches = |pattern: &str, name: &[u8]| Ignore::new(&[pattern.to_owned()]).unwrap().matches(name);
        assert!(matches("*.tmp", b"a.tmp"));
        assert!(matches("*.tmp", b".tmp"));
        assert!(matches("*.tmp", b"\xff\n.tmp"));
        assert!(!matches("*.tmp", b"a.tmp2"));
        assert!(matches(".*", b".hidden"));
        assert!(!matches(".*", b"a.b"));
        assert!(matches("a?c", b"abc"));
        assert!(!matches("a?c", b"ac"));
        for literal in ["[ab]", "{a,b}", "a\\b", "]", "}", "[", "{", "[!a]", "a-[^b]"] {
            assert!(matches(literal, literal.as_bytes()), "{literal}");
        }
        assert!(!matches("[ab]", b"a"));
        assert!(!Ignore::new(&[]).unwrap().matches(b"a"));
    }
}
