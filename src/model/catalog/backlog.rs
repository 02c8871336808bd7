//! The files that are still to be offered, oldest close first.

use std::collections::BTreeSet;

use super::files::Slot;

/// See the module.
#[derive(Default)]
pub(super) struct Backlog {
    /// By the time of their close, microseconds on the catalog's clock.
    order: BTreeSet<(i64, Slot)>,
    /// Wraps, as sparse files may claim any size; what was added is taken off again.
    bytes: u64,
}

impl Backlog {
    pub(super) fn insert(&mut self, closed_us: i64, slot: Slot, size: u64) {
        if self.order.insert((closed_us, slot)) {
            self.bytes = self.bytes.wrapping_add(size);
        }
    }

    pub(super) fn remove(&mut self, closed_us: i64, slot: Slot, size: u64) {
        if self.order.remove(&(closed_us, slot)) {
            self.bytes = self.bytes.wrapping_sub(size);
        }
    }

    pub(super) fn first(&self) -> Option<(i64, Slot)> {
        self.order.first().copied()
    }

    pub(super) fn files(&self) -> usize {
        self.order.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All at once: sorted, then built, which is many times faster than one by one.
    pub(super) fn rebuild(&mut self, files: impl Iterator<Item = (i64, Slot, u64)>) {
        self.bytes = 0;
        let bytes = &mut self.bytes;
        self.order = files
            .map(|(closed_us, slot, size)| {
                *bytes = bytes.wrapping_add(size);
                (closed_us, slot)
            })
            .collect();
    }
}
