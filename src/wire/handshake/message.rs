//! The four messages of a handshake, and the refusal that may take the place of any.

use serde::{Deserialize, Serialize};

use super::{HandshakeError, Nonce, Proof, Role, SessionId, Versions};
use crate::model::path::printable;
use crate::wire::frame::{self, MAX_UNAUTHENTICATED_FRAME_BYTES, Message};

/// First in every hello.
pub const MAGIC: [u8; 8] = *b"PPUURING";

/// PPU → detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    Hello(ClientHello),
    Proof { proof: Proof },
    Refused { reason: String },
}

/// Detector → PPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromServer {
    Hello(ServerHello),
    Welcome,
    Refused { reason: String },
}

impl Message for FromClient {
    const VARIANTS: u32 = 3;
}

impl Message for FromServer {
    const VARIANTS: u32 = 3;
}

/// Whatever the protocol version: magic and versions come first ([`Opening`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    pub magic: [u8; 8],
    pub versions: Versions,
    pub role: Role,
    pub software: String,
    pub nonce: Nonce,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    pub magic: [u8; 8],
    /// The newest that both speak.
    pub version: u16,
    pub software: String,
    /// The new one of a control connection; of a data connection as it asked for.
    pub session: SessionId,
    pub nonce: Nonce,
    /// Last, so that its bytes are the frame's last.
    pub proof: Proof,
}

/// What every release's [`ClientHello`] begins with, so that releases that are years apart can tell each other so.
#[derive(Deserialize)]
struct Opening {
    variant: u32,
    magic: [u8; 8],
    versions: Versions,
}

/// The versions of a frame that is a client's hello in any version of the protocol.
pub fn versions_of_hello(body: &[u8]) -> Result<Versions, HandshakeError> {
    match postcard::take_from_bytes::<Opening>(body) {
        Ok((Opening { variant: 0, magic: MAGIC, versions }, _)) => Ok(versions),
        _ => Err(HandshakeError::NotOurProtocol),
    }
}

/// A refusal's frame; nothing where `reason` is absurdly long, since it is a courtesy.
pub fn refusal<M: Message>(refused: impl Fn(String) -> M, reason: &str) -> Vec<u8> {
    let frame = frame::encode(&refused(reason.to_owned())).unwrap_or_default();
    if frame.len() > MAX_UNAUTHENTICATED_FRAME_BYTES { Vec::new() } else { frame }
}

/// What a peer says of itself, before it has proved who it is, for a log or a terminal.
pub fn quoted(text: &str) -> String {
    printable(text.as_bytes()).replace("%3A", ":")
}
