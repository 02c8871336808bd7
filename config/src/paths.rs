//! Which path lies in which, by name alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The daemon's private directory below every root that it publishes to.
pub(crate) const STAGING: &str = ".ppu-uringd";

/// The same directory, or one inside the other.
pub(crate) fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// A `target`, split at its `/./`: the directory itself, and the part of it that storages replicate (SPEC 1.4, 3.2).
///
/// # Errors
/// The reason and what to do, for people.
pub(crate) fn split_target(ramdisk: &Path, target: &Path) -> Result<(PathBuf, PathBuf), String> {
    let ramdisk_bytes = ramdisk.as_os_str().as_bytes();
    let written = target.as_os_str().as_bytes();
    let below = written
        .strip_prefix(ramdisk_bytes)
        .filter(|rest| rest.is_empty() || rest[0] == b'/' || ramdisk_bytes == b"/")
        .ok_or_else(|| {
            format!("is not below the ramdisk {0}, write a path that starts with {0}/", ramdisk.display())
        })?;
    let names: Vec<&[u8]> = below.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
    let marks = names.iter().filter(|name| **name == b".").count();
    if marks > 1 {
        return Err(
            "has more than one '/./', keep the one where the path begins that storages replicate".into()
        );
    }
    if names.first().is_some_and(|name| *name == STAGING.as_bytes()) {
        return Err(format!("{STAGING} is the daemon's own directory, choose another"));
    }
    let join = |names: &[&[u8]]| -> PathBuf {
        names.iter().filter(|name| **name != b".").map(|name| Path::new(OsStr::from_bytes(name))).collect()
    };
    let replicated = match names.iter().position(|name| *name == b".") {
        Some(mark) => join(&names[mark..]),
        None => PathBuf::new(),
    };
    // Joining an empty path would append a slash.
    let directory = ramdisk.components().chain(join(&names).components()).collect();
    Ok((directory, replicated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let split = |target: &str| {
            split_target(Path::new("/ramdisk"), Path::new(target))
                .map(|(directory, replicated)| format!("{} {}", directory.display(), replicated.display()))
        };
        assert_eq!(split("/ramdisk/./imgdir").unwrap(), "/ramdisk/imgdir imgdir");
        assert_eq!(split("/ramdisk/imgdir").unwrap(), "/ramdisk/imgdir ");
        assert_eq!(split("/ramdisk/a/./b/c/").unwrap(), "/ramdisk/a/b/c b/c");
        assert_eq!(split("/ramdisk/a/.").unwrap(), "/ramdisk/a ");
        assert_eq!(split("/ramdisk").unwrap(), "/ramdisk ");
        for refused in ["/data", "/ramdisk2", "/./ramdisk/a", "/ramdisk/a/./b/./c", "/ramdisk/.ppu-uringd/a"]
        {
            assert!(split(refused).is_err(), "{refused}");
        }
    }
}
