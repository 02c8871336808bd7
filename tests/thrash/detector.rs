//! A detector's software: writes, rewrites, extends, renames and deletes files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ppu_uringd::model::file_version::Hash;

use crate::beam::{Beam, Version};
use crate::random::{Random, image};
use crate::support::content;
use crate::support::oracle::write;
use crate::support::rig::Rig;

/// A longer master is begun anew.
const MASTER_MAX: usize = 200_000;

pub struct Detector {
    pub root: PathBuf,
    pub random: Random,
    beam: Arc<Beam>,
    number: u64,
    /// What must be stored of it in the end: the newest content of every name that it has not deleted or renamed since.
    pub files: BTreeMap<PathBuf, Version>,
    /// Everything that ever stood under a name, closed.
    pub all: BTreeMap<PathBuf, Vec<Version>>,
    masters: BTreeMap<PathBuf, Vec<u8>>,
    /// Only these can be lost.
    pub deleted: u64,
}

impl Detector {
    pub fn new(rig: &Rig, beam: &Arc<Beam>, seed: u64, detector: usize) -> Self {
        Self {
            root: rig.source(detector).to_owned(),
            random: Random::new(seed, 10 + detector as u64),
            beam: Arc::clone(beam),
            number: (detector as u64) << 40,
            files: BTreeMap::new(),
            all: BTreeMap::new(),
            masters: BTreeMap::new(),
            deleted: 0,
        }
    }

    pub fn step(&mut self) {
        match self.random.below(20) {
            // Names as a detector gives them: none comes twice.
            0..=5 => {
                let bytes = self.image();
                let name = PathBuf::from(format!("series{}/{}", self.random.below(5), self.number));
                self.create(&name, &bytes);
            }
            6..=9 => {
                let (name, bytes) = (self.name("run"), self.image());
                self.create(&name, &bytes);
            }
            10..=13 => {
                let (name, bytes) = (self.name("run"), self.image());
                let temporary = PathBuf::from(format!("run0/{}.tmp", self.number));
                self.create(&temporary, &bytes);
                self.rename(&temporary, &name);
            }
            14..=16 => self.extend(),
            17 => {
                let (from, to) = (self.name("run"), self.name("moved"));
                if self.files.contains_key(&from) {
                    self.rename(&from, &to);
                }
            }
            18 => {
                let name = self.name("run");
                // What is deleted may or may not have been stored.
                if std::fs::remove_file(self.root.join(&name)).is_ok() {
                    self.files.remove(&name);
                    self.deleted += 1;
                }
            }
            _ => self.random.pause(1, 40),
        }
    }

    /// An HDF5 master: opened again, and longer afterwards.
    fn extend(&mut self) {
        let name = PathBuf::from(format!("master/{}", self.random.below(5)));
        let more = content(self.number, 1 + self.random.below(3000) as usize);
        self.number += 1;
        std::fs::create_dir_all(self.root.join("master")).unwrap();
        let at = self.root.join(&name);
        let before = self.masters.get(&name).filter(|before| before.len() < MASTER_MAX).cloned();
        let (file, before) = match (File::options().append(true).open(&at), before) {
            (Ok(file), Some(before)) => (Some(file), before),
            // Not yet there, or released, or long enough.
            _ => (None, Vec::new()),
        };
        let bytes = [before, more.clone()].concat();
        let version = self.beam.during(Hash::of(&bytes), || {
            let mut file = file.unwrap_or_else(|| File::create(&at).unwrap());
            file.write_all(&more).unwrap();
        });
        self.masters.insert(name.clone(), bytes);
        self.closed(name, version);
    }

    fn create(&mut self, name: &Path, bytes: &[u8]) {
        let root = self.root.clone();
        let version = self.beam.during(Hash::of(bytes), || write(&root, name, bytes));
        self.closed(name.to_owned(), version);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        std::fs::create_dir_all(self.root.join(to.parent().unwrap())).unwrap();
        // It may have landed, been stored and released under its first name.
        if std::fs::rename(self.root.join(from), self.root.join(to)).is_ok()
            && let Some(version) = self.files.remove(from)
        {
            let version = self.beam.renamed(&version);
            self.closed(to.to_owned(), version);
        }
    }

    /// It stands there now.
    pub fn closed(&mut self, name: PathBuf, version: Version) {
        self.all.entry(name.clone()).or_default().push(version.clone());
        self.files.insert(name, version);
    }

    /// Closes a file again, as people do who want the current user to have it.
    pub fn touch(&mut self, name: &Path) {
        let (at, hash) = (self.root.join(name), self.files[name].hash);
        let version = self.beam.during(hash, || {
            let file = File::options().append(true).open(&at).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
        });
        self.closed(name.to_owned(), version);
    }

    fn name(&mut self, kind: &str) -> PathBuf {
        format!("{kind}{}/{}", self.random.below(4), self.random.below(60)).into()
    }

    fn image(&mut self) -> Vec<u8> {
        self.number += 1;
        let size = match self.random.below(10) {
            0 => 16,
            1..=7 => self.random.below(30_000),
            8 => self.random.below(300_000),
            _ => self.random.below(1_000_000),
        };
        image(self.number, size as usize)
    }
}
