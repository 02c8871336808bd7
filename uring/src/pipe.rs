//! The pipe between two splices.

use std::io;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::fd::Fd;

/// What we ask for: 256 pages; more needs CAP_SYS_RESOURCE. 64 kB, the default, halves the throughput.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe that splices run through. One that saw any error must be dropped, not reused: bytes that stayed inside would come out
/// as part of another file.
#[derive(Debug)]
pub struct Pipe {
    /// To be spliced from.
    pub out: Fd,
    /// To be spliced into.
    pub into: Fd,
    /// Bytes it holds when every page is full.
    pub capacity: usize,
}

impl Pipe {
    /// A new pipe of [`PIPE_BYTES`], or less where the user's share of pipe pages (`fs.pipe-user-pages-soft`) is used up.
    ///
    /// # Errors
    /// Those of pipe2(2).
    pub fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut wish = PIPE_BYTES;
        let capacity = loop {
            match fcntl_setpipe_size(&into, wish) {
                Ok(capacity) => break capacity,
                Err(_) if wish > 1 << 16 => wish /= 2,
                Err(_) => break fcntl_getpipe_size(&into)?,
            }
        };
        Ok(Self { out: out.into(), into: into.into(), capacity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_large_as_allowed() {
        let pipe = Pipe::new().unwrap();
        assert!(pipe.capacity >= 4096 && pipe.capacity <= PIPE_BYTES, "{}", pipe.capacity);
    }
}
