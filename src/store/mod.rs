//! From the PPU's ramdisk to a storage: durable before it is called stored, and only while it is mounted.

mod copy;
mod durable;
#[cfg(test)]
mod fault_tests;
pub mod mount;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod worker;
pub mod writer;
