//! TCP ports for programs, lines of JSON: PROTOCOL.md, "Ports for programs".

mod client;
mod listener;
pub mod messages;
pub mod status;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use client::{Client, Over};
pub use listener::{Limits, Port, PortError};

use super::events::{Item, Shown};
use super::feed::Gap;
use crate::model::status::Told;

/// Of requests and answers.
pub const PORTS_VERSION: u32 = 1;
/// Longest request, with its newline.
const MAX_REQUEST_BYTES: usize = 4096;

/// What the daemon says, but for the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// To a status request.
    Status(Vec<status::Row>),
    /// From now on nothing is missed.
    Subscribed {
        /// The last number that was given.
        last: u64,
        /// The daemon's release.
        software: String,
    },
    /// To a subscriber.
    Message(Told),
    /// To a subscriber: what may be missing.
    Gap(Gap),
    /// To a subscriber that has selected events: up to this number there is nothing more for it.
    Passed {
        /// To ask from there on.
        number: u64,
    },
    /// Why not; for people. The connection is closed.
    Error(String),
}

/// A line of the daemon.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    content: T,
}

impl Line {
    /// Adds it to `lines`, with its newline.
    fn append_to(&self, lines: &mut Vec<u8>) {
        append(&Envelope { v: PORTS_VERSION, content: self }, lines);
    }
}

/// Adds an item of the events to `lines`, with its newline; the same for the hook's program.
pub(super) fn append_item(item: &Item, lines: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Event<'a> {
        v: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        visible: Option<Shown<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        stored: Option<Shown<'a>>,
    }
    match item {
        Item::Gap(gap) => Line::Gap(*gap).append_to(lines),
        Item::Event(event) => {
            let shown = Shown::from(&**event);
            let (visible, stored) =
                if event.storage.is_none() { (Some(shown), None) } else { (None, Some(shown)) };
            append(&Event { v: PORTS_VERSION, visible, stored }, lines);
        }
    }
}

/// Plain data does not fail to become JSON; should it, half a line is not left.
fn append(line: &impl Serialize, lines: &mut Vec<u8>) {
    let whole = lines.len();
    match serde_json::to_writer(&mut *lines, line) {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(whole),
    }
}

/// A request of our version; else what is wrong with it, for people. `example` shows how to ask.
fn parse<T: for<'a> Deserialize<'a>>(line: &[u8], example: &str) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable = |error| format!("cannot read the request: {error}. It is a line such as {example}");
    // A list with the same values would do for serde.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(format!("cannot read the request: it is no object. It is a line such as {example}"));
    }
    let Version { v } = serde_json::from_slice(line).map_err(unreadable)?;
    if v != PORTS_VERSION {
        return Err(format!("version {v} is asked for; this daemon speaks version {PORTS_VERSION}"));
    }
    serde_json::from_slice(line).map_err(unreadable)
}
