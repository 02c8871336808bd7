//! The control socket: how the command line reaches a running daemon on the same machine.
//!
//! One JSON object a line each way, `{"v":1,"do":"status"}` and `{"v":1,"status":{…}}` or `{"v":1,"error":"…"}`; any number of
//! requests on a connection, each answered in turn. Whoever may write to the socket may do everything: its file mode guards it.

mod query;
mod server;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::status::StatusReport;

pub use query::{QueryError, query};
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
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// Why not; for people.
    Error(String),
}

/// Where a request's answer goes; the client hears that the daemon is stopping if it is dropped.
pub type Answer = oneshot::Sender<Response>;

/// A line of either direction.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    content: T,
}

/// With its newline.
fn line(content: impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Envelope { v: CONTROL_VERSION, content })?;
    line.push(b'\n');
    Ok(line)
}

/// The content of a line of our version. `who` sent it, for the error.
fn parse<T: for<'a> Deserialize<'a>>(line: &[u8], who: &str) -> Result<T, String> {
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
    serde_json::from_slice(line).map(|Envelope { content, .. }| content).map_err(unreadable)
}

#[cfg(test)]
mod tests;
