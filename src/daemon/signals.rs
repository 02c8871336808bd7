//! Signals that end the daemon, and those that must not.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use tokio::signal::unix::{SignalKind, signal};

/// SIGIO comes when a lease is broken while a file is probed for writers, SIGPIPE when a peer hangs up: by default both would
/// end the process. Blocked, not ignored, for every thread that is started afterwards: nobody ever takes them.
pub fn ignore_lease_and_pipe() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGIO);
    set.add(Signal::SIGPIPE);
    if let Err(error) = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None) {
        tracing::warn!("cannot block SIGIO and SIGPIPE: {error}");
    }
}

/// Until SIGTERM or SIGINT; says which.
pub async fn end() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("no signal handlers: end this daemon with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
