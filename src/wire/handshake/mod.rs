//! Who speaks: the same greeting opens control and data connections, before anything else is believed (PROTOCOL.md).
//!
//! [`Client`] (the PPU) and [`Server`] (the detector) take bytes and give bytes; sockets, deadlines and random numbers
//! are their caller's:
//!
//! ```
//! use ppu_uringd::wire::handshake::{Client, Key, PpuId, Role, Server, SessionId};
//! let key = Key::new(b"the same on both machines");
//! let mut client = Client::new(&key, Role::Control { ppu: PpuId([7; 16]) }, [1; 32])?;
//! let mut server = Server::new(&key, SessionId([2; 16]), [3; 32]);
//! server.feed(&client.take_output())?;
//! client.feed(&server.take_output())?;
//! server.feed(&client.take_output())?.expect("the proof fits");
//! let (welcome, _decoder) = server.welcome()?;
//! assert_eq!(client.feed(&welcome)?.expect("welcome").session, SessionId([2; 16]));
//! # Ok::<(), ppu_uringd::wire::handshake::HandshakeError>(())
//! ```

mod client;
mod message;
mod server;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::frame::{self, Decoder, FrameError};

pub use client::{Client, Established};
pub use server::{Caller, Refusal, Server};

/// What this release speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };
/// How this release calls itself.
pub const SOFTWARE: &str = concat!("ppu-uringd ", env!("CARGO_PKG_VERSION"));
/// Longest wait for the peer's next message: a greeting is answered without touching a disk.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Most connections of a server that have not finished their handshake; a further one is closed at once.
pub const MAX_UNFINISHED: usize = 64;

/// A random number that must never be used twice.
pub type Nonce = [u8; 32];

/// Names a control session; the data connections that belong to it bear it. Chosen at random by the detector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// Names a PPU, at random, once for all: kept in its state directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PpuId(pub [u8; 16]);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A new session. One of the same PPU is replaced by it.
    Control {
        /// Which PPU.
        ppu: PpuId,
    },
    /// File contents.
    Data {
        /// As the detector named it when the control connection was made.
        session: SessionId,
        /// Counts the session's data connections from 0.
        stream: u16,
    },
}

/// Protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

impl Versions {
    /// The newest that both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        self.range().contains(&newest).then_some(newest).filter(|newest| other.range().contains(newest))
    }

    fn range(self) -> RangeInclusive<u16> {
        self.min..=self.max
    }
}

/// The pre-shared key. Shown nowhere.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// From what a `key_file` holds; white space around it is not part of the key, since editors add it. No contents: a key
    /// that everybody knows, for loopback.
    pub fn new(contents: &[u8]) -> Self {
        Self::of(contents.trim_ascii())
    }

    /// Of both ends of a measurement, so that none of them and no daemon ever let each other in.
    #[must_use]
    pub fn for_measuring(&self) -> Self {
        Self::of(&self.0.clone().chain_update(b"ppu-uringd tune").finalize().into_bytes())
    }

    fn of(key: &[u8]) -> Self {
        // RFC 2104: shorter keys are filled up with zeros, longer ones are hashed first.
        let mut block = [0; 64];
        match block.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            None => block[..32].copy_from_slice(&Sha256::digest(key)),
        }
        Self(Hmac::new(&block.into()))
    }

    fn prove(&self, prover: Prover, transcript: &[&[u8]]) -> Proof {
        self.mac(prover, transcript).finalize().into_bytes().into()
    }

    /// In constant time.
    fn verify(&self, prover: Prover, transcript: &[&[u8]], proof: &Proof) -> Result<(), HandshakeError> {
        self.mac(prover, transcript).verify_slice(proof).map_err(|_| HandshakeError::KeyDiffers)
    }

    fn mac(&self, prover: Prover, transcript: &[&[u8]]) -> Hmac<Sha256> {
        let label: &[u8] = match prover {
            Prover::Server => b"ppu-uringd server",
            Prover::Client => b"ppu-uringd client",
        };
        transcript.iter().fold(self.0.clone().chain_update(label), |mac, frames| mac.chain_update(frames))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Whose proof it is: without this a server's proof could be sent back to it as its client's.
#[derive(Clone, Copy)]
enum Prover {
    Server,
    Client,
}

type Proof = [u8; 32];

/// Why a connection is of no use; a sentence for operators of either machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Said by the peer.
    #[error("the {by} at the other end refused: {reason}")]
    Refused {
        /// `detector` or `PPU`.
        by: &'static str,
        /// Without control characters.
        reason: String,
    },
    /// Another program.
    #[error("the other end does not speak the protocol of ppu-uringd: compare address and port")]
    NotOurProtocol,
    /// Releases that are too far apart.
    #[error(
        "the PPU speaks protocol version {ppu}, the detector {detector}: install the same release of ppu-uringd on both machines"
    )]
    NoCommonVersion {
        /// The client's.
        ppu: Versions,
        /// The server's.
        detector: Versions,
    },
    /// The peer's proof does not fit; also if the handshake was tampered with.
    #[error("key differs: compare key_file on both machines")]
    KeyDiffers,
    /// The right program, talking nonsense.
    #[error("the handshake was broken off: {0}")]
    Malformed(#[from] FrameError),
    /// A message that is not expected now.
    #[error("the handshake was broken off: message out of turn")]
    OutOfTurn,
}

/// What client and server have in common: bytes in, frames of both so far, bytes out.
#[derive(Debug)]
struct Exchange {
    decoder: Decoder,
    /// Every frame of either side so far, lengths included.
    transcript: Vec<u8>,
    output: Vec<u8>,
}

impl Exchange {
    fn new() -> Self {
        let decoder = Decoder::new(frame::MAX_UNAUTHENTICATED_FRAME_BYTES);
        Self { decoder, transcript: Vec::new(), output: Vec::new() }
    }

    /// Into the transcript and out.
    fn send(&mut self, frame: &[u8]) {
        self.transcript.extend_from_slice(frame);
        self.output.extend_from_slice(frame);
    }

    /// Into the transcript.
    fn received(&mut self, body: &[u8]) {
        self.transcript.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.transcript.extend_from_slice(body);
    }

    /// The peer is authenticated: what follows are the frames of a session.
    fn into_decoder(self) -> Decoder {
        let mut decoder = self.decoder;
        decoder.set_limit(frame::MAX_FRAME_BYTES);
        decoder
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
