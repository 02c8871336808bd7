//! Opening a connection to a detector: TCP, then the handshake.

use std::io;
use std::time::Duration;

use ppu_config::HostPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::frame::Decoder;
use crate::wire::handshake::{Client, Established, HandshakeError, Key, Role, STEP_TIMEOUT};

/// Longest wait for TCP itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the peer's TCP leaves unacknowledged for that long ends the connection: twice the silence that the session allows.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Why there is no connection; for people.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, no route, name unknown.
    #[error("cannot connect: {0}. Is `ppu-uringd detector` running there, and the port open?")]
    Tcp(#[source] io::Error),
    /// TCP gives no answer at all.
    #[error("no answer within {} s: is the machine up, and no firewall between?", CONNECT_TIMEOUT.as_secs())]
    NoAnswer,
    /// Something accepts, and then says nothing.
    #[error("the other end does not answer the handshake within {} s", STEP_TIMEOUT.as_secs())]
    Silent,
    /// The connection ended in the middle of the handshake.
    #[error("the connection was closed during the handshake: {0}")]
    Closed(#[source] io::Error),
    /// Wrong key, other version, busy.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The kernel gave no random bytes.
    #[error("no random numbers: {0}")]
    Random(String),
}

impl ConnectError {
    /// Trying again will not help until somebody changes something.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }
}

/// An authenticated connection. The decoder holds what was read beyond the handshake: nothing on a data connection, from which no byte too
/// many is read.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    address: &HostPort,
    key: &Key,
    role: Role,
) -> Result<(TcpStream, Established, Decoder), ConnectError> {
    let connecting = TcpStream::connect((address.host.as_str(), address.port));
    let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(ConnectError::Tcp)?,
        Err(_) => return Err(ConnectError::NoAnswer),
    };
    let mut stream = tune(stream).map_err(ConnectError::Tcp)?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| ConnectError::Random(error.to_string()))?;
    let mut client = Client::new(key, role, nonce)?;
    let established = loop {
        let step = timeout(STEP_TIMEOUT, step(&mut stream, &mut client)).await;
        match step.unwrap_or(Err(ConnectError::Silent)) {
            Ok(None) => {}
            Ok(Some(established)) => break established,
            Err(error) => {
                // The peer should learn why, but its not listening changes nothing.
                let _ = timeout(STEP_TIMEOUT, stream.write_all(&client.take_output())).await;
                return Err(error);
            }
        }
    };
    Ok((stream, established, client.into_decoder()))
}

fn tune(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    ppu_uring::socket::tune(&stream, DEAD_AFTER)?;
    TcpStream::from_std(stream)
}

async fn step(stream: &mut TcpStream, client: &mut Client) -> Result<Option<Established>, ConnectError> {
    stream.write_all(&client.take_output()).await.map_err(ConnectError::Closed)?;
    let mut bytes = vec![0; client.missing()?.max(1)];
    let count = stream.read(&mut bytes).await.map_err(ConnectError::Closed)?;
    if count == 0 {
        return Err(ConnectError::Closed(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(client.feed(&bytes[..count])?)
}
