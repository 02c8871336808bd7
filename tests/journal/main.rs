//! The journal from outside: whatever happens to it, what it called committed is there afterwards, and what
//! it says is true.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod crash;
mod damage;
mod disk;
mod events;
mod model;
mod questions;
mod random;
