//! `messages`: what the daemon told, and tells.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::Told;
use ppu_uringd::serve::control::{Client, QueryError, Request, Response};

use super::Failure;
use super::control::Control;
use super::output::{note, versioned};

/// How often a daemon that does not answer is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Show what the daemon reports: COPY_ERROR, DATA_LOST, DISK_OVERFLOW, ...
///
/// Prints the messages that the daemon has kept (the last 1000, also from before its last start), oldest first; with
/// --follow also every further one as it happens, over restarts of the daemon. Each has a number that grows, a code, a
/// short text (the file, the mount point, or source:destination; `:` in names as %3A) and a long one that says what to do.
/// The same message again is counted, not repeated: `... and 17 more`.
///
/// Examples:
///   ppu-uringd messages
///   ppu-uringd messages --follow --code COPY_ERROR --code DATA_LOST
///   ppu-uringd messages --json --since 4017 | jq -r .short
///
/// Exit codes: 0 = done; 1 = the daemon did not answer; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    control: Control,

    /// Go on with every further message, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    /// Only messages after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,

    /// Only messages of this code; may be given several times
    #[arg(long, value_name = "CODE")]
    code: Vec<Code>,

    /// For scripts: one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = args.control.socket()?;
    let mut since = args.since;
    let mut answered = false;
    loop {
        match listen(args, &socket, &mut since, &mut answered) {
            Ok(()) => return Ok(()),
            // `messages | head` has seen enough.
            Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(Ended::Output(error)) => return Err(Failure::failed(error)),
            Err(Ended::Daemon(error)) if !args.follow => return Err(Failure::failed(error)),
            Err(Ended::Daemon(error)) => {
                note(&format!("ppu-uringd: {error}. Waiting for it."));
                answered = false;
                while Client::connect(&socket).is_err() {
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }
}

/// Why the conversation is over.
enum Ended {
    Daemon(QueryError),
    Output(io::Error),
}

/// Until the answer's end. `since` moves on with what is printed.
fn listen(args: &Args, socket: &Path, since: &mut u64, answered: &mut bool) -> Result<(), Ended> {
    let again = *since != args.since;
    let mut client = Client::connect(socket).map_err(Ended::Daemon)?;
    let request = |since| Request::Messages { since, codes: args.code.clone(), follow: args.follow };
    client.ask(&request(*since)).map_err(Ended::Daemon)?;
    loop {
        let heard = client.hear().map_err(Ended::Daemon)?;
        let Response::Messages { last, messages } = heard.response else {
            return Err(Ended::Daemon(QueryError::Answer(format!(
                "the daemon answered something else: {:?}",
                heard.response
            ))));
        };
        if !std::mem::replace(answered, true) && again {
            note("ppu-uringd: the daemon answers again.");
            if last < *since {
                note("ppu-uringd: its journal was begun anew, and with it the numbers.");
                *since = 0;
                return listen(args, socket, since, answered);
            }
        }
        for told in messages {
            *since = told.number;
            print(args, &told).map_err(Ended::Output)?;
        }
        if !heard.more {
            return Ok(());
        }
    }
}

fn print(args: &Args, told: &Told) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &versioned(told))?;
        return writeln!(out);
    }
    let at = jiff::Timestamp::from_millisecond(told.at_ms).unwrap_or_default();
    let at = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let Told { number, message, .. } = told;
    writeln!(out, "{at} #{number} {} {}\n    {}", message.code, message.short, message.long)
}
