//! The daemon's side.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::connected;
use super::conversation::{Handle, converse};
use super::seats::Seats;
use super::{Answer, Peer, Request, Response, line};

/// Everybody may connect; what each may ask is another matter.
const SOCKET_MODE: u32 = 0o666;
/// Of the directory that is made for the socket.
const DIRECTORY_MODE: u32 = 0o755;
/// Out of descriptors: some will be free again soon.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error("another daemon is running: it answers at {}", .0.display())]
    Running(PathBuf),
    /// Something else has that name.
    #[error("{} is not a socket: remove it, or set interfaces.control", .0.display())]
    NotASocket(PathBuf),
    /// The file system said no.
    #[error("cannot {operation} the control socket {}: {source}", path.display())]
    Io {
        /// `bind`, for example.
        operation: &'static str,
        /// Of the socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that clients can find. Its name goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: net::UnixListener,
    name: Name,
}

impl ControlSocket {
    /// Makes the socket, and the directory it is in; takes the place of one that a crashed daemon has left.
    ///
    /// # Errors
    /// [`ControlError::Running`] where somebody answers at `path`.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let error = |operation| {
            move |source: io::Error| ControlError::Io { operation, path: path.to_owned(), source }
        };
        make_directory(path).map_err(error("make the directory of"))?;
        remove_stale(path)?;
        let socket = bound(path).map_err(error("bind"))?;
        let name = Name::of(path).map_err(error("look at"))?;
        // Only widens what a strict umask has left over.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(error("set the mode of"))?;
        listen(&socket, Backlog::MAXCONN).map_err(|errno| error("listen on")(errno.into()))?;
        let listener = net::UnixListener::from(socket);
        listener.set_nonblocking(true).map_err(error("listen on"))?;
        Ok(Self { listener, name })
    }

    /// Serves until it is dropped: hands every request to `handle`, which must not block; the answer may come later and
    /// from any thread. Needs a tokio runtime with IO and time.
    ///
    /// # Errors
    /// [`ControlError::Io`] if the runtime does not take the socket.
    pub async fn serve(
        self,
        handle: impl Fn(Request, Answer) + Send + Sync + 'static,
    ) -> Result<(), ControlError> {
        let Self { listener, name } = self;
        let listener = UnixListener::from_std(listener).map_err(|source| ControlError::Io {
            operation: "poll",
            path: name.path.clone(),
            source,
        })?;
        let handle: Arc<Handle> = Arc::new(handle);
        let mut clients = JoinSet::new();
        let mut seats = Seats::default();
        loop {
            tokio::select! {
                // Who has left no longer counts when the next one comes.
                biased;
                Some(left) = clients.join_next() => match left {
                    Ok(peer) => seats.leave(peer),
                    Err(error) => tracing::error!("control socket {}: {error}", name.path.display()),
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match welcome(&stream, &mut seats) {
                        Ok(peer) => {
                            let handle = Arc::clone(&handle);
                            clients.spawn(async move {
                                converse(stream, peer, handle).await;
                                peer
                            });
                        }
                        Err(why) => turn_away(&stream, why),
                    },
                    Err(error) => {
                        tracing::warn!("control socket {}: accept: {error}", name.path.display());
                        sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        }
    }
}

/// Who it is, and whether there is a seat; if not, why.
fn welcome(stream: &UnixStream, seats: &mut Seats) -> Result<Peer, String> {
    let credentials = stream.peer_cred().map_err(|error| format!("who are you? {error}"))?;
    let peer = Peer { uid: credentials.uid(), gid: credentials.gid() };
    seats.take(peer).map(|()| peer)
}

/// A new socket's buffer has room for a line; if not, the client only learns less.
fn turn_away(stream: &UnixStream, why: String) {
    if let Ok(line) = line(Response::Error(why), false) {
        _ = stream.try_write(&line);
    }
}

/// One level only: a longer path that does not exist is a mistake.
fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    match fs::create_dir(directory) {
        // Whatever the umask is: everybody may connect.
        Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Two daemons with different state directories that start in the same moment on one `path` can both come by here; the lock on the
/// state directory refuses the ordinary second daemon before.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let error =
        |operation| move |source: io::Error| ControlError::Io { operation, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket(path.to_owned()));
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(error("look at"))?,
    };
    match connected(path) {
        Ok(_) | Err(Errno::EAGAIN) => Err(ControlError::Running(path.to_owned())),
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(error("remove the stale")),
        Err(errno) => Err(error("probe")(errno.into())),
    }
}

/// Bound under its name, with its mode from the first moment, and not yet listening.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Linux gives a socket's own mode to the name it is bound to.
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A name in the file system that goes with its owner, unless it has become somebody else's.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Name {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("control socket {}: remove: {error}", self.path.display());
        }
    }
}
