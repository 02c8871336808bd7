//! What must be where in the end (the oracle of FAULTS.md): every file under its shift, with its owner and its content, and nothing
//! under another's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ppu_uringd::model::file_version::Hash;
use ppu_uringd::model::shift_report::ShiftReport;

use crate::beam::Beam;
use crate::chaos::{Chaos, shifts};
use crate::detector::Detector;
use crate::support::oracle::names;
use crate::support::rig::Rig;
use crate::support::wait_at_most;
use crate::{DETECTORS, STORAGES, say};

/// It releases what is stored.
const RELEASING: usize = 0;
const PATIENCE: Duration = Duration::from_secs(180);

/// A file as it is found.
#[derive(Debug)]
struct Found {
    hash: Hash,
    owner: (u32, u32),
    is_link: bool,
}

/// Waits until everything is settled, then checks everything, before and after one more shift has begun.
pub fn check(chaos: &mut Chaos, detectors: &mut [Detector], beam: &Beam) {
    let mut held = 0;
    loop {
        settle(&chaos.rig, detectors, true);
        let missing = missing_of(&chaos.rig, detectors);
        for (detector, name) in &missing {
            let version = &detectors[*detector].files[name];
            assert!(
                beam.is_near_a_change(version.times),
                "{} of detector {detector} is held, far from every beginning: {version:?}",
                name.display(),
            );
            assert!(detectors[*detector].root.join(name).exists(), "{} is held", name.display());
        }
        if missing.is_empty() {
            break;
        }
        held += missing.len();
        assert!(held < 10_000, "what is touched is held again and again");
        for (detector, name) in missing {
            detectors[detector].touch(&name);
        }
    }
    say(&format!("everything is settled; {held} had to be touched"));
    nothing_is_misfiled(&chaos.rig, detectors);
    check_detectors(&chaos.rig, detectors);
    chaos.last_shift();
    let rig = &chaos.rig;
    let left = || [rig.ppu_ramdisk.path(), rig.storage.path()].map(paths).concat();
    let mut found = Vec::new();
    let purged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_at_most(PATIENCE, "all past shifts' files have left", || {
            found = left();
            found.retain(|path| !path.ends_with(USERS_OWN));
            found.is_empty()
        });
    }));
    assert!(purged.is_ok(), "{} files do not leave: {:?}", found.len(), &found[..found.len().min(5)]);
    settle(rig, detectors, false);
    assert_eq!(missing_of(rig, detectors), []);
    nothing_is_misfiled(rig, detectors);
    println!("{:?} {:?}", rig.counts(), rig.status().unwrap().ramdisk.left);
}

/// A file that somebody keeps among the images.
pub const USERS_OWN: &str = "processed.txt";

/// Nothing is pending or given up, and what is missing is held.
fn settle(rig: &Rig, detectors: &[Detector], may_hold: bool) {
    let mut said = String::new();
    let (mut retried, mut told) = (Instant::now(), Instant::now());
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_at_most(PATIENCE, "every byte is where it belongs", || {
            // What was given up while storages were away is queued again by `retry`.
            if retried.elapsed() > Duration::from_secs(2) {
                retried = Instant::now();
                // A daemon that is just starting does not answer; the next time it will.
                rig.command(&["retry"]);
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                say(&said);
            }
            let counts: Vec<_> = (0..STORAGES).map(|storage| rig.counts_on(storage)).collect();
            if counts.iter().any(|counts| counts.pending > 0 || counts.failed > 0) {
                said = format!("{counts:?}");
                return false;
            }
            let held = held(rig);
            let missing = missing_of(rig, detectors);
            said =
                format!("{held:?} held, missing {}: {:?}", missing.len(), &missing[..missing.len().min(5)]);
            let of = |detector| missing.iter().filter(|(of, _)| *of == detector).count() as u64;
            (0..DETECTORS).all(|detector| of(detector) == held[detector]) && (may_hold || missing.is_empty())
        });
    }));
    assert!(settled.is_ok(), "{said}, {:?}", rig.status().map(|status| status.detectors));
}

/// By detector.
fn held(rig: &Rig) -> [u64; DETECTORS] {
    let status = rig.status();
    std::array::from_fn(|detector| status.as_ref().map_or(0, |status| status.detectors[detector].held))
}

/// Newest versions that are not everywhere, under their shift.
fn missing_of(rig: &Rig, detectors: &[Detector]) -> Vec<(usize, PathBuf)> {
    let shifts = shifts(rig);
    let Some(current) = shifts.len().checked_sub(1) else { return vec![(0, "all: no answer".into())] };
    let links = rig.options.ppu_extra.contains("true");
    let mut missing = BTreeSet::new();
    for (d, detector) in detectors.iter().enumerate() {
        for place in Place::all() {
            let there = look(&place.of(rig, d));
            for (name, version) in &detector.files {
                let (first, last) = (version.shifts.0, version.shifts.1.min(current));
                let at = |shift: usize| there.get(&user_dir(&shifts[shift]).join(name));
                // Renamed over a later shift's file, it finds that one's copy under the name (SPEC 2.5).
                let aside = |shift: usize| {
                    there.get(&user_dir(&shifts[shift]).join(with_stamp(name, &shifts[shift])))
                };
                let is_it = |found: Option<&Found>| found.is_some_and(|found| found.hash == version.hash);
                let is_there = (first..=last).any(|shift| is_it(at(shift)) || is_it(aside(shift)));
                let is_older = first == last && at(first).is_some() && !is_there;
                let may_have_left = place.is_left() && (first < current || !links);
                if is_older || !(is_there || may_have_left) {
                    missing.insert((d, name.clone()));
                }
            }
        }
    }
    missing.into_iter().collect()
}

/// Whatever is found anywhere was closed under that name in a shift of that user, belongs to it, and was set aside for the right one.
fn nothing_is_misfiled(rig: &Rig, detectors: &[Detector]) {
    let shifts = shifts(rig);
    for (d, detector) in detectors.iter().enumerate() {
        for place in Place::all() {
            for (path, found) in look(&place.of(rig, d)) {
                let below = path.iter().next().unwrap().to_owned();
                let name = path.strip_prefix(&below).unwrap();
                if name.as_os_str() == USERS_OWN {
                    continue;
                }
                let said = format!("{}: {found:?}", place.of(rig, d).join(&path).display());
                let is_of = |shift: &ShiftReport| user_dir(shift).as_os_str() == below;
                let (plain, stamp) = without_stamp(name);
                let versions = detector.all.get(&plain).map_or(&[][..], Vec::as_slice);
                let versions: Vec<_> = versions.iter().filter(|version| version.hash == found.hash).collect();
                assert!(!versions.is_empty(), "never stood there: {said}");
                let owners: BTreeSet<(u32, u32)> = versions
                    .iter()
                    .flat_map(|version| &shifts[version.shifts.0..=version.shifts.1.min(shifts.len() - 1)])
                    .filter(|shift| is_of(shift) && stamp.as_ref().is_none_or(|stamp| *stamp == shift.name))
                    .map(|shift| (shift.uid, shift.gid))
                    .collect();
                assert!(owners.contains(&found.owner), "misfiled: {said}, closed as {versions:?}");
                assert!(!found.is_link || place.is_left(), "a link: {said}");
            }
        }
    }
    for d in 0..DETECTORS {
        let kept = rig.landing(d).join(USERS_OWN);
        assert_eq!(std::fs::read(kept).unwrap(), b"a user's own");
    }
}

/// What is left behind on the detectors, and in the books.
fn check_detectors(rig: &Rig, detectors: &[Detector]) {
    for (d, detector) in detectors.iter().enumerate() {
        if d == RELEASING {
            let rest = || names(&detector.root).len() as u64;
            wait_at_most(PATIENCE, "what is stored is released", || rest() <= held(rig)[d]);
        } else {
            assert_eq!(names(&detector.root).len(), detector.files.len(), "nothing is released there");
        }
        let taken = |name: &str| name.starts_with("take-") || name.starts_with("kept-");
        let entries = std::fs::read_dir(detector.root.join(".ppu-uringd")).into_iter().flatten().flatten();
        let over: Vec<_> =
            entries.map(|entry| entry.file_name()).filter(|name| taken(&name.to_string_lossy())).collect();
        assert!(over.is_empty(), "left in staging: {over:?}");
    }
    let deleted: u64 = detectors.iter().map(|detector| detector.deleted).sum();
    for storage in 0..STORAGES {
        let c = rig.counts_on(storage);
        assert_eq!(c.pending + c.copied + c.failed + c.superseded + c.lost, c.produced, "{c:?}");
        assert!(c.lost <= deleted, "only {deleted} were deleted: {c:?}");
    }
}

/// Where files are in the end.
#[derive(Clone, Copy)]
enum Place {
    Ramdisk,
    Storage(usize),
}

impl Place {
    fn all() -> impl Iterator<Item = Self> {
        (0..STORAGES).map(Self::Storage).chain([Self::Ramdisk])
    }

    fn of(self, rig: &Rig, detector: usize) -> PathBuf {
        let users = match self {
            Self::Ramdisk => rig.landing(detector),
            Self::Storage(storage) => rig.stored_on(storage, detector),
        };
        users.parent().unwrap().to_owned()
    }

    /// By eviction and purge.
    fn is_left(self) -> bool {
        matches!(self, Self::Ramdisk | Self::Storage(0))
    }
}

fn user_dir(shift: &ShiftReport) -> PathBuf {
    PathBuf::from(&shift.user_dir)
}

/// The name of what is set aside for a shift, the first of that shift.
fn with_stamp(name: &Path, shift: &ShiftReport) -> PathBuf {
    format!("{}.~{}~", name.display(), shift.name).into()
}

/// `NAME.~STAMP~` or `NAME.~STAMP~N~` in its two parts.
fn without_stamp(name: &Path) -> (PathBuf, Option<String>) {
    let text = name.to_str().unwrap();
    match text.split_once(".~") {
        Some((plain, rest)) => (plain.into(), rest.split('~').next().map(str::to_owned)),
        None => (text.into(), None),
    }
}

/// Every file and link below `root`, as who opens it finds it.
fn look(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    for path in paths(root) {
        // It may leave meanwhile; what is missing is looked for again.
        let at = root.join(&path);
        let (Ok(bytes), Ok(meta), Ok(own)) = (std::fs::read(&at), at.metadata(), at.symlink_metadata())
        else {
            continue;
        };
        let owner = (meta.uid(), meta.gid());
        found.insert(path, Found { hash: Hash::of(&bytes), owner, is_link: own.is_symlink() });
    }
    found
}

/// Paths of all files and links below `root`, but for what is in our own directory.
pub fn paths(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        for entry in std::fs::read_dir(root.join(&below)).into_iter().flatten().flatten() {
            let path = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && entry.file_name() != ".ppu-uringd" => directories.push(path),
                Ok(kind) if !kind.is_dir() => all.push(path),
                _ => {}
            }
        }
    }
    all
}
