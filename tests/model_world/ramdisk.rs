//! The PPU's ramdisk: landed files, links in their places, users' own files, and room for so much.

use std::collections::BTreeMap;

use ppu_uringd::model::file_version::Hash;
use ppu_uringd::model::job::{Brand, LandFailure, LandJob, Local};
use ppu_uringd::model::ledger::Space;
use ppu_uringd::model::path::RelPath;

use super::detector::hash;
use super::keeper::Proof;

/// A file is a few of these long, or empty.
pub const UNIT: u64 = 256 << 10;
/// What the ledger keeps free.
const HEADROOM: u64 = 1 << 20;

#[derive(Default)]
pub struct Ramdisk {
    names: BTreeMap<RelPath, There>,
    total: u64,
    /// Of users' files elsewhere on it, bytes.
    pub others: u64,
    /// Of files that have left, and that somebody still reads.
    held: u64,
    inodes: u64,
    /// A link of ours takes an evicted file's place.
    pub links: bool,
}

/// What a name holds.
pub enum There {
    /// What we brought.
    Image(Image),
    /// That an eviction has left, and what it stands for.
    Link(Link, Box<Image>),
    /// A user's own file.
    Theirs(u64),
}

#[derive(Clone)]
pub struct Image {
    /// What is in it, which users may have changed.
    pub content: u64,
    pub brand: Brand,
    pub local: Local,
    /// Somebody has it open for writing, or reads it.
    written: bool,
    read: bool,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Link {
    /// Below the internal storage's target.
    pub to: RelPath,
    /// When the version that it stands for had landed.
    pub landed_ns: i64,
}

/// Why nothing was taken away.
#[derive(Debug, PartialEq, Eq)]
pub enum NotTaken {
    Missing,
    Other,
    Busy,
}

impl Ramdisk {
    pub fn new(units: u64, links: bool) -> Self {
        Self { total: HEADROOM + units * UNIT, links, ..Self::default() }
    }

    pub fn space(&self) -> Space {
        Space { total_bytes: self.total, free_bytes: self.total - self.used(), free_inodes: 1 << 40 }
    }

    fn used(&self) -> u64 {
        let images = self.images().map(|(_, image)| image.brand.identity.size).sum::<u64>();
        images + self.others + self.held
    }

    /// Users' files elsewhere grow and shrink; there is never more than fits.
    pub fn fill(&mut self, bytes: u64) {
        self.others = 0;
        self.others = bytes.min(self.total - self.used());
    }

    pub fn images(&self) -> impl Iterator<Item = (&RelPath, &Image)> {
        self.names.iter().filter_map(|(at, there)| match there {
            There::Image(image) => Some((at, image)),
            _ => None,
        })
    }

    /// And what they stand for.
    pub fn links(&self) -> impl Iterator<Item = (&RelPath, &Link, &Image)> {
        self.names.iter().filter_map(|(at, there)| match there {
            There::Link(link, of) => Some((at, link, &**of)),
            _ => None,
        })
    }

    pub fn at(&self, at: &RelPath) -> Option<&There> {
        self.names.get(at)
    }

    /// The file that landed as `local`, if it is still there, with the content of that hash.
    pub fn intact(&self, at: &RelPath, local: Local, of: Hash) -> Option<&Image> {
        let There::Image(image) = self.names.get(at)? else { return None };
        let same = image.local.ino == local.ino
            && (image.local.ctime_ns == local.ctime_ns || hash(image.content) == of);
        same.then_some(image)
    }

    /// The name that a verified file is to have is free, or an older version's, or a link's that stands for one. Else gives what has it.
    pub fn is_in_the_way(&self, job: &LandJob, brand: &Brand) -> Option<&There> {
        let there = self.names.get(&job.at)?;
        let ours = match there {
            There::Image(image) => {
                let same_file = (&image.brand.detector, &image.brand.path) == (&brand.detector, &brand.path);
                same_file && (image.brand.shift == brand.shift || job.replace_past)
            }
            There::Link(link, _) => Some(&link.to) == job.to.as_ref(),
            There::Theirs(_) => false,
        };
        (!ours).then_some(there)
    }

    /// The staged file takes the name, which is not in the way.
    pub fn publish(&mut self, at: &RelPath, content: u64, brand: Brand) -> Result<Local, LandFailure> {
        if self.used() + brand.identity.size > self.total {
            return Err(LandFailure::NoSpace("full".to_owned()));
        }
        let local = self.next_local();
        let image = Image { content, brand, local, written: false, read: false };
        if let Some(There::Image(before)) = self.names.insert(at.clone(), There::Image(image)) {
            self.let_go(&before);
        }
        Ok(local)
    }

    fn next_local(&mut self) -> Local {
        self.inodes += 1;
        Local { ino: self.inodes, ctime_ns: self.inodes as i64 }
    }

    /// A removed file's room comes free when nobody reads it any more. Whether it is held.
    fn let_go(&mut self, image: &Image) -> bool {
        if image.read {
            self.held += image.brand.identity.size;
        }
        image.read
    }

    /// As the helper of eviction and purge does, in one step: exactly the landed file, unchanged, that nobody writes to; a link takes its place where
    /// one is to. What was taken, and whether somebody reads it still.
    pub fn take(&mut self, proof: &Proof, instead: Option<Link>) -> Result<(Image, bool), NotTaken> {
        match self.names.get(&proof.at) {
            None => return Err(NotTaken::Missing),
            Some(There::Image(image)) => {
                let same = image.local.ino == proof.local.ino
                    && (image.local.ctime_ns == proof.local.ctime_ns || hash(image.content) == proof.hash);
                if !same {
                    return Err(NotTaken::Other);
                }
                if image.written {
                    return Err(NotTaken::Busy);
                }
            }
            Some(_) => return Err(NotTaken::Other),
        }
        let Some(There::Image(image)) = self.names.remove(&proof.at) else {
            unreachable!("it was just seen")
        };
        let held = self.let_go(&image);
        if let Some(link) = instead {
            self.names.insert(proof.at.clone(), There::Link(link, Box::new(image.clone())));
        }
        Ok((image, held))
    }

    /// Exactly this link.
    pub fn take_link(&mut self, at: &RelPath, link: &Link) -> Result<Image, NotTaken> {
        match self.names.remove(at) {
            None => Err(NotTaken::Missing),
            Some(There::Link(there, of)) if there == *link => Ok(*of),
            Some(other) => {
                self.names.insert(at.clone(), other);
                Err(NotTaken::Other)
            }
        }
    }

    /// It is put back after a crash, which is a rename.
    pub fn move_ctime(&mut self, at: &RelPath) {
        let ctime_ns = self.next_local().ctime_ns;
        if let Some(There::Image(image)) = self.names.get_mut(at) {
            image.local.ctime_ns = ctime_ns;
        }
    }

    /// A reboot. What was there.
    pub fn empty(&mut self) -> Vec<Brand> {
        (self.others, self.held) = (0, 0);
        let brands = self.images().map(|(_, image)| image.brand.clone()).collect();
        self.names.clear();
        brands
    }
}

/// What users do there.
impl Ramdisk {
    pub fn nth(&self, which: u64) -> Option<RelPath> {
        self.names.keys().nth(which as usize % self.names.len().max(1)).cloned()
    }

    /// Gives the image that is gone.
    pub fn remove(&mut self, at: &RelPath) -> Option<Brand> {
        match self.names.remove(at)? {
            There::Image(image) => {
                self.let_go(&image);
                Some(image.brand)
            }
            _ => None,
        }
    }

    /// A file of their own is renamed over whatever is there.
    pub fn replace(&mut self, at: &RelPath, content: u64) -> Option<Brand> {
        let gone = self.remove(at);
        self.names.insert(at.clone(), There::Theirs(content));
        gone
    }

    /// Written in place. Gives the image that is no more what it was.
    pub fn write(&mut self, at: &RelPath, content: u64) -> Option<Brand> {
        self.move_ctime(at);
        match self.names.get_mut(at)? {
            There::Image(image) => {
                image.content = content;
                Some(image.brand.clone())
            }
            _ => None,
        }
    }

    /// Opened, to be written or read.
    pub fn open(&mut self, at: &RelPath, to_write: bool) {
        if let Some(There::Image(image)) = self.names.get_mut(at) {
            image.written |= to_write;
            image.read |= !to_write;
        }
    }

    pub fn close_all(&mut self) {
        self.held = 0;
        for there in self.names.values_mut() {
            if let There::Image(image) = there {
                (image.written, image.read) = (false, false);
            }
        }
    }

    /// Their own files are moved out of the way, as people are told to do. Where, and what.
    pub fn clear_the_way(&mut self) -> BTreeMap<RelPath, u64> {
        let theirs = |there: &There| match there {
            There::Theirs(content) => Some(*content),
            _ => None,
        };
        let found = self.names.iter().filter_map(|(at, there)| Some((at.clone(), theirs(there)?))).collect();
        self.names.retain(|_, there| theirs(there).is_none());
        found
    }

    pub fn is_read(&self) -> bool {
        self.held > 0
    }
}
