//! What the integration tests share.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ppu_uring::{Choice, Done, Driver, Entry, Fault, Faulty, Limits, Link, Op, open_engine};

pub const LIMITS: Limits = Limits { depth: 64, workers: 2 };
/// Nothing here takes that long.
pub const HANG: Duration = Duration::from_secs(20);

pub fn open(choice: Choice) -> Box<dyn Driver> {
    open_engine(choice, LIMITS).unwrap().driver
}

/// Every backend that must behave alike.
pub fn each_engine(mut test: impl FnMut(&mut dyn Driver, &str)) {
    test(&mut *open(Choice::Uring), "uring");
    test(&mut *open(Choice::Syscall), "syscall");
    for (choice, name) in [(Choice::Uring, "uring, wrapped"), (Choice::Syscall, "syscall, wrapped")] {
        test(&mut Faulty::new(open(choice), u64::MAX, Fault::Cancelled), name);
    }
}

pub fn chain(ops: impl IntoIterator<Item = (Op, Link)>) -> Vec<Entry> {
    ops.into_iter().enumerate().map(|(i, (op, link))| Entry { op, token: i as u64, link }).collect()
}

pub fn one(op: impl Into<Op>) -> Vec<Entry> {
    chain([(op.into(), Link::No)])
}

/// Submits, and waits for everything that is in flight.
pub fn run(driver: &mut dyn Driver, chain: Vec<Entry>) -> Vec<Done> {
    driver.submit(chain).unwrap();
    drain(driver)
}

/// Waits for everything that is in flight, in the order of tokens.
pub fn drain(driver: &mut dyn Driver) -> Vec<Done> {
    let mut all = Vec::new();
    let start = std::time::Instant::now();
    while driver.in_flight() > 0 {
        match driver.reap() {
            Some(done) => all.push(done),
            None => driver.wait(Some(HANG)).unwrap(),
        }
        assert!(start.elapsed() < HANG, "hangs with {} in flight", driver.in_flight());
    }
    all.sort_by_key(|done| done.token);
    all
}

/// Results as numbers: bytes, or minus the errno.
pub fn numbers(done: &[Done]) -> Vec<i64> {
    let number = |done: &Done| match &done.result {
        Ok(n) => i64::from(*n),
        Err(e) => -i64::from(e.raw_os_error().unwrap_or(0)),
    };
    done.iter().map(number).collect()
}

pub fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Not compressible, not repeating, so that a byte at a wrong place shows.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An unnamed file on tmpfs.
pub fn memory_file(bytes: &[u8]) -> File {
    use std::io::Write;
    let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Descriptors of this process.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
