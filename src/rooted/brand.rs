//! The mark on every file of ours (`model::job::Brand`), kept in an extended attribute.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::model::job::Brand;

/// Longest encoded brand read or written: a path of 4 kB and 1 kB for the rest.
pub const BRAND_BYTES_MAX: usize = 5 * 1024;
/// Brands up to this size fit wherever extended attributes exist (ext4 without large xattrs: one 4 kB block);
/// `ENOSPC` for a larger one speaks of the attribute, not of the disk.
const BRAND_FITS_BYTES: usize = 3 * 1024;

/// Where a file system lets us keep brands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrandSpace {
    /// `trusted.*`: no user can see or forge it; takes CAP_SYS_ADMIN.
    Trusted,
    /// `user.*`: the file's owner could forge it.
    User,
    /// No extended attributes: files go unbranded.
    None,
}

impl BrandSpace {
    /// The best that the file system of `dir`, a directory of ours, takes.
    pub(super) fn probe(dir: impl AsFd) -> Self {
        let takes = |space: &Self| {
            space.attribute().is_some_and(|name| {
                rustix::fs::fsetxattr(&dir, name, b"staging", XattrFlags::empty()).is_ok()
            })
        };
        [Self::Trusted, Self::User].into_iter().find(takes).unwrap_or(Self::None)
    }

    fn attribute(self) -> Option<&'static str> {
        match self {
            Self::Trusted => Some("trusted.ppu_uringd"),
            Self::User => Some("user.ppu_uringd"),
            Self::None => None,
        }
    }

    /// Whether a file with `brand` surely carries it here.
    pub(super) fn holds(self, brand: &Brand) -> bool {
        self != Self::None && postcard::to_stdvec(brand).is_ok_and(|bytes| bytes.len() <= BRAND_FITS_BYTES)
    }

    /// Marks an open file; it stays unbranded where the file system refuses.
    ///
    /// # Errors
    /// Whatever fsetxattr(2) says, other than that attributes, or ones so long, are not supported.
    pub fn write(self, file: impl AsFd, brand: &Brand) -> Result<(), Errno> {
        let Some(name) = self.attribute() else { return Ok(()) };
        let Ok(bytes) = postcard::to_stdvec(brand) else { return Ok(()) };
        match rustix::fs::fsetxattr(file, name, &bytes, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::TOOBIG | Errno::RANGE) => Ok(()),
            Err(Errno::NOSPC) if bytes.len() > BRAND_FITS_BYTES => Ok(()),
            other => other,
        }
    }

    /// The mark of an open file on a file system of which nothing is known.
    pub fn find(file: impl AsFd) -> Option<Brand> {
        Self::Trusted.read(&file).or_else(|| Self::User.read(&file))
    }

    /// The mark of an open file; `None` where there is none that we can read and understand.
    pub fn read(self, file: impl AsFd) -> Option<Brand> {
        let name = self.attribute()?;
        // Most brands are short: 256 bytes spare the large buffer.
        let mut short = [0; 256];
        let mut long;
        let bytes = match rustix::fs::fgetxattr(&file, name, &mut short) {
            Ok(len) => &short[..len],
            Err(Errno::RANGE) => {
                long = vec![0; BRAND_BYTES_MAX];
                let len = rustix::fs::fgetxattr(&file, name, &mut long[..]).ok()?;
                &long[..len]
            }
            Err(_) => return None,
        };
        postcard::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::{Hash, Identity};
    use crate::model::path::RelPath;
    use crate::model::shift::ShiftId;

    #[test]
    fn a_brand_comes_back_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile_in(dir.path()).unwrap();
        let space = BrandSpace::probe(
            rustix::fs::open(dir.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap(),
        );
        assert_ne!(space, BrandSpace::None, "the file system for temporary files takes user attributes");
        assert_eq!(space.read(&file), None);
        for len in [1, 100, 255] {
            let brand = Brand {
                detector: "1MF".into(),
                shift: ShiftId(7),
                path: RelPath::new(&vec![0xff; len]).unwrap(),
                identity: Identity { size: 1, mtime_ns: -1, ino: u64::MAX, ctime_ns: i64::MAX },
                settled: true,
                hash: Hash::of(b"x"),
            };
            space.write(&file, &brand).unwrap();
            assert_eq!(space.read(&file), Some(brand));
        }
        rustix::fs::fsetxattr(&file, space.attribute().unwrap(), b"\xff\xff\xff", XattrFlags::empty())
            .unwrap();
        assert_eq!(space.read(&file), None, "damaged");
    }
}
