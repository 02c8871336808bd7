//! The detector's ear: accepts connections, greets them, and hands them to the session they belong to.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::session::{Active, Control, Desk, StartStream};
use crate::wire::frame::Decoder;
use crate::wire::handshake::{
    Caller, HandshakeError, Key, MAX_UNFINISHED, PpuId, Refusal, Role, STEP_TIMEOUT, Server, SessionId,
};

/// What the peer's TCP leaves unacknowledged for that long ends the connection: twice the silence that a session allows.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// Out of descriptors: some will be free again soon.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Who is let in.
pub struct Door {
    /// Shared with the PPU.
    pub key: Key,
    /// There is a key, or its absence is explicitly accepted: other machines may connect.
    pub open_to_others: bool,
}

/// Serves PPUs until `stop` turns true.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    desk: Rc<Desk>,
    start_stream: StartStream,
    mut stop: watch::Receiver<bool>,
) {
    ppu_uring::socket::tune_listener(&listener);
    let door = Rc::new(door);
    let unfinished = Arc::new(Semaphore::new(MAX_UNFINISHED));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accept: {error}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Who comes when too many are being greeted is turned away at once: a PPU tries again.
        let Ok(permit) = Arc::clone(&unfinished).try_acquire_owned() else { continue };
        let (door, desk, start_stream) = (Rc::clone(&door), Rc::clone(&desk), Rc::clone(&start_stream));
        tokio::task::spawn_local(async move {
            let greeted = greet(stream, peer, &door, &desk, &start_stream).await;
            drop(permit);
            match greeted {
                Ok(Some(control)) => control.run(&desk).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%peer, "connection refused: {error}"),
            }
        });
    }
    desk.dismiss("this daemon is stopping").await;
}

/// Why a connection does not become part of a session.
#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", STEP_TIMEOUT.as_secs())]
    Silent,
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("no random numbers: {0}")]
    Random(String),
}

/// The handshake. A control connection becomes a session that is to be run; a data connection is handed to its session's streams.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Door,
    desk: &Desk,
    start_stream: &StartStream,
) -> Result<Option<Control>, GreetError> {
    let stream = stream.into_std()?;
    ppu_uring::socket::tune(&stream, DEAD_AFTER)?;
    let mut stream = TcpStream::from_std(stream)?;
    let session = SessionId(random()?);
    let nonce = random()?;
    let mut server = Server::new(&door.key, session, nonce);
    if !door.open_to_others && !peer.ip().to_canonical().is_loopback() {
        return refuse(stream, server, Refusal::KeyRequired).await;
    }
    let caller = match hear_out(&mut stream, &mut server).await {
        Ok(caller) => caller,
        Err(error) => {
            // The peer should learn why, but its not listening changes nothing.
            let _ = timeout(STEP_TIMEOUT, stream.write_all(&server.take_output())).await;
            return Err(error);
        }
    };
    match caller.role {
        Role::Control { ppu } => {
            let Some(active) = desk.admit(session, ppu, peer).await else {
                return refuse(stream, server, Refusal::Busy).await;
            };
            match welcome(&mut stream, server).await {
                Ok(decoder) => {
                    tracing::info!(%peer, software = caller.software, "a PPU is here");
                    Ok(Some(Control { stream, decoder, active }))
                }
                Err(error) => {
                    // Else a session that never runs would keep every PPU out.
                    desk.leave(&active);
                    Err(error)
                }
            }
        }
        Role::Data { session, .. } => {
            let Some(active) = desk.session(session) else {
                return refuse(stream, server, Refusal::UnknownSession).await;
            };
            // The PPU speaks of shifts after it has all its connections.
            desk.catalog.borrow_mut().session_goes_on(std::time::Instant::now());
            welcome(&mut stream, server).await?;
            attach(stream, &active, start_stream)?;
            Ok(None)
        }
    }
}

/// Each message has a deadline, however many pieces it comes in.
async fn hear_out(stream: &mut TcpStream, server: &mut Server) -> Result<Caller, GreetError> {
    let mut deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        let mut bytes = vec![0; server.missing()?.max(1)];
        let count = timeout_at(deadline, stream.read(&mut bytes)).await.map_err(|_| GreetError::Silent)??;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(caller) = server.feed(&bytes[..count])? {
            return Ok(caller);
        }
        let answer = server.take_output();
        if !answer.is_empty() {
            deadline = Instant::now() + STEP_TIMEOUT;
            timeout_at(deadline, stream.write_all(&answer)).await.map_err(|_| GreetError::Silent)??;
        }
    }
}

async fn welcome(stream: &mut TcpStream, server: Server) -> Result<Decoder, GreetError> {
    let (bytes, decoder) = server.welcome()?;
    timeout(STEP_TIMEOUT, stream.write_all(&bytes)).await.map_err(|_| GreetError::Silent)??;
    Ok(decoder)
}

async fn refuse<T>(mut stream: TcpStream, server: Server, why: Refusal) -> Result<T, GreetError> {
    let _ = timeout(STEP_TIMEOUT, stream.write_all(&server.refuse(why))).await;
    Err(why.into())
}

/// From here on the connection belongs to a stream's thread, which blocks.
fn attach(stream: TcpStream, active: &Rc<RefCell<Active>>, start_stream: &StartStream) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    active.borrow_mut().attach(stream, start_stream)
}

fn random<const N: usize>() -> Result<[u8; N], GreetError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| GreetError::Random(error.to_string()))?;
    Ok(bytes)
}

/// For messages.
pub(super) fn short(ppu: PpuId) -> String {
    let mut id = ppu.to_string();
    id.truncate(8);
    id
}
