//! What travels between detector and PPU (PROTOCOL.md), without sockets and without a clock.

pub mod control;
pub mod data;
pub mod frame;
pub mod handshake;
