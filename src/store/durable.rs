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

/// A directory to be synced.
#[derive(Debug, Clone)]
pub(super) struct ToSync {
    pub path: DirPath,
    pub fd: Arc<OwnedFd>,
    /// The ramdisk's directory whose time it gets before, because a new name in it has changed its own.
    pub like: Option<RelPath>,
}

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
    next: ToSync,
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
    /// perhaps never synced. `new` counts the new ones from `parent` upwards. True: it holds a new one.
    pub(super) fn above(&mut self, parent: Option<&RelPath>, new: usize) -> Vec<(DirPath, bool)> {
        let mut above = Vec::new();
        let mut child = parent.cloned();
        let mut depth = 0;
        while let Some(path) = child {
            if depth < new {
                self.known.remove(&path);
            }
            let holder = path.parent();
            if !self.known.contains(&path) {
                above.push((holder.clone(), depth < new));
            }
            child = holder;
            depth += 1;
        }
        above
    }

    /// `what` was renamed; it is durable when all of `directories` (its own first) are synced.
    pub(super) fn renamed(&mut self, what: T, directories: Vec<ToSync>) {
        let file = self.next;
        self.next += 1;
        let own = directories.first().and_then(|own| own.path.clone());
        let names = std::iter::successors(own, RelPath::parent).collect();
        self.files.insert(file, File { what, left: directories.len(), names });
        for mut next in directories {
            let path = next.path.clone();
            let directory = self.directories.entry(path.clone()).or_insert_with(|| Directory {
                next: next.clone(),
                syncing: Vec::new(),
                running: false,
                waiting: Vec::new(),
            });
            // The same name may be another directory by now: the latest rename went into this one.
            next.like = next.like.or(directory.next.like.take());
            directory.next = next;
            if directory.waiting.is_empty() && !directory.running {
                self.due.push_back(path);
            }
            directory.waiting.push(file);
        }
    }

    /// A directory to sync now. Say [`Durable::synced`] when that is done.
    pub(super) fn next_due(&mut self) -> Option<ToSync> {
        let path = self.due.pop_front()?;
        let directory = self.directories.get_mut(&path)?;
        directory.running = true;
        directory.syncing = std::mem::take(&mut directory.waiting);
        Some(directory.next.clone())
    }

    /// Files that are not durable yet.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Gives up on all of them.
    pub(super) fn into_files(self) -> impl Iterator<Item = T> {
        self.files.into_values().map(|file| file.what)
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

    fn dir(p: &str) -> ToSync {
        let fd = Arc::new(std::fs::File::open("/").unwrap().into());
        ToSync { path: (!p.is_empty()).then(|| path(p)), fd, like: None }
    }

    #[test]
    fn a_sync_serves_only_renames_before_it() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("d")]);
        durable.renamed(2, vec![dir("d")]);
        let d = durable.next_due().unwrap().path;
        durable.renamed(3, vec![dir("d")]);
        assert!(durable.next_due().is_none(), "one sync of a directory at a time");
        assert_eq!(durable.synced(&d, true), [1, 2]);
        let d = durable.next_due().unwrap().path;
        assert_eq!(durable.synced(&d, true), [3]);
        assert!(durable.next_due().is_none());
    }

    #[test]
    fn a_file_waits_for_all_its_directories() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("a/b"), dir("a"), dir("")]);
        let due: Vec<_> = std::iter::from_fn(|| durable.next_due()).map(|due| due.path).collect();
        assert_eq!(due, [Some(path("a/b")), Some(path("a")), None]);
        assert!(durable.synced(&due[2], true).is_empty());
        assert!(durable.synced(&due[0], true).is_empty());
        assert_eq!(durable.synced(&due[1], true), [1]);
    }

    #[test]
    fn a_failed_sync_ends_its_files_once() {
        let mut durable = Durable::new();
        durable.renamed(1, vec![dir("a"), dir("")]);
        let a = durable.next_due().unwrap().path;
        let root = durable.next_due().unwrap().path;
        assert_eq!(durable.synced(&a, false), [1]);
        assert!(durable.synced(&root, true).is_empty());
        assert_eq!(durable.above(Some(&path("a")), 0), [(None, false)], "a is not known to be durable");
    }

    #[test]
    fn directories_above_are_synced_until_known() {
        let mut durable = Durable::new();
        let above = durable.above(Some(&path("a/b")), 0);
        assert_eq!(above, [(Some(path("a")), false), (None, false)]);
        durable.renamed((), vec![dir("a/b"), dir("a"), dir("")]);
        while let Some(due) = durable.next_due() {
            durable.synced(&due.path, true);
        }
        assert_eq!(durable.above(Some(&path("a/b")), 0), []);
        assert_eq!(durable.above(Some(&path("a/c")), 1), [(Some(path("a")), true)]);
        assert_eq!(
            durable.above(Some(&path("a/b")), 2),
            [(Some(path("a")), true), (None, true)],
            "removed and made again"
        );
        assert_eq!(durable.above(None, 0), []);
    }
}
