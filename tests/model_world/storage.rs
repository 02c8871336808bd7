//! A storage: what is durable there, and how it feels.

use std::collections::BTreeMap;

use ppu_uringd::model::job::{Aside, Brand, CopyJob, Local};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::pressure::Level;
use ppu_uringd::model::shift::ShiftId;

use super::detector::hash;
use super::journal::INTERNAL;
use super::keeper::Proof;
use super::ramdisk::NotTaken;

#[derive(Clone)]
pub struct Stored {
    pub brand: Brand,
    pub content: u64,
    pub local: Local,
}

/// A link to the external storage, left by an eviction.
pub struct StoredLink {
    /// When the version that it stands for had landed.
    landed_ns: i64,
    pub of: Stored,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Well,
    Away,
    Full,
    /// Every write fails.
    Broken,
    /// Nothing happens there.
    Hung,
}

/// A copy that its thread is at.
pub struct Copying {
    pub job: CopyJob,
    /// What was read, or that nothing is to be had.
    pub read: Option<Option<u64>>,
}

#[derive(Default)]
pub struct Storage {
    pub mood: Mood,
    pub jobs: Vec<Copying>,
    files: BTreeMap<RelPath, Stored>,
    links: BTreeMap<RelPath, StoredLink>,
    /// Of other shifts than the one that has the name.
    aside: Vec<Stored>,
    /// What has left it by right.
    left: Vec<Stored>,
    /// Bytes in all; 0: it never fills up.
    total: u64,
    /// Of users' files.
    pub others: u64,
    inodes: u64,
    /// That its thread has made.
    pub steps: u64,
}

impl Storage {
    /// What is read there for another storage: the file of that hash, be it set aside.
    pub fn find(&self, job: &CopyJob) -> Option<u64> {
        let named = self.files.get(&job.to);
        let found = named.into_iter().chain(&self.aside).find(|stored| {
            (&stored.brand.detector, &stored.brand.path, stored.brand.hash)
                == (&job.brand.detector, &job.brand.path, job.brand.hash)
        });
        found.map(|stored| stored.content)
    }

    pub fn new(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    fn used(&self) -> u64 {
        let files = self.files.values().chain(&self.aside);
        files.map(|stored| stored.brand.identity.size).sum::<u64>() + self.others
    }

    pub fn level(&self) -> Level {
        let free = self.total.saturating_sub(self.used());
        Level { total: self.total, free, ..Level::default() }
    }

    pub fn has_room(&self, bytes: u64) -> bool {
        self.total == 0 || self.used() + bytes <= self.total
    }

    /// Users' files there grow and shrink.
    pub fn fill(&mut self, bytes: u64) {
        self.others = 0;
        self.others = bytes.min(self.level().free);
    }

    /// As a verified copy takes its name. The earlier of two shifts' files is set aside, and called so.
    pub fn place(&mut self, job: &CopyJob, content: u64) -> (Local, Option<Aside>) {
        let brand = (*job.brand).clone();
        self.inodes += 1;
        let local = Local { ino: self.inodes, ctime_ns: self.inodes as i64 };
        let new = Stored { brand: brand.clone(), content, local };
        if self.files.get(&job.to).is_some_and(|there| there.brand.shift > brand.shift) {
            let name = job.to.set_aside(&brand.shift.stamp(), 1).expect("a short name");
            self.aside.retain(|aside| key(&aside.brand) != key(&brand));
            self.aside.push(new);
            return (local, Some(Aside::Itself(name.as_bytes().to_vec())));
        }
        // Whatever it stands for.
        self.links.remove(&job.to);
        let Some(before) = self.files.insert(job.to.clone(), new) else { return (local, None) };
        if key(&before.brand) == key(&brand) {
            return (local, None);
        }
        assert_ne!(before.brand.shift, brand.shift, "another file of the same shift has {}", job.to);
        let name = job.to.set_aside(&before.brand.shift.stamp(), 1).expect("a short name");
        self.aside.push(before);
        (local, Some(Aside::Other(name.as_bytes().to_vec())))
    }

    /// Under its name, or set aside, or it has left by right.
    pub fn has(&self, detector: &str, shift: ShiftId, path: &RelPath, content: u64) -> bool {
        let is_it =
            |stored: &&Stored| (key(&stored.brand), stored.content) == ((detector, shift, path), content);
        self.files().chain(&self.left).any(|stored| is_it(&stored))
    }

    /// Under its name, or set aside.
    pub fn holds(&self, brand: &Brand, content: u64) -> bool {
        self.files().any(|stored| (key(&stored.brand), stored.content) == (key(brand), content))
    }

    /// Any version of it.
    pub fn has_any(&self, brand: &Brand) -> bool {
        self.files().any(|stored| key(&stored.brand) == key(brand))
    }

    pub fn files(&self) -> impl Iterator<Item = &Stored> {
        self.files.values().chain(&self.aside)
    }

    pub fn named(&self) -> impl Iterator<Item = (&RelPath, &Stored)> {
        self.files.iter()
    }

    pub fn at(&self, to: &RelPath) -> Option<&Stored> {
        self.files.get(to)
    }

    pub fn links(&self) -> impl Iterator<Item = (&RelPath, &StoredLink)> {
        self.links.iter()
    }
}

/// What leaves it.
impl Storage {
    /// Exactly the file that was stored; a link takes its place where one is to.
    pub fn take(&mut self, proof: &Proof, create_link: bool) -> Result<Stored, NotTaken> {
        match self.files.get(&proof.to) {
            None if self.links.contains_key(&proof.to) => Err(NotTaken::Other),
            None => Err(NotTaken::Missing),
            Some(there) if is_it(there, proof) => {
                let stored = self.files.remove(&proof.to).expect("it was just seen");
                if create_link {
                    let link = StoredLink { landed_ns: proof.local.ctime_ns, of: stored.clone() };
                    self.links.insert(proof.to.clone(), link);
                }
                self.left.push(stored.clone());
                Ok(stored)
            }
            Some(_) => Err(NotTaken::Other),
        }
    }

    /// The link that an eviction has left of it.
    pub fn take_link(&mut self, proof: &Proof) -> Option<Stored> {
        let its = self.links.get(&proof.to).is_some_and(|link| link.landed_ns == proof.local.ctime_ns);
        its.then(|| self.links.remove(&proof.to)).flatten().map(|link| link.of)
    }

    /// The file, where it was set aside.
    pub fn take_aside(&mut self, proof: &Proof) -> Option<Stored> {
        let at = self.aside.iter().position(|there| is_it(there, proof))?;
        let stored = self.aside.remove(at);
        self.left.push(stored.clone());
        Some(stored)
    }
}

fn is_it(there: &Stored, proof: &Proof) -> bool {
    let local = proof.files[INTERNAL];
    local.is_none_or(|local| local.ino == there.local.ino) && hash(there.content) == proof.hash
}

fn key(brand: &Brand) -> (&str, ShiftId, &RelPath) {
    (&brand.detector, brand.shift, &brand.path)
}
