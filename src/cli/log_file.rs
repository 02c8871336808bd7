//! A log file that is rotated by size: `x.log`, `x.log.1` (younger), `x.log.2`, ...
//!
//! Own code, because the crates that rotate by size panic, or drop lines without a word, when somebody
//! removes the file or its directory under a running daemon. This one notices within a second, and goes on under its name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Appends; rotates before a line would make the file longer than its limit.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes in `file`.
    size: u64,
    max_size: u64,
    max_number: u32,
    /// When it was last seen under its name.
    seen: Instant,
    look: Duration,
}

impl LogFile {
    /// Opens `path` for appending; makes its directory. `max_number` files are kept, the current one included.
    ///
    /// # Errors
    /// The directory cannot be made, or the file cannot be opened.
    pub(super) fn open(path: &Path, max_size: u64, max_number: u32) -> io::Result<Self> {
        let (file, size) = append_to(path)?;
        Ok(Self { path: path.into(), file, size, max_size, max_number, seen: Instant::now(), look: LOOK })
    }

    /// Somebody has removed or renamed it (another program that rotates logs, for instance): what follows is to be found under its name.
    fn look(&mut self) -> io::Result<()> {
        if self.seen.elapsed() < self.look {
            return Ok(());
        }
        self.seen = Instant::now();
        let id = |found: &fs::Metadata| (found.dev(), found.ino());
        match fs::metadata(&self.path) {
            Ok(found) if id(&found) == id(&self.file.metadata()?) => Ok(()),
            _ => self.open_anew(),
        }
    }

    fn open_anew(&mut self) -> io::Result<()> {
        (self.file, self.size) = append_to(&self.path)?;
        Ok(())
    }

    /// A rotation that fails leaves the old file in use: a log that is too long is better than none.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.max_number).rev() {
            let from = if number == 1 { self.path.clone() } else { self.numbered(number - 1) };
            match fs::rename(&from, self.numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.max_number == 1 {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.open_anew()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Where it cannot be opened anew, the old one is better than none.
        let _ = self.look();
        if self.size > 0
            && self.size + line.len() as u64 > self.max_size
            && let Err(error) = self.rotate()
        {
            // Do not try again for each line.
            self.size = 0;
            writeln!(self.file, "cannot rotate {}: {error}", self.path.display())?;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The file, made with its directory where it is missing, and its size.
fn append_to(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_and_keeps_the_youngest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let read = |name: &str| fs::read_to_string(dir.path().join("logs").join(name)).ok();
        {
            let mut log = LogFile::open(&path, 10, 3).unwrap();
            for line in ["first 1\n", "second2\n", "third 3\n"] {
                log.write_all(line.as_bytes()).unwrap();
            }
        }
        // Opened again, it goes on where it was.
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        log.write_all(b"4\n").unwrap();
        log.write_all(b"fifth 5\n").unwrap();
        assert_eq!(read("x.log").as_deref(), Some("fifth 5\n"));
        assert_eq!(read("x.log.1").as_deref(), Some("third 3\n4\n"));
        assert_eq!(read("x.log.2").as_deref(), Some("second2\n"));
        assert_eq!(read("x.log.3"), None);
    }

    #[test]
    fn one_file_is_kept_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = LogFile::open(&path, 10, 1).unwrap();
        log.write_all(b"a long line\n").unwrap();
        log.write_all(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_taken_away_goes_on_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        for max_number in [1, 2] {
            let mut log = LogFile::open(&path, 10, max_number).unwrap();
            log.look = Duration::ZERO;
            log.write_all(b"12345678\n").unwrap();
            fs::rename(&path, dir.path().join("taken")).unwrap();
            log.write_all(b"renamed\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "renamed\n");
            fs::remove_dir_all(dir.path().join("logs")).unwrap();
            log.write_all(b"removed\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "removed\n");
            // Between two looks, a rotation finds it gone.
            log.look = Duration::from_secs(3600);
            fs::remove_dir_all(dir.path().join("logs")).unwrap();
            log.write_all(b"rotated\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "rotated\n");
            fs::remove_dir_all(dir.path().join("logs")).unwrap();
        }
    }

    #[test]
    fn a_directory_that_is_none_costs_no_line_that_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/x.log");
        let mut log = LogFile::open(&path, 10, 2).unwrap();
        log.look = Duration::ZERO;
        fs::rename(dir.path().join("logs"), dir.path().join("moved")).unwrap();
        fs::write(dir.path().join("logs"), b"a file").unwrap();
        log.write_all(b"1\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("moved/x.log")).unwrap(), "1\n");
    }
}
