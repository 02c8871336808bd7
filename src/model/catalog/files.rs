//! Where the catalog keeps its entries: dense, found by path and by inode.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Entry, same_content};
use crate::model::file_version::Identity;
use crate::model::path::RelPath;

/// An entry's place. Good until the entry is removed; whoever removes one forgets its slot everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(u32);

/// All entries. The indexes hold slots only (5 bytes an entry, at most half empty): paths are kept once.
#[derive(Default)]
pub(super) struct Files {
    /// A removed entry stays until its slot is used again.
    entries: Vec<Entry>,
    free: Vec<Slot>,
    by_path: HashTable<Slot>,
    /// Several names of one inode are several equal keys.
    by_inode: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

impl Files {
    pub(super) fn find(&self, path: &RelPath) -> Option<Slot> {
        let same = |slot: &Slot| self[*slot].path == *path;
        self.by_path.find(self.hasher.hash_one(path), same).copied()
    }

    /// `entry` must not be there under its path.
    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        let (path_hash, inode_hash) =
            (self.hasher.hash_one(&entry.path), self.hasher.hash_one(entry.identity.ino));
        let slot = match self.free.pop() {
            Some(slot) => {
                self[slot] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                Slot((self.entries.len() - 1) as u32)
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_path.insert_unique(path_hash, slot, |slot| hasher.hash_one(&entries[slot.0 as usize].path));
        self.by_inode
            .insert_unique(inode_hash, slot, |slot| hasher.hash_one(entries[slot.0 as usize].identity.ino));
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.forget_inode(slot);
        let hash = self.hasher.hash_one(&self[slot].path);
        if let Ok(found) = self.by_path.find_entry(hash, |other| *other == slot) {
            found.remove();
            self.free.push(slot);
        }
    }

    pub(super) fn set_identity(&mut self, slot: Slot, identity: Identity) {
        if self[slot].identity.ino == identity.ino {
            self[slot].identity = identity;
            return;
        }
        self.forget_inode(slot);
        self[slot].identity = identity;
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash = hasher.hash_one(identity.ino);
        self.by_inode
            .insert_unique(hash, slot, |slot| hasher.hash_one(entries[slot.0 as usize].identity.ino));
    }

    /// Entries with the same inode and content: one file under all its names.
    pub(super) fn names_of(&self, identity: &Identity) -> Vec<Slot> {
        let same = |slot: &Slot| same_content(&self[*slot].identity, identity);
        self.by_inode.iter_hash(self.hasher.hash_one(identity.ino)).copied().filter(same).collect()
    }

    /// As [`Files::names_of`], without this one.
    pub(super) fn other_names(&self, slot: Slot, identity: &Identity) -> Vec<Slot> {
        let mut names = self.names_of(identity);
        names.retain(|other| *other != slot);
        names
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.by_path.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    fn forget_inode(&mut self, slot: Slot) {
        let hash = self.hasher.hash_one(self[slot].identity.ino);
        if let Ok(found) = self.by_inode.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
    }
}

impl Index<Slot> for Files {
    type Output = Entry;
    fn index(&self, slot: Slot) -> &Entry {
        &self.entries[slot.0 as usize]
    }
}

impl IndexMut<Slot> for Files {
    fn index_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.0 as usize]
    }
}
