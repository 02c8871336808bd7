//! From the PPU's ramdisk, or another storage, to a storage: durable before it is called stored, and only while it is mounted.

mod copy;
mod durable;
#[cfg(test)]
mod fault_tests;
mod fetch;
#[cfg(test)]
mod mount_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod verify;
mod worker;
pub mod writer;
