//! The control socket: how the command line reaches a running daemon on the same machine.
//!
//! One JSON object a line each way, `{"v":1,"do":"status"}` and `{"v":1,"status":{…}}` or `{"v":1,"error":"…"}`; any number of
//! requests on a connection, each answered in turn. An answer may be several lines (progress, messages as they happen): all but the
//! last have `"more":true`. A client that hangs up, or only stops to take its lines, ends its answer; nobody waits for it.
//!
//! Everybody on the machine may connect. Who it is, the kernel says (SO_PEERCRED): root and the daemon's own user may ask for
//! everything, others only for what changes nothing or concerns what is theirs (`Request::is_for_everyone`).

mod answer;
mod client;
mod conversation;
mod inbox;
mod peer;
mod seats;
mod server;

use crate::model::half::{Half, Switched};
use crate::model::message::Code;
use crate::model::path::RelPath;
use crate::model::shift_report::{ShiftReport, Started};
use crate::model::shift_request::ShiftRequest;
use crate::model::status::{StatusReport, Told};
use serde::{Deserialize, Serialize};

pub use answer::Answer;
pub use client::{Client, Heard, QueryError, query};
pub use peer::Peer;
pub use server::{ControlError, ControlSocket};

/// Of requests and responses.
pub const CONTROL_VERSION: u32 = 1;
/// Where the socket is unless the configuration says otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/ppu-uringd/control.sock";
/// Longest request, with its newline.
const MAX_REQUEST_BYTES: usize = 65_536;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// How everything is.
    Status,
    /// Begin a shift.
    StartShift(ShiftRequest),
    /// The last shifts.
    Shifts {
        /// How many, at most.
        last: u64,
    },
    /// Pause half of the work.
    Pause {
        /// Which.
        half: Half,
    },
    /// Let it go on.
    Resume {
        /// Which.
        half: Half,
    },
    /// Queue failed copies again.
    Retry(Which),
    /// Read stored copies again; of a [`Which`] without paths. Answered by many lines.
    Verify(Which),
    /// Store this file, the descriptor of which comes with the request.
    Add {
        /// As it was written, absolute.
        path: Vec<u8>,
    },
    /// Tell when it is stored.
    Await {
        /// From [`Response::Added`].
        file: RelPath,
    },
    /// What was told; answered by one line or several, and with `follow` until the client has heard enough.
    Messages {
        /// Nothing up to this number.
        #[serde(default)]
        since: u64,
        /// Only these codes; none: all.
        #[serde(default)]
        codes: Vec<Code>,
        /// What is to come, too.
        #[serde(default)]
        follow: bool,
    },
}

/// Which stored or failed copies are meant; what is not given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// A storage's name.
    pub storage: Option<String>,
    /// A shift's start.
    pub shift: Option<String>,
    /// Files and directories, as bytes: absolute on the ramdisk or a storage, or below a detector's source.
    #[serde(default)]
    pub paths: Vec<Vec<u8>>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::StartShift`]: it has begun.
    ShiftStarted(Box<Started>),
    /// To [`Request::Pause`] and [`Request::Resume`].
    Switched(Switched),
    /// To [`Request::Shifts`], oldest first.
    Shifts(Vec<ShiftReport>),
    /// To [`Request::Retry`].
    Retried {
        /// Copies that are queued again, each of one file to one storage.
        copies: u64,
        /// Their files.
        files: u64,
    },
    /// To [`Request::Verify`], now and then: how far it is on one storage.
    Verifying(Tested),
    /// To [`Request::Verify`]: a copy that is not what was stored.
    Finding(Finding),
    /// To [`Request::Verify`], at its end.
    Verified {
        /// Each in full.
        storages: Vec<Tested>,
    },
    /// To [`Request::Add`] and [`Request::Await`]: the answer takes its time.
    Reading {},
    /// To [`Request::Add`]: it will be stored, whatever happens.
    Added {
        /// To ask for it.
        file: RelPath,
    },
    /// To [`Request::Add`]: not now. Why, for people.
    TryAgain(String),
    /// To [`Request::Await`].
    Ended {
        /// On every storage; else it was given up for now on one.
        stored: bool,
    },
    /// To [`Request::Messages`].
    Messages {
        /// The last number that was given.
        last: u64,
        /// Oldest first.
        messages: Vec<Told>,
    },
    /// Why not; for people.
    Error(String),
}

/// Stored copies of one storage, read again. `files` = `same` + `elsewhere` + `damaged` + `missing` + `unreadable`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// The storage's name.
    pub storage: String,
    /// Looked at.
    pub files: u64,
    /// Read.
    pub bytes: u64,
    /// As they were stored.
    pub same: u64,
    /// No longer here, as it should be: evicted or purged to the external storage, or overwritten by a later shift where that is wished.
    pub elsewhere: u64,
    /// Their content is another, or their names are taken.
    pub damaged: u64,
    /// Gone.
    pub missing: u64,
    /// The disk does not give them back.
    pub unreadable: u64,
    /// Why not all of them were looked at, for people.
    pub incomplete: Option<String>,
}

/// A stored copy that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The storage's name.
    pub storage: String,
    /// The file's.
    pub path: String,
    /// For people.
    pub what: String,
}

impl Tested {
    /// What is not as it should be.
    pub fn bad(&self) -> u64 {
        self.damaged + self.missing + self.unreadable
    }
}

impl Request {
    /// Whether others than root and the daemon's own user may ask for it.
    fn is_for_everyone(&self) -> bool {
        match self {
            Self::Status
            | Self::Shifts { .. }
            | Self::Messages { .. }
            | Self::Add { .. }
            | Self::Await { .. } => true,
            Self::StartShift(_)
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Retry(_)
            | Self::Verify(_) => false,
        }
    }
}

/// A line of either direction.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    /// Of an answer: it goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(flatten)]
    content: T,
}

/// With its newline.
fn line(content: impl Serialize, more: bool) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Envelope { v: CONTROL_VERSION, more, content })?;
    line.push(b'\n');
    Ok(line)
}

/// The content of a line of our version, and whether more of it follows. `who` sent it, for the error.
fn parse<T: for<'a> Deserialize<'a>>(line: &[u8], who: &str) -> Result<(T, bool), String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable = |error| format!("cannot read what the {who} says: {error}");
    let Version { v } = serde_json::from_slice(line).map_err(unreadable)?;
    if v != CONTROL_VERSION {
        return Err(format!(
            "the {who} speaks version {v} of the control protocol, not {CONTROL_VERSION}: use the same release"
        ));
    }
    serde_json::from_slice(line).map(|Envelope { content, more, .. }| (content, more)).map_err(unreadable)
}

#[cfg(test)]
mod tests;
