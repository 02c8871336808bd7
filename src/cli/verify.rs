//! `verify`: are the stored copies still what was stored?

use std::io::{self, IsTerminal, Write};

use ppu_uringd::serve::control::{Client, Request, Response, Tested, Which};

use super::Failure;
use super::control::Control;
use super::output;

/// Read stored copies again and compare them with what was stored
///
/// Reads every file that the journal calls stored from the disk (not from memory) and compares its hash with the one that
/// the detector computed. All storages at once, at the lowest priority; landing and copying go on. What was evicted or
/// purged to the external storage, as configured, is counted as `elsewhere`. Ctrl-C stops it.
///
/// A copy that is damaged or missing is named. Its image may still be on the ramdisk, on the detector or on another storage:
/// see to the disk first, then copy it from there.
///
/// Examples:
///   ppu-uringd verify
///   ppu-uringd verify --storage external --shift current
///   ppu-uringd verify --json
///
/// Exit codes: 0 = everything is as it was stored; 1 = something is not, or not
/// everything could be read; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    control: Control,

    /// Only this storage
    #[arg(long, value_name = "NAME")]
    storage: Option<String>,

    /// Only files of the shift that began then: 20260131-235959 (UTC), milliseconds since the epoch, or `current`
    #[arg(long, value_name = "START")]
    shift: Option<String>,

    /// For scripts: one JSON object a line; `finding` for every bad copy, `verified` at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let which = Which { storage: args.storage.clone(), shift: args.shift.clone(), paths: Vec::new() };
    let mut client = Client::connect(&args.control.socket()?).map_err(Failure::failed)?;
    client.ask(&Request::Verify(which)).map_err(Failure::failed)?;
    let mut progress = Progress(io::stderr().is_terminal() && !args.json);
    loop {
        let heard = client.hear().map_err(Failure::failed)?;
        let is_last = !heard.more;
        match &heard.response {
            Response::Verifying(tested) => progress.show(tested),
            Response::Finding(_) | Response::Verified { .. } if args.json => {
                output::object_line(&heard.response)?;
            }
            Response::Finding(finding) => {
                progress.clear();
                output::line(&format!("{}: {} is {}", finding.storage, finding.path, finding.what))?;
            }
            Response::Verified { storages } => {
                progress.clear();
                storages.iter().try_for_each(|tested| output::print(&summary(tested)))?;
            }
            other => return Err(Failure::Failed(format!("the daemon answered something else: {other:?}"))),
        }
        if let Response::Verified { storages } = heard.response {
            let fine = storages.iter().all(|tested| tested.bad() == 0 && tested.incomplete.is_none());
            return if fine { Ok(()) } else { Err(Failure::Reported) };
        }
        if is_last {
            return Err(Failure::Failed("the daemon ended its answer too early".to_owned()));
        }
    }
}

fn summary(tested: &Tested) -> String {
    let Tested { storage, files, bytes, same, elsewhere, damaged, missing, unreadable, incomplete } = tested;
    let mega = *bytes as f64 / 1e6;
    let mut line = format!("{storage}: {files} files ({mega:.1} MB), {same} as stored");
    for (count, what) in
        [(elsewhere, "elsewhere"), (damaged, "DAMAGED"), (missing, "MISSING"), (unreadable, "UNREADABLE")]
    {
        if *count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line.push('\n');
    if let Some(reason) = incomplete {
        line += &format!("{storage}: NOT COMPLETE: {reason}\n");
    }
    line
}

/// One line that is written over, for somebody who looks.
struct Progress(bool);

impl Progress {
    fn show(&mut self, tested: &Tested) {
        if self.0 {
            let mega = tested.bytes as f64 / 1e6;
            let _ = write!(
                io::stderr(),
                "\r\x1b[K{}: {} files, {mega:.0} MB, {} bad",
                tested.storage,
                tested.files,
                tested.bad()
            );
        }
    }

    fn clear(&mut self) {
        if self.0 {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
