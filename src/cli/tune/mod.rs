//! `tune`: measures on the operator's own mounts, with the product's own code, and says what to set.

mod choice;
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
use serde::Serialize;

use super::output::{self, note};
use super::{Failure, size, stop};
use choice::{Choice, Measured};
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

    /// For scripts: one JSON object, with everything that was measured
    #[arg(long)]
    json: bool,
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
        note("WARNING  the daemon runs: it disturbs the measurement, and is disturbed by it");
    }
    // Through the page cache comes on top.
    let ways = 2 * STREAMS.len() + config.storages.len() * (DEPTHS.len() + 1);
    let all = ways * ROUNDS;
    let place = Place::new(&config.ramdisk, args.size)?;
    note(&place.to_string());
    let time = Duration::from_secs(args.seconds) / all as u32;
    let mut bench = Bench { config: &config, place, time, stop, done: 0, all };
    let links = link::measure(&mut bench)?;
    let mut storages = Vec::new();
    let mut not_measured = Vec::new();
    for storage in &config.storages {
        match storage::measure(&mut bench, storage) {
            Ok(rows) => storages.push((storage, rows)),
            Err(reason) if bench.is_stopped() => return Err(Failure::Failed(reason)),
            Err(why) => {
                note(&format!("storage {}: not measured: {why}", storage.id));
                not_measured.push(NotMeasured { storage: &storage.id, why });
            }
        }
    }
    drop(bench);
    let choice = Choice::new(&config, &links, &storages);
    if args.json {
        output::object(&Answer {
            image_bytes: args.size,
            links: links.iter().map(Row::shown).collect(),
            storages: storages.iter().map(StorageAnswer::from).collect(),
            not_measured: &not_measured,
            set: &choice,
        })?;
    } else {
        output::print(&report(&links, &storages, &choice))?;
    }
    if not_measured.is_empty() { Ok(()) } else { Err(Failure::Reported) }
}

/// All of it for scripts.
#[derive(Serialize)]
struct Answer<'a> {
    image_bytes: u64,
    links: Vec<table::Shown<link::Way>>,
    storages: Vec<StorageAnswer<'a>>,
    not_measured: &'a [NotMeasured<'a>],
    set: &'a Choice,
}

#[derive(Serialize)]
struct StorageAnswer<'a> {
    id: &'a str,
    ways: Vec<table::Shown<storage::Way>>,
}

#[derive(Serialize)]
struct NotMeasured<'a> {
    storage: &'a str,
    why: String,
}

impl<'a> From<&'a Measured<'a>> for StorageAnswer<'a> {
    fn from((storage, rows): &'a Measured<'a>) -> Self {
        Self { id: &storage.id, ways: rows.iter().map(Row::shown).collect() }
    }
}

fn report(links: &[Row<link::Way>], storages: &[Measured<'_>], choice: &Choice) -> String {
    let mut text = table::print("ENGINE, CONNECTIONS", links);
    for (storage, rows) in storages {
        text += &table::print(&format!("STORAGE {}", storage.id), rows);
    }
    text + "\nTo set in ppu.toml, the rest stays as it is:\n\n" + &choice.toml()
}

impl Bench<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Says how far it is, and what came last.
    fn progress(&mut self, what: &str) {
        self.done += 1;
        note(&format!("[{}/{}] {what}", self.done, self.all));
    }
}
