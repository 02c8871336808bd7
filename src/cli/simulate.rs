//! `simulate`: the command line of [`ppu_uringd::simulate`].

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ppu_uringd::simulate::{self, Finish, Images, Plan, Summary};
use serde::Serialize;

use super::Failure;
use super::output;
use super::size;
use super::stop;

/// Between two progress lines on a terminal.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// Write images as a detector would, at a given rate
///
/// Makes realistic CBF images (PILATUS headers, byte-offset compressed counts,
/// a true Content-MD5, each file different), or replays the files of a directory.
/// They go to run_001/frame_001_00001.cbf and so on below --target. Nothing that
/// is there already is ever overwritten or removed. The manifest names every file
/// with size, time and hash (xxh3-128), one JSON object a line.
///
/// Examples:
///   ppu-uringd simulate --target /ramdisk --rate 100 --count 1000 \
///       --manifest /tmp/manifest.jsonl
///   ppu-uringd simulate --target /ramdisk --size 6.2MB --finish rename
///   ppu-uringd simulate --target /ramdisk --replay /data/lysozyme --rate 10
///
/// Ends after --count files, after one pass of a replay, or on Ctrl-C.
/// Exit codes: 0 = done; 1 = failed, for instance because the ramdisk is full;
/// 2 = wrong usage.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Directory to write below; made if it is not there
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
    /// Files to write [default: one pass of a replay, else until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Files per second; 0 = as fast as possible
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = size::rate)]
    rate: f64,
    /// Size of one image, about: 100kB, 2.4MB and 6.2MB are real detectors
    #[arg(long, value_name = "SIZE", default_value = "2.4MB", value_parser = size::image)]
    size: u64,
    /// Files in one run_NNN directory
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    per_run: u64,
    /// Write the files of this directory instead, under their own names
    #[arg(long, value_name = "DIR", conflicts_with_all = ["size", "per_run", "seed"])]
    replay: Option<PathBuf>,
    /// How a file gets its name
    #[arg(long, value_enum, default_value_t = How::Close)]
    finish: How,
    /// Write the manifest to this new file
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Written into the manifest with each file
    #[arg(long, value_name = "NAME", requires = "manifest")]
    shift: Option<String>,
    /// Write beside what is in the target already
    #[arg(long)]
    force: bool,
    /// Equal seeds give equal counts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// For scripts: one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum How {
    /// Write under its name and close
    Close,
    /// Write under another name, then rename
    Rename,
    /// Write under another name, then link
    HardLink,
    /// Write without a name (O_TMPFILE), then link
    Tmpfile,
    /// All of these in turn
    Mixed,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let images = match &args.replay {
        Some(directory) => Images::replayed_from(directory).map_err(Failure::failed)?,
        None => Images::made(args.size, args.per_run, args.seed),
    };
    let plan = Plan {
        target: args.target.clone(),
        images,
        count: args.count,
        rate: args.rate,
        finish: args.finish.into(),
        manifest: args.manifest.clone(),
        shift: args.shift.clone(),
        force: args.force,
    };
    let stop: Arc<AtomicBool> = stop::on_signals()?;
    let mut progress = Progress::new();
    let summary = simulate::run(&plan, &stop, |closed| progress.closed(closed.record.size));
    progress.end();
    let summary = summary.map_err(Failure::failed)?;
    if args.json {
        return output::object(&Written::from(&summary));
    }
    let seconds = summary.elapsed.as_secs_f64().max(1e-9);
    output::line(&format!(
        "{} files, {:.3} GB in {:.2} s: {:.1} files/s, {:.2} GB/s",
        summary.files,
        summary.bytes as f64 / 1e9,
        seconds,
        summary.files as f64 / seconds,
        summary.bytes as f64 / 1e9 / seconds
    ))?;
    if summary.latest > Duration::from_millis(100) {
        output::line(&format!("fell behind the rate by up to {:.1} s", summary.latest.as_secs_f64()))?;
    }
    Ok(())
}

/// A run as scripts see it.
#[derive(Serialize)]
pub(super) struct Written {
    files: u64,
    bytes: u64,
    /// From the first file's beginning to the last one's close.
    seconds: f64,
    files_per_s: f64,
    bytes_per_s: f64,
    /// How far it fell behind the rate at worst.
    behind_s: f64,
}

impl From<&Summary> for Written {
    fn from(summary: &Summary) -> Self {
        let seconds = summary.elapsed.as_secs_f64().max(1e-9);
        Self {
            files: summary.files,
            bytes: summary.bytes,
            seconds,
            files_per_s: summary.files as f64 / seconds,
            bytes_per_s: summary.bytes as f64 / seconds,
            behind_s: summary.latest.as_secs_f64(),
        }
    }
}

/// A line that is written over again, where standard error is a terminal.
struct Progress {
    shown: bool,
    next: Instant,
    files: u64,
    bytes: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            next: Instant::now() + PROGRESS_PERIOD,
            files: 0,
            bytes: 0,
        }
    }

    fn closed(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
        if self.shown && Instant::now() >= self.next {
            self.next = Instant::now() + PROGRESS_PERIOD;
            let mut terminal = std::io::stderr().lock();
            // Progress that nobody can see is no reason to stop.
            let _ = write!(terminal, "\r{} files, {:.3} GB ", self.files, self.bytes as f64 / 1e9);
            let _ = terminal.flush();
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl From<How> for Finish {
    fn from(how: How) -> Self {
        match how {
            How::Close => Self::Close,
            How::Rename => Self::Rename,
            How::HardLink => Self::HardLink,
            How::Tmpfile => Self::Tmpfile,
            How::Mixed => Self::Mixed,
        }
    }
}
