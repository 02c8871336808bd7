//! Who had the beam when, as far as somebody who stands beside it can tell: a shift has begun for sure when `shift start` has returned, and
//! may have begun as soon as it was called.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ppu_uringd::model::file_version::Hash;

/// What lies closer to a beginning than this may be held: the bounds between which a detector knows a beginning that it could not mark are
/// as far apart as its link, or itself, stood still.
pub const UNSURE: Duration = Duration::from_secs(6);

/// Shifts have numbers here, from 0.
#[derive(Default)]
pub struct Beam {
    may_have_begun: AtomicUsize,
    has_begun: AtomicUsize,
    changes: Mutex<Vec<(Instant, Instant)>>,
}

/// One content under one name.
#[derive(Debug, Clone)]
pub struct Version {
    pub hash: Hash,
    /// In one of which it was closed, the first and the last of them.
    pub shifts: (usize, usize),
    /// From before its first byte to after its close, or its last rename.
    pub times: (Instant, Instant),
}

impl Beam {
    /// A shift is asked for.
    pub fn ask(&self) -> Instant {
        self.may_have_begun.fetch_add(1, Ordering::SeqCst);
        Instant::now()
    }

    /// And has begun, or has not and will not.
    pub fn answer(&self, asked: Instant, begun: bool) {
        match begun {
            true => _ = self.has_begun.fetch_add(1, Ordering::SeqCst),
            false => _ = self.may_have_begun.fetch_sub(1, Ordering::SeqCst),
        }
        self.changes.lock().unwrap().push((asked, Instant::now()));
    }

    /// Does it, and tells in which shift and when.
    pub fn during(&self, hash: Hash, act: impl FnOnce()) -> Version {
        let (from, first) = (Instant::now(), self.has_begun.load(Ordering::SeqCst));
        act();
        Version {
            hash,
            shifts: (first, self.may_have_begun.load(Ordering::SeqCst)),
            times: (from, Instant::now()),
        }
    }

    /// It got another name just now.
    pub fn renamed(&self, version: &Version) -> Version {
        let last = self.may_have_begun.load(Ordering::SeqCst);
        let Version { hash, shifts, times } = version;
        Version { hash: *hash, shifts: (shifts.0, last), times: (times.0, Instant::now()) }
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.has_begun.load(Ordering::SeqCst) + 1
    }

    /// A file of these times may be held.
    pub fn is_near_a_change(&self, (from, to): (Instant, Instant)) -> bool {
        let near = |(asked, answered): &(Instant, Instant)| from < *answered + UNSURE && *asked < to + UNSURE;
        self.changes.lock().unwrap().iter().any(near)
    }
}
