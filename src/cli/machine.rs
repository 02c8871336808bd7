//! What this machine is like, as far as a configuration cares: mounts, room, addresses. Looks only; changes nothing.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) file_system: String,
    /// Options of the mount and of its file system.
    pub(super) options: Vec<String>,
}

impl Mount {
    /// The mount that holds `path`, which need not exist.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        let real = nearest_existing(path)?.canonicalize()?;
        let table = fs::read("/proc/self/mountinfo")?;
        Ok(holder(&table, &real))
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|known| known == option)
    }
}

/// Something is mounted at exactly this directory.
pub(super) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Bytes that a user may still write to the file system of `path`.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(&nearest_existing(path)?)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `path`, or the deepest directory above it that exists.
pub(super) fn nearest_existing(path: &Path) -> io::Result<PathBuf> {
    for at in path.ancestors() {
        match at.symlink_metadata() {
            Ok(_) => return Ok(at.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The last mount whose point is `path` or the nearest one above it: later mounts cover earlier ones.
fn holder(mountinfo: &[u8], path: &Path) -> Option<Mount> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field).into_owned());
    let options = [text(5)?, text(dash + 3)?].join(",");
    Some(Mount {
        point: PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.get(4)?))),
        file_system: text(dash + 1)?,
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Space, tab, newline and backslash are written as `\040` and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        match octal.and_then(|digits| std::str::from_utf8(digits).ok()).map(|d| u8::from_str_radix(d, 8)) {
            Some(Ok(byte)) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n\
        25 21 0:22 / /ramdisk rw,nosuid - tmpfs tmpfs rw,size=1024k,huge=within_size\n\
        26 21 0:23 / /mnt/with\\040space rw - xfs /dev/vdb rw\n\
        27 21 0:24 / /ramdisk rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_nearest_and_last_mount_holds_a_path() {
        let point = |path: &str| holder(TABLE, Path::new(path)).unwrap();
        assert_eq!(point("/home/x").file_system, "ext4");
        assert_eq!(point("/mnt/with space/x").file_system, "xfs");
        assert_eq!(point("/ramdisk2").file_system, "ext4");
        assert!(!point("/ramdisk/a").has("huge=within_size"), "the later mount covers the earlier");
        assert!(point("/ramdisk").has("rw"));
    }

    #[test]
    fn the_real_machine_has_a_root_mount() {
        assert!(Mount::of(Path::new("/no such directory/x")).unwrap().is_some());
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(!is_mount_point(Path::new("/proc/self")).unwrap());
    }
}
