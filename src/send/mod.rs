//! The detector's half of the fetch: connections from the PPU, its session, and the streams that send files.

pub mod listen;
pub mod queue;
pub mod session;
