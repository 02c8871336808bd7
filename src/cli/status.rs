//! `status`: one table, what is wrong first.

mod page;
mod watch;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use ppu_uringd::model::status::StatusReport;
use ppu_uringd::serve::control::{Request, Response, query};
use ppu_uringd::wire::handshake::SOFTWARE;

use super::Failure;
use super::control::Control;
use super::output::print;

/// Show how the PPU's daemon is: what is wrong, detectors, storages, shifts
///
/// First what needs attention and what to do about it; then every detector (link,
/// backlog, rate, clock), every storage, and for each shift and storage how many
/// files are where: pending + copied + failed + superseded + lost = produced.
///
/// Examples:
///   ppu-uringd status
///   ppu-uringd status --watch
///   ppu-uringd status --json | jq .shifts
///   ppu-uringd status --watch --json | jq --unbuffered .detectors[0].rate
///
/// With --watch: a live screen, with throughput, latency, fill levels (and when they
/// will be full) and the last messages; `q` ends it, and a daemon that restarts is waited for.
/// Colours only on a terminal, and not where NO_COLOR is set.
///
/// Exit codes: 0 = the daemon answered (also if something is wrong); 1 = it did
/// not; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    control: Control,

    /// A live screen, until `q`
    #[arg(long, short)]
    watch: bool,

    /// For scripts: everything, as one JSON object; with --watch one a second, each on a line
    #[arg(long)]
    json: bool,
}

/// Between two objects of --watch --json.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = args.control.socket()?;
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    match (args.watch, args.json) {
        (true, true) => stream(&socket),
        (true, false) => watch::run(&socket, colour),
        (false, true) => {
            print(&(serde_json::to_string_pretty(&report(&socket)?).map_err(Failure::failed)? + "\n"))
        }
        (false, false) => {
            print(&page::page(&report(&socket)?, SOFTWARE, &jiff::tz::TimeZone::system(), colour))
        }
    }
}

fn report(socket: &Path) -> Result<StatusReport, Failure> {
    match query(socket, &Request::Status).map_err(Failure::failed)? {
        Response::Status(report) => Ok(*report),
        other => Err(Failure::Failed(format!("the daemon answered something else: {other:?}"))),
    }
}

/// Until the daemon, or whoever reads, has had enough.
fn stream(socket: &Path) -> Result<(), Failure> {
    loop {
        let line = serde_json::to_string(&report(socket)?).map_err(Failure::failed)? + "\n";
        match io::stdout().write_all(line.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(Failure::failed)?,
        }
        std::thread::sleep(EVERY);
    }
}
