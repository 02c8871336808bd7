//! Which engine moves the bytes, and how one is opened.

use std::fmt;
use std::io;

use crate::driver::Driver;
use crate::ring::Ring;
use crate::threads::Threads;

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// io_uring.
    Uring,
    /// Worker threads and plain system calls.
    Syscall,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Uring => "uring",
            Engine::Syscall => "syscall",
        })
    }
}

/// What somebody wants to move the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// io_uring where it is allowed, else plain system calls.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Plain system calls.
    Syscall,
}

/// How much a driver does at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most operations in flight, and the length of the longest chain; 1..=[`DEPTH_MAX`].
    pub depth: u32,
    /// Most threads (the kernel's or ours) that run operations which block; at least 1.
    pub workers: u32,
}

/// Largest useful [`Limits::depth`].
pub const DEPTH_MAX: u32 = 4096;

/// An engine that was opened.
pub struct Opened {
    /// To be used by this thread only.
    pub driver: Box<dyn Driver>,
    /// Why it is not io_uring, where [`Choice::Auto`] had to fall back. For people.
    pub fallback: Option<EngineError>,
}

/// Why an engine cannot be opened: cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No io_uring, or not enough of it.
    #[error(
        "this kernel is too old for io_uring ({0}): Linux 5.11 or later is needed, or set engine = \"syscall\""
    )]
    TooOld(String),
    /// Switched off for everybody.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = 2): `sysctl -w kernel.io_uring_disabled=0`, or set engine = \"syscall\""
    )]
    Disabled,
    /// Switched off for this user.
    #[error(
        "io_uring is kept for root and one group (kernel.io_uring_disabled = 1): put this user into the group of kernel.io_uring_group, `sysctl -w kernel.io_uring_disabled=0`, or set engine = \"syscall\""
    )]
    Restricted,
    /// By something other than the sysctl.
    #[error(
        "io_uring_setup is forbidden here ({0}): a seccomp filter of the container or service, or SELinux; allow io_uring_setup, io_uring_enter and io_uring_register there, or set engine = \"syscall\""
    )]
    Forbidden(io::Error),
    /// Locked memory, on kernels before 5.12.
    #[error(
        "no memory for a ring: raise the memlock limit (LimitMEMLOCK= of the service), or set engine = \"syscall\""
    )]
    NoMemory,
    /// Anything else.
    #[error("io_uring_setup: {0}")]
    Setup(io::Error),
    /// No threads, no signals.
    #[error("syscall engine: {0}")]
    Syscall(io::Error),
}

/// Opens an engine on this thread, to be used by this thread.
///
/// # Errors
/// [`EngineError`]; with [`Choice::Auto`] only where plain system calls do not work either.
pub fn open_engine(choice: Choice, limits: Limits) -> Result<Opened, EngineError> {
    let fallback = match choice {
        Choice::Syscall => None,
        Choice::Auto | Choice::Uring => match Ring::new(limits) {
            Ok(ring) => return Ok(Opened { driver: Box::new(ring), fallback: None }),
            Err(e) if choice == Choice::Uring => return Err(e),
            Err(e) => Some(e),
        },
    };
    let threads = Threads::new(limits).map_err(EngineError::Syscall)?;
    Ok(Opened { driver: Box::new(threads), fallback })
}
