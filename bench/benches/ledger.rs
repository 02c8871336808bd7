//! The ledger's cost per file: offered, wanted, landed, copied, committed; with few and with many files remembered.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ppu_uringd::model::file_version::{DetectorIndex, Hash, Identity, OfferId, StorageIndex};
use ppu_uringd::model::job::{CopyOutcome, CopyReport, LandReport, Landed, Local};
use ppu_uringd::model::ledger::{
    DetectorSettings, Fact, Ledger, Now, Order, Patience, Session, Settings, Space, StorageSettings,
};
use ppu_uringd::model::offer::Offered;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::replica_path::Target;
use ppu_uringd::model::shift::{Place, Shift, ShiftId};

const DETECTOR: DetectorIndex = DetectorIndex(0);
const PAGE: u64 = 100;

struct World {
    ledger: Ledger,
    now: Now,
    next: u64,
}

impl World {
    fn new() -> Self {
        let target = Target::parse(b"/r", b"/r/./d").unwrap();
        let place = Place { detector: "d".to_owned(), source: None, target };
        let shift = Shift::new(ShiftId(1), 500, 500, "$UID", vec![place]).unwrap();
        let settings = Settings {
            detectors: vec![DetectorSettings {
                id: "d".into(),
                address: String::new(),
                pauses: Default::default(),
            }],
            ramdisk: "/ramdisk".to_owned(),
            storages: vec![StorageSettings {
                at: "/data".into(),
                linked: false,
                id: "internal".into(),
                internal: true,
                external: false,
                queue_depth: 1000,
                copy_tries: 3,
                retry_pause: Duration::from_secs(1),
                retry_pause_max: Duration::from_secs(1),
                patience: Patience {
                    hung_after: Duration::from_secs(10),
                    slow_after: Duration::from_secs(30),
                    quarantine: Duration::from_secs(1),
                    quarantine_max: Duration::from_secs(60),
                },
            }],
        };
        let now = Now { at: Instant::now(), wall_ms: 1 };
        let mut world = Self { ledger: Ledger::new(settings, Arc::new(shift)), now, next: 0 };
        let space = Space { total_bytes: 1 << 60, free_bytes: 1 << 60, free_inodes: u64::MAX };
        world.tell(Fact::Space(space));
        world.tell(Fact::LinkUp { detector: DETECTOR, session: Session(1) });
        world
    }

    fn tell(&mut self, fact: Fact) -> Vec<Order> {
        let mut orders = Vec::new();
        self.ledger.apply(self.now, fact, &mut orders);
        self.ledger.work(self.now, &mut orders);
        orders
    }

    /// A page of files, all the way.
    fn page(&mut self) {
        let files = (self.next..self.next + PAGE).map(|n| Offered {
            offer: OfferId(n),
            path: RelPath::new(format!("run_{}/image_{n:06}.cbf", n / 1000).as_bytes()).unwrap(),
            identity: Identity { size: 100_000, mtime_ns: n as i64, ino: n, ctime_ns: n as i64 },
            shift: ShiftId(1),
            closed_us_ago: 100,
            fresh: true,
            superseded: 0,
        });
        let files = files.collect();
        self.next += PAGE;
        let mut last_record = 0;
        let mut todo = self.tell(Fact::Offered { detector: DETECTOR, files });
        while let Some(order) = todo.pop() {
            let more = match order {
                Order::Want { wants, .. } => wants
                    .into_iter()
                    .flat_map(|(wanted, job)| {
                        let landed = Landed {
                            identity: job.offered,
                            mode: 0o644,
                            settled: true,
                            hash: Hash::of(&job.offered.ino.to_le_bytes()),
                            local: Local { ino: job.offered.ino, ctime_ns: 1 },
                            visible: self.now.at,
                        };
                        self.tell(Fact::Landing(LandReport {
                            transfer: wanted.transfer,
                            outcome: Ok(landed),
                        }))
                    })
                    .collect(),
                Order::Copy { job, .. } => {
                    let outcome = CopyOutcome::Stored;
                    let report = CopyReport {
                        version: job.version,
                        storage: StorageIndex(0),
                        outcome,
                        file: None,
                        set_aside: None,
                    };
                    self.tell(Fact::Copying(report))
                }
                Order::Record { sequence, .. } => {
                    last_record = last_record.max(sequence);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            todo.extend(more);
        }
        black_box(self.tell(Fact::Committed { up_to: last_record }));
    }
}

fn ledger(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger, 100 files all the way");
    for remembered in [1_000, 200_000, 1_000_000] {
        let mut world = World::new();
        while world.next < remembered {
            world.page();
        }
        group.bench_function(format!("{remembered} remembered"), |b| {
            b.iter_batched(|| (), |()| world.page(), BatchSize::SmallInput);
        });
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
        println!("{} versions remembered: {rss}", world.next);
    }
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
