//! The command line's side.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Request, Response, line, parse};

/// For connecting, for sending, for the answer: more than the daemon takes to say that it is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: a thousand times the usual one.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nothing is there, or nobody listens.
    #[error(
        "no daemon answers at {}: is `ppu-uringd ppu` running? If its socket is elsewhere, use --control or --config",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// The socket's mode says no.
    #[error("{} may not be used by this user: try as root, or as a member of the socket's group", .0.display())]
    Denied(PathBuf),
    /// It hangs, or is stopped.
    #[error("the daemon at {} gave no answer within {} s", .0.display(), PATIENCE.as_secs())]
    Silent(PathBuf),
    /// Anything else.
    #[error("cannot {operation} the daemon at {}: {source}", path.display())]
    Io {
        /// `reach`, for example.
        operation: &'static str,
        /// Of the socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon's own words, or about them.
    #[error("{0}")]
    Answer(String),
}

/// Asks the daemon at `path`; blocks, for some seconds at most.
///
/// # Errors
/// [`QueryError`] says what to do; an answer is never [`Response::Error`].
pub fn query(path: &Path, request: &Request) -> Result<Response, QueryError> {
    let failed = |operation: &'static str| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                QueryError::NoDaemon(path.to_owned())
            }
            io::ErrorKind::PermissionDenied => QueryError::Denied(path.to_owned()),
            io::ErrorKind::WouldBlock => QueryError::Silent(path.to_owned()),
            _ => QueryError::Io { operation, path: path.to_owned(), source },
        }
    };
    let mut stream = connected(path).map_err(|errno| failed("reach")(errno.into()))?;
    let request = line(request).map_err(|error| QueryError::Answer(error.to_string()))?;
    match stream.write_all(&request) {
        // Turned away, and the answer says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        asked => asked.map_err(failed("ask"))?,
    }

    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_RESPONSE_BYTES);
    reader.read_until(b'\n', &mut answer).map_err(failed("hear"))?;
    if !answer.ends_with(b"\n") {
        return Err(failed("hear")(io::ErrorKind::UnexpectedEof.into()));
    }
    match parse(&answer, "daemon").map_err(QueryError::Answer)? {
        Response::Error(reason) => Err(QueryError::Answer(reason)),
        response => Ok(response),
    }
}

/// The standard library cannot limit the time of a connect, which blocks where a stopped daemon's queue is full;
/// this ends with `EAGAIN` then.
pub(super) fn connected(path: &Path) -> Result<UnixStream, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::seconds(PATIENCE.as_secs() as i64);
    setsockopt(&socket, SendTimeout, &patience)?;
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}
