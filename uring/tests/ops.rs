//! Every operation, and every kind of link, behaves the same on every engine.

mod common;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use common::*;
use ppu_uring::ops::{Data, Read, Recv, Send, Splice, Sync, Write};
use ppu_uring::{AlignedBuf, Fd, Link, Mapping, Op, Pipe, Refusal};

fn splice(from: &Fd, from_at: Option<u64>, to: &Fd, to_at: Option<u64>, len: usize) -> Op {
    let (from, to) = (from.clone(), to.clone());
    Splice { from, from_at, to, to_at, len: len as u32, more: false, nonblock: false }.into()
}

#[test]
fn write_sync_read() {
    each_engine(|driver, engine| {
        let file: Fd = memory_file(b"").into();
        let mut data = AlignedBuf::new(10_000);
        data.copy_from_slice(&content(10_000, 1));
        let write = Write { to: file.clone(), at: 3, data: Data::Buf(data), range: 0..10_000 };
        let sync = Sync { file: file.clone(), data_only: true };
        let done = run(driver, chain([(write.into(), Link::Soft), (sync.into(), Link::No)]));
        assert_eq!(numbers(&done), [10_000, 0], "{engine}");

        let read = Read { from: file, at: 3, buf: AlignedBuf::new(16_384), range: 100..16_384 };
        let mut done = run(driver, one(read));
        assert_eq!(numbers(&done), [10_000], "{engine}: short at the end of the file");
        let Op::Read(read) = done.remove(0).op else { panic!("another op came back") };
        assert_eq!(&read.buf[100..10_100], content(10_000, 1), "{engine}");
    });
}

#[test]
fn direct_write_from_a_mapping() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    each_engine(|driver, engine| {
        let bytes = content(10_001, 2);
        let mapping = Mapping::new(memory_file(&bytes), bytes.len()).unwrap();
        let path = dir.path().join("copy");
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)
            .unwrap();
        let fd: Fd = file.try_clone().unwrap().into();
        let padded = mapping.padded_len();
        let write = Write { to: fd.clone(), at: 0, data: Data::Mapped(mapping), range: 0..padded };
        let sync = Sync { file: fd, data_only: false };
        let done = run(driver, chain([(write.into(), Link::Soft), (sync.into(), Link::No)]));
        assert_eq!(numbers(&done), [12_288, 0], "{engine}");
        file.set_len(10_001).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{engine}");
    });
}

#[test]
fn a_truncated_mapping_is_an_error_not_a_signal() {
    each_engine(|driver, engine| {
        let source = memory_file(&content(8192, 3));
        let mapping = Mapping::new(&source, 8192).unwrap();
        source.set_len(0).unwrap();
        let write = Write { to: memory_file(b"").into(), at: 0, data: Data::Mapped(mapping), range: 0..8192 };
        assert_eq!(numbers(&run(driver, one(write))), [-i64::from(libc::EFAULT)], "{engine}");
    });
}

#[test]
fn send_and_recv_everything() {
    each_engine(|driver, engine| {
        let (near, far) = connection();
        // More than socket buffers hold: both must go on after a short call.
        let bytes = content(20 << 20, 4);
        let send = Send { to: near.into(), bytes: bytes.clone(), range: 0..20 << 20, more: false };
        let recv = Recv { from: far.into(), buf: AlignedBuf::new(20 << 20), range: 0..20 << 20, all: true };
        driver.submit(chain([(send.into(), Link::No)])).unwrap();
        let mut entries = one(recv);
        entries[0].token = 1;
        let mut done = run(driver, entries);
        assert_eq!(numbers(&done), [20 << 20, 20 << 20], "{engine}");
        let Op::Recv(recv) = done.remove(1).op else { panic!("another op came back") };
        assert!(*recv.buf == bytes[..], "{engine}");
    });
}

#[test]
fn recv_takes_what_is_there_and_sees_the_end() {
    each_engine(|driver, engine| {
        let (mut near, far) = connection();
        let far: Fd = far.into();
        let recv = |all| Recv { from: far.clone(), buf: AlignedBuf::new(100), range: 10..100, all };
        near.write_all(b"abc").unwrap();
        assert_eq!(numbers(&run(driver, one(recv(false)))), [3], "{engine}");
        driver.submit(one(recv(false))).unwrap();
        near.write_all(b"de").unwrap();
        assert_eq!(numbers(&drain(driver)), [2], "{engine}: waits");
        near.write_all(b"xyz").unwrap();
        drop(near);
        assert_eq!(numbers(&run(driver, one(recv(true)))), [3], "{engine}: the end cuts it short");
        assert_eq!(numbers(&run(driver, one(recv(true)))), [0], "{engine}");
        assert_eq!(numbers(&run(driver, one(recv(false)))), [0], "{engine}");
    });
}

#[test]
fn spliced_from_file_to_socket_to_file() {
    each_engine(|driver, engine| {
        let bytes = content(3_000_001, 5);
        let (source, target): (Fd, File) = (memory_file(&bytes).into(), memory_file(b""));
        let target_fd: Fd = target.try_clone().unwrap().into();
        let (near, far) = connection();
        let (near, far): (Fd, Fd) = (near.into(), far.into());
        let (up, down) = (Pipe::new().unwrap(), Pipe::new().unwrap());
        let (mut sent, mut landed) = (0, 0);
        while landed < bytes.len() {
            if sent < bytes.len() {
                let len = (bytes.len() - sent).min(200_000);
                let pair = [
                    (splice(&source, Some(sent as u64), &up.into, None, len), Link::Soft),
                    (splice(&up.out, None, &near, None, len), Link::No),
                ];
                assert_eq!(numbers(&run(driver, chain(pair))), [len as i64; 2], "{engine}");
                sent += len;
            }
            let pair = [
                (splice(&far, None, &down.into, None, 1 << 20), Link::Hard),
                (splice(&down.out, None, &target_fd, Some(landed as u64), 1 << 20), Link::No),
            ];
            let moved = numbers(&run(driver, chain(pair)));
            assert_eq!(moved[0], moved[1], "{engine}: short, but a hard link goes on");
            landed += moved[1] as usize;
        }
        let mut copy = vec![0; bytes.len()];
        target.read_exact_at(&mut copy, 0).unwrap();
        assert!(copy == bytes, "{engine}");
    });
}

#[test]
fn links() {
    const CANCELED: i64 = -(libc::ECANCELED as i64);
    const BADF: i64 = -(libc::EBADF as i64);
    each_engine(|driver, engine| {
        let file: Fd = memory_file(b"0123456789").into();
        let read_only: Fd = File::open("/dev/null").unwrap().into();
        let good = || Read { from: file.clone(), at: 0, buf: AlignedBuf::new(10), range: 0..10 }.into();
        let short = || Read { from: file.clone(), at: 5, buf: AlignedBuf::new(10), range: 0..10 }.into();
        let bad = || {
            Op::from(Write { to: read_only.clone(), at: 0, data: Data::Buf(AlignedBuf::new(1)), range: 0..1 })
        };
        let mut check = |ops: Vec<(Op, Link)>, expected: &[i64]| {
            assert_eq!(numbers(&run(driver, chain(ops))), expected, "{engine}");
        };
        check(vec![(good(), Link::Soft), (good(), Link::Soft), (good(), Link::No)], &[10, 10, 10]);
        check(
            vec![(short(), Link::Soft), (good(), Link::Soft), (good(), Link::No)],
            &[5, CANCELED, CANCELED],
        );
        check(
            vec![(bad(), Link::Soft), (good(), Link::Hard), (good(), Link::No)],
            &[BADF, CANCELED, CANCELED],
        );
        check(vec![(short(), Link::Hard), (good(), Link::Soft), (good(), Link::No)], &[5, 10, 10]);
        check(vec![(bad(), Link::Hard), (bad(), Link::Hard), (good(), Link::No)], &[BADF, BADF, 10]);
        check(vec![(bad(), Link::No), (good(), Link::Soft), (good(), Link::No)], &[BADF, 10, 10]);
        check(vec![(bad(), Link::Soft), (good(), Link::No), (good(), Link::No)], &[BADF, CANCELED, 10]);
    });
}

#[test]
fn refused_chains_come_back_whole() {
    each_engine(|driver, engine| {
        let file: Fd = memory_file(b"x").into();
        let read =
            |len: usize| Op::from(Read { from: file.clone(), at: 0, buf: AlignedBuf::new(8), range: 0..len });
        let mut refuse = |entries: Vec<ppu_uring::Entry>| {
            let len = entries.len();
            let refused = driver.submit(entries).unwrap_err();
            assert_eq!(refused.chain.len(), len, "{engine}");
            assert!(refused.chain.iter().enumerate().all(|(i, e)| e.token == i as u64), "{engine}");
            refused.cause
        };
        assert!(matches!(refuse(vec![]), Refusal::Empty));
        let too_long = (0..=LIMITS.depth).map(|_| (read(8), Link::Soft));
        assert!(matches!(refuse(chain(too_long)), Refusal::Full { wanted: 65, room: 64 }));
        assert!(matches!(refuse(chain([(read(8), Link::Soft), (read(9), Link::No)])), Refusal::Invalid(_)));
        let sync = Op::from(Sync { file: file.clone(), data_only: false });
        assert!(matches!(refuse(chain([(sync, Link::Soft), (read(8), Link::No)])), Refusal::Invalid(_)));
        assert_eq!((driver.in_flight(), driver.room()), (0, 64), "{engine}");

        // As long as allowed; then there is no room before all was reaped.
        driver.submit(chain((0..64).map(|_| (read(1), Link::Soft)))).unwrap();
        let refused = driver.submit(one(read(1))).unwrap_err();
        assert!(matches!(refused.cause, Refusal::Full { wanted: 1, room: 0 }), "{engine}");
        assert_eq!(numbers(&drain(driver)), [1; 64], "{engine}");
        assert_eq!(driver.room(), 64, "{engine}");
    });
}

#[test]
fn waiting_ends_by_time_and_by_waker() {
    each_engine(|driver, engine| {
        let (_near, far) = connection();
        driver
            .submit(one(Recv { from: far.into(), buf: AlignedBuf::new(1), range: 0..1, all: false }))
            .unwrap();
        let start = Instant::now();
        driver.wait(Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() < HANG && driver.reap().is_none(), "{engine}");

        let waker = driver.waker().unwrap();
        for _ in 0..3 {
            let waker = waker.clone();
            let other = std::thread::spawn(move || waker.wake());
            driver.wait(Some(HANG)).unwrap();
            assert!(start.elapsed() < HANG, "{engine}");
            other.join().unwrap();
        }
        // Woken before it waits.
        waker.wake();
        driver.wait(Some(HANG)).unwrap();
        assert!(start.elapsed() < HANG, "{engine}");
    });
}
