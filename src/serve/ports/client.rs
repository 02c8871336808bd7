//! One client: its requests, and lines for it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::SendFlags;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Limits, Line, MAX_REQUEST_BYTES, parse};

/// What the peer's TCP leaves unacknowledged for that long ends the connection.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// The kernel keeps so much for a client that is slow: bounds what thousands of them hold.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Of what a client has said and nobody will read, so much is taken, so that it hears why.
const LEFTOVER_MAX_BYTES: usize = 8 << 20;

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    /// Of which port.
    key: &'static str,
    limits: Limits,
    /// What has come and was not yet looked at.
    inbox: Vec<u8>,
    requests: u64,
}

/// The connection is at its end.
#[derive(Debug)]
pub struct Over;

impl Client {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        key: &'static str,
        limits: Limits,
    ) -> io::Result<Self> {
        let stream = stream.into_std()?;
        ppu_uring::socket::tune(&stream, DEAD_AFTER)?;
        setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER_BYTES)?;
        let stream = TcpStream::from_std(stream)?;
        Ok(Self { stream, peer, key, limits, inbox: Vec::new(), requests: 0 })
    }

    /// The next request; what is wrong with it the client is told. `example` shows how to ask.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn request<T: for<'a> Deserialize<'a>>(&mut self, example: &str) -> Result<T, Over> {
        let first = self.requests == 0;
        let within = if first { self.limits.first_request } else { self.limits.idle };
        let line = match timeout(within, self.line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => {
                let error = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
                return Err(self.fail(error).await);
            }
            Ok(Err(_)) => return Err(Over),
            Err(_) if first || !self.inbox.is_empty() => {
                let error = format!(
                    "no request came within {} s: it is a line such as {example}",
                    within.as_secs_f32()
                );
                return Err(self.fail(error).await);
            }
            Err(_) => return Err(Over),
        };
        self.requests += 1;
        match parse(&line, example) {
            Ok(request) => Ok(request),
            Err(error) => Err(self.fail(error).await),
        }
    }

    /// Says `lines`, which end with a newline each. A client that does not take them is dropped.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn say(&mut self, lines: &[u8]) -> Result<(), Over> {
        let mut left = lines;
        while !left.is_empty() {
            match timeout(self.limits.write, self.stream.write(left)).await {
                Ok(Ok(0) | Err(_)) => return Err(Over),
                Ok(Ok(count)) => left = &left[count..],
                Err(_) => {
                    let seconds = self.limits.write.as_secs_f32();
                    tracing::info!(peer = %self.peer, "interfaces.{}: a client took nothing for {seconds} s: dropped", self.key);
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    /// Says one line.
    ///
    /// # Errors
    /// [`Over`].
    pub async fn say_line(&mut self, line: &Line) -> Result<(), Over> {
        let mut lines = Vec::new();
        line.append_to(&mut lines);
        self.say(&lines).await
    }

    /// Until the client says something more, or is gone.
    pub async fn interruption(&mut self) {
        if self.inbox.is_empty() {
            let _ = self.stream.readable().await;
        }
    }

    /// Says what is wrong, and that it ends.
    pub async fn fail(&mut self, error: String) -> Over {
        tracing::debug!(peer = %self.peer, "interfaces.{}: {error}", self.key);
        if self.say_line(&Line::Error(error)).await.is_ok() {
            // Closed with something unread, a connection is reset, and the client might never see the line.
            let _ = timeout(self.limits.farewell, self.hear_out()).await;
        }
        Over
    }

    /// Says that there are too many.
    pub(super) fn turn_away(self) {
        let mut lines = Vec::new();
        let error = format!("{} clients are connected already: try again", self.limits.clients);
        Line::Error(error).append_to(&mut lines);
        // A new connection has room for a line; if not, the client only learns less. (tokio's own try_write knows nothing of a
        // connection before it has been polled.)
        let _ = rustix::net::send(&self.stream, &lines, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// The next line without its newline; `None` where it is too long.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut looked = 0;
        loop {
            if let Some(length) = self.inbox[looked..].iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.inbox.drain(..=looked + length).collect();
                line.pop();
                return Ok(Some(line));
            }
            looked = self.inbox.len();
            if looked >= MAX_REQUEST_BYTES {
                return Ok(None);
            }
            let room = (MAX_REQUEST_BYTES - looked) as u64;
            if (&mut self.stream).take(room).read_buf(&mut self.inbox).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn hear_out(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut piece = [0; 16 << 10];
        let mut taken = 0;
        while taken < LEFTOVER_MAX_BYTES {
            match self.stream.read(&mut piece).await? {
                0 => return Ok(()),
                count => taken += count,
            }
        }
        Ok(())
    }
}
