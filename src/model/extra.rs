//! Extra files (SPEC 3.9): what users hand over, beside the images of detectors.
//!
//! To the ledger, the journal and the brands they are files of one more detector, [`EXTRA`], which nobody can configure. Their path
//! there says whose a file is, where it is and what part of its path storages repeat, so that no two users' files, and no two places,
//! are ever taken for versions of one another: `/some/./path/to/file` of user 1000 is `1000/3/some/path/to/file`.

use super::file_version::{Hash, Identity};
use super::job::Local;
use super::path::{PathError, RelPath};

/// The detector that extra files count for; the space keeps the name from being configured.
pub const EXTRA: &str = "extra files";

/// An extra file that was opened, read and found fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// [`ExtraPath::encoded`].
    pub path: RelPath,
    /// As it was read.
    pub identity: Identity,
    /// Of the content.
    pub hash: Hash,
    /// Permission bits.
    pub mode: u32,
    /// To know it again.
    pub local: Local,
}

/// Whose, where, and to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraPath {
    /// The file's owner.
    pub uid: u32,
    /// Below `/`.
    pub from: RelPath,
    /// Below a storage's target; the end of `from`.
    pub to: RelPath,
}

/// Why a path is none of an extra file; for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtraPathError {
    /// It does not begin with a slash.
    #[error("the path is not absolute")]
    Relative,
    /// Two marks.
    #[error("the path has more than one '/./'")]
    SecondMark,
    /// `..`, NUL, too long, ...
    #[error("{0}")]
    Path(#[from] PathError),
}

impl ExtraPath {
    /// From a path as it was written: absolute, with a `/./` where the part begins that storages repeat; without one, all of
    /// it. Doubled slashes count as one.
    ///
    /// # Errors
    /// [`ExtraPathError`].
    pub fn parse(uid: u32, written: &[u8]) -> Result<Self, ExtraPathError> {
        let rest = written.strip_prefix(b"/").ok_or(ExtraPathError::Relative)?;
        let mut names: Vec<&[u8]> = Vec::new();
        let mut mark = None;
        for name in rest.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            match name {
                b"." if mark.is_some() => return Err(ExtraPathError::SecondMark),
                b"." => mark = Some(names.len()),
                name => names.push(name),
            }
        }
        // A directory, whatever is there.
        if written.ends_with(b"/") {
            return Err(PathError::EmptyName.into());
        }
        let from = RelPath::new(&names.join(&b'/'))?;
        let to = RelPath::new(&names[mark.unwrap_or(0)..].join(&b'/'))?;
        let path = Self { uid, from, to };
        path.encode()?;
        Ok(path)
    }

    /// As ledger, journal and brand know it.
    pub fn encoded(&self) -> RelPath {
        // `parse` and `decode` have seen that it is one.
        self.encode().unwrap_or_else(|_| self.from.clone())
    }

    fn encode(&self) -> Result<RelPath, PathError> {
        let head = format!("{}/{}/", self.uid, self.to.names().count());
        RelPath::new(&[head.as_bytes(), self.from.as_bytes()].concat())
    }

    /// What [`encoded`](Self::encoded) gave; `None` for anything else.
    pub fn decode(path: &RelPath) -> Option<Self> {
        let mut parts = path.as_bytes().splitn(3, |&byte| byte == b'/');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u32>().ok();
        let (uid, count) = (number()?, number()? as usize);
        let from = RelPath::new(parts.next()?).ok()?;
        let names: Vec<&[u8]> = from.names().collect();
        let to = RelPath::new(&names[names.len().checked_sub(count)?..].join(&b'/')).ok()?;
        Some(Self { uid, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(written: &str) -> Result<(String, String), ExtraPathError> {
        ExtraPath::parse(7, written.as_bytes()).map(|path| (path.from.to_string(), path.to.to_string()))
    }

    #[test]
    fn the_mark_says_what_storages_repeat() {
        let both = |from: &str, to: &str| Ok((from.to_owned(), to.to_owned()));
        assert_eq!(parse("/some/./path/to/file"), both("some/path/to/file", "path/to/file"));
        assert_eq!(parse("/some/path/to/file"), both("some/path/to/file", "some/path/to/file"));
        assert_eq!(parse("/./a"), both("a", "a"));
        assert_eq!(parse("//a///./b"), both("a/b", "b"));
    }

    #[test]
    fn what_is_no_path_of_a_file_is_refused() {
        assert_eq!(parse("a/b"), Err(ExtraPathError::Relative));
        assert_eq!(parse(""), Err(ExtraPathError::Relative));
        assert_eq!(parse("/a/./b/./c"), Err(ExtraPathError::SecondMark));
        for (path, error) in [
            ("/a/../b", PathError::Dots),
            ("/a/b/", PathError::EmptyName),
            ("/", PathError::EmptyName),
            ("/a/.", PathError::Empty),
            ("/a\0b", PathError::Nul),
        ] {
            assert_eq!(parse(path), Err(error.into()), "{path}");
        }
        assert_eq!(parse(&"/x".repeat(3000)), Err(PathError::TooLong.into()));
        assert_eq!(parse(&"/x".repeat(2046)), Err(PathError::TooLong.into()), "no room for owner and mark");
    }

    #[test]
    fn owners_and_marks_make_other_files() {
        let encoded = |uid, path: &str| ExtraPath::parse(uid, path.as_bytes()).unwrap().encoded().to_string();
        assert_eq!(encoded(1000, "/some/./path/to/file"), "1000/3/some/path/to/file");
        assert_ne!(encoded(1, "/a/./b/c"), encoded(2, "/a/./b/c"));
        assert_ne!(encoded(1, "/a/./b/c"), encoded(1, "/a/b/./c"));
    }

    proptest! {
        #[test]
        fn decoded_it_is_the_same(uid: u32, names in proptest::collection::vec("[^/\0]{1,9}", 1..6), mark in 0usize..6) {
            prop_assume!(names.iter().all(|name| name != "." && name != ".."));
            let mut written = String::new();
            for (n, name) in names.iter().enumerate() {
                written += if n == mark { "/./" } else { "/" };
                written += name;
            }
            let path = ExtraPath::parse(uid, written.as_bytes()).unwrap();
            prop_assert_eq!(ExtraPath::decode(&path.encoded()), Some(path));
        }

        #[test]
        fn anything_may_be_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            if let Some(extra) = RelPath::new(&bytes).ok().and_then(|path| ExtraPath::decode(&path)) {
                prop_assert!(extra.from.as_bytes().ends_with(extra.to.as_bytes()));
            }
        }
    }
}
