//! One file through a pipe into a socket that is read and dropped: chains over the ring, the same chains over system calls, sendfile(2) and
//! splice(2) themselves. Needs root, for a tmpfs of its own. What they make of it is to be compared, not the numbers.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppu_bench::arena::Arena;
use ppu_bench::drain::connection;
use ppu_uring::ops::Splice;
use ppu_uring::{Choice, Driver, Entry, Fd, Limits, Link, Pipe, open_engine};
use rustix::pipe::{SpliceFlags, splice};

const LIMITS: Limits = Limits { depth: 64, workers: 1 };

fn splicing(criterion: &mut Criterion) {
    let arena = match Arena::new() {
        Ok(arena) => arena,
        Err(error) => return eprintln!("SKIPPED splice: cannot mount a tmpfs: {error}"),
    };
    for (name, size) in [("100 kB", 100_000), ("2.4 MB", 2_400_000), ("16 MiB", 16 << 20)] {
        arena.fill(1, size).expect("a file");
        let file = File::open(arena.source().join("0")).expect("a file");
        let mut group = criterion.benchmark_group(format!("splice {name}"));
        group.throughput(Throughput::Bytes(size as u64));
        group
            .sample_size(30)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));

        let (near, mut far) = connection().expect("a connection");
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while far.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        let pipe = Pipe::new().expect("a pipe");
        let (from, to): (Fd, Fd) =
            (file.try_clone().expect("a descriptor").into(), near.try_clone().expect("a descriptor").into());
        for (contender, choice) in [("ring", Choice::Uring), ("threads", Choice::Syscall)] {
            let mut driver = open_engine(choice, LIMITS).expect("an engine").driver;
            group.bench_function(contender, |bencher| {
                bencher.iter(|| chains(&mut *driver, &from, &pipe, &to, size as u64));
            });
        }
        group.bench_function("sendfile(2)", |bencher| {
            bencher.iter(|| {
                let mut at = 0;
                while at < size as u64 {
                    rustix::fs::sendfile(&near, &file, Some(&mut at), size).expect("sendfile");
                }
            });
        });
        group.bench_function("splice(2)", |bencher| {
            bencher.iter(|| {
                let mut at = 0;
                while at < size as u64 {
                    let flags = SpliceFlags::MORE;
                    let mut held =
                        splice(&file, Some(&mut at), &pipe.into, None, pipe.capacity, flags).expect("splice");
                    while held > 0 {
                        held -= splice(&pipe.out, None, &near, None, held, flags).expect("splice");
                    }
                }
            });
        });
        group.finish();
        near.shutdown(std::net::Shutdown::Both).expect("shutdown");
        reader.join().expect("the reader");
    }
}

/// As the sender does it: the whole file in one chain.
fn chains(driver: &mut dyn Driver, file: &Fd, pipe: &Pipe, socket: &Fd, size: u64) {
    let mut chain = Vec::new();
    for at in (0..size).step_by(pipe.capacity) {
        let len = (size - at).min(pipe.capacity as u64) as u32;
        let into = Splice {
            from: file.clone(),
            from_at: Some(at),
            to: pipe.into.clone(),
            to_at: None,
            len,
            more: false,
            nonblock: true,
        };
        let out = Splice {
            from: pipe.out.clone(),
            from_at: None,
            to: socket.clone(),
            to_at: None,
            len,
            more: true,
            nonblock: false,
        };
        chain.push(Entry { op: into.into(), token: 0, link: Link::Soft });
        chain.push(Entry { op: out.into(), token: 0, link: Link::Soft });
    }
    for done in driver.run(chain).expect("a chain") {
        assert_eq!(done.moved().expect("a splice"), done.op.asked());
    }
}

criterion_group!(benches, splicing);
criterion_main!(benches);
