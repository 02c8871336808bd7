//! Which directories must reach the disk before a renamed file is durable (SPEC 3.4), and whose sync is shared.
//!
//! A directory's fsync serves every rename in it that was complete *before* it was issued. Renames that come while it
//! runs wait for the next one. Pure: the writer does the syncing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::path::RelPath;

/// How many directories are remembered as durable themselves; beyond it all are synced once more.
const KNOWN_MAX: usize = 65_536;

/// A directory by its path below the storage's target; `None` is the target.
pub(super) type DirPath = Option<RelPath>;

/// Renamed files, each with the directories that it still waits for.
#[derive(Debug)]
pub(super) struct Durable<T> {
    directories: BTreeMap<DirPath, Directory>,
    /// Directories whose sync is due, in the order in which they became so.
    due: VecDeque<DirPath>,
    files: BTreeMap<u64, File<T>>,
    next: u64,
    /// Directories whose own names are durable.
    known: HashSet<RelPath>,
}

#[derive(Debug)]
struct Directory {
    fd: Arc<OwnedFd>,
    /// Served by the sync that is running.
    syncing: Vec<u64>,
    running: bool,
    /// To be served by the next one.
    waiting: Vec<u64>,
}

#[derive(Debug)]
struct File<T> {
    what: T,
    left: usize,
    /// Become known once this file is durable.
    names: Vec<RelPath>,
}

impl<T> Durable<T> {
    pub(super) fn new() -> Self {
        Self {
            directories: BTreeMap::new(),
            due: VecDeque::new(),
            files: BTreeMap::new(),
            next: 0,
            known: HashSet::new(),
        }
    }

    /// The directories above `parent` that must be synced with it, because one that they hold is new or was
    /// perhaps never synced. `new` counts the new ones from `parent` upwards.
    pub(super) fn above(&mut self, parent: Option<&RelPath>, new: usize) -> Vec<DirPath> {
        let mut above = Vec::new();
        let mut child = parent.cloned();
        let mut depth = 0;
        while let Some(path) = child {
            if depth < new {
                self.known.remove(&path);
            }
            let holder = path.parent();
            if !self.known.contains(&path) {
                above.push(holder.clone());
            }
            child = holder;
            depth += 1;
        }
        above
    }

    /// `what` was renamed; it is durable when all of `directories` (its own first) are synced.
    pub(super) fn renamed(&mut self, what: T, directories: Vec<(DirPath, Arc<OwnedFd>)>) {
        let file = self.next;
        self.next += 1;
        let own = directories.first().and_then(|(path, _)| path.clone());
        let names = std::iter::successors(own, RelPath::parent).collect();
        self.files.insert(file, File { what, left: directories.len(), names });
        for (path, fd) in directories {
            let directory = self.directories.entry(path.clone()).or_insert_with(|| Directory {
                fd: fd.clone(),
                syncing: Vec::new(),
                running: false,
                waiting: Vec::new(),
            });
            // The same name may be another directory by now: the latest rename went into this one.
            directory.fd = fd;
            if directory.waiting.is_empty() && !directory.running {
                self.due.push_back(path);
            }
            directory.waiting.push(file);
        }
    }

    /// A directory to sync now. Say [`Durable::synced`] when that is done.
    pub(super) fn next_due(&mut self) -> Option<(DirPath, Arc<OwnedFd>)> {
        let path = self.due.pop_front()?;
        let directory = self.directories.get_mut(&path)?;
        directory.running = true;
        directory.syncing = std::mem::take(&mut directory.waiting);
        Some((path, directory.fd.clone()))
    }

    /// A sync has ended; what has become durable by it, or, if it failed, what has not and will not.
    pub(super) fn synced(&mut self, path: &DirPath, succeeded: bool) -> Vec<T> {
        let Some(directory) = self.directories.get_mut(path) else { return Vec::new() };
        directory.running = false;
        let served = std::mem::take(&mut directory.syncing);
        if directory.waiting.is_empty() {
            self.directories.remove(path);
        } else {
            self.due.push_back(path.clone());
        }
        let mut ended = Vec::new();
        for file in served {
            // Absent: another of its directories has failed before.
            let Some(entry) = self.files.get_mut(&file) else { continue };
            entry.left -= 1;
            if entry.left > 0 && succeeded {
                continue;
            }
            if let Some(File { what, names, .. }) = self.files.remove(&file) {
                ended.push(what);
                if succeeded {
                    self.learn(names);
                }
            }
        }
        ended
    }

    fn learn(&mut self, names: Vec<RelPath>) {
        if self.known.len() + names.len() > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(p: &str) -> RelPath {
        RelPath::new(p.as_bytes()).unwrap()
    }

    fn dir(p: &str) -> (DirPath, Arc<OwnedFd>) {
        let some = (!p.is_empty()).then(|| path(p));
        (some, Arc::new(std::fs::File::open("/").unwrap().into()))
    }

    #[test]
    fn a_sync_serves_only_renames_before_it() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("d")]);
        durable.renamed(2, vec![dir("d")]);
        let (d, _) = durable.next_due().unwrap();
        durable.renamed(3, vec![dir("d")]);
        assert!(durable.next_due().is_none(), "one sync of a directory at a time");
        assert_eq!(durable.synced(&d, true), [1, 2]);
        let (d, _) = durable.next_due().unwrap();
        assert_eq!(durable.synced(&d, true), [3]);
        assert!(durable.next_due().is_none());
    }

    #[test]
    fn a_file_waits_for_all_its_directories() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("a/b"), dir("a"), dir("")]);
        let due: Vec<_> = std::iter::from_fn(|| durable.next_due()).map(|(path, _)| path).collect();
        assert_eq!(due, [Some(path("a/b")), Some(path("a")), None]);
        assert_eq!(durable.synced(&due[2], true), []);
        assert_eq!(durable.synced(&due[0], true), []);
        assert_eq!(durable.synced(&due[1], true), [1]);
    }

    #[test]
    fn a_failed_sync_ends_its_files_once() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("a"), dir("")]);
        let a = durable.next_due().unwrap().0;
        let root = durable.next_due().unwrap().0;
        assert_eq!(durable.synced(&a, false), [1]);
        assert_eq!(durable.synced(&root, true), []);
        assert_eq!(durable.above(Some(&path("a")), 0), [None], "a is not known to be durable");
    }

    #[test]
    fn directories_above_are_synced_until_known() {
        let mut durable = Durable::new();
        let above = durable.above(Some(&path("a/b")), 0);
        assert_eq!(above, [Some(path("a")), None]);
        durable.renamed((), vec![dir("a/b"), dir("a"), dir("")]);
        while let Some((path, _)) = durable.next_due() {
            durable.synced(&path, true);
        }
        assert_eq!(durable.above(Some(&path("a/b")), 0), []);
        assert_eq!(durable.above(Some(&path("a/c")), 1), [Some(path("a"))]);
        assert_eq!(durable.above(Some(&path("a/b")), 2), [Some(path("a")), None], "removed and made again");
        assert_eq!(durable.above(None, 0), []);
    }
}
