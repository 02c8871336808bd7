//! How a bulk TCP connection is set up.

use std::ffi::OsString;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// Sets up `stream` for bulk transfer: cubic congestion control where the kernel has it (the host's default may be BBR, up to
/// 2.5 times slower on a private link), no delay of small segments, keepalive, and an end to the connection when the peer has not
/// acknowledged anything for `dead_after`.
///
/// # Errors
/// Those of setsockopt(2), except that cubic may be missing.
pub fn tune(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    // Best effort: not every kernel has it, not every user may choose it.
    let _ = setsockopt(stream, sockopt::TcpCongestion, &OsString::from("cubic"));
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    // Three probes inside the time: the first after half of it.
    let half = u32::try_from(dead_after.as_secs() / 2).unwrap_or(u32::MAX).clamp(1, 32_767);
    setsockopt(stream, sockopt::TcpKeepIdle, &half)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(half / 3).max(1))?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    let timeout_ms = u32::try_from(dead_after.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &timeout_ms)?;
    Ok(())
}

/// Whether the peer has ended the connection, or sent something although it should not have: never waits.
pub fn has_news(stream: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(&stream, PollFlags::IN | PollFlags::RDHUP)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0)
}
