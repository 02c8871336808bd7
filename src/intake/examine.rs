//! Whether a file that was handed over can be stored, and what is in it.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::model::extra::{ExtraFile, ExtraPath};
use crate::model::file_version::{Identity, MODE_MASK};
use crate::model::job::Local;
use crate::rooted::{FileStat, STAGING_NAME, hash_content};

/// Readings of a file that changes under our eyes.
const READINGS: usize = 5;
/// f_type of file systems without a disk of their own that this machine holds itself (linux/magic.h): tmpfs, ramfs, btrfs, overlayfs,
/// ZFS, bcachefs.
const LOCAL_MAGICS: [i64; 6] = [0x0102_1994, 0x8584_58f6, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1, 0xca45_1a4e];
/// f_type of file systems that a user's process may stand behind.
const FUSE_MAGIC: i64 = 0x6573_5546;

/// Looks at an open file; `written` is what its user calls it.
///
/// # Errors
/// For people: why it cannot be stored.
pub fn examine(file: &OwnedFd, written: &[u8]) -> Result<ExtraFile, String> {
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |errno: Errno| format!("{operation}: {errno}")
    };
    let flags = rustix::fs::fcntl_getfl(file).map_err(failed("fcntl"))?;
    // Our rights do not make up for what the caller's do not allow.
    if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == OFlags::WRONLY {
        return Err("the file is not open for reading".to_owned());
    }
    let mut before = FileStat::of(file).map_err(failed("statx"))?;
    if before.kind() != FileType::RegularFile {
        return Err("not a regular file: only those are stored".to_owned());
    }
    is_local(file)?;
    let path = ExtraPath::parse(before.uid, written).map_err(|error| error.to_string())?;
    if path.to.names().next() == Some(STAGING_NAME.as_bytes()) {
        return Err(format!("{STAGING_NAME} on storages is not for users' files"));
    }
    for _ in 0..READINGS {
        let hash = hash_content(file).map_err(failed("read"))?;
        let after = FileStat::of(file).map_err(failed("statx"))?;
        if after == before {
            let FileStat { size, mtime_ns, ctime_ns, ino, mode, .. } = after;
            return Ok(ExtraFile {
                path: path.encoded(),
                identity: Identity { size, mtime_ns, ino, ctime_ns },
                hash,
                mode: mode & MODE_MASK,
                local: Local { ino, ctime_ns },
            });
        }
        before = after;
    }
    Err("the file changes all the time: add it when it is complete".to_owned())
}

/// Reading a file waits for its file system. A server that is down, or a user's own process behind FUSE, would hold up what stores
/// images.
fn is_local(file: &OwnedFd) -> Result<(), String> {
    let kind = rustix::fs::fstatfs(file).map_err(|errno| format!("statfs: {errno}"))?.f_type;
    let stat = rustix::fs::statx(file, c"", rustix::fs::AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let on_a_disk = stat.map_err(|errno| format!("statx: {errno}"))?.stx_dev_major != 0;
    if LOCAL_MAGICS.contains(&kind) || (on_a_disk && kind != FUSE_MAGIC) {
        return Ok(());
    }
    Err("the file is on a network or FUSE file system, which could hang: copy it to this machine first (the ramdisk, /tmp)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::Hash;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_it_is_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        let file: OwnedFd = std::fs::File::open(&path).unwrap().into();
        let found = examine(&file, b"/a/./b").unwrap();
        assert_eq!((found.hash, found.mode, found.identity.size), (Hash::of(b"content"), 0o751, 7));
        let extra = ExtraPath::decode(&found.path).unwrap();
        assert_eq!((extra.from.as_bytes(), extra.to.as_bytes()), (&b"a/b"[..], &b"b"[..]));
        assert_eq!(extra.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        let refused = |file: OwnedFd, written: &[u8]| examine(&file, written).unwrap_err();
        let read = || OwnedFd::from(std::fs::File::open(&path).unwrap());
        assert_eq!(refused(read(), b"a"), "the path is not absolute");
        assert!(refused(read(), b"/a/./.ppu-uringd/x").contains("not for users' files"));
        let write = std::fs::File::options().append(true).open(&path).unwrap();
        assert_eq!(refused(write.into(), b"/a"), "the file is not open for reading");
        let only = rustix::fs::open(&path, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(refused(only, b"/a"), "the file is not open for reading");
        let directory = std::fs::File::open(dir.path()).unwrap();
        assert!(refused(directory.into(), b"/a").starts_with("not a regular file"));
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert!(refused(device.into(), b"/a").starts_with("not a regular file"));
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert!(refused(proc.into(), b"/a").contains("network or FUSE"), "no file of this machine's disks");
    }
}
