//! Reading a stored copy again, from the disk and not from memory, and comparing it with what the journal says of it.

use std::os::fd::AsFd;

use rustix::fs::{Advice, FileType, fadvise};
use rustix::io::Errno;

use crate::model::file_version::Hash;
use crate::model::path::{RelPath, printable};
use crate::rooted::mount::{Place, Unavailable};
use crate::rooted::{BrandSpace, FileStat, Root};

/// Read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A storage, to be read.
pub struct Shelf {
    place: Place,
    root: Root,
    piece: Vec<u8>,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Below the target.
    pub at: RelPath,
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub hash: Hash,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What was stored.
    Same,
    /// Something else; for people.
    Different(String),
    /// Nothing.
    Missing,
    /// A symlink, as eviction leaves it.
    Link,
    /// A newer version, which has taken its place meanwhile.
    Newer,
    /// The disk, or somebody, does not let us read it; for people.
    Unreadable(String),
}

impl Shelf {
    /// Opens the storage, as it is.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn open(place: &Place) -> Result<Self, Unavailable> {
        Ok(Self { root: place.open_as_is()?, place: place.clone(), piece: vec![0; PIECE_BYTES] })
    }

    /// Reads one file. `progress` is told every piece, and stops by `false`.
    ///
    /// # Errors
    /// [`Unavailable`]: the storage went away, so that nothing is known of the file.
    pub fn verify(
        &mut self,
        expected: &Expected,
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Option<Verdict>, Unavailable> {
        let verdict = self.look(expected, &mut progress);
        if !matches!(verdict, Some(Verdict::Same | Verdict::Newer)) {
            self.place.check(&self.root)?;
        }
        Ok(verdict)
    }

    fn look(&mut self, expected: &Expected, progress: &mut dyn FnMut(usize) -> bool) -> Option<Verdict> {
        let (file, stat) = match self.root.open_file(&expected.at) {
            Ok(opened) => opened,
            Err(error) => {
                return Some(match error.errno {
                    Errno::NOENT => Verdict::Missing,
                    Errno::LOOP if self.is_link(&expected.at) => Verdict::Link,
                    Errno::NOTDIR | Errno::LOOP | Errno::INVAL => {
                        Verdict::Different("something else has its name, or a directory's".to_owned())
                    }
                    _ => Verdict::Unreadable(error.to_string()),
                });
            }
        };
        // What is in memory says nothing of the disk.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        let found = self.read(&file, progress);
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        Some(match found? {
            Err(errno) => Verdict::Unreadable(format!("read: {errno}")),
            Ok((size, hash)) if (size, hash) == (expected.size, expected.hash) => Verdict::Same,
            Ok((_, hash)) if BrandSpace::find(&file).is_some_and(|brand| brand.hash == hash) => {
                Verdict::Newer
            }
            Ok((size, hash)) => Verdict::Different(match size == expected.size {
                true => format!("its hash is {hash}, not {}", expected.hash),
                false => format!("it has {size} bytes, not {} (at first {})", expected.size, stat.size),
            }),
        })
    }

    /// Length and hash; `None`: it was stopped.
    fn read(
        &mut self,
        file: impl AsFd,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Option<Result<(u64, Hash), Errno>> {
        let mut hasher = twox_hash::XxHash3_128::new();
        let mut at = 0;
        loop {
            match rustix::io::pread(&file, &mut self.piece, at) {
                Ok(0) => return Some(Ok((at, hasher.finish_128().into()))),
                Ok(count) => {
                    hasher.write(&self.piece[..count]);
                    at += count as u64;
                    if !progress(count) {
                        return None;
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Some(Err(errno)),
            }
        }
    }

    fn is_link(&self, at: &RelPath) -> bool {
        self.root.stat(at).is_ok_and(|stat: FileStat| stat.kind() == FileType::Symlink)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => f.write_str("as it was stored"),
            Self::Different(how) => write!(f, "damaged: {how}"),
            Self::Missing => f.write_str("missing"),
            Self::Link => f.write_str("a link"),
            Self::Newer => f.write_str("a newer version"),
            Self::Unreadable(why) => write!(f, "unreadable: {}", printable(why.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place { target: temp.path().into(), mountpoint: None, allow_root_fs: true };
        let write = |name: &str, content: &[u8]| std::fs::write(temp.path().join(name), content).unwrap();
        write("same", b"image");
        write("flipped", b"imagf");
        write("short", b"imag");
        write("file", b"");
        std::fs::create_dir(temp.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", temp.path().join("link")).unwrap();
        let mut shelf = Shelf::open(&place).unwrap();
        let mut verdict = |name: &str| {
            let at = RelPath::new(name.as_bytes()).unwrap();
            let expected = Expected { at, size: 5, hash: Hash::of(b"image") };
            shelf.verify(&expected, |_| true).unwrap().unwrap()
        };
        assert_eq!(verdict("same"), Verdict::Same);
        assert!(matches!(verdict("flipped"), Verdict::Different(how) if how.contains("hash")));
        assert!(matches!(verdict("short"), Verdict::Different(how) if how.contains("4 bytes, not 5")));
        assert_eq!(verdict("gone"), Verdict::Missing);
        assert_eq!(verdict("link"), Verdict::Link);
        assert!(matches!(verdict("dir"), Verdict::Different(_)));
        assert!(matches!(verdict("file/below"), Verdict::Different(_)));
        let at = RelPath::new(b"same").unwrap();
        let expected = Expected { at, size: 5, hash: Hash::of(b"image") };
        assert_eq!(shelf.verify(&expected, |_| false).unwrap(), None, "stopped");
        std::fs::rename(temp.path(), temp.path().with_extension("away")).unwrap();
        let at = RelPath::new(b"gone").unwrap();
        let gone = Expected { at, ..expected };
        assert!(shelf.verify(&gone, |_| true).is_err(), "a storage that went away is no missing file");
        std::fs::rename(temp.path().with_extension("away"), temp.path()).unwrap();
    }
}
