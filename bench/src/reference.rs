//! What the streams are compared with: the same files over the same kind of connections, without headers, hashes, names.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ppu_uring::Pipe;
use rustix::pipe::{SpliceFlags, splice};

use crate::arena::Arena;
use crate::drain::{STREAMS, connection};

/// What recv is given at a time.
const RECV_BYTES: usize = 256 << 10;

/// How the far end takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Far {
    /// recv(2) into one buffer, nothing kept: the limit of TCP on this machine.
    Drops,
    /// splice(2) into files of the same sizes.
    Splices,
}

/// Files `0..count` of the source with sendfile(2), dealt out to [`STREAMS`] connections.
///
/// # Errors
/// Whatever the system says.
pub fn sendfile(arena: &Arena, count: usize, far: Far) -> io::Result<Duration> {
    let mut ends = Vec::new();
    for _ in 0..STREAMS {
        ends.push(connection()?);
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (stream, (near, far_end)) in ends.into_iter().enumerate() {
            let numbers = move || (stream..count).step_by(STREAMS);
            threads.push(scope.spawn(move || send_all(arena, near, numbers())));
            threads.push(scope.spawn(move || match far {
                Far::Drops => drop_all(far_end),
                Far::Splices => splice_all(arena, &far_end, numbers()),
            }));
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
    })?;
    Ok(start.elapsed())
}

fn send_all(arena: &Arena, to: TcpStream, numbers: impl Iterator<Item = usize>) -> io::Result<()> {
    for n in numbers {
        let file = File::open(arena.source().join(n.to_string()))?;
        let mut left = file.metadata()?.len();
        while left > 0 {
            left -= rustix::fs::sendfile(&to, &file, None, left as usize)? as u64;
        }
    }
    Ok(())
}

fn drop_all(mut from: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; RECV_BYTES];
    while from.read(&mut buffer)? > 0 {}
    Ok(())
}

fn splice_all(arena: &Arena, from: &TcpStream, numbers: impl Iterator<Item = usize>) -> io::Result<()> {
    let pipe = Pipe::new()?;
    for n in numbers {
        let size = arena.source().join(n.to_string()).metadata()?.len();
        let file = File::create(arena.target().join(n.to_string()))?;
        file.set_len(size)?;
        let mut at = 0;
        while at < size {
            let wanted = pipe.capacity.min((size - at) as usize);
            let mut held = splice(from, None, &pipe.into, None, wanted, SpliceFlags::empty())?;
            if held == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while held > 0 {
                held -= splice(&pipe.out, None, &file, Some(&mut at), held, SpliceFlags::empty())?;
            }
        }
        arena.landed(size)?;
    }
    Ok(())
}
