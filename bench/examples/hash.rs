//! The hash function alone, one thread, beyond every cache, as a line of JSON for `peers/run`: what a core can verify.

use std::hint::black_box;
use std::time::Instant;

use twox_hash::XxHash3_128;

const BYTES: usize = 256 << 20;
const ROUNDS: usize = 8;

fn main() {
    // Not zeroes: those may be one page.
    let memory: Vec<u8> = (0..BYTES).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        black_box(XxHash3_128::oneshot(black_box(&memory)));
    }
    println!("{{\"seconds\": {:.6}, \"bytes\": {}}}", begun.elapsed().as_secs_f64(), ROUNDS * BYTES);
}
