//! Chance that a seed repeats, and contents that say what they have to be.

use std::time::{Duration, Instant};

use crate::support::{content, wait_until};

/// The same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random =
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stream + 1).wrapping_mul(0xd129_0d3a_35f1_c2ab));
        for _ in 0..4 {
            random.below(2);
        }
        random
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let time = Duration::from_millis(from_ms + self.below(to_ms - from_ms));
        let began = Instant::now();
        wait_until("time has passed", || began.elapsed() >= time);
    }
}

/// Says itself what it has to be, so that a torn file is known as one: number, size, then that number's content.
pub fn image(number: u64, size: usize) -> Vec<u8> {
    let size = size.max(16);
    let mut bytes = content(number, size);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&(size as u64).to_le_bytes());
    bytes
}

pub fn is_whole(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..at + 8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let (Some(number), Some(size)) = (word(0), word(8)) else { return false };
    bytes.len() as u64 == size && image(number, bytes.len()) == bytes
}
