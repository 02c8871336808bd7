//! Wiring and shutdown order of both roles; nothing else.

pub mod hub;
