//! `add`: extra files to the storages.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ppu_uringd::model::path::{RelPath, printable};
use ppu_uringd::serve::control::{Client, Request, Response};
use serde::Serialize;

use super::Failure;
use super::control::Control;
use super::output::{self, Name};

/// How long a daemon that has enough to do is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two times.
const AGAIN: Duration = Duration::from_millis(100);

/// Store further files: logs, scripts, processing results
///
/// Each file is opened by this command, with the rights of whoever runs it, and handed to the daemon, which copies it to
/// every storage: durable, like an image, and counted under the current shift. Owner, mode and time are kept. `/./` marks
/// where the path begins that storages repeat, as in rsync -R:
///
///   /some/./path/to/file  is stored as  STORAGE/path/to/file
///   /some/path/to/file    is stored as  STORAGE/some/path/to/file
///   ./file                is stored as  STORAGE/file
///
/// When the command has ended, the daemon has the files and stores them, whatever happens to it or to their names; do not
/// change a file before it is stored (if it changes, its newer content is taken). Only regular files on file systems of
/// this machine are taken, and none is ever stored over an image or over another user's file. Directories that are made on
/// a storage for a file can be searched by all users.
///
/// Examples:
///   ppu-uringd add run7.log
///   ppu-uringd add --wait /ramdisk/./1mf/500_500/process/XDS.INP
///
/// Exit codes: 0 = taken (with --wait: stored everywhere); 1 = at least one was not,
/// the reason is on standard error; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    control: Control,

    /// Return when the files are stored on every storage
    #[arg(long)]
    wait: bool,

    /// For scripts: one JSON object, with what became of each file
    #[arg(long)]
    json: bool,

    /// The files
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args.control.socket()?).map_err(Failure::failed)?;
    let mut handled = Vec::new();
    for path in &args.paths {
        handled.push(match add(&mut client, path) {
            Ok(file) => (Handled::new(path, Outcome::Taken, None), Some(file)),
            Err(why) => (Handled::new(path, Outcome::Refused, Some(why)), None),
        });
    }
    if args.wait {
        for (path, (handled, file)) in args.paths.iter().zip(&mut handled) {
            let Some(file) = file.take() else { continue };
            *handled = match wait(&mut client, file) {
                Ok(()) => Handled::new(path, Outcome::Stored, None),
                Err(why) => Handled::new(path, Outcome::NotStored, Some(why)),
            };
        }
    }
    let files: Vec<Handled> = handled.into_iter().map(|(handled, _)| handled).collect();
    if args.json {
        output::object(&serde_json::json!({ "files": files }))?;
    }
    let well = files.iter().all(|file| matches!(file.outcome, Outcome::Taken | Outcome::Stored));
    if well { Ok(()) } else { Err(Failure::Reported) }
}

/// What became of a file.
#[derive(Serialize)]
struct Handled {
    #[serde(flatten)]
    name: Name,
    outcome: Outcome,
    /// Why not, for people.
    why: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It will be stored.
    Taken,
    /// On every storage.
    Stored,
    /// It was not taken.
    Refused,
    /// It was taken, and given up for now on a storage at least.
    NotStored,
}

impl Handled {
    /// Says at once why not.
    fn new(path: &Path, outcome: Outcome, why: Option<String>) -> Self {
        let path = path.as_os_str().as_bytes();
        if let Some(why) = &why {
            output::note(&format!("ppu-uringd: {}: {why}", printable(path)));
        }
        Self { name: Name::new(path), outcome, why }
    }
}

/// Hands one file over.
fn add(client: &mut Client, path: &Path) -> Result<RelPath, String> {
    let whole = std::env::current_dir().map_err(|error| format!("current directory: {error}"))?.join(path);
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file =
        File::options().read(true).custom_flags(nonblock).open(path).map_err(|error| error.to_string())?;
    let request = Request::Add { path: whole.as_os_str().as_bytes().to_vec() };
    let since = Instant::now();
    loop {
        client.hand_over(&request, file.as_fd()).map_err(|error| error.to_string())?;
        match last(client)? {
            Response::Added { file } => return Ok(file),
            Response::TryAgain(why) if since.elapsed() > PATIENCE => return Err(why),
            Response::TryAgain(_) => std::thread::sleep(AGAIN),
            other => return Err(format!("the daemon answered something else: {other:?}")),
        }
    }
}

fn wait(client: &mut Client, file: RelPath) -> Result<(), String> {
    client.ask(&Request::Await { file }).map_err(|error| error.to_string())?;
    match last(client)? {
        Response::Ended { stored: true } => Ok(()),
        Response::Ended { stored: false } => {
            Err("not stored everywhere; why: ppu-uringd messages --code COPY_ERROR".to_owned())
        }
        other => Err(format!("the daemon answered something else: {other:?}")),
    }
}

fn last(client: &mut Client) -> Result<Response, String> {
    loop {
        let heard = client.hear().map_err(|error| error.to_string())?;
        if !heard.more {
            return Ok(heard.response);
        }
    }
}
