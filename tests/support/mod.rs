//! What the tests of the real binary share: mounts, daemons, and the oracle of what must be where.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod browser;
pub mod daemon;
pub mod documented;
pub mod http;
pub mod impostor;
pub mod mount;
pub mod netns;
pub mod oracle;
pub mod proxy;
pub mod rig;
pub mod several;
pub mod terminal;

use std::time::{Duration, Instant};

/// Generous: a loaded machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, condition);
}

/// Waits until `condition` holds; panics with `what` after `patience`.
#[track_caller]
pub fn wait_at_most(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "timed out after {patience:?} waiting until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Mounting needs root; a test that is skipped says so.
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test} mounts file systems, which needs root");
    }
    root
}

/// Bytes that differ from file to file and compress badly.
pub fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
