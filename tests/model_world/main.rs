//! Catalog and ledger together, pure, in a small world with everything that can go wrong: files that are written, replaced, renamed and
//! deleted, watches that tell it late or not at all, links that break, either side crashing with all that was not committed, a PPU that
//! reboots, shifts that begin, storages that come and go, a ramdisk and an internal storage that fill up and are kept from it, past shifts' files that
//! leave, users who remove, change and hold open what has landed. Thousands of sequences of some hundred steps, each from a seed that is printed when it fails: `SEED=n SEQUENCES=1 cargo test --test model_world`
//! (and `TRACE=1` for every step).
//!
//! | file | what |
//! |---|---|
//! | `detector` | a detector's ramdisk, its watch, its streams, and the real catalog |
//! | `ppu` | the hub with the real ledger, the landing threads, the copies |
//! | `ramdisk` | the PPU's, and what users do there |
//! | `keeper` | eviction and purge, by the real rules |
//! | `storage`, `journal` | what survives a crash |
//! | `truth` | what is right, whatever the two sides believe |
//! | `oracle` | what must hold at the end |
//! | `users` | those of the PPU |
//! | `world` | what happens next, and what is under way between them |
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod detector;
mod journal;
mod keeper;
mod oracle;
mod ppu;
mod ramdisk;
mod storage;
mod truth;
mod users;
mod world;

use std::time::{Duration, Instant};

use ppu_uringd::model::ledger::Now;
use world::{Care, World};

/// Steps of one sequence.
const STEPS: u64 = 300;

/// `TRACE=1`: what happens, step by step.
macro_rules! trace {
    ($($text:tt)*) => {
        if $crate::is_traced() {
            println!($($text)*);
        }
    };
}

pub(crate) use trace;

pub fn is_traced() -> bool {
    static TRACED: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("TRACE").is_some());
    *TRACED
}

/// The same numbers for the same seed.
pub struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }
}

/// True time. Nobody in the world sees it but through a clock of its own.
pub struct Clock {
    start: Instant,
    pub ns: i64,
}

impl Clock {
    /// Time stamps of files move with the timer tick.
    pub const TICK_NS: i64 = 4_000_000;
    const EPOCH_NS: i64 = 1_785_542_399_000_000_000;

    fn new() -> Self {
        Self { start: Instant::now(), ns: 0 }
    }

    pub fn pass(&mut self, time: Duration) {
        self.ns += time.as_nanos() as i64;
    }

    pub fn at(&self) -> Instant {
        self.start + Duration::from_nanos(self.ns as u64)
    }

    /// The PPU's clocks.
    pub fn now(&self) -> Now {
        Now { at: self.at(), wall_ms: (Self::EPOCH_NS + self.ns) / 1_000_000 }
    }

    /// True time of a moment on the PPU's wall clock.
    pub fn of_wall_ms(wall_ms: i64) -> i64 {
        wall_ms * 1_000_000 - Self::EPOCH_NS
    }

    /// The time stamp that a file gets on a machine whose clock is that much ahead.
    pub fn stamp(&self, ahead_ns: i64) -> i64 {
        Self::EPOCH_NS + ahead_ns + self.ns / Self::TICK_NS * Self::TICK_NS
    }
}

/// Says which sequence failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={} SEQUENCES=1 cargo test --test model_world", self.0);
        }
    }
}

fn sequences(care: Care, usual: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("SEED").unwrap_or(1);
    let sequences: u64 = number("SEQUENCES").unwrap_or(usual);
    for seed in first..first.saturating_add(sequences) {
        let seed = Seed(seed);
        let mut world = World::new(seed.0, care);
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }
}

#[test]
fn whatever_happens_every_file_is_where_it_belongs() {
    sequences(Care::None, 2500);
}

/// Where each close is told before the next, and nobody forgets what was not written down, each is counted once.
#[test]
fn every_version_is_counted_once() {
    sequences(Care::Counted, 1000);
}
