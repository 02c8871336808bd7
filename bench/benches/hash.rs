//! Hashing a file on the ramdisk: as the streams do it, by reading it into a buffer, and the hash function alone.
//! Needs root, for a tmpfs of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppu_bench::arena::Arena;
use ppu_uring::{FileHash, FileHasher};
use twox_hash::XxHash3_128;

/// Pieces that are read.
const PIECES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

fn hashing(criterion: &mut Criterion) {
    let arena = match Arena::new() {
        Ok(arena) => arena,
        Err(error) => return eprintln!("SKIPPED hash: cannot mount a tmpfs: {error}"),
    };
    for (name, size) in [("100 kB", 100_000), ("2.4 MB", 2_400_000), ("16 MiB", 16 << 20)] {
        arena.fill(1, size).expect("a file");
        let file = File::open(arena.source().join("0")).expect("a file");
        let mut group = criterion.benchmark_group(format!("hash {name}"));
        group.throughput(Throughput::Bytes(size as u64));
        group
            .sample_size(30)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2));
        let mut hasher = FileHasher::default();
        group.bench_function("FileHasher", |bencher| {
            bencher.iter(|| {
                let mut hash = FileHash::new(size as u64);
                assert!(hasher.advance(&mut hash, &file, size as u64).expect("the file"));
                hash.finish()
            });
        });
        for piece in PIECES {
            let mut buffer = vec![0; piece];
            group.bench_function(format!("pread {} kB", piece >> 10), |bencher| {
                bencher.iter(|| {
                    let mut hash = XxHash3_128::new();
                    let mut at = 0;
                    while let n @ 1.. = file.read_at(&mut buffer, at).expect("the file") {
                        hash.write(&buffer[..n]);
                        at += n as u64;
                    }
                    hash.finish_128()
                });
            });
        }
        let bytes = std::fs::read(arena.source().join("0")).expect("the file");
        group.bench_function("in memory", |bencher| bencher.iter(|| XxHash3_128::oneshot(&bytes)));
        group.finish();
    }
}

criterion_group!(benches, hashing);
criterion_main!(benches);
