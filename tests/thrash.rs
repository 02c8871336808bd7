//! FAULTS.md, row 52: faults of every kind, in an order that a seed gives, against the real daemons, while simulated detectors write,
//! rewrite, extend, rename and delete files. In the end all is healed, and every byte must be where it belongs.
//!
//! `scripts/thrash --seconds N --seed S` runs it for longer than the few seconds that it takes among the other tests.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ppu_uringd::model::file_version::Hash;
use support::mount::Mount;
use support::oracle::{check_sum, names, tree};
use support::proxy::Proxy;
use support::rig::{Options, Other, Rig};
use support::{content, is_root, wait_at_most, wait_until};

const DETECTORS: usize = 2;
/// The first storage is the internal one.
const STORAGES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(180);

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut random =
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream + 1).wrapping_mul(0xd129_0d3a_35f1_c2ab));
        for _ in 0..4 {
            random.below(2);
        }
        random
    }

    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let time = Duration::from_millis(from_ms + self.below(to_ms - from_ms));
        let began = Instant::now();
        wait_until("time has passed", || began.elapsed() >= time);
    }
}

/// Says itself what it has to be, so that a torn file is known as one: number, size, then that number's content.
fn image(number: u64, size: usize) -> Vec<u8> {
    let size = size.max(16);
    let mut bytes = content(number, size);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&(size as u64).to_le_bytes());
    bytes
}

fn is_whole(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..at + 8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let (Some(number), Some(size)) = (word(0), word(8)) else { return false };
    bytes.len() as u64 == size && image(number, bytes.len()) == bytes
}

/// A detector's software. `files` is what must be stored of it in the end: the newest content of every name that it has not deleted
/// or renamed since.
struct Detector {
    root: PathBuf,
    random: Random,
    number: u64,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Only these can be lost.
    deleted: u64,
}

impl Detector {
    fn new(rig: &Rig, seed: u64, detector: usize) -> Self {
        let random = Random::new(seed, 10 + detector as u64);
        let root = rig.source(detector).to_owned();
        Self { root, random, number: (detector as u64) << 40, files: BTreeMap::new(), deleted: 0 }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => {
                let (name, bytes) = (self.name("run"), self.image());
                self.create(&name, &bytes);
                self.files.insert(name, bytes);
            }
            8..=13 => {
                let (name, bytes) = (self.name("run"), self.image());
                let temporary = PathBuf::from(format!("run0/{}.tmp", self.number));
                self.create(&temporary, &bytes);
                std::fs::create_dir_all(self.root.join(name.parent().unwrap())).unwrap();
                // It may have landed, been stored and released under its first name.
                if std::fs::rename(self.root.join(&temporary), self.root.join(&name)).is_ok() {
                    self.files.insert(name, bytes);
                }
            }
            14..=16 => self.extend(),
            17 => {
                let (from, to) = (self.name("run"), self.name("moved"));
                std::fs::create_dir_all(self.root.join(to.parent().unwrap())).unwrap();
                if let Some(bytes) = self.files.get(&from).cloned()
                    && std::fs::rename(self.root.join(&from), self.root.join(&to)).is_ok()
                {
                    self.files.remove(&from);
                    self.files.insert(to, bytes);
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
        let opened = File::options().append(true).open(self.root.join(&name));
        let (mut file, before) = match (opened, self.files.get(&name)) {
            (Ok(file), Some(before)) => (file, before.clone()),
            // Not yet there, or released.
            _ => (File::create(self.root.join(&name)).unwrap(), Vec::new()),
        };
        file.write_all(&more).unwrap();
        drop(file);
        self.files.insert(name, [before, more].concat());
    }

    fn create(&self, name: &Path, bytes: &[u8]) {
        support::oracle::write(&self.root, name, bytes);
    }

    fn name(&mut self, kind: &str) -> PathBuf {
        format!("{kind}{}/{}", self.random.below(4), self.random.below(60)).into()
    }

    fn image(&mut self) -> Vec<u8> {
        self.number += 1;
        let size = match self.random.below(10) {
            0 => 16,
            1..=6 => self.random.below(30_000),
            7 | 8 => self.random.below(300_000),
            _ => self.random.below(3_000_000),
        };
        image(self.number, size as usize)
    }
}

/// Breaks things, and heals them.
struct Chaos {
    rig: Rig,
    proxies: Vec<Proxy>,
    random: Random,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let quick = "retry_pause_ms = 50\nretry_pause_max_ms = 500\n";
        let mut rig = Rig::prepare(Options {
            detectors: DETECTORS,
            storage_megabytes: 1024,
            storage_extra: quick.to_owned(),
            others: vec![Other { megabytes: 1024, ..Other::ext4("optional", quick) }],
            ..Options::default()
        });
        let proxies: Vec<Proxy> = rig.ports.iter().map(|port| Proxy::start(*port)).collect();
        let mut config = std::fs::read_to_string(rig.ppu_config()).unwrap();
        for (port, proxy) in rig.ports.iter().zip(&proxies) {
            config = config.replace(&format!(":{port}\""), &format!(":{}\"", proxy.port));
        }
        std::fs::write(rig.ppu_config(), config).unwrap();
        // The first one releases what is stored.
        let config = std::fs::read_to_string(rig.detector_config(0)).unwrap();
        std::fs::write(rig.detector_config(0), format!("release = \"stored\"\n{config}")).unwrap();
        (0..DETECTORS).for_each(|detector| rig.start_detector(detector));
        rig.start_ppu();
        rig.wait_linked();
        Self { rig, proxies, random: Random::new(seed, 0) }
    }

    fn step(&mut self) {
        let detector = self.random.below(DETECTORS as u64) as usize;
        let storage = self.random.below(STORAGES as u64) as usize;
        let what = self.random.below(13);
        match what {
            0 => {
                say("the PPU is killed");
                self.rig.ppu.take().unwrap().kill();
                self.random.pause(1, 400);
                self.rig.start_ppu();
            }
            1 | 2 => {
                say(&format!("detector {detector} is killed"));
                self.rig.detectors[detector].take().unwrap().kill();
                self.random.pause(1, 400);
                self.rig.start_detector(detector);
            }
            3 => {
                say("the PPU stands still");
                self.rig.ppu.as_ref().unwrap().signal(Signal::SIGSTOP);
                self.random.pause(50, 1500);
                self.rig.ppu.as_ref().unwrap().signal(Signal::SIGCONT);
            }
            4 => {
                say(&format!("detector {detector} stands still"));
                self.rig.detectors[detector].as_ref().unwrap().signal(Signal::SIGSTOP);
                self.random.pause(50, 1500);
                self.rig.detectors[detector].as_ref().unwrap().signal(Signal::SIGCONT);
            }
            5 => {
                say(&format!("the link of detector {detector} stalls"));
                self.proxies[detector].mischief.stalled.store(true, Ordering::SeqCst);
                self.random.pause(50, 2000);
                self.proxies[detector].mischief.stalled.store(false, Ordering::SeqCst);
            }
            6 | 7 => {
                say(&format!("the link of detector {detector} breaks"));
                let port = self.proxies[detector].port.to_string();
                support::mount::run(Command::new("ss").args(["-K", "dport", "=", &port]));
            }
            8 => {
                say(&format!("a bit flips on the link of detector {detector}"));
                let bytes = self.random.below(500_000);
                self.proxies[detector].flip_in(bytes);
            }
            9 | 10 => {
                say(&format!("storage {storage} is unmounted"));
                self.storage(storage).unmount_lazily();
                self.random.pause(50, 1500);
                self.storage(storage).mount_image();
            }
            11 => {
                let half = ["fetch", "store"][storage];
                say(&format!("somebody pauses {half}, and the PPU is killed"));
                self.command("pause", half);
                self.random.pause(1, 400);
                self.rig.ppu.take().unwrap().kill();
                self.rig.start_ppu();
                self.random.pause(1, 400);
                self.command("resume", half);
            }
            _ => {
                say(&format!("storage {storage} is full"));
                let ballast = self.storage(storage).path().join("ballast");
                fill(&ballast, self.storage(storage).path());
                self.random.pause(50, 1500);
                std::fs::remove_file(ballast).unwrap();
            }
        }
        self.random.pause(20, 500);
    }

    /// A daemon that is just starting does not answer yet.
    fn command(&self, command: &str, half: &str) {
        wait_until("the daemon answers", || self.rig.command(&[command, half]).1 == 0);
    }

    fn storage(&self, storage: usize) -> &Mount {
        if storage == 0 { &self.rig.storage } else { &self.rig.others[storage - 1] }
    }
}

/// Takes what is free, to the last megabyte or so.
fn fill(ballast: &Path, mount: &Path) {
    let free = nix::sys::statvfs::statvfs(mount).unwrap();
    let bytes = free.blocks_available() * free.fragment_size();
    let file = File::create(ballast).unwrap();
    // What the daemon writes meanwhile may be faster.
    let _ = rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        bytes.saturating_sub(1 << 20).max(1),
    );
}

fn say(what: &str) {
    println!("{} {what}", clock());
}

/// Seconds since the first word.
fn clock() -> String {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    format!("{:7.3}", BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn row_52_everything_at_random() {
    if !is_root("row_52_everything_at_random") {
        return;
    }
    let seed = number("SEED").unwrap_or(52);
    let seconds = number("THRASH_SECONDS").unwrap_or(8);
    println!("seed {seed}, {seconds} s");
    let canary = tempfile::tempdir().unwrap();
    std::fs::write(canary.path().join("canary"), b"untouched").unwrap();
    let mut chaos = Chaos::new(seed);
    for detector in 0..DETECTORS {
        // Nothing is to follow it.
        std::os::unix::fs::symlink(canary.path(), chaos.rig.source(detector).join("outside")).unwrap();
    }
    let stop = AtomicBool::new(false);
    let landings: Vec<PathBuf> = (0..DETECTORS).map(|detector| chaos.rig.landing(detector)).collect();
    let mut detectors: Vec<Detector> =
        (0..DETECTORS).map(|detector| Detector::new(&chaos.rig, seed, detector)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let torn = std::thread::scope(|scope| {
        let stop_writing = &stop;
        for detector in &mut detectors {
            scope.spawn(move || {
                while !stop_writing.load(Ordering::Relaxed) {
                    detector.step();
                    detector.random.pause(1, 12);
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut random = Random::new(seed, 99);
            let mut torn = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let root = &landings[random.below(DETECTORS as u64) as usize];
                for name in names(root).into_iter().filter(|name| !name.starts_with("master")) {
                    if std::fs::read(root.join(&name)).is_ok_and(|bytes| !is_whole(&bytes)) {
                        torn.push(name);
                    }
                }
                random.pause(1, 50);
            }
            torn
        });
        // Also when a step fails: the others must not run for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end {
                chaos.step();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        reader.join().unwrap()
    });
    assert!(torn.is_empty(), "seed {seed}: torn: {torn:?}");
    say("all is healed");
    check(&chaos.rig, &detectors, seed);
    let kept = std::fs::read_dir(canary.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["canary"]);
    assert_eq!(std::fs::read(canary.path().join("canary")).unwrap(), b"untouched");
}

/// Every file's newest version is on the PPU's ramdisk and on every storage, byte for byte; the counts add up; nothing is left over.
fn check(rig: &Rig, detectors: &[Detector], seed: u64) {
    let missing = || {
        for (d, detector) in detectors.iter().enumerate() {
            let places = (0..STORAGES).map(|storage| rig.stored_on(storage, d)).chain([rig.landing(d)]);
            for place in places {
                let there = tree(&place);
                for (name, bytes) in &detector.files {
                    let found = there.get(name.as_os_str()).map(|entry| entry.hash);
                    if found != Some(Hash::of(bytes)) {
                        return Some(format!("{} in {}", name.display(), place.display()));
                    }
                }
            }
        }
        None
    };
    let mut found = None;
    let mut restarted_at = Instant::now();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_at_most(PATIENCE, "every byte is where it belongs", || {
            // What was given up while storages were away is queued again by `retry`.
            if restarted_at.elapsed() > Duration::from_secs(2) {
                restarted_at = Instant::now();
                retry(rig);
            }
            if rig.counts().pending > 0 || rig.counts().failed > 0 {
                return false;
            }
            found = missing();
            found.is_none()
        });
    }));
    assert!(settled.is_ok(), "seed {seed}: {found:?}, {:?}", rig.counts());
    for (d, detector) in detectors.iter().enumerate() {
        let left = names(&detector.root);
        if d == 0 {
            wait_at_most(PATIENCE, "what is stored is released", || names(&detector.root).is_empty());
        } else {
            assert_eq!(left.len(), detector.files.len(), "seed {seed}: nothing is released there");
        }
        let staging = detector.root.join(".ppu-uringd");
        let taken = |name: &str| name.starts_with("take-") || name.starts_with("kept-");
        let entries = std::fs::read_dir(staging).into_iter().flatten().flatten();
        let over: Vec<_> =
            entries.map(|entry| entry.file_name()).filter(|name| taken(&name.to_string_lossy())).collect();
        assert!(over.is_empty(), "seed {seed}: left in staging: {over:?}");
    }
    check_sum(rig);
    let deleted: u64 = detectors.iter().map(|detector| detector.deleted).sum();
    assert!(rig.counts().lost <= deleted, "seed {seed}: only {deleted} were deleted: {:?}", rig.counts());
    println!("{:?}", rig.counts());
}

fn retry(rig: &Rig) {
    let socket = rig.dir.path().join("control.sock");
    // A daemon that is just starting does not answer; the next time it will.
    let _ = Command::new(support::daemon::BINARY).args(["retry", "--control"]).arg(socket).output();
}
