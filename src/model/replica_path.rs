//! Where a file lands and where it is stored: `/./` marks the part of a target that storages replicate.

use serde::{Deserialize, Serialize};

use super::path::{PathError, RelPath};

/// A detector's `target` below the PPU's ramdisk, split at its `/./` (SPEC 1.4, 3.2).
///
/// ```
/// use ppu_uringd::model::{path::RelPath, replica_path::Target};
/// let target = Target::parse(b"/ramdisk", b"/ramdisk/./imgdir").unwrap();
/// let user_dir = RelPath::new(b"500_501").unwrap();
/// let path = RelPath::new(b"path/to/data").unwrap();
/// assert_eq!(target.landing(Some(&user_dir), &path).unwrap().as_bytes(), b"imgdir/500_501/path/to/data");
/// assert_eq!(target.replica(Some(&user_dir), &path).unwrap().as_bytes(), b"imgdir/500_501/path/to/data");
/// let target = Target::parse(b"/ramdisk", b"/ramdisk/imgdir").unwrap();
/// assert_eq!(target.landing(Some(&user_dir), &path).unwrap().as_bytes(), b"imgdir/500_501/path/to/data");
/// assert_eq!(target.replica(Some(&user_dir), &path).unwrap().as_bytes(), b"500_501/path/to/data");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Below the ramdisk, on the ramdisk only.
    private: Option<RelPath>,
    /// Below `private` on the ramdisk, below the storage's target on a storage.
    replicated: Option<RelPath>,
}

/// Why a target cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not absolute, or not below the ramdisk.
    #[error("is not below the ramdisk")]
    Outside,
    /// More than one `/./`.
    #[error("has more than one '/./'")]
    SecondMark,
    /// Not a clean path.
    #[error("{0}")]
    Path(#[from] PathError),
}

impl Target {
    /// `ramdisk` and `target` as configured, absolute.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(ramdisk: &[u8], target: &[u8]) -> Result<Self, TargetError> {
        let ramdisk = trim_end(ramdisk);
        // "/ramdisk/./x" and "/./ramdisk/x" both carry a mark; only one inside or right below the
        // ramdisk can be honoured, because nothing above the ramdisk is ever replicated.
        let rest = target.strip_prefix(ramdisk).ok_or(TargetError::Outside)?;
        if !rest.is_empty() && rest[0] != b'/' {
            return Err(TargetError::Outside);
        }
        let mut marked = rest.to_vec();
        marked.push(b'/');
        let parts: Vec<&[u8]> = split_marks(&marked);
        let (private, replicated) = match parts[..] {
            [private] => (private, &b""[..]),
            [private, replicated] => (private, replicated),
            _ => return Err(TargetError::SecondMark),
        };
        Ok(Self { private: optional(private)?, replicated: optional(replicated)? })
    }

    /// The part that storages replicate; `None`: nothing of it.
    pub fn replicated(&self) -> Option<&RelPath> {
        self.replicated.as_ref()
    }

    /// As it is written in a configuration whose ramdisk is `ramdisk`.
    pub fn written(&self, ramdisk: &[u8]) -> Vec<u8> {
        let mut whole = trim_end(ramdisk).to_vec();
        if let Some(private) = &self.private {
            whole.push(b'/');
            whole.extend_from_slice(private.as_bytes());
        }
        if let Some(replicated) = &self.replicated {
            whole.extend_from_slice(b"/./");
            whole.extend_from_slice(replicated.as_bytes());
        }
        whole
    }

    /// The directory below the ramdisk that is this target; `None` is the ramdisk itself.
    pub fn directory(&self) -> Option<RelPath> {
        join([self.private.as_ref(), self.replicated.as_ref()]).ok().flatten()
    }

    /// Where `path` lands, below the ramdisk.
    ///
    /// # Errors
    /// [`PathError::TooLong`].
    pub fn landing(&self, user_dir: Option<&RelPath>, path: &RelPath) -> Result<RelPath, PathError> {
        match join([self.private.as_ref(), self.replicated.as_ref(), user_dir])? {
            Some(directory) => directory.join(path),
            None => Ok(path.clone()),
        }
    }

    /// Where `path` is stored, below a storage's target.
    ///
    /// # Errors
    /// [`PathError::TooLong`].
    pub fn replica(&self, user_dir: Option<&RelPath>, path: &RelPath) -> Result<RelPath, PathError> {
        match join([self.replicated.as_ref(), user_dir])? {
            Some(directory) => directory.join(path),
            None => Ok(path.clone()),
        }
    }
}

fn join<const N: usize>(parts: [Option<&RelPath>; N]) -> Result<Option<RelPath>, PathError> {
    let mut whole: Option<RelPath> = None;
    for part in parts.into_iter().flatten() {
        whole = Some(match whole {
            Some(above) => above.join(part)?,
            None => part.clone(),
        });
    }
    Ok(whole)
}

fn split_marks(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|w| w == b"/./") {
        parts.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    parts.push(rest);
    parts
}

fn optional(bytes: &[u8]) -> Result<Option<RelPath>, PathError> {
    let clean = trim_end(bytes.strip_prefix(b"/").unwrap_or(bytes));
    if clean.is_empty() { Ok(None) } else { RelPath::new(clean).map(Some) }
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spec_1_4_and_3_2() {
        let check = |target: &str, landing: &str, replica: &str| {
            let target = Target::parse(b"/ramdisk", target.as_bytes()).unwrap();
            let user = RelPath::new(b"500_501").unwrap();
            let path = RelPath::new(b"p/q").unwrap();
            let text = |p: RelPath| String::from_utf8(p.into()).unwrap();
            assert_eq!(text(target.landing(Some(&user), &path).unwrap()), landing);
            assert_eq!(text(target.replica(Some(&user), &path).unwrap()), replica);
            assert_eq!(Target::parse(b"/ramdisk", &target.written(b"/ramdisk/")), Ok(target));
        };
        check("/ramdisk/./imgdir", "imgdir/500_501/p/q", "imgdir/500_501/p/q");
        check("/ramdisk/imgdir", "imgdir/500_501/p/q", "500_501/p/q");
        check("/ramdisk/imgdir/", "imgdir/500_501/p/q", "500_501/p/q");
        check("/ramdisk/imgdir/.", "imgdir/500_501/p/q", "500_501/p/q");
        check("/ramdisk/a/./b/c", "a/b/c/500_501/p/q", "b/c/500_501/p/q");
        check("/ramdisk", "500_501/p/q", "500_501/p/q");
        check("/ramdisk/./", "500_501/p/q", "500_501/p/q");
    }

    #[test]
    fn refused_targets() {
        let refuse = |target: &str| Target::parse(b"/ramdisk/", target.as_bytes()).unwrap_err();
        assert_eq!(refuse("/data/x"), TargetError::Outside);
        assert_eq!(refuse("/ramdisk2"), TargetError::Outside);
        assert_eq!(refuse("/ramdisk/a/./b/./c"), TargetError::SecondMark);
        assert_eq!(refuse("/ramdisk/../etc"), TargetError::Path(PathError::Dots));
    }

    proptest! {
        #[test]
        fn replica_is_the_tail_of_landing(private in "[a-z]{0,3}", replicated in "[a-z]{0,3}", p in "[a-z]{1,4}/[a-z]{1,4}") {
            let target = Target::parse(b"/r", format!("/r/{private}/./{replicated}").replace("//", "/").as_bytes());
            if let Ok(target) = target {
                let path = RelPath::new(p.as_bytes()).unwrap();
                let landing = target.landing(None, &path).unwrap();
                let replica = target.replica(None, &path).unwrap();
                prop_assert!(landing.as_bytes().ends_with(replica.as_bytes()));
                prop_assert!(replica.as_bytes().ends_with(path.as_bytes()));
            }
        }
    }
}
