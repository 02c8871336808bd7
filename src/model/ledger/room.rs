//! Room on the PPU's ramdisk: what may be asked for without overfilling it (SPEC 1.11).

use super::Space;

/// Kept free for directories and for what else lives there.
const HEADROOM_BYTES: u64 = 1 << 20;
/// Kept free likewise.
const HEADROOM_INODES: u64 = 16;
/// Files occupy whole pages.
const PAGE_BYTES: u64 = 4096;

/// Free room as last sampled, less what was promised since.
#[derive(Default)]
pub(super) struct Room {
    sample: Space,
    reserved_bytes: u64,
    reserved_files: u64,
    landed_bytes: u64,
    landed_files: u64,
}

impl Room {
    pub(super) fn sample(&mut self, space: Space) {
        self.sample = space;
        self.landed_bytes = 0;
        self.landed_files = 0;
    }

    pub(super) fn space(&self) -> Space {
        self.sample
    }

    /// Would fit into the empty ramdisk, as far as its size is known.
    pub(super) fn could_ever_hold(&self, size: u64) -> bool {
        self.sample.total_bytes == 0 || pages(size).saturating_add(HEADROOM_BYTES) <= self.sample.total_bytes
    }

    pub(super) fn fits(&self, size: u64) -> bool {
        let promised = self.reserved_bytes + self.landed_bytes + HEADROOM_BYTES;
        let files = self.reserved_files + self.landed_files + HEADROOM_INODES;
        promised.saturating_add(pages(size)) <= self.sample.free_bytes && files < self.sample.free_inodes
    }

    /// So much must be free before it fits, beside what was promised.
    pub(super) fn needed(&self, size: u64) -> u64 {
        pages(size).saturating_add(self.reserved_bytes + HEADROOM_BYTES)
    }

    pub(super) fn reserve(&mut self, size: u64) {
        self.reserved_bytes += pages(size);
        self.reserved_files += 1;
    }

    /// A reservation's end, without a file.
    pub(super) fn release(&mut self, size: u64) {
        self.reserved_bytes -= pages(size);
        self.reserved_files -= 1;
    }

    /// A reservation's end, with a file: counted as occupied until the next sample sees it.
    pub(super) fn land(&mut self, size: u64) {
        self.release(size);
        self.landed_bytes += pages(size);
        self.landed_files += 1;
    }

    /// The file system said that it is full: nothing fits until the next sample.
    pub(super) fn is_full(&mut self) {
        self.sample.free_bytes = 0;
    }
}

fn pages(size: u64) -> u64 {
    size.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX / 4)
}
