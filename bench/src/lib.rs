//! What the benches of the data plane share: a ramdisk with warm memory, drains over data connections, and what they are compared with.

pub mod arena;
pub mod drain;
pub mod reference;
