//! Names that appeared without a close: files that are being written, or complete ones that were linked in (O_TMPFILE and linkat).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::file_version::Identity;
use crate::model::path::RelPath;

/// Most names that are remembered; the next reconcile finds the others.
const CANDIDATES_MAX: usize = 1 << 16;

/// Each is looked at again when it was left alone for a while.
pub(super) struct Candidates {
    quiet: Duration,
    files: HashMap<RelPath, (Instant, Identity)>,
    /// May name files that are no longer candidates, or are so anew.
    due: VecDeque<(Instant, RelPath)>,
}

impl Candidates {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, files: HashMap::new(), due: VecDeque::new() }
    }

    /// As it is now.
    pub(super) fn put(&mut self, now: Instant, path: RelPath, identity: Identity) {
        if self.due.len() >= CANDIDATES_MAX {
            self.files.remove(&path);
            return;
        }
        let due = now + self.quiet;
        self.files.insert(path.clone(), (due, identity));
        self.due.push_back((due, path));
    }

    /// It was closed, or is gone.
    pub(super) fn remove(&mut self, path: &RelPath) {
        self.files.remove(path);
    }

    pub(super) fn contains(&self, path: &RelPath) -> bool {
        self.files.contains_key(path)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }

    /// One whose quiet time is over, and as it was at its beginning.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(RelPath, Identity)> {
        while self.next_due().is_some_and(|due| due <= now)
            && let Some((due, path)) = self.due.pop_front()
        {
            if self.files.get(&path).is_some_and(|(expected, _)| *expected == due)
                && let Some((_, identity)) = self.files.remove(&path)
            {
                return Some((path, identity));
            }
        }
        None
    }
}
