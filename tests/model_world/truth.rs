//! What is right, whatever catalog and ledger believe.

use std::collections::{BTreeMap, HashMap};

use ppu_uringd::model::job::Brand;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::ShiftId;

use super::Clock;
use super::detector::DETECTORS;

/// A shift's start has waited so long for a detector's word (SPEC 2.2).
pub const WORD_WAIT_NS: i64 = 2_000_000_000;
/// By that much a detector may have heard of a shift too late without being told again.
const LATE_NS: i64 = 100_000_000;
/// Ages are told in milliseconds, and what lies between two time stamps is anybody's.
const BLUR_NS: i64 = 1_000_000;

#[derive(Default)]
pub struct Truth {
    contents: u64,
    /// When each content was closed, true time. What was never closed is no version.
    closes: HashMap<u64, Vec<i64>>,
    shifts: BTreeMap<ShiftId, Beginning>,
    /// A mark could not be made.
    pub marks_failed: bool,
    /// A session's row of shifts took so long that the ages in it may contradict a mark.
    pub ages_blurred: bool,
    /// The newest content that landed under each name of each shift.
    pub landed: BTreeMap<(usize, ShiftId, RelPath), Landed>,
    /// Versions that were closed, and files that were deleted.
    pub closed: u64,
    pub deleted: u64,
    /// What is written under its new name before the watch has looked is as good as deleted.
    pub renamed: u64,
    /// Files there when a daemon of a detector was killed: what it saw by marks it now has but times for, and a file may come to lie in the part
    /// that a shift does not take.
    pub blurred: u64,
    /// Files of users' own where images land.
    pub theirs: BTreeMap<RelPath, u64>,
    /// Landed files that left the PPU's ramdisk before they were safe anywhere.
    pub fallen: u64,
}

/// When a shift began, true time.
#[derive(Default, Clone, Copy, Debug)]
struct Beginning {
    asked: i64,
    /// The PPU went over to it.
    begun: Option<i64>,
    /// A detector heard of it as it began.
    heard: [Option<i64>; DETECTORS],
    /// And the PPU its word.
    word: [Option<i64>; DETECTORS],
}

pub struct Landed {
    pub content: u64,
    /// The PPU lost it before it was safe anywhere: that its detector has nothing of it any more is nobody's fault.
    pub forgiven: bool,
}

impl Truth {
    pub fn new_content(&mut self) -> u64 {
        self.contents += 1;
        self.contents
    }

    pub fn close(&mut self, content: u64, now: &Clock) {
        self.closes.insert(content, vec![now.ns]);
        self.closed += 1;
    }

    /// Closed again, and nothing written: people do that to give what is held to the current shift.
    pub fn touched(&mut self, content: u64, now: &Clock) {
        self.closes.get_mut(&content).expect("a version").push(now.ns);
    }

    /// The newest content that landed under a brand's name.
    pub fn newest(&self, brand: &Brand) -> Option<u64> {
        let detector = super::detector::index(&brand.detector);
        Some(self.landed.get(&(detector, brand.shift, brand.path.clone()))?.content)
    }

    pub fn is_a_version(&self, content: u64) -> bool {
        self.closes.contains_key(&content)
    }

    pub fn asked(&mut self, shift: ShiftId) {
        self.shifts.entry(shift).or_default().asked = Clock::of_wall_ms(shift.0);
    }

    pub fn begun(&mut self, shift: ShiftId, now: &Clock) {
        self.shifts.entry(shift).or_default().begun.get_or_insert(now.ns);
    }

    pub fn heard(&mut self, detector: usize, shift: ShiftId, now: &Clock) {
        self.shifts.entry(shift).or_default().heard[detector].get_or_insert(now.ns);
    }

    pub fn word(&mut self, detector: usize, shift: ShiftId, now: &Clock) {
        self.shifts.entry(shift).or_default().word[detector].get_or_insert(now.ns);
    }

    /// Every detector heard of every shift as it began, and gave its word in time.
    pub fn is_exact(&self) -> bool {
        !self.marks_failed
            && !self.ages_blurred
            && self.shifts.values().skip(1).all(|beginning| {
                let last = beginning.begun.unwrap_or(i64::MAX - WORD_WAIT_NS) + WORD_WAIT_NS;
                let in_time = |detector: usize| beginning.word[detector].is_some_and(|word| word <= last);
                (0..DETECTORS).all(|detector| beginning.heard[detector].is_some() && in_time(detector))
            })
    }

    /// The PPU is killed. What it was asked for and has not written down, it forgets.
    pub fn ppu_crashes(&mut self, knows: impl Fn(ShiftId) -> bool) {
        self.shifts.retain(|id, _| knows(*id));
    }

    /// A file that its detector closed at that time may belong to that shift.
    pub fn allows(&self, detector: usize, shift: ShiftId, closed_ns: i64) -> bool {
        let is_first = self.shifts.keys().next() == Some(&shift);
        let begun = |beginning: &Beginning| is_first || closed_ns >= beginning.asked;
        let ended = |beginning: &Beginning| closed_ns >= beginning.latest(detector);
        self.shifts.get(&shift).is_some_and(begun)
            && !self.shifts.range(shift..).skip(1).any(|(_, later)| ended(later))
    }

    /// The shifts that a content may belong to; `named`: when it got other names.
    pub fn shifts_of(&self, detector: usize, content: u64, named: &[i64]) -> Vec<ShiftId> {
        let moments = || self.closes[&content].iter().copied().chain(named.iter().copied());
        let may = |shift: &ShiftId| moments().any(|at| self.allows(detector, *shift, at));
        self.shifts.keys().copied().filter(may).collect()
    }

    pub fn describe(&self, content: u64) -> String {
        format!("closed at {:?} ns; shifts {:?}", self.closes[&content], self.shifts)
    }
}

impl Beginning {
    /// What a detector has closed since then does not belong to an earlier one. Whoever begins a shift waits for the detectors' words, but not
    /// for longer than that.
    fn latest(&self, detector: usize) -> i64 {
        // It waits for the journal.
        let Some(begun) = self.begun else { return i64::MAX };
        match self.heard[detector] {
            Some(heard) => heard.min(begun + WORD_WAIT_NS + LATE_NS),
            None => begun + BLUR_NS,
        }
    }
}
