//! `status`: one table, what is wrong first.

mod health;
mod page;
mod units;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use ppu_config::Ppu;
use ppu_uringd::serve::control::{DEFAULT_CONTROL_SOCKET, Request, Response, query};
use ppu_uringd::wire::handshake::SOFTWARE;

use super::Failure;

/// Show how the PPU's daemon is: what is wrong, detectors, storages, shifts
///
/// First what needs attention and what to do about it; then every detector (link,
/// backlog, rate, clock), every storage, and for each shift and storage how many
/// files are where: pending + copied + failed + superseded + lost = produced.
///
/// Examples:
///   ppu-uringd status
///   ppu-uringd status --json | jq .shifts
///
/// Exit codes: 0 = the daemon answered (also if something is wrong); 1 = it did
/// not; 2 = the configuration file is wrong.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The daemon's control socket [default: /run/ppu-uringd/control.sock]
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    control: Option<PathBuf>,

    /// ppu.toml: find the control socket there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// For scripts: everything, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = match (&args.control, &args.config) {
        (Some(socket), _) => socket.clone(),
        (None, Some(file)) => Ppu::load(file)?.config.interfaces.control,
        (None, None) => DEFAULT_CONTROL_SOCKET.into(),
    };
    let report = match query(&socket, &Request::Status).map_err(Failure::failed)? {
        Response::Status(report) => report,
        Response::Error(reason) => return Err(Failure::Failed(reason)),
    };
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n",
        false => {
            let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
            page::page(&report, SOFTWARE, &jiff::tz::TimeZone::system(), colour)
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // `status | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::failed),
    }
}
