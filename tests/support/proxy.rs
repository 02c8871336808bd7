//! A TCP proxy that damages what passes, on purpose and on command.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::rig::free_port;

/// What the proxy does.
#[derive(Default)]
pub struct Mischief {
    /// Flip one bit in the detector's bytes, this many bytes from now; 0 = none.
    flip_after: AtomicU64,
    /// Pass nothing at all, but keep connections open.
    pub stalled: AtomicBool,
    flipped: AtomicU64,
    passed: AtomicU64,
}

pub struct Proxy {
    pub port: u16,
    pub mischief: Arc<Mischief>,
}

impl Proxy {
    /// Listens on a port of its own and connects each client to `to`.
    pub fn start(to: u16) -> Self {
        Self::start_at(free_port(), to)
    }

    /// Listens on `port`, which was nobody's until now.
    pub fn start_at(port: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mischief = Arc::new(Mischief::default());
        let shared = Arc::clone(&mischief);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (a, b) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || pass(client, server, &a, false));
                std::thread::spawn(move || pass(server2, client2, &b, true));
            }
        });
        Self { port, mischief }
    }

    /// Flips one bit, `bytes` of the detector's bytes from now.
    pub fn flip_in(&self, bytes: u64) {
        let at = self.mischief.passed.load(Ordering::SeqCst) + bytes;
        self.mischief.flip_after.store(at.max(1), Ordering::SeqCst);
    }

    pub fn flipped(&self) -> u64 {
        self.mischief.flipped.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mischief: &Mischief, from_detector: bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while mischief.stalled.load(Ordering::SeqCst) {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        if from_detector {
            let start = mischief.passed.fetch_add(count as u64, Ordering::SeqCst);
            let at = mischief.flip_after.load(Ordering::SeqCst);
            // Only within bulk data: control frames and headers are small, and another test's matter.
            if at > 0 && start + count as u64 > at && count == buffer.len() {
                mischief.flip_after.store(0, Ordering::SeqCst);
                mischief.flipped.fetch_add(1, Ordering::SeqCst);
                buffer[count / 2] ^= 0x10;
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Either end may be gone already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
