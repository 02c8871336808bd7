//! What drives the control plane.

use std::future::Future;
use std::io;

use ppu_uring::Engine;
use tokio::task::LocalSet;

/// Runs `future`, and what it spawns locally, on this thread: inside tokio-uring's runtime where io_uring may be used, else
/// inside tokio's alone. Control code uses `tokio::` types only, so that it does not matter which. (No operation of
/// tokio-uring's own is ever started here: its runtime must not end with one in flight.)
///
/// # Errors
/// Where no runtime can be made.
pub fn block_on<F: Future>(engine: Engine, future: F) -> io::Result<F::Output> {
    match engine {
        // Panics where it cannot have a ring; the engine was probed with one of the data plane, which needs more.
        Engine::Uring => Ok(tokio_uring::start(future)),
        Engine::Syscall => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, future))
        }
    }
}
