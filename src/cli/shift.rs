//! `shift`: begin one, show the current one, list the last ones.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use clap::Subcommand;
use jiff::tz::TimeZone;
use ppu_uringd::model::shift_report::{ShiftReport, Silent, Started};
use ppu_uringd::model::shift_request::{Owner, PlaceRequest, ShiftRequest};
use ppu_uringd::serve::control::{Request, Response, query};

use super::Failure;
use super::control::Control;
use super::output;

/// Begin a user shift, show the current one, list the last ones.
#[derive(Subcommand)]
pub(super) enum Command {
    Start(StartArgs),
    Show(ShowArgs),
    List(ListArgs),
}

/// Begin a shift: from now on images belong to somebody else
///
/// Closes the shift before. Nothing is restarted and nothing is lost: an image belongs
/// to the shift in which the detector closed it, however much later it is transferred.
/// What is left out comes from the configuration (ppu.toml).
///
/// Waits up to 2 s until every detector tells the files of both shifts apart, and names
/// those that did not answer. A detector that is not connected learns of it when it is,
/// and of the moment at which it began; its files wait until then.
///
/// Examples:
///   ppu-uringd shift start -u 500:501
///   ppu-uringd shift start -u 502
///   ppu-uringd shift start -u 502 -d 1MF:/run7:/ramdisk/./1mf -d 2MF:/:/ramdisk/./2mf
///
/// Exit codes: 0 = the shift has begun (also if a detector did not answer yet: it is
/// named); 1 = it has not; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct StartArgs {
    #[command(flatten)]
    control: Control,

    /// Of one detector: its id, what is taken (below its ramdisk; `/` = all), and where it lands (on the PPU's ramdisk;
    /// storages replicate what comes after `/./`). May be given for every detector
    #[arg(short, long = "detector", value_name = "ID:SOURCE:TARGET")]
    detectors: Vec<PlaceRequest>,

    /// The files' owner and group, as numbers; `500` alone means 500:500. Never root
    #[arg(short, long, value_name = "UID:GID")]
    user: Option<Owner>,

    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

/// Show the current shift, and which detectors know of it
///
/// Exit codes: 0 = done; 1 = the daemon did not answer; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    control: Control,

    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

/// List the last shifts, oldest first; `*` marks the current one
///
/// Exit codes: 0 = done; 1 = the daemon did not answer; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ListArgs {
    #[command(flatten)]
    control: Control,

    /// How many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    last: u64,

    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Start(args) => start(args),
        Command::Show(args) => show(args),
        Command::List(args) => list(args),
    }
}

fn start(args: &StartArgs) -> Result<(), Failure> {
    let request = ShiftRequest { places: args.detectors.clone(), owner: args.user };
    let answer = query(&args.control.socket()?, &Request::StartShift(request)).map_err(Failure::failed)?;
    let started = match answer {
        Response::ShiftStarted(started) => started,
        other => return Err(unexpected(&other)),
    };
    if args.json {
        return output::object(&started);
    }
    output::print(&started_text(&started, &TimeZone::system()))
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let shifts = last(&args.control, 1)?;
    let current = shifts.last().ok_or_else(|| Failure::Failed("the daemon knows no shift".to_owned()))?;
    if args.json {
        return output::object(current);
    }
    output::print(&shift_text(current, &TimeZone::system()))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let shifts = last(&args.control, args.last)?;
    if args.json {
        return output::object(&serde_json::json!({ "shifts": shifts }));
    }
    output::print(&table(&shifts, &TimeZone::system(), io::stdout().is_terminal()))
}

fn last(control: &Control, last: u64) -> Result<Vec<ShiftReport>, Failure> {
    match query(&control.socket()?, &Request::Shifts { last }).map_err(Failure::failed)? {
        Response::Shifts(shifts) => Ok(shifts),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Response) -> Failure {
    Failure::Failed(format!("the daemon answered something else: {answer:?}"))
}

fn started_text(started: &Started, zone: &TimeZone) -> String {
    let mut text = shift_text(&started.shift, zone);
    for Silent { detector, why } in &started.silent {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "WARNING  detector {detector} {why}. Its files of the old and the new shift are told apart when it answers; they wait until then"
        );
    }
    for warning in &started.warnings {
        let _ = writeln!(text, "WARNING  {warning}");
    }
    text
}

fn shift_text(shift: &ShiftReport, zone: &TimeZone) -> String {
    let ShiftReport { name, uid, gid, user_dir, detectors, .. } = shift;
    let mut text = format!("shift {name}, since {}\n", local(shift, zone));
    let _ = writeln!(
        text,
        "  user       {uid}:{gid}{}",
        if user_dir.is_empty() { String::new() } else { format!(", below {user_dir}") }
    );
    for place in detectors {
        let word = match place.word {
            Some(true) => "",
            Some(false) => "  (does not know of it yet)",
            None => "  (not configured any more)",
        };
        let _ = writeln!(text, "  detector   {}: {} to {}{word}", place.id, place.source, place.target);
    }
    text
}

fn table(shifts: &[ShiftReport], zone: &TimeZone, head: bool) -> String {
    let mut text = match head {
        true => format!("  {:<16} {:<20} {:>10} {:>10}  USER DIRECTORY\n", "SHIFT", "SINCE", "UID", "GID"),
        false => String::new(),
    };
    for shift in shifts {
        let mark = if shift.current { '*' } else { ' ' };
        let ShiftReport { name, uid, gid, user_dir, .. } = shift;
        let _ =
            writeln!(text, "{mark} {name:<16} {:<20} {uid:>10} {gid:>10}  {user_dir}", local(shift, zone));
    }
    text
}

fn local(shift: &ShiftReport, zone: &TimeZone) -> String {
    let start = jiff::Timestamp::from_millisecond(shift.start_ms.0).unwrap_or_default();
    start.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use ppu_uringd::model::shift::ShiftId;
    use ppu_uringd::model::shift_report::PlaceReport;

    use super::*;

    fn report() -> ShiftReport {
        let place = |id: &str, word| PlaceReport {
            id: id.to_owned(),
            source: "/".to_owned(),
            target: format!("/ramdisk/./{id}"),
            word,
        };
        ShiftReport {
            start_ms: ShiftId(1_785_542_399_000),
            name: "20260731-235959".to_owned(),
            current: true,
            uid: 500,
            gid: 501,
            user_dir: "500_501".to_owned(),
            detectors: vec![place("1MF", Some(true)), place("2MF", Some(false))],
        }
    }

    #[test]
    fn the_current_one_is_marked() {
        let past = ShiftReport { current: false, uid: 7, ..report() };
        let text = table(&[past, report()], &TimeZone::UTC, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("  20260731-235959") && lines[1].starts_with("* 20260731-235959"),
            "{text}"
        );
    }

    #[test]
    fn who_did_not_answer_is_named() {
        let silent = vec![Silent { detector: "2MF".to_owned(), why: "gave no answer yet".to_owned() }];
        let started = Started { shift: report(), silent, warnings: vec!["Detectors share.".to_owned()] };
        let text = started_text(&started, &TimeZone::UTC);
        assert!(
            text.starts_with(
                "shift 20260731-235959, since 2026-07-31 23:59:59\n  user       500:501, below 500_501\n"
            ),
            "{text}"
        );
        assert!(text.contains("2MF: / to /ramdisk/./2MF  (does not know of it yet)"), "{text}");
        assert!(text.contains("WARNING  detector 2MF gave no answer yet."), "{text}");
        assert!(text.contains("WARNING  Detectors share."), "{text}");
    }
}
