//! The operations, a file each: what it owns, how it is encoded for the ring, how plain system calls do the same.

mod read;
mod recv;
mod send;
mod splice;
mod sync;
mod write;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::squeue;

pub use read::Read;
pub use recv::Recv;
pub use send::Send;
pub use splice::Splice;
pub use sync::Sync;
pub use write::{Data, Write};

/// Most bytes that one operation moves: the kernel's MAX_RW_COUNT.
pub const OP_BYTES_MAX: u32 = 0x7fff_f000;

/// One operation, with the descriptors and the memory that it needs.
#[derive(Debug)]
pub enum Op {
    /// Moves pages between a pipe and something else.
    Splice(Splice),
    /// Sends bytes to a socket.
    Send(Send),
    /// Receives bytes from a socket.
    Recv(Recv),
    /// Writes to a file.
    Write(Write),
    /// Reads from a file.
    Read(Read),
    /// Makes a file durable.
    Sync(Sync),
}

macro_rules! each {
    ($self:expr, $op:ident => $do:expr) => {
        match $self {
            Op::Splice($op) => $do,
            Op::Send($op) => $do,
            Op::Recv($op) => $do,
            Op::Write($op) => $do,
            Op::Read($op) => $do,
            Op::Sync($op) => $do,
        }
    };
}

impl Op {
    /// What it moves when nothing is short: a smaller result breaks a soft link.
    pub fn asked(&self) -> u32 {
        each!(self, op => op.asked())
    }

    /// Whether memory and numbers fit together.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        each!(self, op => op.check())
    }

    /// For the ring. The entry holds addresses into what `self` owns: it must be kept, unmoved in memory, until it has completed.
    pub(crate) fn encode(&mut self) -> squeue::Entry {
        each!(self, op => op.encode())
    }

    /// Does it here and now, having already moved `moved` bytes. An interrupting signal ends it only once `stop` is set.
    pub(crate) fn run(&mut self, moved: u32, stop: &AtomicBool) -> io::Result<u32> {
        match self {
            Op::Splice(op) => op.run(stop),
            Op::Send(op) => op.run(moved, true, stop),
            Op::Recv(op) => op.run(moved, true, stop),
            Op::Write(op) => op.run(stop),
            Op::Read(op) => op.run(stop),
            Op::Sync(op) => op.run(stop),
        }
    }

    /// Does as much of it as is possible without waiting; `None` where only a thread that may block can tell.
    pub(crate) fn try_run(&mut self, stop: &AtomicBool) -> Option<io::Result<u32>> {
        match self {
            Op::Send(op) => Some(op.run(0, false, stop)),
            Op::Recv(op) => Some(op.run(0, false, stop)),
            _ => None,
        }
    }
}

/// Repeats `call` while signals interrupt it, until `stop` is set.
fn uninterrupted<T>(stop: &AtomicBool, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted && !stop.load(Ordering::Relaxed) => {}
            result => return result,
        }
    }
}

fn check_range(range: &Range<usize>, available: usize) -> Result<(), &'static str> {
    if range.start > range.end || range.end > available {
        return Err("range outside its buffer");
    }
    if range.len() > OP_BYTES_MAX as usize {
        return Err("longer than OP_BYTES_MAX");
    }
    Ok(())
}

macro_rules! into_op {
    ($($op:ident),*) => {
        $(impl From<$op> for Op {
            fn from(op: $op) -> Self {
                Self::$op(op)
            }
        })*
    };
}
into_op!(Splice, Send, Recv, Write, Read, Sync);
