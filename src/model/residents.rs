//! Which versions may leave a file system, by age: what the journal has called stored where it must be, and nobody has taken away yet. Pure.
//!
//! ```text
//! add ──► ready ──► given out ──► gone, or not ours any more: forgotten
//!           ▲           │   └───► a link has its place: given out once more when its shift is past
//!           └── due ────┴─► put off: copies of it are still to be made, or somebody writes to it
//! ```
//!
//! It proves nothing: whoever takes a version away asks the journal first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::file_version::VersionId;
use super::shift::ShiftId;

/// A version and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resident {
    /// Grows with age.
    pub version: VersionId,
    /// Whose.
    pub shift: ShiftId,
}

/// What versions leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Once they are stored on the internal storage.
    Ramdisk,
    /// The internal storage, once they are stored on the external one, too.
    Internal,
}

/// Why a version does not leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// Copies of it are still to be made: it goes when nothing else is left that could.
    Copying,
    /// Somebody has it open for writing, or it could not be taken.
    Busy,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Residents {
    ready: BTreeMap<ShiftId, BTreeSet<VersionId>>,
    /// A link has their place.
    linked: BTreeMap<ShiftId, BTreeSet<VersionId>>,
    /// By the time at which they are ready again.
    later: BTreeMap<(Instant, Resident), PutOff>,
}

impl Residents {
    /// May leave from now on, and has not been given out since.
    pub fn add(&mut self, resident: Resident) {
        self.ready.entry(resident.shift).or_default().insert(resident.version);
    }

    /// A link has its place, or may have.
    pub fn leave_link(&mut self, resident: Resident) {
        self.linked.entry(resident.shift).or_default().insert(resident.version);
    }

    /// Not before `until`.
    pub fn put_off(&mut self, resident: Resident, until: Instant, why: PutOff) {
        self.later.insert((until, resident), why);
    }

    /// What was put off is ready again when its time has come.
    pub fn pass(&mut self, now: Instant) {
        while let Some(((due, resident), _)) = self.later.first_key_value().map(|(key, why)| (*key, *why))
            && due <= now
        {
            self.later.pop_first();
            self.add(resident);
        }
    }

    /// Gives out at most `most` that are of shifts before the current one, oldest first; those with links as well. A later shift is no past one: who
    /// asks may not have heard of it yet, while its first files may leave already.
    pub fn take_past(&mut self, current: ShiftId, most: usize) -> Vec<Resident> {
        let mut taken = Vec::new();
        for all in [&mut self.ready, &mut self.linked] {
            let past: Vec<ShiftId> = all.range(..current).map(|(shift, _)| *shift).collect();
            for shift in past {
                let Some(versions) = all.get_mut(&shift) else { continue };
                while taken.len() < most
                    && let Some(version) = versions.pop_first()
                {
                    taken.push(Resident { version, shift });
                }
                if versions.is_empty() {
                    all.remove(&shift);
                }
            }
        }
        taken
    }

    /// Gives out at most `most`, the oldest of all.
    pub fn take_oldest(&mut self, most: usize) -> Vec<Resident> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let first = |(shift, versions): (&ShiftId, &BTreeSet<VersionId>)| {
                versions.first().map(|version| Resident { version: *version, shift: *shift })
            };
            let Some(oldest) = self.ready.iter().filter_map(first).min() else { break };
            if let Some(versions) = self.ready.get_mut(&oldest.shift) {
                versions.pop_first();
                if versions.is_empty() {
                    self.ready.remove(&oldest.shift);
                }
            }
            taken.push(oldest);
        }
        taken
    }

    /// Gives out at most `most` of those that were put off because copies are still to be made, the oldest.
    pub fn take_copying(&mut self, most: usize) -> Vec<Resident> {
        let copying = self.later.iter().filter(|(_, why)| **why == PutOff::Copying);
        let mut found: Vec<(Resident, Instant)> =
            copying.map(|((at, resident), _)| (*resident, *at)).collect();
        found.sort_unstable();
        found.truncate(most);
        for (resident, at) in &found {
            self.later.remove(&(*at, *resident));
        }
        found.into_iter().map(|(resident, _)| resident).collect()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        let shifts = self.ready.values().chain(self.linked.values());
        shifts.map(BTreeSet::len).sum::<usize>() + self.later.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.linked.is_empty() && self.later.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn resident(version: u64, shift: i64) -> Resident {
        Resident { version: VersionId(version), shift: ShiftId(shift) }
    }

    fn numbers(residents: &[Resident]) -> Vec<u64> {
        residents.iter().map(|resident| resident.version.0).collect()
    }

    #[test]
    fn past_shifts_are_all_before_the_current_one() {
        let mut residents = Residents::default();
        // 4 landed late: its shift was over.
        for (version, shift) in [(1, 10), (2, 20), (3, 30), (4, 10), (5, 30)] {
            residents.add(resident(version, shift));
        }
        assert_eq!(
            numbers(&residents.take_past(ShiftId(10), 9)),
            [0_u64; 0],
            "it has not heard of the others"
        );
        assert_eq!(numbers(&residents.take_past(ShiftId(30), 2)), [1, 4]);
        assert_eq!(numbers(&residents.take_past(ShiftId(30), 9)), [2]);
        assert_eq!(numbers(&residents.take_past(ShiftId(30), 9)), [0_u64; 0]);
        assert_eq!(numbers(&residents.take_past(ShiftId(40), 9)), [3, 5]);
        assert!(residents.is_empty());
    }

    #[test]
    fn links_go_with_their_shift_and_make_no_room() {
        let mut residents = Residents::default();
        residents.leave_link(resident(1, 10));
        residents.add(resident(2, 10));
        assert_eq!(numbers(&residents.take_oldest(9)), [2]);
        assert_eq!(numbers(&residents.take_past(ShiftId(10), 9)), [0_u64; 0]);
        assert_eq!(numbers(&residents.take_past(ShiftId(11), 9)), [1]);
    }

    #[test]
    fn the_oldest_first_whosever_they_are() {
        let mut residents = Residents::default();
        for (version, shift) in [(4, 10), (2, 20), (3, 30), (1, 10)] {
            residents.add(resident(version, shift));
        }
        assert_eq!(numbers(&residents.take_oldest(3)), [1, 2, 3]);
        assert_eq!(numbers(&residents.take_oldest(3)), [4]);
    }

    #[test]
    fn what_is_being_copied_goes_last() {
        let mut residents = Residents::default();
        let start = Instant::now();
        let due = start + Duration::from_secs(1);
        residents.put_off(resident(2, 1), due, PutOff::Copying);
        residents.put_off(resident(1, 1), due, PutOff::Busy);
        residents.put_off(resident(3, 1), start, PutOff::Copying);
        residents.pass(start - Duration::from_nanos(1));
        assert_eq!(numbers(&residents.take_oldest(9)), [0_u64; 0]);
        residents.pass(start);
        assert_eq!(numbers(&residents.take_oldest(9)), [3]);
        assert_eq!(
            numbers(&residents.take_copying(9)),
            [2],
            "also before its time; who writes is waited for"
        );
        residents.pass(due);
        assert_eq!(numbers(&residents.take_oldest(9)), [1]);
    }

    proptest! {
        /// Nothing is given out twice, and nothing is forgotten.
        #[test]
        fn everything_comes_out_once(steps in proptest::collection::vec((0u8..7, 0u64..30, 0i64..4), 0..200)) {
            let start = Instant::now();
            let mut residents = Residents::default();
            let mut inside = BTreeSet::new();
            for (n, (step, version, shift)) in steps.into_iter().enumerate() {
                let now = start + Duration::from_secs(n as u64);
                let given = match step {
                    // A version has one shift, and is not told again before it was given out.
                    0 | 1 | 6 if inside.iter().all(|known: &Resident| known.version.0 != version) => {
                        let new = resident(version, shift);
                        inside.insert(new);
                        match step {
                            0 => residents.add(new),
                            6 => residents.leave_link(new),
                            _ => residents.put_off(new, now + Duration::from_secs(version), PutOff::Copying),
                        }
                        Vec::new()
                    }
                    2 => residents.take_past(ShiftId(shift), 2),
                    3 => residents.take_oldest(2),
                    4 => residents.take_copying(2),
                    _ => { residents.pass(now); Vec::new() }
                };
                for resident in given {
                    prop_assert!(inside.remove(&resident));
                    prop_assert!(step != 2 || resident.shift < ShiftId(shift));
                }
                prop_assert_eq!(residents.len(), inside.len());
            }
        }
    }
}
