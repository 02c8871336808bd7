//! Wiring and shutdown order of both roles; nothing else.

mod engine;
pub mod hub;
mod key;
mod lock;
//pub mod ppu;
mod restore;
mod runtime;
mod signals;

pub use key::KeyError;
pub use lock::LockError;
