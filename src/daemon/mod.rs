//! Wiring and shutdown order of both roles; nothing else.

pub mod detector;
mod engine;
mod hub;
mod key;
mod lock;
pub mod ppu;
mod releasing;
mod restore;
mod runtime;
mod sending;
mod shifts;
mod signals;
mod verify;
mod which;
