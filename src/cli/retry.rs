//! `retry`: what had failed is copied again.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ppu_uringd::serve::control::{Request, Response, Which, query};

use super::Failure;
use super::control::Control;
use super::output;

/// Queue failed copies again
///
/// A copy that failed again and again is given up (COPY_ERROR) and counts as failed; the image stays where it is. When
/// the cause is removed (disk repaired, name freed), this command has it copied after all, with all its tries. An image
/// that is no longer on the ramdisk is read from another storage, or fetched again while its detector still has it. The
/// next start of the daemon does the same by itself.
///
/// Examples:
///   ppu-uringd retry
///   ppu-uringd retry --storage external --shift current
///   ppu-uringd retry /ramdisk/1mf/500_500/run7
///   ppu-uringd retry run7/a_001.cbf
///
/// Exit codes: 0 = queued, or nothing had failed; 1 = the daemon did not answer, or
/// does not know what was named; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    control: Control,

    /// Only copies to this storage
    #[arg(long, value_name = "NAME")]
    storage: Option<String>,

    /// Only files of the shift that began then: 20260131-235959 (UTC), milliseconds since the epoch, or `current`
    #[arg(long, value_name = "START")]
    shift: Option<String>,

    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,

    /// Only these files, or files below these directories: on the ramdisk, on a storage, or (without a leading `/`)
    /// below the detector's source
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let socket = args.control.socket()?;
    let which = Which {
        storage: args.storage.clone(),
        shift: args.shift.clone(),
        paths: args.paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
    };
    match query(&socket, &Request::Retry(which)).map_err(Failure::failed)? {
        Response::Retried { copies, files } if args.json => {
            output::object(&serde_json::json!({ "copies": copies, "files": files }))
        }
        Response::Retried { copies: 0, .. } => output::line("Nothing of that has failed."),
        Response::Retried { copies, files } => {
            output::line(&format!("Queued again: {copies} copies of {files} files."))
        }
        other => Err(Failure::Failed(format!("the daemon answered something else: {other:?}"))),
    }
}
