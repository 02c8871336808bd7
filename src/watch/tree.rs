//! Which directory each watch stands for. Directories know their parents, so that a move touches one of them only.

use std::collections::HashMap;

use inotify::WatchDescriptor;

use crate::model::path::{PathError, RelPath};

/// The kernel's number of a watch.
pub(super) type Wd = i32;

/// The watched directories.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<Wd, Node>,
    root: Option<Wd>,
}

struct Node {
    watch: WatchDescriptor,
    /// `None` for the root.
    above: Option<(Wd, Box<[u8]>)>,
    below: HashMap<Box<[u8]>, Wd>,
}

impl Tree {
    /// The root itself.
    pub(super) fn set_root(&mut self, watch: WatchDescriptor) {
        let wd = watch.get_watch_descriptor_id();
        self.root = Some(wd);
        self.nodes.entry(wd).or_insert(Node { watch, above: None, below: HashMap::new() });
    }

    pub(super) fn is_root(&self, wd: Wd) -> bool {
        self.root == Some(wd)
    }

    /// A directory is `name` in `parent`; it may have been somewhere else before. Gives back the watches of what had this
    /// name before.
    pub(super) fn insert(&mut self, parent: Wd, name: &[u8], watch: WatchDescriptor) -> Vec<WatchDescriptor> {
        let wd = watch.get_watch_descriptor_id();
        let replaced = match self.child(parent, name) {
            Some(before) if before == wd => return Vec::new(),
            Some(before) => self.remove(before),
            None => Vec::new(),
        };
        if self.is_root(wd) || !self.nodes.contains_key(&parent) {
            return replaced;
        }
        self.detach(wd);
        let above = Some((parent, name.into()));
        let node = self.nodes.entry(wd).or_insert(Node { watch, above: None, below: HashMap::new() });
        node.above = above;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.below.insert(name.into(), wd);
        }
        replaced
    }

    /// A directory and all below it are no more to be watched: their watches.
    pub(super) fn remove(&mut self, wd: Wd) -> Vec<WatchDescriptor> {
        self.detach(wd);
        let mut watches = Vec::new();
        let mut removed = vec![wd];
        while let Some(wd) = removed.pop() {
            if let Some(node) = self.nodes.remove(&wd) {
                removed.extend(node.below.into_values());
                watches.push(node.watch);
            }
        }
        watches
    }

    pub(super) fn child(&self, parent: Wd, name: &[u8]) -> Option<Wd> {
        self.nodes.get(&parent)?.below.get(name).copied()
    }

    /// The directory at `path`; `None` is the root.
    pub(super) fn find(&self, path: Option<&RelPath>) -> Option<Wd> {
        let names = path.into_iter().flat_map(RelPath::names);
        names.into_iter().try_fold(self.root?, |wd, name| self.child(wd, name))
    }

    /// The path of `name` in a watched directory; `None` if the directory is not (no longer) watched.
    pub(super) fn path(&self, wd: Wd, name: &[u8]) -> Option<Result<RelPath, PathError>> {
        let mut names = vec![name];
        let mut node = self.nodes.get(&wd)?;
        while let Some((parent, name)) = &node.above {
            names.push(name);
            node = self.nodes.get(parent)?;
        }
        names.reverse();
        Some(RelPath::new(&names.join(&b'/')))
    }

    fn detach(&mut self, wd: Wd) {
        if let Some(node) = self.nodes.get(&wd)
            && let Some((parent, name)) = node.above.clone()
            && let Some(parent) = self.nodes.get_mut(&parent)
            && parent.below.get(&name) == Some(&wd)
        {
            parent.below.remove(&name);
        }
    }
}
