//! Dropping a driver with operations in flight. Alone in its process: it counts descriptors.

mod common;

use std::io::Read as _;
use std::time::{Duration, Instant};

use common::*;
use ppu_uring::ops::{Recv, Send, Splice};
use ppu_uring::{AlignedBuf, Choice, Fd, Link, Op, Pipe};

#[test]
fn dropped_in_flight() {
    for (choice, engine) in [(Choice::Uring, "uring"), (Choice::Syscall, "syscall")] {
        let before = open_fds();
        let start = Instant::now();
        {
            let mut driver = open(choice);
            let (near, mut far) = connection();
            let (idle, pipe): (Fd, Pipe) = (near.into(), Pipe::new().unwrap());
            let file: Fd = memory_file(b"").into();
            // Waits for a peer that says nothing; behind it what a cancelled hard link would start.
            let pair = [
                (splice(&idle, None, &pipe.into, None, 1000), Link::Hard),
                (splice(&pipe.out, None, &file, Some(0), 1000), Link::No),
            ];
            driver.submit(chain(pair)).unwrap();
            // Waits for a peer that takes nothing.
            let flood = Send { to: idle.clone(), bytes: vec![7; 64 << 20], range: 0..64 << 20, more: false };
            driver.submit(one(flood)).unwrap();
            driver.submit(one(Recv { from: idle, buf: AlignedBuf::new(9), range: 0..9, all: true })).unwrap();
            driver.waker().unwrap();
            driver.wait(Some(Duration::from_millis(30))).unwrap();
            drop(driver);
            // Our end is closed now that nothing holds it.
            far.set_read_timeout(Some(HANG)).unwrap();
            let _ = far.read_to_end(&mut Vec::new());
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{engine}: {:?}", start.elapsed());
        assert_eq!(open_fds(), before, "{engine}: leaked");
    }
}

fn splice(from: &Fd, from_at: Option<u64>, to: &Fd, to_at: Option<u64>, len: usize) -> Op {
    let (from, to) = (from.clone(), to.clone());
    Splice { from, from_at, to, to_at, len: len as u32, more: false, nonblock: false }.into()
}
