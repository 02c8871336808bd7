//! Copies to a storage: the storage's own writer, for each depth.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ppu_config::Storage;
use ppu_uring::{Choice, open_engine};
use ppu_uringd::model::file_version::{Hash, Identity, StorageIndex, VersionId};
use ppu_uringd::model::job::{Brand, CopyJob, CopyOutcome, CopyReport, Local, Source};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::ShiftId;
use ppu_uringd::rooted::Root;
use ppu_uringd::rooted::mount;
use ppu_uringd::store::writer::{Settings, Writer};
use serde::Serialize;

use super::super::machine::is_mount_point;
use super::table::{self, Row};
use super::{Bench, DEPTHS, place};

/// A storage that gives no copy back for that long hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Through the page cache only where it is so much better.
const CACHE_GAIN: f64 = 1.1;

/// How files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Way {
    #[serde(rename = "queue_depth")]
    pub(super) depth: usize,
    /// Past the page cache.
    pub(super) direct: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue_depth {}{}", self.depth, if self.direct { "" } else { ", page cache" })
    }
}

/// Every depth, and the best one once more through the page cache.
pub(super) fn measure(bench: &mut Bench<'_>, storage: &Storage) -> Result<Vec<Row<Way>>, String> {
    let direct = DEPTHS.map(|depth| Way { depth, direct: true });
    let mut rows = table::rounds(&direct, |way| one(bench, storage, way))?;
    if let Some(best) = table::best(&rows, |way| way.depth, |_| false) {
        let cached = Way { direct: false, ..best };
        rows.extend(table::rounds(&[cached], |way| one(bench, storage, way))?);
    }
    Ok(rows)
}

/// The page cache wins by a margin; the last row is the one that went through it.
pub(super) fn cache_is_better(rows: &[Row<Way>]) -> bool {
    let best = |direct| rows.iter().filter(|row| row.way.direct == direct).map(Row::rate).fold(0.0, f64::max);
    best(false) > CACHE_GAIN * best(true)
}

fn one(bench: &mut Bench<'_>, storage: &Storage, way: Way) -> Result<Row<Way>, String> {
    let text = |error: std::io::Error| error.to_string();
    if let Some(point) = &storage.mountpoint
        && !is_mount_point(point).map_err(text)?
    {
        return Err(format!("nothing is mounted at {}", point.display()));
    }
    let (dir, room) = place::below(&storage.target).map_err(text)?;
    let most = room / bench.place.file_bytes;
    if most < 2 * way.depth as u64 {
        return Err(format!("{} has too little room", dir.path().display()));
    }
    let copying = Copying::start(bench, storage, way, dir.path())?;
    let row = copying.run(bench, most);
    // Before its directory goes. A storage that hangs keeps its thread, which has no name there any more.
    copying.writer.stop(PATIENCE);
    let row = row?;
    bench.pace.progress(&format!("storage {}, {way}: {:.0} MB/s", storage.id, row.rate() / 1e6));
    Ok(row)
}

struct Copying {
    way: Way,
    writer: Writer,
    reports: Receiver<CopyReport>,
    jobs: Vec<CopyJob>,
}

impl Copying {
    fn start(bench: &Bench<'_>, storage: &Storage, way: Way, target: &Path) -> Result<Self, String> {
        let source = bench.place.source();
        let settings = Settings {
            links_to: None,
            index: StorageIndex(0),
            id: storage.id.clone(),
            place: mount::Place {
                target: target.into(),
                mountpoint: storage.mountpoint.clone(),
                allow_root_fs: storage.allow_root_fs,
            },
            queue_depth: way.depth,
            direct: way.direct,
            preserve_uid: bench.config.preserve_uid,
            preserve_gid: bench.config.preserve_gid,
            replace_other_shift: false,
            ramdisk: Arc::new(Root::open(&source).map_err(|error| error.to_string())?),
            places: Arc::default(),
            handed: Arc::default(),
        };
        let choice = match bench.config.engine {
            ppu_config::Engine::Auto => Choice::Auto,
            ppu_config::Engine::Uring => Choice::Uring,
            ppu_config::Engine::Syscall => Choice::Syscall,
        };
        let (report, reports) = channel();
        let open = move |limits| open_engine(choice, limits).map(|opened| opened.driver);
        let writer = Writer::start(settings, open, move |r| drop(report.send(r)))
            .map_err(|error| error.to_string())?;
        let jobs = (0..bench.place.files).map(|n| job(&source, n)).collect::<Result<_, _>>()?;
        Ok(Self { way, writer, reports, jobs })
    }

    /// For the time of one measurement, or until `most` files are there. As many as the daemon would give it are in flight.
    fn run(&self, bench: &Bench<'_>, most: u64) -> Result<Row<Way>, String> {
        let inlet = self.writer.inlet();
        let start = Instant::now();
        let (mut given, mut files, mut bytes) = (0, 0, 0);
        loop {
            let goes_on = start.elapsed() < bench.pace.time && given < most && !bench.pace.is_stopped();
            if goes_on && given - files < 2 * self.way.depth as u64 {
                inlet.copy(self.numbered(given)?);
                given += 1;
                continue;
            }
            if given == files {
                break;
            }
            let report = match self.reports.recv_timeout(PATIENCE) {
                Ok(report) => report,
                Err(RecvTimeoutError::Timeout) => return Err("it does not answer".to_owned()),
                Err(RecvTimeoutError::Disconnected) => return Err("its thread has ended".to_owned()),
            };
            match report.outcome {
                CopyOutcome::Stored => {}
                CopyOutcome::Unavailable(reason)
                | CopyOutcome::Full(reason)
                | CopyOutcome::DiskError(reason)
                | CopyOutcome::SourceLost(reason)
                | CopyOutcome::NotNow(reason)
                | CopyOutcome::Taken(reason)
                | CopyOutcome::Failed(reason) => return Err(reason),
                CopyOutcome::Superseded => return Err("a copy was superseded".to_owned()),
            }
            files += 1;
            bytes += bench.place.file_bytes;
        }
        if bench.pace.is_stopped() {
            return Err("interrupted".to_owned());
        }
        Ok(Row { way: self.way, files, bytes, took: start.elapsed() })
    }

    /// A file again and again, each time under another name.
    fn numbered(&self, n: u64) -> Result<CopyJob, String> {
        let job = &self.jobs[(n % self.jobs.len() as u64) as usize];
        let to = RelPath::new(format!("images/{n}").as_bytes()).map_err(|error| error.to_string())?;
        Ok(CopyJob { version: VersionId(n), to, ..job.clone() })
    }
}

fn job(source: &Path, n: u64) -> Result<CopyJob, String> {
    let meta = source.join(n.to_string()).metadata().map_err(|error| error.to_string())?;
    let path = RelPath::new(n.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let ctime_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
    let identity = Identity { size: meta.len(), mtime_ns: 0, ino: meta.ino(), ctime_ns };
    Ok(CopyJob {
        version: VersionId(n),
        storage: StorageIndex(0),
        from: path.clone(),
        sources: vec![Source::Ramdisk(Local { ino: meta.ino(), ctime_ns })],
        to: path.clone(),
        brand: Arc::new(Brand {
            detector: "tune".into(),
            shift: ShiftId(1),
            path,
            identity,
            settled: true,
            hash: Hash::of(b""),
        }),
        uid: meta.uid(),
        gid: meta.gid(),
        mode: 0o644,
        superseded: Arc::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_must_win_clearly() {
        let row = |direct, bytes| Row {
            way: Way { depth: 8, direct },
            files: 1,
            bytes,
            took: Duration::from_secs(1),
        };
        assert!(!cache_is_better(&[row(true, 100), row(false, 109)]));
        assert!(cache_is_better(&[row(true, 100), row(true, 50), row(false, 111)]));
        assert!(!cache_is_better(&[row(true, 100)]));
    }
}
