//! The detector's end of the data connections: files that the PPU wants, read, hashed, sent.

pub mod jobs;
pub mod settle;
mod source;
mod spliced;
mod staged;
pub mod stream;
