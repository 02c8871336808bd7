//! The detector's side of a handshake.

use std::mem;

use super::message::{
    ClientHello, FromClient, FromServer, MAGIC, ServerHello, quoted, refusal, versions_of_hello,
};
use super::{Exchange, HandshakeError, Key, Nonce, Proof, Prover, Role, SOFTWARE, SessionId, VERSIONS};
use crate::wire::frame::{self, Decoder, FrameError};

/// A connection that was accepted.
#[derive(Debug)]
pub struct Server {
    key: Key,
    session: SessionId,
    nonce: Nonce,
    exchange: Exchange,
    step: Step,
}

#[derive(Debug)]
enum Step {
    AwaitHello,
    AwaitProof(Caller),
    /// The one step from which [`Server::welcome`] leads on.
    Proved,
    Over,
}

/// A peer that knows the key. Whether it may come in is for the detector to say.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// Of the protocol.
    pub version: u16,
    /// What it wants.
    pub role: Role,
    /// How the PPU's release calls itself.
    pub software: String,
}

/// Why a peer that knows the key is not let in; said to its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of a control connection.
    #[error("busy with another PPU: stop ppu-uringd there first")]
    Busy,
    /// Of a data connection.
    #[error("unknown session: its control connection has ended")]
    UnknownSession,
    /// Before any message: no key, and not the same machine.
    #[error("without key_file only its own machine is served: set key_file on both machines")]
    KeyRequired,
}

impl Server {
    /// `session` names the control session that this connection may become; `nonce` and it are random, for this
    /// connection alone.
    pub fn new(key: &Key, session: SessionId, nonce: Nonce) -> Self {
        Self { key: key.clone(), session, nonce, exchange: Exchange::new(), step: Step::AwaitHello }
    }

    /// See [`Decoder::missing`].
    ///
    /// # Errors
    /// As of [`Server::feed`].
    pub fn missing(&self) -> Result<usize, HandshakeError> {
        self.exchange.decoder.missing().map_err(|error| self.in_context(error))
    }

    /// What is to be sent now, also after an error: then it tells the peer why.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.exchange.output)
    }

    /// Takes bytes from the PPU. `Some`: answer with [`Server::welcome`] or [`Server::refuse`].
    ///
    /// # Errors
    /// [`HandshakeError`]; the output is to be sent, the connection to be closed.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Caller>, HandshakeError> {
        if let Step::Over | Step::Proved = self.step {
            return Err(HandshakeError::OutOfTurn);
        }
        self.exchange.decoder.feed(bytes);
        let progress = self.advance();
        if let Err(error) = &progress {
            self.step = Step::Over;
            if !matches!(error, HandshakeError::Refused { .. }) {
                let refusal = refusal(|reason| FromServer::Refused { reason }, &error.to_string());
                self.exchange.output = refusal;
            }
        }
        progress
    }

    /// The last bytes of the handshake, and the decoder for the session that follows (it holds bytes that were fed beyond
    /// the handshake).
    ///
    /// # Errors
    /// [`HandshakeError::OutOfTurn`] unless [`Server::feed`] has named the caller.
    pub fn welcome(self) -> Result<(Vec<u8>, Decoder), HandshakeError> {
        let Step::Proved = self.step else { return Err(HandshakeError::OutOfTurn) };
        Ok((frame::encode(&FromServer::Welcome)?, self.exchange.into_decoder()))
    }

    /// The last bytes before the connection is closed.
    pub fn refuse(self, why: Refusal) -> Vec<u8> {
        refusal(|reason| FromServer::Refused { reason }, &why.to_string())
    }

    fn advance(&mut self) -> Result<Option<Caller>, HandshakeError> {
        while let Some(body) = self.exchange.decoder.next_body().map_err(|error| self.in_context(error))? {
            if let Step::AwaitHello = self.step {
                let theirs = versions_of_hello(&body)?;
                let Some(version) = VERSIONS.common(theirs) else {
                    return Err(HandshakeError::NoCommonVersion { ppu: theirs, detector: VERSIONS });
                };
                let Some(FromClient::Hello(hello)) = frame::decode(&body)? else {
                    return Err(HandshakeError::OutOfTurn);
                };
                self.exchange.received(&body);
                self.step = Step::AwaitProof(self.answer(hello, version)?);
                continue;
            }
            match (mem::replace(&mut self.step, Step::Over), frame::decode(&body)?) {
                (Step::AwaitProof(caller), Some(FromClient::Proof { proof })) => {
                    self.key.verify(Prover::Client, &[&self.exchange.transcript], &proof)?;
                    self.step = Step::Proved;
                    return Ok(Some(caller));
                }
                (_, Some(FromClient::Refused { reason })) => {
                    return Err(HandshakeError::Refused { by: "PPU", reason: quoted(&reason) });
                }
                _ => return Err(HandshakeError::OutOfTurn),
            }
        }
        Ok(None)
    }

    /// Sends our hello with its proof.
    fn answer(&mut self, theirs: ClientHello, version: u16) -> Result<Caller, HandshakeError> {
        let session = match theirs.role {
            Role::Control { .. } => self.session,
            Role::Data { session, .. } => session,
        };
        let mut frame = frame::encode(&FromServer::Hello(ServerHello {
            magic: MAGIC,
            version,
            software: SOFTWARE.to_owned(),
            session,
            nonce: self.nonce,
            proof: [0; size_of::<Proof>()],
        }))?;
        let proof = self.key.prove(Prover::Server, &[&self.exchange.transcript, &frame]);
        let proof_at = frame.len() - proof.len();
        frame[proof_at..].copy_from_slice(&proof);
        self.exchange.send(&frame);
        Ok(Caller { version, role: theirs.role, software: quoted(&theirs.software) })
    }

    /// What cannot be read as the first message comes from another program.
    fn in_context(&self, error: FrameError) -> HandshakeError {
        match self.step {
            Step::AwaitHello => HandshakeError::NotOurProtocol,
            _ => HandshakeError::Malformed(error),
        }
    }
}
