//! The command line's side.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

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
    /// A directory above it says no.
    #[error("{} cannot be reached by this user: try as root, or open the directory that it is in (chmod o+x)", .0.display())]
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

/// Asks the daemon at `path` for an answer of one line; blocks, for some seconds at most.
///
/// # Errors
/// [`QueryError`] says what to do; an answer is never [`Response::Error`].
pub fn query(path: &Path, request: &Request) -> Result<Response, QueryError> {
    let mut client = Client::connect(path)?;
    client.ask(request)?;
    Ok(client.hear()?.response)
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Never [`Response::Error`].
    pub response: Response,
    /// Another line follows.
    pub more: bool,
}

impl Client {
    /// Reaches the daemon at `path`.
    ///
    /// # Errors
    /// [`QueryError`] says what to do.
    pub fn connect(path: &Path) -> Result<Self, QueryError> {
        let stream = connected(path).map_err(|errno| failed("reach", path, errno.into()))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks; the answer is to be heard to its end before the next request.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn ask(&mut self, request: &Request) -> Result<(), QueryError> {
        self.send(request, &mut SendAncillaryBuffer::default())
    }

    /// As [`ask`](Self::ask), and hands `file` over: the daemon gets it as it is open here.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn hand_over(&mut self, request: &Request, file: BorrowedFd<'_>) -> Result<(), QueryError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let files = [file];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        self.send(request, &mut ancillary)
    }

    /// The next line of the answer. The first one comes within seconds; those that follow may take any time.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn hear(&mut self) -> Result<Heard, QueryError> {
        let failed = |source| failed("hear", &self.path, source);
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_RESPONSE_BYTES);
        bounded.read_until(b'\n', &mut line).map_err(failed)?;
        if !line.ends_with(b"\n") {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        match parse(&line, "daemon").map_err(QueryError::Answer)? {
            (Response::Error(reason), _) => Err(QueryError::Answer(reason)),
            (response, more) => {
                if more {
                    self.wait_for(None)?;
                }
                Ok(Heard { response, more })
            }
        }
    }

    fn send(
        &mut self,
        request: &Request,
        ancillary: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> Result<(), QueryError> {
        self.wait_for(Some(PATIENCE))?;
        let line = line(request, false).map_err(|error| QueryError::Answer(error.to_string()))?;
        let stream = self.stream.get_mut();
        let sent = loop {
            match sendmsg(&stream, &[IoSlice::new(&line)], ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => break sent.map_err(io::Error::from),
            }
        };
        match sent.and_then(|sent| stream.write_all(&line[sent..])) {
            // Turned away, and the answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            asked => asked.map_err(|source| failed("ask", &self.path, source)),
        }
    }

    fn wait_for(&self, at_most: Option<Duration>) -> Result<(), QueryError> {
        let set = self.stream.get_ref().set_read_timeout(at_most);
        set.map_err(|source| failed("set a time-out for", &self.path, source))
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> QueryError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => QueryError::NoDaemon(path),
        io::ErrorKind::PermissionDenied => QueryError::Denied(path),
        io::ErrorKind::WouldBlock => QueryError::Silent(path),
        _ => QueryError::Io { operation, path, source },
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
