//! `status`: one table, what is wrong first.

mod health;
mod page;
mod units;

use std::env;
use std::io::{self, IsTerminal, Write};

use ppu_uringd::serve::control::{Request, Response, query};
use ppu_uringd::wire::handshake::SOFTWARE;

use super::Failure;
use super::control::Control;

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
    #[command(flatten)]
    control: Control,

    /// For scripts: everything, as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = args.control.socket()?;
    let report = match query(&socket, &Request::Status).map_err(Failure::failed)? {
        Response::Status(report) => report,
        other => return Err(Failure::Failed(format!("the daemon answered something else: {other:?}"))),
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
