//! The control connection's codec: a page of offers, and a batch of acknowledgements.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppu_uringd::model::file_version::{Identity, OfferId};
use ppu_uringd::model::offer::Offered;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::ShiftId;
use ppu_uringd::wire::control::{FromDetector, FromPpu};
use ppu_uringd::wire::frame::{Decoder, MAX_FRAME_BYTES, encode};

/// Files in a message, as in a drain.
const FILES: u64 = 500;

fn offers() -> FromDetector {
    let files = (0..FILES).map(|n| Offered {
        offer: OfferId(n),
        path: RelPath::new(format!("run_12/image_{n:06}.cbf").as_bytes()).unwrap(),
        identity: Identity { size: 2_400_000, mtime_ns: 1 << 60, ino: n, ctime_ns: 1 << 60 },
        shift: ShiftId(1_785_542_399_000),
        closed_us_ago: 150,
        fresh: true,
        superseded: 0,
    });
    FromDetector::Offer { files: files.collect() }
}

fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame codec");
    group.throughput(Throughput::Elements(FILES));
    let offers = offers();
    let bytes = encode(&offers).unwrap();
    group.bench_function("encode 500 offers", |b| b.iter(|| encode(&offers).unwrap()));
    group.bench_function("decode 500 offers", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(MAX_FRAME_BYTES);
            decoder.feed(&bytes);
            decoder.next_message::<FromDetector>().unwrap().unwrap()
        });
    });
    let landed = encode(&FromPpu::Landed { offers: (0..FILES).map(OfferId).collect() }).unwrap();
    group.bench_function("decode 500 acknowledgements", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(MAX_FRAME_BYTES);
            decoder.feed(&landed);
            decoder.next_message::<FromPpu>().unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
