//! Wiring and shutdown order of both roles; nothing else.

mod acks;
mod bulletin;
mod dashboard;
pub mod detector;
mod engine;
mod events;
mod halves;
mod hub;
mod intake;
mod keeping;
pub mod key;
mod limits;
mod lock;
mod lookout;
pub mod measured;
mod ports;
pub mod ppu;
mod releasing;
mod restore;
mod runtime;
mod self_check;
mod sending;
mod shifts;
pub mod signals;
mod verify;
mod waiting;
mod which;
