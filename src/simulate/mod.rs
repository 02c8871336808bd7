//! A detector that is not there: writes realistic images, or given files again, as a detector's software would.
//!
//! It keeps a *manifest* of what it closed, and when: the truth that `demo` and the tests compare with.
//! It never removes or overwrites anything that it did not write itself.

pub mod cbf;
mod finish;
mod images;
mod manifest;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use finish::Finish;
pub use images::Images;
pub use manifest::Record;

use manifest::Manifest;

/// How long a wait for the next file goes on before `stop` is looked at again.
const STOP_POLL: Duration = Duration::from_millis(50);

/// What to write.
#[derive(Debug)]
pub struct Plan {
    /// Directory that everything is written below; made where it is absent.
    pub target: PathBuf,
    /// Contents and names.
    pub images: Images,
    /// Files; `None`: a replay's number of files, else without end.
    pub count: Option<u64>,
    /// Files per second; 0 = as fast as possible.
    pub rate: f64,
    /// How each file gets its name.
    pub finish: Finish,
    /// JSON lines of [`Record`]; must not lie below `target`.
    pub manifest: Option<PathBuf>,
    /// Written into the manifest: whose images these are.
    pub shift: Option<String>,
    /// Write beside what is in `target` already.
    pub force: bool,
}

/// One file, right after it was closed under its name.
#[derive(Debug)]
pub struct Closed {
    /// As in the manifest.
    pub record: Record,
    /// When.
    pub at: Instant,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// From the first file's beginning to the last one's close.
    pub elapsed: Duration,
    /// How far the writer fell behind its rate at worst.
    pub latest: Duration,
}

/// Why the simulation stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Something failed on a file or directory.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is something in the target already.
    #[error("{} is not empty: choose another directory, or --force to write beside what is there", .0.display())]
    NotEmpty(PathBuf),
    /// The manifest would be taken for an image.
    #[error("the manifest {} lies inside the target: choose another place", .0.display())]
    ManifestInTarget(PathBuf),
    /// There is nothing to replay.
    #[error("{} holds no regular files to replay", .0.display())]
    NothingToReplay(PathBuf),
}

/// Writes what `plan` says until it is done or `stop` is set; `closed` hears of every file.
///
/// # Errors
/// [`SimulateError`]; the manifest is right up to the failure.
pub fn run(plan: &Plan, stop: &AtomicBool, mut closed: impl FnMut(Closed)) -> Result<Summary, SimulateError> {
    prepare(plan)?;
    let mut manifest = Manifest::create(plan.manifest.as_deref())?;
    let names = plan.images.names(&plan.target)?;
    let count = plan.count.or_else(|| plan.images.replayed()).unwrap_or(u64::MAX);
    let start = Instant::now();
    let mut summary = Summary::default();
    for index in 0..count {
        let due = start + due_after(index, plan.rate);
        if wait_until(due, stop) {
            break;
        }
        if plan.rate > 0.0 {
            summary.latest = summary.latest.max(due.elapsed());
        }
        let image = plan.images.image(&names, index)?;
        let path = plan.target.join(image.name.as_path());
        let mtime_ns = plan.finish.write(index, &path, &[&image.head, &image.body])?;
        let at = Instant::now();
        let record = Record::new(&image, mtime_ns, plan.shift.clone());
        manifest.append(&record)?;
        summary.files += 1;
        summary.bytes += record.size;
        summary.elapsed = at - start;
        closed(Closed { record, at });
    }
    Ok(summary)
}

fn prepare(plan: &Plan) -> Result<(), SimulateError> {
    let failed =
        |source| SimulateError::Io { operation: "make directory", path: plan.target.clone(), source };
    fs::create_dir_all(&plan.target).map_err(failed)?;
    let mut entries = fs::read_dir(&plan.target).map_err(failed)?;
    if !plan.force && entries.next().is_some() {
        return Err(SimulateError::NotEmpty(plan.target.clone()));
    }
    if let Some(manifest) = &plan.manifest {
        let directory =
            manifest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if real(directory).starts_with(real(&plan.target)) {
            return Err(SimulateError::ManifestInTarget(manifest.clone()));
        }
    }
    Ok(())
}

fn due_after(index: u64, rate: f64) -> Duration {
    if rate > 0.0 {
        Duration::try_from_secs_f64(index as f64 / rate).unwrap_or(Duration::MAX / 4)
    } else {
        Duration::ZERO
    }
}

/// True where `stop` was set.
fn wait_until(due: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return true;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(STOP_POLL));
    }
}

#[cfg(test)]
mod tests;
