//! The fault backend does exactly the one thing wrong that it was told, and what depends on it follows the links.

mod common;

use std::time::{Duration, Instant};

use common::*;
use ppu_uring::ops::{Read, Send, Splice};
use ppu_uring::{AlignedBuf, Choice, Driver, Fault, Faulty, Fd, Link, Op, Pipe};

const CANCELED: i64 = -(libc::ECANCELED as i64);
const EIO: i64 = -(libc::EIO as i64);

fn each_faulty(nth: u64, fault: Fault, mut test: impl FnMut(&mut Faulty)) {
    for choice in [Choice::Uring, Choice::Syscall] {
        test(&mut Faulty::new(open(choice), nth, fault));
    }
}

#[test]
fn links_behind_a_fault() {
    let file: Fd = memory_file(&content(100, 1)).into();
    let check = |nth, fault, links: [Link; 2], expected: [i64; 3]| {
        each_faulty(nth, fault, |driver| {
            let read = || Read { from: file.clone(), at: 0, buf: AlignedBuf::new(10), range: 0..10 }.into();
            let ops = vec![(read(), links[0]), (read(), links[1]), (read(), Link::No)];
            assert_eq!(numbers(&run(driver, chain(ops))), expected, "{nth} {fault:?} {links:?}");
            // The fault is used up.
            assert_eq!(numbers(&run(driver, one(read_all(&file)))), [10]);
            assert_eq!((driver.in_flight(), driver.room()), (0, 64));
        });
    };
    use Link::{Hard, No, Soft};
    let error = Fault::Error(libc::EIO);
    check(0, error, [Soft, Soft], [EIO, CANCELED, CANCELED]);
    check(1, error, [Soft, Soft], [10, EIO, CANCELED]);
    check(2, error, [Soft, Soft], [10, 10, EIO]);
    check(0, error, [Hard, Soft], [EIO, 10, 10]);
    check(0, error, [Soft, Hard], [EIO, CANCELED, CANCELED]);
    check(0, error, [Soft, No], [EIO, CANCELED, 10]);
    check(1, error, [Hard, No], [10, EIO, 10]);
    check(0, Fault::Short, [Soft, Soft], [5, CANCELED, CANCELED]);
    check(1, Fault::Short, [Soft, Hard], [10, 5, 10]);
    check(1, Fault::Cancelled, [Soft, Soft], [10, CANCELED, CANCELED]);
    check(0, Fault::Late(Duration::from_millis(1)), [Soft, Soft], [10, 10, 10]);
}

fn read_all(file: &Fd) -> Read {
    Read { from: file.clone(), at: 0, buf: AlignedBuf::new(10), range: 0..10 }
}

#[test]
fn a_broken_chain_before_the_fault_cancels_it() {
    let file: Fd = memory_file(b"short").into();
    each_faulty(1, Fault::Error(libc::EIO), |driver| {
        let ops = (0..3).map(|_| (read_all(&file).into(), Link::Soft));
        assert_eq!(numbers(&run(driver, chain(ops))), [5, CANCELED, CANCELED]);
    });
}

#[test]
fn a_short_operation_is_really_done_and_comes_back_as_it_was() {
    each_faulty(0, Fault::Short, |driver| {
        let (near, far) = connection();
        let bytes = content(1000, 2);
        let send = Send { to: near.into(), bytes: bytes.clone(), range: 100..900, more: false };
        let mut done = run(driver, one(send));
        assert_eq!(numbers(&done), [400]);
        let Op::Send(send) = done.remove(0).op else { panic!("another op came back") };
        assert_eq!((send.range, send.bytes.len()), (100..900, 1000));
        let mut received = [0; 1000];
        let n = std::io::Read::read(&mut { far }, &mut received).unwrap();
        assert_eq!(&received[..n], &bytes[100..500]);
    });
    each_faulty(0, Fault::Short, |driver| {
        let (file, pipe): (Fd, Pipe) = (memory_file(&content(1000, 3)).into(), Pipe::new().unwrap());
        let (from, to) = (file, pipe.into.clone());
        let splice =
            Splice { from, from_at: Some(0), to, to_at: None, len: 1000, more: false, nonblock: false };
        let mut done = run(driver, one(splice));
        assert_eq!(numbers(&done), [500]);
        assert!(matches!(done.remove(0).op, Op::Splice(Splice { len: 1000, .. })));
    });
}

#[test]
fn late_is_late_for_every_way_of_waiting() {
    let file: Fd = memory_file(&content(100, 1)).into();
    let late = Duration::from_millis(30);
    each_faulty(1, Fault::Late(late), |driver| {
        assert_eq!(numbers(&run(driver, one(read_all(&file)))), [10]);
        let start = Instant::now();
        assert_eq!(numbers(&run(driver, one(read_all(&file)))), [10]);
        assert!(start.elapsed() >= late);
    });
    each_faulty(0, Fault::Late(late), |driver| {
        let start = Instant::now();
        driver.submit(one(read_all(&file))).unwrap();
        driver.wait_all().unwrap();
        assert!(driver.reap().is_some() && start.elapsed() >= late);
    });
}

#[test]
fn operations_are_counted_as_they_are_submitted() {
    let file: Fd = memory_file(&content(100, 1)).into();
    each_faulty(u64::MAX, Fault::Cancelled, |driver| {
        let seen = driver.seen();
        let ops = (0..5).map(|_| (read_all(&file).into(), Link::Soft));
        run(driver, chain(ops));
        run(driver, one(read_all(&file)));
        assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 6);
    });
}
