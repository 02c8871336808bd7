//! How others look at a running daemon, and steer it.

pub mod control;
pub mod events;
pub mod feed;
pub mod hook;
pub mod ports;
