//! The contenders of `benches/landing.rs`, in turns, so that what else the machine does hits all of them: medians, and processor time.
//! `cargo run --release -p ppu-bench --example interleaved -- [ROUNDS] [SIZE...]`, as root. `ONLY=uring` leaves the others
//! out, to be profiled.

use std::time::Duration;

use ppu_bench::arena::Arena;
use ppu_bench::drain::{Plane, Work};
use ppu_bench::reference::{Far, sendfile};
use ppu_uring::Choice;

type Contender = (&'static str, fn(&Arena, &Work, usize) -> Duration);

const CONTENDERS: [Contender; 5] = [
    ("uring", |arena, work, _| drain(arena, work, Choice::Uring, true)),
    ("syscall", |arena, work, _| drain(arena, work, Choice::Syscall, true)),
    ("uring, verify off", |arena, work, _| drain(arena, work, Choice::Uring, false)),
    ("sendfile, dropped", |arena, _, count| sendfile(arena, count, Far::Drops).expect("a transfer")),
    ("sendfile, spliced", |arena, _, count| sendfile(arena, count, Far::Splices).expect("a transfer")),
];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let only = std::env::var("ONLY").ok();
    let rounds = arguments.next().unwrap_or(7);
    let mut sizes: Vec<usize> = arguments.collect();
    if sizes.is_empty() {
        sizes = vec![100_000, 2_400_000, 6_200_000];
    }
    for size in sizes {
        let count = (600_000_000 / size).clamp(1, 2000);
        let arena = Arena::new().expect("a tmpfs; root is needed");
        arena.fill(count, size).expect("files");
        let work = Work::of(&arena, count).expect("files");
        let mut results = vec![Vec::new(); CONTENDERS.len()];
        for _ in 0..rounds {
            for ((name, run), results) in CONTENDERS.iter().zip(&mut results) {
                if only.as_ref().is_some_and(|only| only != name) {
                    continue;
                }
                arena.warm(work.bytes).expect("memory");
                let before = cpu();
                let took = run(&arena, &work, count);
                results.push((took.as_secs_f64(), (cpu() - before).as_secs_f64()));
            }
        }
        println!("{count} × {size} B, {rounds} rounds: median GB/s (best), median CPU s/GB (best)");
        let gb = work.bytes as f64 / 1e9;
        for ((name, _), results) in CONTENDERS.iter().zip(results).filter(|(_, results)| !results.is_empty())
        {
            let (took, cpu): (Vec<f64>, Vec<f64>) = results.into_iter().unzip();
            let ((took, best), (cpu, least)) = (median(took), median(cpu));
            println!(
                "  {name:20} {:6.2} ({:5.2})   {:6.3} ({:.3})",
                gb / took,
                gb / best,
                cpu / gb,
                least / gb
            );
        }
    }
}

fn drain(arena: &Arena, work: &Work, engine: Choice, verify: bool) -> Duration {
    let plane = Plane::start(arena, engine, verify).expect("connections");
    let took = plane.drain(arena, work);
    plane.stop();
    took
}

/// Median and least.
fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0])
}

/// Of this process, the kernel's workers included.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
