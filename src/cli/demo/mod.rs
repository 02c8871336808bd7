//! `demo`: both roles as real processes over TCP on this machine, a simulated detector, and a verdict.

mod board;
mod daemons;
mod follow;
mod room;
mod stage;
mod verdict;
mod visible;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ppu_uringd::simulate::{Finish, Images, Plan};

use super::output::People;
use super::{Failure, size, stop};
use board::Board;
use daemons::Daemons;
use follow::Simulation;
use stage::Stage;
use visible::Watch;

/// How long the simulated run lasts unless --files says otherwise.
const RUN_SECONDS: f64 = 10.0;
/// Files of a run as fast as possible.
const UNPACED_FILES: u64 = 1000;

/// Show everything at work on this machine: no root, no configuration
///
/// Starts a detector and a PPU as two processes that talk over TCP on loopback,
/// lets a simulated detector write images, and shows them become visible on the
/// PPU's ramdisk and durable on its storage. At the end every byte is compared:
/// detector, ramdisk, storage. Everything lives in temporary directories (ramdisks
/// in /dev/shm, the storage on a disk), which are removed at the end or on Ctrl-C.
///
/// Examples:
///   ppu-uringd demo
///   ppu-uringd demo --rate 0 --files 2000 --size 100kB
///   ppu-uringd demo --replay /data/lysozyme --rate 50
///
/// What the numbers mean: "visible" = seen under its final name on the PPU's
/// ramdisk by another process; "stored" = the daemon's word that file and name are
/// durable on the storage and recorded in its journal.
///
/// Exit codes: 0 = every file is stored and identical; 1 = not so, or interrupted;
/// 2 = wrong usage.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Files to write [default: 10 s at --rate, or one pass of --replay]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    files: Option<u64>,
    /// Files per second; 0 = as fast as possible
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = size::rate)]
    rate: f64,
    /// Size of one image, about: 100kB, 2.4MB and 6.2MB are real detectors
    #[arg(long, value_name = "SIZE", default_value = "2.4MB", value_parser = size::image)]
    size: u64,
    /// Let the detector write the files of this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "size")]
    replay: Option<PathBuf>,
    /// Directory on the disk that stands for the storage [default: $TMPDIR, /var/tmp or /tmp]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Leave the temporary directories, with configurations and logs, for a look
    #[arg(long)]
    keep: bool,
    /// For scripts: one JSON object at the end; what is said meanwhile goes to standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let stop = stop::on_signals()?;
    let stage = Stage::set_up(args.disk.as_deref(), args.keep)?;
    let people = People::unless(args.json);
    people.line(&stage.to_string())?;
    let images = match &args.replay {
        Some(directory) => Images::replayed_from(directory).map_err(Failure::failed)?,
        None => Images::made(args.size, 100, 1),
    };
    let files = files(args, &images, &stage, people)?;
    let plan = Plan {
        target: stage.detector_ramdisk.clone(),
        images,
        count: Some(files),
        rate: args.rate,
        finish: Finish::Close,
        manifest: Some(stage.manifest.clone()),
        shift: None,
        force: false,
    };
    play(&stage, plan, files, &stop, people)
}

fn play(
    stage: &Stage,
    plan: Plan,
    files: u64,
    stop: &Arc<AtomicBool>,
    people: People,
) -> Result<(), Failure> {
    let board = Arc::new(Board::default());
    let watch = Watch::start(&stage.ppu_ramdisk, board.clone())?;
    let mut daemons = Daemons::start(stage)?;
    let engine = daemons.wait_until_connected(stop)?;
    let pace = if plan.rate > 0.0 { format!("{} a second", plan.rate) } else { "as fast as possible".into() };
    people.line(&format!("connected ({engine}); the detector writes {files} files, {pace}"))?;

    let simulation = Simulation::start(plan, board.clone(), stop.clone());
    let end = follow::until_all_is_stored(&simulation, &board, &mut daemons, files, stop, people);
    let written = simulation.end(stop);
    let (end, written) = (end?, written?);
    watch.end()?;
    daemons.stop()?;
    people.line("both daemons have ended; comparing every byte")?;
    verdict::give(stage, &board, &written, &end, stop, people)
}

/// As many as were asked for, or as many as there is room for.
fn files(args: &Args, images: &Images, stage: &Stage, people: People) -> Result<u64, Failure> {
    let unasked = || if args.rate > 0.0 { (args.rate * RUN_SECONDS).ceil() as u64 } else { UNPACED_FILES };
    let asked = args.files.or(images.replayed()).unwrap_or_else(unasked).max(1);
    let bytes = images.mean_bytes().map_err(Failure::failed)?;
    let (room, what) = room::for_images(stage)?;
    let fit = room / bytes.max(4096);
    if fit == 0 {
        return Err(Failure::Failed(format!("there is no room for a single file: {what}")));
    }
    if fit < asked {
        people.line(&format!("only {fit} of {asked} files fit: {what}"))?;
    }
    Ok(asked.min(fit))
}
