//! How others look at a running daemon, and steer it.

pub mod control;
pub mod feed;
pub mod http;
pub mod ports;
