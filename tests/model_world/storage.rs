//! A storage: what is durable there, and how it feels.

use std::collections::BTreeMap;

use ppu_uringd::model::job::{Aside, Brand, CopyJob};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::ShiftId;

#[derive(Clone)]
pub struct Stored {
    pub brand: Brand,
    pub content: u64,
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
    /// Of other shifts than the one that has the name.
    aside: Vec<Stored>,
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

    /// As a verified copy takes its name. The earlier of two shifts' files is set aside, and called so.
    pub fn place(&mut self, job: &CopyJob, content: u64) -> Option<Aside> {
        let brand = (*job.brand).clone();
        let key = |brand: &Brand| (brand.detector.clone(), brand.shift, brand.path.clone());
        if self.files.get(&job.to).is_some_and(|there| there.brand.shift > brand.shift) {
            let name = job.to.set_aside(&brand.shift.stamp(), 1).expect("a short name");
            self.aside.push(Stored { brand, content });
            return Some(Aside::Itself(name.as_bytes().to_vec()));
        }
        let before = self.files.insert(job.to.clone(), Stored { brand: brand.clone(), content })?;
        if key(&before.brand) == key(&brand) {
            return None;
        }
        assert_ne!(before.brand.shift, brand.shift, "another file of the same shift has {}", job.to);
        let name = job.to.set_aside(&before.brand.shift.stamp(), 1).expect("a short name");
        self.aside.push(before);
        Some(Aside::Other(name.as_bytes().to_vec()))
    }

    /// Under its name, or set aside.
    pub fn has(&self, detector: &str, shift: ShiftId, path: &RelPath, content: u64) -> bool {
        let is_it = |stored: &Stored| {
            let Brand { detector: whose, shift: when, path: what, .. } = &stored.brand;
            (whose.as_str(), *when, what, stored.content) == (detector, shift, path, content)
        };
        self.files.values().chain(&self.aside).any(is_it)
    }
}
