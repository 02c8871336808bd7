//! What users do on the PPU's ramdisk and on the internal storage: they fill them, read, write, remove and replace what is there.

use super::journal::INTERNAL;
use super::ramdisk::UNIT;
use super::trace;
use super::world::World;

impl World {
    /// What does no harm to images.
    pub fn users_use(&mut self) {
        let which = self.random.below(100);
        match self.random.below(10) {
            0 | 1 => {
                let bytes = self.random.below(16) * UNIT / 2;
                self.ppu.ramdisk.fill(bytes);
                trace!("users have {bytes} bytes on the ramdisk, {:?}", self.ppu.ramdisk.space());
            }
            2 => {
                let bytes = self.random.below(16) * UNIT / 2;
                self.ppu.storages[INTERNAL].fill(bytes);
            }
            3 | 4 => {
                let to_write = self.random.one_in(2);
                if let Some(at) = self.ppu.ramdisk.nth(which) {
                    trace!("users open {at}, to write: {to_write}");
                    self.ppu.ramdisk.open(&at, to_write);
                }
            }
            5..8 => self.ppu.ramdisk.close_all(),
            _ => {
                // A chmod.
                if let Some(at) = self.ppu.ramdisk.nth(which) {
                    self.ppu.ramdisk.move_ctime(&at);
                }
            }
        }
    }

    /// What takes images away, or their names.
    pub fn users_change(&mut self) {
        let which = self.random.below(100);
        let Some(at) = self.ppu.ramdisk.nth(which) else { return };
        let gone = match self.random.below(4) {
            0 | 1 => {
                self.truth.theirs.remove(&at);
                self.ppu.ramdisk.remove(&at)
            }
            2 => {
                let content = self.truth.new_content();
                self.truth.theirs.insert(at.clone(), content);
                self.ppu.ramdisk.replace(&at, content)
            }
            _ => {
                let content = self.truth.new_content();
                self.ppu.ramdisk.write(&at, content)
            }
        };
        trace!("users change {at}, which was {gone:?}");
        self.ppu.forgive(gone, &mut self.truth);
    }

    /// They give back what they took, as they are told to.
    pub fn users_return_space(&mut self) {
        self.ppu.ramdisk.fill(0);
        self.ppu.storages[INTERNAL].fill(0);
        let found = self.ppu.ramdisk.clear_the_way();
        let theirs = std::mem::take(&mut self.truth.theirs);
        assert_eq!(found, theirs, "users' own files stay");
    }
}
