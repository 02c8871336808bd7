//! The detector's half of the fetch: connections from the PPU, its session, and the streams that send files.

pub mod jobs;
pub mod listen;
pub mod release;
pub mod session;
pub mod settle;
pub mod shift_log;
pub mod shifts;
mod source;
mod spliced;
mod staged;
pub mod stream;

#[cfg(test)]
mod tests;
