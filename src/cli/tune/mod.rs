//! `tune`: measures on the operator's own mounts and network, with the product's own code, and says what to set.

mod arrivals;
mod choice;
mod link;
mod own;
mod place;
mod remote;
mod serve;
mod storage;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ppu_config::{Checked, Ppu};
use ppu_uringd::daemon::{key, signals};
use ppu_uringd::host::wakeup::QuickWakeups;
use ppu_uringd::serve::control::{Request, query};
use serde::Serialize;

use super::output::{self, note};
use super::{Failure, size, stop};
use choice::{Choice, Measured, OverNetwork};
use place::Place;
use table::{ROUNDS, Row};

/// Depths that are tried; each storage has its own best.
const DEPTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Data connections that are tried, of each engine.
const STREAMS: [u16; 4] = [1, 2, 4, 8];

/// Measure this machine, or its network, and say what to set
///
/// Three ways:
///
///   tune --config ppu.toml                    this machine and its mounts
///   tune --config ppu.toml --from DETECTOR    the network, from a detector, on which
///   tune --serve --config detector.toml       this runs meanwhile
///
/// This machine: copies files from the ramdisk to each storage with several queue
/// depths (and, with the best one, through the page cache), and sends files through
/// both engines with several connections. Both ends of the connections are on this
/// machine then, whose processors they share: more than that the network cannot bring.
///
/// The network: fetches files from the detector's ramdisk with both engines, at either
/// end, and several connections. On the detector start `tune --serve`; it makes files of
/// its own in a directory of its own on the ramdisk and listens on the port after the
/// daemon's (49372), which a firewall between must let through. It talks only to
/// `tune --from` with the same key_file, sends nothing but those files, and removes them
/// at its end: Ctrl-C, or --idle seconds without a measurement.
///
/// Everything is done as the daemons do it, by the same code, every step included; each
/// way three times, in turn. Prints the medians and the lines to set; what you have stays
/// where it is as good as the best. Changes nothing: everything is written into
/// directories of its own on the ramdisk and below the storages' targets
/// (.ppu-uringd-tune-*), which are removed at the end and on Ctrl-C.
///
/// Run it while no images come; a daemon that works disturbs it, and is disturbed. The
/// sizes of pipes and batches are not worth tuning, so there are no keys for them.
///
/// Example:
///   ppu-uringd tune --config /etc/ppu-uringd/ppu.toml
///   ppu-uringd tune --config /etc/ppu-uringd/ppu.toml --size 6.2MB
///
/// Example, over the network (1MF is the detector's id in ppu.toml):
///   detector$ ppu-uringd tune --serve --config /etc/ppu-uringd/detector.toml
///   ppu$      ppu-uringd tune --config /etc/ppu-uringd/ppu.toml --from 1MF
///
/// Exit codes: 0 = measured, or served; 1 = something could not be measured, or
/// interrupted; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// ppu.toml; with --serve, detector.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Measure over the network from this detector: its id or host in ppu.toml, with
    /// :PORT if `tune --serve` listens on another than the port after the daemon's
    #[arg(long, value_name = "DETECTOR")]
    from: Option<String>,

    /// Be the detector's end of a measurement over the network
    #[arg(long, conflicts_with_all = ["from", "json", "seconds"])]
    serve: bool,

    /// Where --serve listens [default: the port after `listen` in detector.toml]
    #[arg(long, value_name = "ADDRESS:PORT", requires = "serve")]
    listen: Option<SocketAddr>,

    /// --serve ends that long after the last measurement
    #[arg(long, value_name = "SECONDS", requires = "serve", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: u64,

    /// Size of one image: yours. Over the network it is given to --serve
    #[arg(long, value_name = "SIZE", default_value = "2.4MB", value_parser = size::image, conflicts_with = "from")]
    size: u64,

    /// How long it may take, about
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// For scripts: one JSON object, with everything that was measured
    #[arg(long)]
    json: bool,
}

/// How far a run is, and whether it is to end.
struct Pace {
    /// Of one measurement.
    time: Duration,
    stop: Arc<AtomicBool>,
    done: usize,
    all: usize,
}

/// What all measurements on this machine have in common.
struct Bench<'a> {
    config: &'a Ppu,
    place: Place,
    pace: Pace,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    signals::ignore_lease_and_pipe();
    match &args.from {
        _ if args.serve => serve::run(args),
        Some(from) => network(args, from),
        None => machine(args),
    }
}

/// A configuration, and a run that is about to begin.
fn begin(args: &Args) -> Result<(Ppu, Pace), Failure> {
    let Checked { config, .. } = Ppu::load(&args.config)?;
    let stop = stop::on_signals()?;
    if query(&config.interfaces.control, &Request::Status).is_ok() {
        note("WARNING  the daemon runs: it disturbs the measurement, and is disturbed by it");
    }
    Ok((config, Pace { time: Duration::ZERO, stop, done: 0, all: 0 }))
}

fn machine(args: &Args) -> Result<(), Failure> {
    let (config, mut pace) = begin(args)?;
    // Through the page cache comes on top.
    let ways = 2 * STREAMS.len() + config.storages.len() * (DEPTHS.len() + 1);
    pace.all = ways * ROUNDS;
    pace.time = Duration::from_secs(args.seconds) / pace.all as u32;
    let place = Place::new(&config.ramdisk, args.size)?;
    note(&place.to_string());
    let mut bench = Bench { config: &config, place, pace };
    let links = link::measure(&mut bench)?;
    let mut storages = Vec::new();
    let mut not_measured = Vec::new();
    for storage in &config.storages {
        match storage::measure(&mut bench, storage) {
            Ok(rows) => storages.push((storage, rows)),
            Err(reason) if bench.pace.is_stopped() => return Err(Failure::Failed(reason)),
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

fn network(args: &Args, from: &str) -> Result<(), Failure> {
    let (config, mut pace) = begin(args)?;
    let (named, address) = remote::whom(&config, from)?;
    let key = key::load(config.key_file.as_deref()).map_err(Failure::failed)?.for_measuring();
    let place = place::empty(&config.ramdisk)?;
    let target = place.path().to_owned();
    let detector = remote::Detector { address, key, target, verify: config.verify };
    let mut wakeups = QuickWakeups::new(config.low_latency);
    wakeups.image(Instant::now());
    let measured = remote::measure(&detector, &mut pace, args.seconds);
    place.close().map_err(|error| Failure::Failed(format!("{}: {error}", config.ramdisk.display())))?;
    let remote::Measured { file_bytes, rows } = measured?;
    let choice = OverNetwork::new(&config, named, &rows);
    if args.json {
        return output::object(&NetworkAnswer {
            image_bytes: file_bytes,
            detector: &named.id,
            address: detector.address.to_string(),
            links: rows.iter().map(Row::shown).collect(),
            set: &choice,
        });
    }
    let table = table::print(&format!("FROM {} AT {}", named.id, detector.address), &rows);
    output::print(&format!(
        "{table}\nTo set in ppu.toml, the rest stays as it is:\n\n{}\nTo set in detector.toml there:\n\n{}",
        choice.toml(),
        choice.toml_there(),
    ))
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

/// The same of a measurement over the network.
#[derive(Serialize)]
struct NetworkAnswer<'a> {
    image_bytes: u64,
    detector: &'a str,
    address: String,
    links: Vec<table::Shown<remote::Way>>,
    set: &'a OverNetwork,
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

impl Pace {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Says how far it is, and what came last.
    fn progress(&mut self, what: &str) {
        self.done += 1;
        note(&format!("[{}/{}] {what}", self.done, self.all));
    }
}
