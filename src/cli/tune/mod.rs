//! `tune`: measures on the operator's own mounts, with the product's own code, and says what to set.

mod link;
mod place;
mod storage;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ppu_config::{Checked, Ppu};
use ppu_uringd::serve::control::{Request, query};

use super::{Failure, size, stop};
use place::Place;
use table::{ROUNDS, Row};

/// Depths that are tried; each storage has its own best.
const DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Data connections that are tried, of each engine.
const STREAMS: [u16; 4] = [1, 2, 4, 8];

/// Measure this machine and say what to set in ppu.toml
///
/// Copies files from the ramdisk to each storage with several queue depths (and, with
/// the best one, through the page cache), and sends files through both engines with
/// several connections, as the daemons do: the same code, every step included; each way
/// three times, in turn. Prints the medians and the lines to set; what you have stays
/// where it is as good as the best. Changes nothing: everything is written into
/// directories of its own on the ramdisk and below the storages' targets
/// (.ppu-uringd-tune-*), which are removed at the end and on Ctrl-C.
///
/// Both ends of the connections are on this machine, whose processors they share: more
/// than that the network cannot bring, and with it, several connections matter more.
/// Run it while no images come; a daemon that works disturbs it, and is disturbed.
///
/// Example:
///   ppu-uringd tune --config /etc/ppu-uringd/ppu.toml
///   ppu-uringd tune --config /etc/ppu-uringd/ppu.toml --size 6.2MB
///
/// Exit codes: 0 = measured; 1 = something could not be measured, or interrupted;
/// 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// ppu.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Size of one image: yours
    #[arg(long, value_name = "SIZE", default_value = "2.4MB", value_parser = size::image)]
    size: u64,

    /// How long it may take, about
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// What all measurements have in common.
struct Bench<'a> {
    config: &'a Ppu,
    place: Place,
    /// Of one measurement.
    time: Duration,
    stop: Arc<AtomicBool>,
    done: usize,
    all: usize,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, .. } = Ppu::load(&args.config)?;
    let stop = stop::on_signals()?;
    if query(&config.interfaces.control, &Request::Status).is_ok() {
        eprintln!("WARNING  the daemon runs: it disturbs the measurement, and is disturbed by it");
    }
    // Through the page cache comes on top.
    let ways = 2 * STREAMS.len() + config.storages.len() * (DEPTHS.len() + 1);
    let all = ways * ROUNDS;
    let place = Place::new(&config.ramdisk, args.size)?;
    eprintln!("{place}");
    let time = Duration::from_secs(args.seconds) / all as u32;
    let mut bench = Bench { config: &config, place, time, stop, done: 0, all };
    let links = link::measure(&mut bench)?;
    let mut storages = Vec::new();
    let mut failed = false;
    for storage in &config.storages {
        match storage::measure(&mut bench, storage) {
            Ok(rows) => storages.push((storage, rows)),
            Err(reason) if bench.is_stopped() => return Err(Failure::Failed(reason)),
            Err(reason) => {
                eprintln!("storage {}: not measured: {reason}", storage.id);
                failed = true;
            }
        }
    }
    drop(bench);
    super::print(&report(&config, &links, &storages))?;
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// A storage and what was measured on it.
type Measured<'a> = (&'a ppu_config::Storage, Vec<Row<storage::Way>>);

fn report(config: &Ppu, links: &[Row<link::Way>], storages: &[Measured<'_>]) -> String {
    let mut text = table::print("ENGINE, CONNECTIONS", links);
    let mut lines = String::new();
    let now = |is: bool| if is { "as now" } else { "was otherwise" };
    let engine_now = link::now(config.engine, links);
    if let Some(engine) = link::best_engine(links, engine_now) {
        let is_now = Some(engine) == engine_now;
        // `auto` takes io_uring where it can.
        let word = match (is_now, config.engine) {
            (true, ppu_config::Engine::Auto) => "auto".to_owned(),
            _ => engine.to_string(),
        };
        lines += &format!("engine = \"{word}\"  # {}\n", now(is_now));
        let links: Vec<Row<link::Way>> =
            links.iter().filter(|row| row.way.engine == engine).cloned().collect();
        for detector in &config.detectors {
            let Some(best) =
                table::best(&links, |way| usize::from(way.streams), |way| way.streams == detector.streams)
            else {
                continue;
            };
            let (id, streams) = (&detector.id, best.streams);
            lines += &format!(
                "\n[[detector]]  # {id}\nstreams = {streams}  # {}\n",
                now(detector.streams == streams)
            );
        }
    }
    for (storage, rows) in storages {
        text += &table::print(&format!("STORAGE {}", storage.id), rows);
        let depths: Vec<Row<storage::Way>> = rows.iter().filter(|row| row.way.direct).cloned().collect();
        let depth_now = usize::from(storage.queue_depth);
        let Some(best) = table::best(&depths, |way| way.depth, |way| way.depth == depth_now) else {
            continue;
        };
        let direct = !storage::cache_is_better(rows);
        let word = if direct { "auto" } else { "off" };
        let is_direct = (storage.direct == ppu_config::Direct::Auto) == direct;
        lines += &format!(
            "\n[[storage]]  # {}\nqueue_depth = {}  # {}\ndirect = \"{word}\"  # {}\n",
            storage.id,
            best.depth,
            now(best.depth == depth_now),
            now(is_direct),
        );
    }
    text + "\nTo set in ppu.toml, the rest stays as it is:\n\n" + &lines
}

impl Bench<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Says how far it is, and what came last.
    fn progress(&mut self, what: &str) {
        self.done += 1;
        eprintln!("[{}/{}] {what}", self.done, self.all);
    }
}
