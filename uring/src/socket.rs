//! How a bulk TCP connection is set up.

use std::ffi::OsString;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// Chooses cubic congestion control, where the kernel has it, for every connection that `listener` accepts from now on. The host's
/// default may be BBR: up to 2.5 times slower on a private link, and its pacing stays with a connection that began with it, whatever is
/// chosen later. So the end that sends must be the one that accepts.
pub fn tune_listener(listener: impl AsFd) {
    cubic(listener);
}

/// Best effort: not every kernel has it, not every user may choose it.
fn cubic(socket: impl AsFd) {
    let _ = setsockopt(&socket, sockopt::TcpCongestion, &OsString::from("cubic"));
}

/// Sets up `stream` for bulk transfer: cubic congestion control, no delay of small segments, keepalive, and an end to the connection
/// when the peer has not acknowledged anything for `dead_after`.
///
/// # Errors
/// Those of setsockopt(2), except that cubic may be missing.
pub fn tune(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    cubic(stream);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn cubic_from_the_first_segment() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tune_listener(&listener);
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        tune(&near, Duration::from_secs(10)).unwrap();
        let name = |stream: &TcpStream| nix::sys::socket::getsockopt(stream, sockopt::TcpCongestion).unwrap();
        for stream in [&near, &far] {
            let name = name(stream).to_string_lossy().into_owned();
            assert!(name.starts_with("cubic") || !available("cubic"), "{name}");
        }
        assert!(!has_news(&far));
        drop(near);
        let start = std::time::Instant::now();
        while !has_news(&far) {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }

    fn available(name: &str) -> bool {
        let list = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        list.is_ok_and(|list| list.contains(name))
    }
}
