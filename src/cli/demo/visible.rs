//! Watches the PPU's ramdisk from outside, as a user's program would: when does a file appear under its name?

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use inotify::{Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ppu_uringd::model::path::RelPath;
use std::os::fd::AsFd;

use super::super::Failure;
use super::board::Board;
use super::stage::IMAGES;

/// Room for many events: several directories' worth of a burst.
const EVENT_BUFFER_BYTES: usize = 64 * 1024;
/// Between two looks at the end.
const POLL_MS: u16 = 50;

/// A thread that notes each arrival on the board.
pub(super) struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Watch {
    pub(super) fn start(ppu_ramdisk: &Path, board: Arc<Board>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Failed(format!("watch {}: {error}", ppu_ramdisk.display()));
        let mut watcher = Watcher {
            inotify: Inotify::init().map_err(failed)?,
            directories: HashMap::new(),
            root: ppu_ramdisk.join(IMAGES),
            board,
        };
        watcher.add(ppu_ramdisk).map_err(failed)?;
        let end = Arc::new(AtomicBool::new(false));
        let ends = end.clone();
        Ok(Self { end, thread: std::thread::spawn(move || watcher.run(&ends)) })
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Failed(format!("watching the PPU's ramdisk: {error}"))),
            Err(_) => Err(Failure::Failed("the thread that watches the PPU's ramdisk panicked".into())),
        }
    }
}

struct Watcher {
    inotify: Inotify,
    directories: HashMap<WatchDescriptor, PathBuf>,
    /// Images are named below this.
    root: PathBuf,
    board: Arc<Board>,
}

impl Watcher {
    fn run(mut self, end: &AtomicBool) -> io::Result<()> {
        let mut buffer = vec![0; EVENT_BUFFER_BYTES];
        while !end.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(POLL_MS))?;
            let events = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let at = Instant::now();
            let mut appeared = Vec::new();
            for event in events {
                if let (Some(directory), Some(name)) = (self.directories.get(&event.wd), event.name) {
                    appeared.push((directory.join(name), event.mask.contains(inotify::EventMask::ISDIR)));
                }
            }
            for (path, is_directory) in appeared {
                if is_directory { self.add(&path)? } else { self.arrived(&path, at) }
            }
        }
        Ok(())
    }

    /// What is already in a new directory arrived before it was watched: it is noted now, a little late.
    fn add(&mut self, directory: &Path) -> io::Result<()> {
        if directory.file_name().is_some_and(|name| name == ppu_uringd::rooted::STAGING_NAME) {
            return Ok(());
        }
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
        let watch = self.inotify.watches().add(directory, mask)?;
        self.directories.insert(watch, directory.to_owned());
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.add(&entry.path())?;
            } else {
                self.arrived(&entry.path(), Instant::now());
            }
        }
        Ok(())
    }

    fn arrived(&self, path: &Path, at: Instant) {
        let below = path.strip_prefix(&self.root).ok().map(|below| below.as_os_str().as_bytes());
        if let Some(Ok(path)) = below.map(RelPath::new) {
            self.board.visible(path, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_every_arrival_also_in_new_directories() {
        const FILES: u64 = 60;
        let dir = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::default());
        let watch = Watch::start(dir.path(), board.clone()).ok().unwrap();
        let temporary = dir.path().join("file");
        for number in 0..FILES {
            let directory = dir.path().join(IMAGES).join(format!("run_{}/deep", number / 10));
            fs::create_dir_all(&directory).unwrap();
            fs::write(&temporary, "x").unwrap();
            fs::rename(&temporary, directory.join(format!("{number}"))).unwrap();
            let path = RelPath::new(format!("run_{}/deep/{number}", number / 10).as_bytes()).unwrap();
            board.closed(path, Instant::now(), 1);
        }
        let limit = Instant::now() + std::time::Duration::from_secs(20);
        while board.totals().visible < FILES {
            assert!(Instant::now() < limit, "{:?}", board.totals());
            std::thread::yield_now();
        }
        watch.end().ok().unwrap();
        assert_eq!(board.totals().visible, FILES);
    }
}
