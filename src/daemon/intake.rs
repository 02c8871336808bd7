//! Taking extra files in: from the command line's descriptors, and from named pipes (SPEC 3.9).

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use ppu_config::Interfaces;

use super::hub::Input;
use crate::host::inbox::Sender;
use crate::intake::examine::examine;
use crate::intake::pipe::{Named, Pipe};
use crate::model::extra::ExtraFile;
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::rooted::{Handed, Root};
use crate::serve::control::{Answer, Response};

/// Files that wait to be looked at.
const WAITING_MAX: usize = 32;

/// Where files that are to be looked at go; never waits.
#[derive(Clone)]
pub(super) struct Intake {
    files: SyncSender<ToExamine>,
}

/// A file that was handed over.
enum ToExamine {
    New { written: Vec<u8>, file: OwnedFd, answer: Answer },
    Again { path: RelPath, file: OwnedFd },
}

/// An extra file for the hub.
pub(super) struct TakenIn {
    pub(super) file: ExtraFile,
    pub(super) descriptor: OwnedFd,
    /// Who waits to hear that it is safe in the journal.
    pub(super) answer: Option<Answer>,
}

impl Intake {
    /// Starts the thread that looks at files.
    pub(super) fn start(handed: Arc<Handed>, inputs: Sender<Input>) -> std::io::Result<Self> {
        let (files, examined) = sync_channel(WAITING_MAX);
        thread::Builder::new().name("intake".into()).spawn(move || work(&examined, &handed, &inputs))?;
        Ok(Self { files })
    }

    /// Somebody hands over a file under the name that they have written.
    pub(super) fn add(&self, written: Vec<u8>, mut answer: Answer) {
        let Some(file) = answer.take_file() else {
            // It is not there either where we are out of descriptors: the kernel drops it then.
            let why = "no descriptor came with the request: give it again";
            return drop(answer.send(Response::TryAgain(why.to_owned())));
        };
        if let Err(TrySendError::Full(refused)) =
            self.files.try_send(ToExamine::New { written, file, answer })
            && let ToExamine::New { answer, .. } = refused
        {
            busy(answer);
        }
    }

    /// A known file is to be looked at anew; where there is no room for that now, it is asked for again later.
    pub(super) fn look_again(&self, path: RelPath, file: OwnedFd) {
        let _ = self.files.try_send(ToExamine::Again { path, file });
    }
}

fn busy(answer: Answer) {
    let why = "so many extra files wait to be stored already that no further one is taken now: try again later, and see `ppu-uringd status`";
    drop(answer.send(Response::TryAgain(why.to_owned())));
}

fn work(files: &Receiver<ToExamine>, handed: &Handed, inputs: &Sender<Input>) {
    for next in files {
        let taken_in = match next {
            ToExamine::New { answer, .. } if handed.is_full() => {
                busy(answer);
                continue;
            }
            ToExamine::New { written, file: descriptor, answer } => {
                // Reading it may take a while. Who has left no longer wants it.
                if !answer.say(Response::Reading {}) {
                    continue;
                }
                match examine(&descriptor, &written) {
                    Ok(file) => TakenIn { file, descriptor, answer: Some(answer) },
                    Err(why) => {
                        drop(answer.send(Response::Error(why)));
                        continue;
                    }
                }
            }
            ToExamine::Again { path, file: descriptor } => match again(&path, &descriptor) {
                Ok(file) => TakenIn { file, descriptor, answer: None },
                Err(why) => {
                    tracing::warn!("an extra file that changed cannot be read anew: {path}: {why}");
                    continue;
                }
            },
        };
        if inputs.send(Input::Extra(Box::new(taken_in))).is_err() {
            return;
        }
    }
}

/// The same file under the same name, as it is now.
fn again(path: &RelPath, file: &OwnedFd) -> Result<ExtraFile, String> {
    let found = examine(file, b"/changed")?;
    Ok(ExtraFile { path: path.clone(), ..found })
}

/// Makes the pipes and reads them. One that cannot be made is reported, and missed by nobody else.
pub(super) fn start_pipes(interfaces: &Interfaces, handed: &Arc<Handed>, inputs: &Sender<Input>) {
    let pipes = [&interfaces.file_pipe, &interfaces.old_file_pipe];
    for path in pipes.into_iter().flatten() {
        let opened = group(interfaces).and_then(|group| Pipe::open(path, group));
        let started = opened.and_then(|pipe| start_pipe(pipe, interfaces, handed, inputs));
        match started {
            Ok(()) => tracing::info!("paths of extra files are taken at {}", path.display()),
            Err(why) => {
                let path = path.display();
                let long = format!(
                    "No extra files are taken at the pipe {path}: {why}. What scripts write there is not stored. Remove the cause and restart \
                     the daemon; `ppu-uringd add` works meanwhile."
                );
                drop(inputs.send(Input::Tell(Message::new(
                    Code::CopyError,
                    format!("{path}:storages"),
                    long,
                ))));
            }
        }
    }
}

fn start_pipe(
    pipe: Pipe,
    interfaces: &Interfaces,
    handed: &Arc<Handed>,
    inputs: &Sender<Input>,
) -> Result<(), String> {
    let root = |path: &Path| {
        Root::open(path).map_err(|error| tracing::error!("interfaces.intake_roots: {error}")).ok()
    };
    let roots: Vec<Root> = interfaces.intake_roots.iter().filter_map(|path| root(path)).collect();
    let (handed, inputs) = (Arc::clone(handed), inputs.clone());
    let name = pipe.path().display().to_string();
    let take = move |named| {
        let input = match named {
            Some(Named::File(file, descriptor)) => {
                Input::Extra(Box::new(TakenIn { file: *file, descriptor, answer: None }))
            }
            Some(Named::Refused { line, why }) => {
                let long = format!("{line:?} was written to {name} and is not stored: {why}.");
                Input::Tell(Message::new(Code::CopyError, format!("{line}:storages"), long))
            }
            // Whether anybody is there still.
            None => Input::Idle,
        };
        inputs.send(input).is_ok()
    };
    let run = move || pipe.run(&roots, || handed.is_full(), take);
    let thread = thread::Builder::new().name("pipe".into()).spawn(run);
    thread.map(drop).map_err(|error| format!("no thread: {error}"))
}

fn group(interfaces: &Interfaces) -> Result<Option<u32>, String> {
    let Some(name) = &interfaces.file_pipe_group else { return Ok(None) };
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid.as_raw())),
        Ok(None) => Err(format!("interfaces.file_pipe_group: there is no group {name:?}")),
        Err(errno) => Err(format!("interfaces.file_pipe_group {name:?}: {errno}")),
    }
}
