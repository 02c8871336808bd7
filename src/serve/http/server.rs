//! Connections: how many, how large, how long.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_io_timeout::TimeoutStream;

use super::api;
use super::board::{Board, Observe, SUBSCRIBERS_MAX};

/// Connections at a time: those who watch, and some who ask.
const CONNECTIONS_MAX: usize = SUBSCRIBERS_MAX + 100;
/// So many times that number of descriptors must be allowed to the process: landing and storing come first.
const DESCRIPTORS_EACH: u64 = 4;
/// A client that does not say what it wants, or nothing more, is dropped.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A client that does not take what it asked for is dropped.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Of a request's head.
const HEAD_MAX_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Of the kernel's memory for each client that does not read; the dashboard is smaller.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Out of descriptors: some will be free again soon.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 10\r\n\
    content-length: 50\r\nconnection: close\r\n\r\ntoo many clients are connected already: try again\n";

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Usually somebody else has the port.
    #[error(
        "cannot listen on {address} for HTTP: {source}{}. Set interfaces.http to a free address of this machine, or to \"off\"",
        if source.kind() == io::ErrorKind::AddrInUse { ": another program, perhaps another ppu-uringd, listens there" } else { "" }
    )]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The runtime does not take the socket.
    #[error("cannot serve HTTP on {address}: {source}")]
    Serve {
        /// As configured.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// A socket that clients can find.
#[derive(Debug)]
pub struct HttpServer {
    listener: net::TcpListener,
    address: SocketAddr,
    connections_max: usize,
}

impl HttpServer {
    /// Takes the address; clients wait until [`serve`](Self::serve). So many `descriptors` are allowed to this process.
    ///
    /// # Errors
    /// [`HttpError::Bind`] says what to do.
    pub fn bind(address: SocketAddr, descriptors: u64) -> Result<Self, HttpError> {
        let listener = listen(address).map_err(|source| HttpError::Bind { address, source })?;
        let allowed = usize::try_from(descriptors / DESCRIPTORS_EACH).unwrap_or(usize::MAX);
        Ok(Self { listener, address, connections_max: allowed.min(CONNECTIONS_MAX) })
    }

    /// Serves until it is dropped. `observe` must not block; its answer may come later and from any thread. Needs a tokio
    /// runtime with IO and time.
    ///
    /// # Errors
    /// [`HttpError::Serve`].
    pub async fn serve(self, observe: Arc<Observe>) -> Result<(), HttpError> {
        let Self { listener, address, connections_max } = self;
        let listener =
            TcpListener::from_std(listener).map_err(|source| HttpError::Serve { address, source })?;
        let board = Arc::new(Board::new(observe));
        let router = api::router(Arc::clone(&board), address.ip().is_loopback());
        let mut publisher = JoinSet::new();
        publisher.spawn(async move { board.publish().await });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                // Who has left no longer counts when the next one comes.
                biased;
                Some(left) = connections.join_next() => if let Err(error) = left {
                    tracing::error!("HTTP on {address}: {error}");
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if connections.len() >= connections_max => turn_away(&stream),
                    Ok((stream, _)) => drop(connections.spawn(converse(stream, router.clone()))),
                    Err(error) => {
                        tracing::warn!("HTTP on {address}: accept: {error}");
                        sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<net::TcpListener> {
    let listener = net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Its connections inherit it.
    set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
    Ok(listener)
}

/// A new socket's buffer has room for it; if not, the client only learns less.
fn turn_away(stream: &TcpStream) {
    _ = stream.try_write(TURNED_AWAY);
}

/// One client, until it leaves or is too slow.
async fn converse(stream: impl AsyncRead + AsyncWrite + Send + 'static, router: axum::Router) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WITHIN));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX);
    let served = http.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!("HTTP: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http::testing::{at_once, never};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, timeout};

    /// A client of a board, with a pipe of that size between them.
    fn connect(board: &Arc<Board>, pipe_bytes: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, server) = duplex(pipe_bytes);
        let task = tokio::spawn(converse(server, api::router(Arc::clone(board), true)));
        (client, task)
    }

    async fn ask(client: &mut DuplexStream, path: &str) {
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_watches_and_does_not_read_is_dropped_and_others_are_not() {
        let board = Arc::new(Board::new(at_once()));
        let publisher = Arc::clone(&board);
        tokio::spawn(async move { publisher.publish().await });
        let (mut deaf, dropped) = connect(&board, 256);
        let (mut reader, kept) = connect(&board, 256);
        ask(&mut deaf, "/api/v1/events").await;
        ask(&mut reader, "/api/v1/events").await;
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 1024];
            let mut all = 0;
            loop {
                match reader.read(&mut bytes).await.unwrap() {
                    0 => return,
                    some => all += some,
                }
                assert!(all < 1 << 30);
            }
        });
        let start = Instant::now();
        dropped.await.unwrap();
        assert!(
            start.elapsed() >= WRITE_WITHIN && start.elapsed() < 2 * WRITE_WITHIN,
            "{:?}",
            start.elapsed()
        );
        assert_eq!(board.seats.available_permits(), SUBSCRIBERS_MAX - 1, "its seat is free");
        timeout(10 * WRITE_WITHIN, reading).await.unwrap_err();
        assert!(!kept.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_only_half_is_dropped() {
        let board = Arc::new(Board::new(at_once()));
        let (_mute, mute) = connect(&board, 4096);
        let (mut half, halved) = connect(&board, 4096);
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
        let (mut idle, idled) = connect(&board, 4096);
        ask(&mut idle, "/healthz").await;
        let start = Instant::now();
        for ended in [mute, halved, idled] {
            ended.await.unwrap();
            assert!(start.elapsed() <= HEAD_WITHIN + Duration::from_secs(1), "{:?}", start.elapsed());
        }
        let mut text = String::new();
        idle.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "it was answered first: {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_is_silent_is_told_and_asked_once_for_all() {
        let (observe, asked) = never();
        let board = Arc::new(Board::new(observe));
        let mut clients: Vec<_> = (0..50).map(|_| connect(&board, 4096)).collect();
        let start = Instant::now();
        for (client, _) in &mut clients {
            ask(client, "/api/v1/status").await;
        }
        for (client, _) in &mut clients {
            let mut head = [0; 12];
            client.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 503");
        }
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn who_is_turned_away_gets_a_whole_answer() {
        let text = std::str::from_utf8(TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }

    #[test]
    fn a_taken_port_says_what_to_do() {
        let first = HttpServer::bind("127.0.0.1:0".parse().unwrap(), 1000).unwrap();
        let address = first.listener.local_addr().unwrap();
        let error = HttpServer::bind(address, 1000).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("perhaps another ppu-uringd"),
            "{error}"
        );
        assert!(error.contains("interfaces.http"), "{error}");
    }
}
