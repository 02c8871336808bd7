//! The storage writer against read + write + fsync of one file after the other, on the same file system.
//!
//! `PPU_BENCH_STORAGE=/a/directory` names the storage to measure; without it an XFS image over a loop device is made in
//! the directory for temporary files, which takes root. What the two make of it is to be compared, not the numbers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ppu_uring::{Choice, open_engine};
use ppu_uringd::model::file_version::{Hash, Identity, StorageIndex, VersionId};
use ppu_uringd::model::job::{Brand, CopyJob, CopyOutcome, CopyReport, Local, Source};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::ShiftId;
use ppu_uringd::rooted::Root;
use ppu_uringd::rooted::mount::Place;
use ppu_uringd::store::writer::{Settings, Writer};
use tempfile::TempDir;

/// Bytes copied in one measured round.
const ROUND_BYTES: usize = 240_000_000;
/// The buffer of the plain copy.
const BUFFER_BYTES: usize = 1 << 20;
/// Of the image that is made: room for several rounds.
const IMAGE_BYTES: u64 = 4 << 30;

fn storage(criterion: &mut Criterion) {
    let Some(storage) = Storage::open() else { return };
    for (name, size) in [("2.4 MB", 2_400_000), ("100 kB", 100_000)] {
        let ramdisk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a ramdisk");
        let count = ROUND_BYTES / size;
        let body: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
        for n in 0..count {
            std::fs::write(ramdisk.path().join(n.to_string()), &body).expect("a landed file");
        }
        let mut group = criterion.benchmark_group(format!("storage {name}"));
        group.throughput(Throughput::Bytes((count * size) as u64));
        group.sample_size(10).warm_up_time(Duration::from_secs(1));
        group.bench_function("writer", |bencher| {
            let writer = Storing::start(&storage.path, ramdisk.path());
            let jobs: Vec<_> = (0..count).map(|n| job(ramdisk.path(), n)).collect();
            bencher.iter_custom(|rounds| storage.rounds(rounds, || writer.copy(&jobs)));
            writer.writer.stop(Duration::from_secs(5));
        });
        group.bench_function("read+write+fsync", |bencher| {
            bencher.iter_custom(|rounds| {
                storage.rounds(rounds, || {
                    for n in 0..count {
                        plain_copy(
                            &ramdisk.path().join(n.to_string()),
                            &storage.target().join(n.to_string()),
                        );
                    }
                })
            });
        });
        group.finish();
    }
}

struct Storage {
    path: PathBuf,
    /// Holds the image, and its mount point.
    image: Option<TempDir>,
}

impl Storage {
    fn open() -> Option<Self> {
        if let Some(path) = std::env::var_os("PPU_BENCH_STORAGE") {
            return Some(Self { path: path.into(), image: None });
        }
        let temp = tempfile::tempdir().expect("a temporary directory");
        let (image, path) = (temp.path().join("image"), temp.path().join("mount"));
        std::fs::create_dir(&path).expect("a mount point");
        File::create(&image).and_then(|image| image.set_len(IMAGE_BYTES)).expect("an image");
        let made = run(Command::new("mkfs.xfs").arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        if !made {
            eprintln!(
                "SKIPPED: cannot mount an XFS image (root? xfsprogs?); or set PPU_BENCH_STORAGE to a directory"
            );
            return None;
        }
        Some(Self { path, image: Some(temp) })
    }

    fn target(&self) -> PathBuf {
        self.path.join("ppu-bench")
    }

    /// The time of `rounds` rounds, each into an empty directory.
    fn rounds(&self, rounds: u64, mut round: impl FnMut()) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            std::fs::create_dir_all(self.target()).expect("a directory");
            let start = Instant::now();
            round();
            spent += start.elapsed();
            std::fs::remove_dir_all(self.target()).expect("an emptied storage");
        }
        spent
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if self.image.is_some() && !run(Command::new("umount").arg(&self.path)) {
            run(Command::new("umount").arg("-l").arg(&self.path));
        }
    }
}

struct Storing {
    writer: Writer,
    reports: Receiver<CopyReport>,
}

impl Storing {
    fn start(storage: &Path, ramdisk: &Path) -> Self {
        let settings = Settings {
            links_to: None,
            index: StorageIndex(0),
            id: "bench".into(),
            place: Place { target: storage.into(), mountpoint: None, allow_root_fs: true },
            queue_depth: 8,
            direct: true,
            preserve_uid: true,
            preserve_gid: true,
            replace_other_shift: false,
            ramdisk: Arc::new(Root::open(ramdisk).expect("the ramdisk")),
            places: Arc::default(),
            handed: Arc::default(),
        };
        let (report, reports) = channel();
        let engine = |limits| open_engine(Choice::Auto, limits).map(|opened| opened.driver);
        let writer = Writer::start(settings, engine, move |r| drop(report.send(r))).expect("a writer");
        Self { writer, reports }
    }

    fn copy(&self, jobs: &[CopyJob]) {
        let inlet = self.writer.inlet();
        for job in jobs {
            inlet.copy(job.clone());
        }
        for _ in jobs {
            let report = self.reports.recv().expect("a report");
            assert_eq!(report.outcome, CopyOutcome::Stored);
        }
    }
}

fn job(ramdisk: &Path, n: usize) -> CopyJob {
    let meta = ramdisk.join(n.to_string()).metadata().expect("a landed file");
    let path = RelPath::new(n.to_string().as_bytes()).expect("a name");
    let identity = Identity { size: meta.len(), mtime_ns: 0, ino: meta.ino(), ctime_ns: 0 };
    let local = Local { ino: meta.ino(), ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec() };
    CopyJob {
        version: VersionId(n as u64),
        storage: StorageIndex(0),
        from: path.clone(),
        sources: vec![Source::Ramdisk(local)],
        to: RelPath::new(format!("ppu-bench/{n}").as_bytes()).expect("a path"),
        brand: Arc::new(Brand {
            detector: "bench".into(),
            shift: ShiftId(0),
            path,
            identity,
            settled: true,
            hash: Hash::of(b""),
        }),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: 0o644,
        superseded: Arc::default(),
    }
}

fn plain_copy(from: &Path, to: &Path) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut from = File::open(from).expect("a landed file");
    let mut to = File::create(to).expect("a copy");
    loop {
        match from.read(&mut buffer).expect("a read") {
            0 => break,
            n => to.write_all(&buffer[..n]).expect("a write"),
        }
    }
    to.sync_all().expect("a sync");
}

fn run(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

criterion_group!(benches, storage);
criterion_main!(benches);
