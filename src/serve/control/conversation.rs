//! One client, from its first request to its last.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::answer::Saying;
use super::inbox::{Inbox, Line};
use super::{Answer, MAX_REQUEST_BYTES, Peer, Request, Response, line, parse};

/// Longest silence of a client between requests.
const IDLE: Duration = Duration::from_secs(60);
/// The ledger answers within milliseconds; a client is told if it does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A client that does not take its answer is dropped.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

pub(super) type Handle = dyn Fn(Request, Answer) + Send + Sync;

/// Until the client leaves, or misbehaves; what it says wrong it is told.
pub(super) async fn converse(stream: UnixStream, peer: Peer, handle: Arc<Handle>) {
    let mut conversation = Conversation { stream, inbox: Inbox::default(), peer, handle };
    while let Ok(()) = conversation.turn().await {}
}

struct Conversation {
    stream: UnixStream,
    inbox: Inbox,
    peer: Peer,
    handle: Arc<Handle>,
}

/// The conversation is over.
struct Over;

impl Conversation {
    /// A request and its answer.
    async fn turn(&mut self) -> Result<(), Over> {
        let request = match timeout(IDLE, self.inbox.line(&self.stream)).await {
            Ok(Ok(request)) if !request.bytes.is_empty() => request,
            _ => return Err(Over),
        };
        if request.bytes.len() >= MAX_REQUEST_BYTES && !request.bytes.ends_with(b"\n") {
            let error = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
            self.write(Response::Error(error), false).await?;
            return Err(Over);
        }
        match self.begin(request) {
            Ok(saying) => self.pass_on(saying).await,
            Err(error) => self.write(Response::Error(error), false).await,
        }
    }

    fn begin(&self, request: Line) -> Result<Saying, String> {
        let (asked, _): (Request, _) = parse(&request.bytes, "client")?;
        if !asked.is_for_everyone() && !self.peer.is_trusted() {
            return Err("only root and the daemon's user may ask for that: try it with sudo".to_owned());
        }
        let (answer, saying) = Answer::new(self.peer, request.file);
        (self.handle)(asked, answer);
        Ok(saying)
    }

    /// Writes every line as it comes.
    async fn pass_on(&mut self, mut saying: Saying) -> Result<(), Over> {
        let mut begun = false;
        loop {
            let next = tokio::select! {
                biased;
                next = next_line(&mut saying) => next,
                () = sleep(ANSWER_WITHIN), if !begun => {
                    Some((Response::Error("the daemon is busy: try again".to_owned()), false))
                }
                // Who asks one thing may close its sending side at once; an answer that goes on ends with it.
                () = self.inbox.hang_up(&self.stream), if begun => return Err(Over),
            };
            let Some((response, more)) = next else {
                let slow = saying.too_slow.load(Ordering::Relaxed);
                let why = if slow { "this client is too slow: ask again" } else { "the daemon is stopping" };
                self.write(Response::Error(why.to_owned()), false).await?;
                return if slow { Err(Over) } else { Ok(()) };
            };
            self.write(response, more).await?;
            if !more {
                return Ok(());
            }
            begun = true;
        }
    }

    async fn write(&self, response: Response, more: bool) -> Result<(), Over> {
        let line = line(response, more).map_err(|_| Over)?;
        match timeout(WRITE_WITHIN, write_all(&self.stream, &line)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }
}

/// And whether more follow; `None` where the answer breaks off. Cancelled, it loses nothing.
async fn next_line(saying: &mut Saying) -> Option<(Response, bool)> {
    match saying.lines.recv().await {
        Some(response) => Some((response, true)),
        None => (&mut saying.last).await.ok().map(|response| (response, false)),
    }
}

async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
