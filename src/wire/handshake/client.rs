//! The PPU's side of a handshake.

use std::mem;

use super::message::{ClientHello, FromClient, FromServer, MAGIC, ServerHello, quoted, refusal};
use super::{
    Exchange, HandshakeError, Key, Nonce, Proof, Prover, Role, SOFTWARE, SessionId, VERSIONS, Versions,
};
use crate::wire::frame::{self, Decoder, FrameError, LENGTH_BYTES};

/// A connection that is being opened.
#[derive(Debug)]
pub struct Client {
    key: Key,
    exchange: Exchange,
    step: Step,
}

#[derive(Debug)]
enum Step {
    AwaitHello,
    AwaitWelcome(Established),
    Over,
}

/// The detector knows the key and lets us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// Of the protocol.
    pub version: u16,
    /// For the data connections of a control session.
    pub session: SessionId,
    /// How the detector's release calls itself.
    pub software: String,
}

impl Client {
    /// Begins: the hello is the first output. `nonce` is random, for this connection alone.
    ///
    /// # Errors
    /// None in practice: a hello always fits a frame.
    pub fn new(key: &Key, role: Role, nonce: Nonce) -> Result<Self, HandshakeError> {
        let mut exchange = Exchange::new();
        let software = SOFTWARE.to_owned();
        let hello = ClientHello { magic: MAGIC, versions: VERSIONS, role, software, nonce };
        exchange.send(&frame::encode(&FromClient::Hello(hello))?);
        Ok(Self { key: key.clone(), exchange, step: Step::AwaitHello })
    }

    /// See [`Decoder::missing`].
    ///
    /// # Errors
    /// As of [`Client::feed`].
    pub fn missing(&self) -> Result<usize, HandshakeError> {
        self.exchange.decoder.missing().map_err(|error| self.in_context(error))
    }

    /// What is to be sent now, also after an error: then it tells the peer why.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.exchange.output)
    }

    /// Takes bytes from the detector. `Some` ends the handshake: go on with [`Client::into_decoder`].
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is to be closed.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Established>, HandshakeError> {
        if let Step::Over = self.step {
            return Err(HandshakeError::OutOfTurn);
        }
        self.exchange.decoder.feed(bytes);
        let progress = self.advance();
        if let Err(error) = &progress {
            self.step = Step::Over;
            if !matches!(error, HandshakeError::Refused { .. }) {
                let refusal = refusal(|reason| FromClient::Refused { reason }, &error.to_string());
                self.exchange.output = refusal;
            }
        }
        progress
    }

    /// For the session that follows: holds bytes that were fed beyond the handshake.
    pub fn into_decoder(self) -> Decoder {
        self.exchange.into_decoder()
    }

    fn advance(&mut self) -> Result<Option<Established>, HandshakeError> {
        while let Some(body) = self.exchange.decoder.next_body().map_err(|error| self.in_context(error))? {
            let message = frame::decode(&body).map_err(|error| self.in_context(error))?;
            if let Some(FromServer::Refused { reason }) = message {
                return Err(HandshakeError::Refused { by: "detector", reason: quoted(&reason) });
            }
            match (mem::replace(&mut self.step, Step::Over), message) {
                (Step::AwaitHello, Some(FromServer::Hello(hello))) => {
                    self.step = Step::AwaitWelcome(self.answer(hello, &body)?);
                }
                (Step::AwaitWelcome(established), Some(FromServer::Welcome)) => return Ok(Some(established)),
                (Step::AwaitHello, None) => return Err(HandshakeError::NotOurProtocol),
                _ => return Err(HandshakeError::OutOfTurn),
            }
        }
        Ok(None)
    }

    /// Checks the server's proof and sends our own.
    fn answer(&mut self, hello: ServerHello, body: &[u8]) -> Result<Established, HandshakeError> {
        if hello.magic != MAGIC {
            return Err(HandshakeError::NotOurProtocol);
        }
        if !VERSIONS.range().contains(&hello.version) {
            let detector = Versions { min: hello.version, max: hello.version };
            return Err(HandshakeError::NoCommonVersion { ppu: VERSIONS, detector });
        }
        let proof_at = self.exchange.transcript.len() + LENGTH_BYTES + body.len() - size_of::<Proof>();
        self.exchange.received(body);
        let unproved = [&self.exchange.transcript[..proof_at], &[0; size_of::<Proof>()]];
        self.key.verify(Prover::Server, &unproved, &hello.proof)?;

        let proof = self.key.prove(Prover::Client, &[&self.exchange.transcript]);
        self.exchange.send(&frame::encode(&FromClient::Proof { proof })?);
        let ServerHello { version, session, software, .. } = hello;
        Ok(Established { version, session, software: quoted(&software) })
    }

    /// What cannot be read as the first message comes from another program.
    fn in_context(&self, error: FrameError) -> HandshakeError {
        match self.step {
            Step::AwaitHello => HandshakeError::NotOurProtocol,
            _ => HandshakeError::Malformed(error),
        }
    }
}
