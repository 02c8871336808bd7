//! Drains over two data connections, from the first job to the last visible file, on both engines; beside them what TCP can do.
//! Needs root, for a tmpfs of its own. What they make of it is to be compared, not the numbers.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppu_bench::arena::Arena;
use ppu_bench::drain::{Plane, Work};
use ppu_bench::reference::{Far, sendfile};
use ppu_uring::Choice;

fn landing(criterion: &mut Criterion) {
    for (name, count, size) in
        [("100 kB", 2000, 100_000), ("2.4 MB", 300, 2_400_000), ("6.2 MB", 100, 6_200_000)]
    {
        let arena = match Arena::new() {
            Ok(arena) => arena,
            Err(error) => return eprintln!("SKIPPED landing: cannot mount a tmpfs: {error}"),
        };
        arena.fill(count, size).expect("files");
        let work = Work::of(&arena, count).expect("files");
        let mut group = criterion.benchmark_group(format!("landing {name}"));
        group.throughput(Throughput::Bytes(work.bytes));
        group.sample_size(10).warm_up_time(Duration::from_secs(1));
        let rounds = |rounds: u64, round: &mut dyn FnMut() -> Duration| {
            let warm = |_| {
                arena.warm(work.bytes).expect("memory");
                round()
            };
            (0..rounds).map(warm).sum::<Duration>()
        };
        for (contender, engine, verify) in [
            ("uring", Choice::Uring, true),
            ("syscall", Choice::Syscall, true),
            ("uring, verify off", Choice::Uring, false),
        ] {
            group.bench_function(contender, |bencher| {
                bencher.iter_custom(|n| {
                    rounds(n, &mut || {
                        let plane = Plane::start(&arena, engine, verify).expect("connections");
                        let took = plane.drain(&arena, &work);
                        plane.stop();
                        took
                    })
                });
            });
        }
        for (contender, far) in [("sendfile, dropped", Far::Drops), ("sendfile, spliced", Far::Splices)] {
            group.bench_function(contender, |bencher| {
                bencher.iter_custom(|n| rounds(n, &mut || sendfile(&arena, count, far).expect("a transfer")));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, landing);
criterion_main!(benches);
