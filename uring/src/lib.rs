//! Data-plane primitives over io_uring, or over plain system calls where io_uring is forbidden: linked splices, O_DIRECT writes,
//! fsync; pipes, mappings, aligned buffers. Knows nothing of PPUs. Holds all `unsafe` of the workspace.
//!
//! The seam is [`Driver`]: it takes *chains* of [`Op`]s and gives each op back with its result. Three backends: [`Ring`] (io_uring,
//! one ring per thread), [`Threads`] (the same chains run by worker threads with plain system calls), [`Faulty`] (wraps either and
//! makes the Nth operation fail, be short, be cancelled or be late).
//!
//! Ownership: a submitted op (its descriptors, buffers, mappings) belongs to the driver until its completion is returned. Dropping
//! a driver cancels, reaps every completion, then frees; what cannot be reaped in time is leaked, never freed.

mod buf;
mod driver;
mod engine;
mod faulty;
mod fd;
mod file_hash;
mod guard;
mod mapping;
pub mod ops;
mod pipe;
mod probe;
mod ring;
pub mod socket;
pub mod sys;
mod threads;

pub use buf::{AlignedBuf, PAGE_BYTES};
pub use driver::{Done, Driver, Entry, Link, Refusal, Refused, Waker};
pub use engine::{Choice, DEPTH_MAX, Engine, EngineError, Limits, Opened, open_engine};
pub use faulty::{Fault, Faulty};
pub use fd::Fd;
pub use file_hash::{FileHash, FileHasher};
pub use mapping::Mapping;
pub use ops::Op;
pub use pipe::{PIPE_BYTES, Pipe};
pub use ring::Ring;
pub use threads::Threads;
