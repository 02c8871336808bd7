//! The named pipe: paths of extra files, one a line, from scripts.
//!
//! A pipe conveys no identity: whoever may write to it could name any file, and we could read it. So its mode is 0600 (one group may be
//! let in), and only files below the configured directories are opened, without following a link. A file with several names is
//! refused: a hard link below such a directory may be to somebody's file anywhere else on that file system (`ppu-uringd add` has
//! no such doubt, its caller opens the file).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

use super::examine::examine;
use crate::model::extra::{ExtraFile, ExtraPath};
use crate::model::path::{RelPath, printable};
use crate::rooted::{FileStat, Root};

/// Longest line, without its newline: the longest path.
const LINE_MAX_BYTES: usize = 4096;
/// How much of a line a message shows.
const SHOWN_BYTES: usize = 200;
/// How often the end is noticed.
const LOOK_UP: Duration = Duration::from_millis(250);
/// Pause while no further file may be taken in; what scripts write waits in the pipe meanwhile.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// A pipe that scripts can write to.
#[derive(Debug)]
pub struct Pipe {
    file: Flock<OwnedFd>,
    path: PathBuf,
}

/// What came of a line.
#[derive(Debug)]
pub enum Named {
    /// It can be stored.
    File(Box<ExtraFile>, OwnedFd),
    /// It cannot; for people.
    Refused {
        /// The line, fit to print.
        line: String,
        /// Why.
        why: String,
    },
}

impl Pipe {
    /// Makes the pipe at `path`, or takes over the one that is there.
    ///
    /// # Errors
    /// For people: something else is there, another daemon reads it, or the file system said no.
    pub fn open(path: &Path, group: Option<u32>) -> Result<Self, String> {
        let shown = printable(path.as_os_str().as_bytes());
        let failed = |operation: &str| {
            let text = format!("{operation} {shown}");
            move |errno: Errno| format!("{text}: {errno}")
        };
        if let Some(directory) = path.parent() {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(format!("mkdir for {shown}: {error}"));
                }
                _ => {}
            }
        }
        match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkfifo")(errno)),
        }
        // Open for writing, too: it never comes to an end, whatever writers do, and opening waits for none.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open"))?;
        let stat = FileStat::of(&file).map_err(failed("statx"))?;
        if stat.kind() != FileType::Fifo {
            return Err(format!("{shown} is not a named pipe: remove it, or set interfaces.file_pipe"));
        }
        if stat.uid != rustix::process::geteuid().as_raw() {
            return Err(format!("{shown} belongs to another user: remove it"));
        }
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| format!("{shown} is read by another daemon already"))?;
        let mode = if group.is_some() { 0o620 } else { 0o600 };
        if let Some(group) = group {
            rustix::fs::fchown(&*file, None, Some(Gid::from_raw(group))).map_err(failed("chown"))?;
        }
        rustix::fs::fchmod(&*file, Mode::from_raw_mode(mode)).map_err(failed("chmod"))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads lines until `take` says that it is the end; while `is_full`, they wait. Blocks only on the files that are named.
    pub fn run(
        self,
        roots: &[Root],
        is_full: impl Fn() -> bool,
        mut take: impl FnMut(Option<Named>) -> bool,
    ) {
        let mut lines = Lines::default();
        let mut piece = [0; 4096];
        loop {
            while let Some(line) = lines.next() {
                while is_full() {
                    std::thread::sleep(FULL_PAUSE);
                    if !take(None) {
                        return;
                    }
                }
                if !take(Some(named(line, roots))) {
                    return;
                }
            }
            match rustix::io::read(&*self.file, &mut piece) {
                Ok(count) => lines.add(&piece[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                    let timeout = PollTimeout::try_from(LOOK_UP).unwrap_or(PollTimeout::ZERO);
                    let _ = poll(&mut fds, timeout);
                    if !take(None) {
                        return;
                    }
                }
                Err(errno) => {
                    return tracing::error!(
                        "{}: read: {errno}: no more paths are taken",
                        self.path.display()
                    );
                }
            }
        }
    }
}

/// Opens what a line names, below one of `roots`.
fn named(line: Result<Vec<u8>, Vec<u8>>, roots: &[Root]) -> Named {
    let (line, opened) = match line {
        Ok(line) => {
            let opened = open(&line, roots);
            (line, opened)
        }
        Err(begin) => (begin, Err(format!("a line has at most {LINE_MAX_BYTES} bytes"))),
    };
    match opened {
        Ok((extra, file)) => Named::File(Box::new(extra), file),
        Err(why) => Named::Refused { line: printable(&line[..line.len().min(SHOWN_BYTES)]), why },
    }
}

fn open(line: &[u8], roots: &[Root]) -> Result<(ExtraFile, OwnedFd), String> {
    let path = ExtraPath::parse(0, line).map_err(|error| error.to_string())?;
    let below = |root: &Root| {
        let root = root.path().as_os_str().as_bytes();
        match root.strip_prefix(b"/") {
            Some(b"") => Some(path.from.clone()),
            Some(root) => path.from.below(&RelPath::new(root).ok()?),
            None => None,
        }
    };
    let found = roots.iter().find_map(|root| Some((root, below(root)?)));
    let (root, below) = found.ok_or("it is not below one of interfaces.intake_roots")?;
    let (file, stat) = root.open_file(&below).map_err(|error| match error.errno {
        Errno::LOOP => format!("{error} (links are not followed)"),
        Errno::INVAL => format!("{}: not a regular file", error.path),
        _ => error.to_string(),
    })?;
    if stat.nlink > 1 {
        return Err(
            "it has several names (hard links), and a pipe does not say whose: use ppu-uringd add".to_owned()
        );
    }
    examine(&file, line).map(|extra| (extra, file))
}

/// Cuts what is read into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// The rest of a line that was too long is still to come.
    skipping: bool,
}

impl Lines {
    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next line that is not empty; `Err`: the beginning of one that is too long.
    fn next(&mut self) -> Option<Result<Vec<u8>, Vec<u8>>> {
        loop {
            let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') else {
                if self.skipping {
                    self.bytes.clear();
                } else if self.bytes.len() > LINE_MAX_BYTES {
                    self.skipping = true;
                    return Some(Err(std::mem::take(&mut self.bytes)));
                }
                return None;
            };
            let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
            line.pop();
            match std::mem::take(&mut self.skipping) {
                true => {}
                false if line.is_empty() => {}
                false if line.len() > LINE_MAX_BYTES => return Some(Err(line)),
                false => return Some(Ok(line)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Result<usize, usize>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.add(piece);
            while let Some(line) = lines.next() {
                found.push(line.map(|line| line.len()).map_err(|line| line.len()));
            }
            assert!(lines.bytes.len() <= LINE_MAX_BYTES + piece.len());
        }
        found
    }

    #[test]
    fn long_lines_are_refused_once_and_the_next_one_counts() {
        let long = [b'x'; 5000];
        assert_eq!(lines(&[&long, b"\nshort\n"]), [Err(5000), Ok(5)]);
        assert_eq!(lines(&[&long, &long, b"end\nshort\n\n\nother"]), [Err(5000), Ok(5)]);
        assert_eq!(
            lines(&[&[&long[..4096], b"\n"].concat(), &[&long[..4097], b"\n"].concat()]),
            [Ok(4096), Err(4097)]
        );
    }

    proptest! {
        #[test]
        fn cut_anywhere_lines_are_the_same(text in proptest::collection::vec("[a\n]{0,9}", 0..20)) {
            let whole = text.concat();
            let pieces: Vec<&[u8]> = text.iter().map(|piece| piece.as_bytes()).collect();
            let expected: Vec<_> = whole.split('\n').map(str::len).collect();
            let (_, complete) = expected.split_last().unwrap();
            let complete: Vec<_> = complete.iter().filter(|&&len| len > 0).map(|&len| Ok(len)).collect();
            prop_assert_eq!(lines(&pieces), complete);
        }
    }

    #[test]
    fn only_files_below_the_roots_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("root/d")).unwrap();
        std::fs::write(at("root/d/f"), "1").unwrap();
        std::fs::write(at("outside"), "secret").unwrap();
        std::fs::hard_link(at("outside"), at("root/hard")).unwrap();
        std::os::unix::fs::symlink(at("outside"), at("root/soft")).unwrap();
        std::os::unix::fs::symlink(dir.path(), at("root/up")).unwrap();
        rustix::fs::mkfifoat(CWD, at("root/fifo"), Mode::RUSR).unwrap();
        let roots = [Root::open(&at("root")).unwrap()];
        let refused = |name: &str| open(at(name).as_os_str().as_bytes(), &roots).unwrap_err();
        open(at("root/d/f").as_os_str().as_bytes(), &roots).unwrap();
        open(at("root/./d/f").as_os_str().as_bytes(), &roots).unwrap();
        assert!(refused("outside").contains("not below one of interfaces.intake_roots"));
        assert!(refused("rootless").contains("not below one of interfaces.intake_roots"));
        assert!(refused("root/hard").contains("several names"));
        assert!(refused("root/soft").contains("links are not followed"));
        assert!(refused("root/up/outside").contains("links are not followed"));
        assert!(refused("root/d/../../outside").contains("'..'"));
        assert!(refused("root/fifo").contains("not a regular file"));
        assert!(refused("root/d").contains("not a regular file"));
        assert!(open(b"/etc/shadow", &roots).unwrap_err().contains("not below"));
        assert!(open(b"d/f", &roots).unwrap_err().contains("not absolute"));
    }

    #[test]
    fn a_pipe_is_made_or_taken_over_and_nothing_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/files");
        let mode = || std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777;
        let pipe = Pipe::open(&path, None).unwrap();
        assert_eq!(mode(), 0o600);
        assert!(Pipe::open(&path, None).unwrap_err().contains("read by another daemon"));
        drop(pipe);
        let group = rustix::process::getegid().as_raw();
        drop(Pipe::open(&path, Some(group)).unwrap());
        assert_eq!(mode(), 0o620);
        std::fs::write(dir.path().join("run/file"), "").unwrap();
        assert!(Pipe::open(&dir.path().join("run/file"), None).unwrap_err().contains("is not a named pipe"));
        std::os::unix::fs::symlink(&path, dir.path().join("run/link")).unwrap();
        assert!(Pipe::open(&dir.path().join("run/link"), None).is_err());
    }
}
