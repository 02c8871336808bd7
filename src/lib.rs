//! `ppu-uringd` moves a detector's images to the ramdisk of a processing server (PPU) and on to every
//! storage: verified, atomic, durable. ARCHITECTURE.md is the map of this crate.

pub mod daemon;
pub mod host;
pub mod intake;
pub mod journal;
pub mod keep;
pub mod land;
pub mod model;
pub mod rooted;
pub mod send;
pub mod serve;
pub mod simulate;
pub mod store;
pub mod watch;
pub mod wire;
