//! What must hold, whatever has happened: the oracle of FAULTS.md.

use ppu_uringd::model::job::Brand;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::record;
use ppu_uringd::model::shift::ShiftId;

use super::detector::{hash, path};
use super::journal::{EXTERNAL, INTERNAL};
use super::keeper::MARKS;
use super::truth::Truth;
use super::world::{Care, World};

impl World {
    pub fn check(&self) {
        self.check_files();
        self.check_history();
        self.check_counts();
        self.check_ramdisk();
        self.check_internal();
        self.check_flow();
        for machine in &self.detectors {
            assert!(!machine.is_releasing(), "{}: left in staging", machine.id);
        }
    }

    /// The newest of every name is stored everywhere, under a shift that it may belong to.
    fn check_files(&self) {
        for (index, machine) in self.detectors.iter().enumerate() {
            for (name, content) in machine.required() {
                let shifts = self.truth.shifts_of(index, content, &machine.named(content));
                let below = |shift: &ShiftId| {
                    Some((*shift, self.ppu.below_source(&machine.id, *shift, &path(name))?))
                };
                let places: Vec<_> = shifts.iter().filter_map(below).collect();
                if places.len() < shifts.len() {
                    continue; // one of them takes no part in it
                }
                let everywhere = |(shift, below): &(ShiftId, RelPath)| {
                    self.ppu.storages.iter().all(|storage| storage.has(&machine.id, *shift, below, content))
                };
                assert!(
                    places.iter().any(everywhere),
                    "{} {} with {content} is not stored in any of {places:?}: {}",
                    machine.id,
                    path(name),
                    self.truth.describe(content)
                );
            }
        }
    }

    /// What landed in a shift is stored, whatever came after that shift; and belongs there.
    fn check_history(&self) {
        for ((index, shift, below), landed) in &self.truth.landed {
            let id = &self.detectors[*index].id;
            let stored =
                self.ppu.storages.iter().all(|storage| storage.has(id, *shift, below, landed.content));
            let content = landed.content;
            assert!(
                stored || landed.forgiven,
                "{id} {below} with {content} of {shift:?} has landed and is not stored"
            );
        }
    }

    fn check_counts(&self) {
        let counts = self.ppu.counts(&self.clock);
        for ((shift, storage), count) in &counts {
            // What somebody removed before it was stored, and its detector has no longer, cannot be copied, however often it is retried.
            let landed = self.truth.landed.iter().filter(|((_, of, _), _)| of == shift);
            let fallen = landed.filter(|(_, landed)| landed.forgiven).count() as u64;
            assert!(
                count.pending + count.failed <= fallen,
                "{fallen} fallen, {shift:?} on storage {storage}: {count:?}"
            );
            assert_eq!(
                count.produced,
                counts[&(*shift, 0)].produced,
                "{shift:?} on storage {storage}: {counts:?}"
            );
            let Truth { deleted, renamed, blurred, fallen, .. } = self.truth;
            let may_be_lost = deleted + renamed + blurred + fallen;
            // What is overwritten by what a shift's part leaves out is lost as well.
            let takes_all = self
                .ppu
                .ledger
                .all_shifts()
                .all(|shift| shift.places.iter().all(|place| place.source.is_none()));
            assert!(
                !takes_all || count.lost <= may_be_lost,
                "{may_be_lost} deleted, {shift:?} on storage {storage}: {count:?}"
            );
        }
        if self.care == Care::Counted {
            let ended = self.ppu.journal.ended();
            let internal = ended.iter().filter(|((_, storage), _)| storage.0 == 0);
            let produced: u64 = internal.map(|(_, tally)| tally.stored + tally.superseded + tally.lost).sum();
            assert_eq!(produced, self.truth.closed, "{ended:?}");
        }
    }
    /// Above the mark, nothing stays that could leave (SPEC 4.1).
    pub fn check_pressure(&self) {
        let space = self.ppu.ramdisk.space();
        if is_above(space.total_bytes, space.free_bytes) {
            for (at, image) in self.ppu.ramdisk.images().filter(|(_, image)| image.brand.identity.size > 0) {
                let safe = self.is_stored(INTERNAL, &image.brand, image.content);
                assert!(!safe, "{at} is stored and stays, and the ramdisk is too full: {space:?}");
            }
        }
        let level = self.ppu.storages[INTERNAL].level();
        if is_above(level.total, level.free) {
            for (to, stored) in self.ppu.storages[INTERNAL].named() {
                let empty = stored.brand.identity.size == 0;
                let safe =
                    [INTERNAL, EXTERNAL].iter().all(|on| self.is_stored(*on, &stored.brand, stored.content));
                assert!(
                    empty || !safe,
                    "{to} is stored and stays, and the internal storage is too full: {level:?}"
                );
            }
        }
    }

    /// The journal knows the image, as it is, as stored.
    fn is_stored(&self, on: usize, brand: &Brand, content: u64) -> bool {
        let is_it = |version: &record::Version| {
            (&version.path, version.shift, version.hash) == (&brand.path, brand.shift, brand.hash)
        };
        hash(content) == brand.hash && self.ppu.journal.is_stored_on(on, &is_it)
    }

    /// Of past shifts nothing stays that is stored, nor a link; those of the current one lead to what they stand for (SPEC 2.3, 4.1).
    fn check_ramdisk(&self) {
        let current = self.ppu.ledger.current_shift().id;
        for (at, image) in self.ppu.ramdisk.images().filter(|(_, image)| image.brand.shift < current) {
            let safe = self.is_stored(INTERNAL, &image.brand, image.content);
            assert!(!safe, "{at} of {:?} with {} is stored and stays", image.brand.shift, image.content);
        }
        let internal = &self.ppu.storages[INTERNAL];
        for (at, link, of) in self.ppu.ramdisk.links() {
            assert!(of.brand.shift >= current, "the link {at} of {:?} stays", of.brand.shift);
            let read = match internal.at(&link.to) {
                Some(stored) => Some(stored.content),
                None => internal.links().find(|(to, _)| **to == link.to).map(|(_, link)| link.of.content),
            };
            assert_eq!(read, Some(of.content), "{at} is a link for {:?}", of.brand);
        }
    }

    /// The same, where there is an external storage.
    fn check_internal(&self) {
        let current = self.ppu.ledger.current_shift().id;
        let [internal, external, _] = &self.ppu.storages;
        for stored in internal.files().filter(|stored| stored.brand.shift < current) {
            let safe =
                [INTERNAL, EXTERNAL].iter().all(|on| self.is_stored(*on, &stored.brand, stored.content));
            assert!(!safe, "{:?} is on the external storage and stays on the internal one", stored.brand);
        }
        for (to, link) in internal.links() {
            assert!(link.of.brand.shift >= current, "the link {to} of {:?} stays", link.of.brand.shift);
            let read = external.at(to).map(|stored| stored.content);
            assert_eq!(read, Some(link.of.content), "{to} is a link for {:?}", link.of.brand);
        }
    }

    /// Nothing waits for room that there is (SPEC 1.11).
    fn check_flow(&self) {
        let detectors = self.ppu.ledger.report(self.clock.now()).detectors;
        for (detector, machine) in detectors.into_iter().zip(&self.detectors) {
            let flows = (detector.in_flight, detector.no_room) == (0, 0);
            let left = detector.backlog.files <= detector.held;
            assert!(flows && left, "{detector:?}, {:?}", machine.catalog.counts());
        }
    }
}

fn is_above(total: u64, free: u64) -> bool {
    (total - free) as f64 > total as f64 * MARKS.limit
}
