//! The two ends of a data connection, on tmpfs, over loopback.
#![allow(missing_docs, clippy::unwrap_used)]

mod changing;
#[allow(dead_code)]
mod pair;

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};

use pair::*;
use ppu_uringd::land::stream::Refusal;
use ppu_uringd::model::file_version::{Hash, TransferId};
use ppu_uringd::model::job::LandFailure;
use ppu_uringd::model::offer::Decline;
use ppu_uringd::model::send::SendOutcome;

const MIB: usize = 1 << 20;

/// Both ends on each engine, and one on each.
const ENGINES: [(Side, Side); 4] = [(URING, URING), (SYSCALL, SYSCALL), (URING, SYSCALL), (SYSCALL, URING)];

fn check_sizes(sizes: &[usize]) {
    for (sender, receiver) in ENGINES {
        let room = Room::new();
        let mut jobs = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let name = format!("{i}_{size}");
            room.put(&name, &content(size, i as u64));
            jobs.push(room.job(i as u64, &name));
        }
        let outcome = transfer(&room, &jobs, sender, receiver);
        for (i, job) in jobs.iter().enumerate() {
            let size = sizes[i];
            let hash = Hash::of(&content(size, i as u64));
            let landed = outcome.landed[&job.transfer].as_ref().unwrap();
            assert_eq!((landed.identity, landed.hash, landed.mode & 0o777), (job.identity, hash, 0o644));
            assert!(
                matches!(outcome.sent[&job.transfer], SendOutcome::Sent { identity, .. } if identity == job.identity)
            );
            let bytes = room.landed(&job.path.to_string()).unwrap();
            assert!(Hash::of(&bytes) == hash && bytes.len() == size, "{size} bytes, {sender:?} {receiver:?}");
        }
        assert_eq!(room.target.read_dir().unwrap().count(), sizes.len());
    }
}

#[test]
fn sizes_around_every_border() {
    check_sizes(&[0, 1, 4095, 4096, 4097, 100_000, 512 << 10, (512 << 10) + 1, MIB - 1, MIB, MIB + 1]);
    check_sizes(&[2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB / 2 + 1]);
}

#[test]
fn sizes_around_segments() {
    check_sizes(&[16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 40_000_000, 32 * MIB]);
}

#[test]
fn many_small_files() {
    let sizes: Vec<usize> = (0..700).map(|i| (i * 7919) % 60_000).collect();
    check_sizes(&sizes);
}

#[test]
fn without_verification_the_senders_hash_is_told() {
    let room = Room::new();
    let bytes = content(3 * MIB, 1);
    room.put("a", &bytes);
    let jobs = [room.job(1, "a")];
    let options = Options { verify: false, ..Options::default() };
    let outcome = Pair::start(&room, &jobs, URING, URING, options).finish();
    assert_eq!(outcome.landed[&TransferId(1)].as_ref().unwrap().hash, Hash::of(&bytes));
    assert!(room.landed("a").unwrap() == bytes);
}

#[test]
fn what_is_known_already_does_not_travel() {
    for size in [1000, 3 * MIB] {
        let room = Room::new();
        room.put("same", &content(size, 1));
        room.put("other", &content(size, 2));
        let known_hash = Some(Hash::of(&content(size, 1)));
        let mut jobs = [room.job(1, "same"), room.job(2, "other")];
        jobs.iter_mut().for_each(|job| job.known_hash = known_hash);
        let outcome = transfer(&room, &jobs, URING, URING);
        let declined = &outcome.sent[&TransferId(1)];
        assert!(
            matches!(declined, SendOutcome::Declined { why: Decline::Unchanged { identity, .. }, .. } if *identity == jobs[0].identity),
            "{declined:?}"
        );
        assert!(outcome.landed[&TransferId(2)].is_ok());
        assert_eq!(room.landed("same"), None);
    }
}

#[test]
fn nothing_travels_of_a_file_that_is_not_as_offered() {
    let room = Room::new();
    for name in ["busy", "gone", "rewritten", "fine"] {
        room.put(name, b"content");
    }
    let jobs = ["busy", "gone", "rewritten", "fine"].map(|name| room.job(name.len() as u64, name));
    let _writer = std::fs::File::options().append(true).open(room.source.join("busy")).unwrap();
    std::fs::remove_file(room.source.join("gone")).unwrap();
    room.put("rewritten", b"otherwise");
    // Two names have four letters: tell them apart.
    let mut jobs = jobs;
    jobs.iter_mut().enumerate().for_each(|(i, job)| job.transfer = TransferId(i as u64));
    let outcome = transfer(&room, &jobs, URING, URING);
    let why = |n| match &outcome.sent[&TransferId(n)] {
        SendOutcome::Declined { why, .. } => why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(why(0), Decline::Busy);
    assert_eq!(why(1), Decline::Vanished);
    assert_eq!(why(2), Decline::Changed);
    assert!(outcome.landed[&TransferId(3)].is_ok());
}

#[test]
fn a_flipped_bit_is_never_published() {
    for (size, flip_at) in [(50_000, 30_000), (3 * MIB, 2 * MIB as u64 as usize)] {
        let room = Room::new();
        room.put("a", &content(size, 1));
        room.put("b", &content(size, 2));
        let jobs = [room.job(1, "a"), room.job(2, "b")];
        let (near, proxy_in) = connection();
        let (proxy_out, far) = connection();
        std::thread::spawn(move || flip(proxy_in, proxy_out, flip_at));
        let pair = Pair::start_between(&room, &jobs, (URING, near), (URING, far), Options::default());
        let outcome = pair.finish();
        let mismatches =
            outcome.landed.values().filter(|l| matches!(l, Err(LandFailure::Mismatch { .. }))).count();
        assert_eq!((mismatches, outcome.landed.len()), (1, 2), "{outcome:?}");
        let versions: HashMap<_, _> =
            [("a".into(), vec![content(size, 1)]), ("b".into(), vec![content(size, 2)])].into();
        assert_sound(&room, &versions, "flipped");
    }
}

fn flip(mut from: TcpStream, mut to: TcpStream, at: usize) {
    use std::io::{Read, Write};
    let mut buf = vec![0; 65_536];
    let mut seen = 0;
    while let Ok(n @ 1..) = from.read(&mut buf) {
        if (seen..seen + n).contains(&at) {
            buf[at - seen] ^= 1;
        }
        seen += n;
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_full_ramdisk_costs_the_file_not_the_connection() {
    let Some(small) = SmallTmpfs::mount("8m") else { return };
    for (sender, receiver) in ENGINES {
        let room = Room::new();
        for (name, size) in [("small", 200_000), ("large", 40 * MIB), ("after", 100_000), ("last", MIB)] {
            room.put(name, &content(size, size as u64));
        }
        let jobs: Vec<_> = ["small", "large", "after", "last"]
            .iter()
            .enumerate()
            .map(|(i, n)| room.job(i as u64, n))
            .collect();
        let options = Options { staging: Some(small.path()), ..Options::default() };
        let outcome = Pair::start(&room, &jobs, sender, receiver, options).finish();
        assert_eq!(outcome.broken, (None, None));
        assert!(matches!(outcome.landed[&TransferId(1)], Err(LandFailure::NoSpace(_))), "{outcome:?}");
        // The others have room; that they cannot be renamed to another file system is this test's doing.
        for n in [0, 2, 3] {
            assert!(
                matches!(&outcome.landed[&TransferId(n)], Err(LandFailure::Io(e)) if e.contains("os error 18")),
                "{outcome:?}"
            );
        }
        assert_eq!(small.path().read_dir().unwrap().count(), 0, "left over");
    }
}

/// A tmpfs of its own; `None` where we are not root.
struct SmallTmpfs(tempfile::TempDir);

impl SmallTmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options.as_c_str())) {
            Ok(()) => Some(Self(dir)),
            Err(errno) => {
                eprintln!("skipped: cannot mount a tmpfs ({errno})");
                None
            }
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_refused_file_is_drained_and_the_next_ones_land() {
    for (sender, receiver) in ENGINES {
        let room = Room::new();
        let mut jobs = Vec::new();
        for (i, size) in [1000, 20 * MIB, 2000, 300_000, 3000].into_iter().enumerate() {
            let name = format!("{i}");
            room.put(&name, &content(size, i as u64));
            jobs.push(room.job(i as u64, &name));
        }
        let refused = |n: u64| n < 2 || n == 3;
        let on_begin = Box::new(move |header: &ppu_uringd::wire::data::FileHeader| {
            let why = LandFailure::NoSpace("out of inodes".into());
            if refused(header.transfer.0) { Err(Refusal::Failed(why)) } else { Ok(()) }
        });
        let options = Options { on_begin, ..Options::default() };
        let outcome = Pair::start(&room, &jobs, sender, receiver, options).finish();
        assert_eq!(outcome.broken, (None, None));
        for (transfer, landed) in &outcome.landed {
            assert_eq!(landed.is_ok(), !refused(transfer.0), "{transfer:?} {landed:?}");
        }
    }
}

#[test]
fn an_unwanted_file_ends_the_connection() {
    let room = Room::new();
    room.put("a", b"wanted");
    let jobs = [room.job(1, "a")];
    let options = Options { on_begin: Box::new(|_| Err(Refusal::Unwanted)), ..Options::default() };
    let outcome = Pair::start(&room, &jobs, URING, URING, options).finish();
    assert!(outcome.broken.1.unwrap().contains("transfer 1 was not wanted"));
    assert_eq!(room.target.read_dir().unwrap().count(), 0);
}

#[test]
fn nonsense_ends_the_connection() {
    use std::io::Write;
    let header = |bytes: &mut Vec<u8>, size: u64| {
        let identity = ppu_uringd::model::file_version::Identity { size, mtime_ns: 0, ino: 0, ctime_ns: 0 };
        let header = ppu_uringd::wire::data::FileHeader { transfer: TransferId(1), identity, mode: 0 };
        ppu_uringd::wire::data::encode_headers(&[header], bytes);
    };
    let mut huge = Vec::new();
    header(&mut huge, u64::MAX);
    let mut batch = huge[..8].to_vec();
    batch[4] = 65;
    let mut cut_off = Vec::new();
    header(&mut cut_off, 10);
    cut_off.truncate(30);
    for (bytes, words) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "magic"),
        (huge, "file of 18446744073709551615 bytes"),
        (batch, "65 files"),
        (cut_off, "in the middle of a batch"),
    ] {
        let room = Room::new();
        let (mut near, far) = connection();
        near.write_all(&bytes).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (_idle, other) = connection();
        let pair = Pair::start_between(&room, &[], (URING, other), (URING, far), Options::default());
        let end = loop {
            match pair.events.recv_timeout(HANG).unwrap() {
                Event::ReceiverEnd(end) => break end,
                other => drop(other),
            }
        };
        let text = end.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
        pair.jobs.close();
    }
}

/// Our sender lets a larger file travel alone, but the protocol does not ask for it.
#[test]
fn a_batch_may_mix_what_is_buffered_and_what_is_spliced() {
    use ppu_uringd::wire::data::{FileHeader, Status, Trailer, encode_headers};
    use std::io::Write;
    for receiver in [URING, SYSCALL] {
        let room = Room::new();
        let sizes = [100, 300_000, 0, 200_000, 400_000];
        let mut jobs = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            room.put(&i.to_string(), &content(size, i as u64));
            jobs.push(room.job(i as u64, &i.to_string()));
        }
        let headers: Vec<_> = jobs
            .iter()
            .map(|job| FileHeader { transfer: job.transfer, identity: job.identity, mode: 0o600 })
            .collect();
        let mut bytes = Vec::new();
        encode_headers(&headers, &mut bytes);
        sizes.iter().enumerate().for_each(|(i, &size)| bytes.extend(content(size, i as u64)));
        for (i, job) in jobs.iter().enumerate() {
            let hash = Hash::of(&content(sizes[i], i as u64));
            let (transfer, identity) = (job.transfer, job.identity);
            Trailer { transfer, status: Status::Unchanged, settled: true, hash, identity }.encode(&mut bytes);
        }
        let (mut near, far) = connection();
        let (_idle, other) = connection();
        let pair = Pair::start_between(&room, &jobs, (URING, other), (receiver, far), Options::default());
        pair.jobs.close();
        // In pieces that end nowhere in particular.
        bytes.chunks(70_001).for_each(|piece| near.write_all(piece).unwrap());
        near.shutdown(Shutdown::Write).unwrap();
        loop {
            match pair.events.recv_timeout(HANG).unwrap() {
                Event::ReceiverEnd(end) => break end.unwrap(),
                Event::Landed(report) => drop(report.outcome.unwrap()),
                Event::Sent(_) | Event::SenderEnd(_) => {}
            }
        }
        for (i, &size) in sizes.iter().enumerate() {
            assert!(room.landed(&i.to_string()) == Some(content(size, i as u64)), "{receiver:?} file {i}");
        }
    }
}

#[test]
fn shutdown_ends_both_sides_at_once_wherever_they_are() {
    for (sender, receiver) in ENGINES {
        // Idle, and with a peer that does not read.
        let room = Room::new();
        room.put("large", &content(40 * MIB, 1));
        let jobs = [room.job(1, "large")];
        let (near, _silent) = connection();
        let (_also_silent, far) = connection();
        let pair = Pair::start_between(&room, &jobs, (sender, near), (receiver, far), Options::default());
        let start = std::time::Instant::now();
        pair.sockets.0.shutdown(Shutdown::Both).unwrap();
        pair.sockets.1.shutdown(Shutdown::Both).unwrap();
        pair.jobs.close();
        let mut ended = 0;
        while ended < 2 {
            match pair.events.recv_timeout(HANG).unwrap() {
                Event::SenderEnd(_) | Event::ReceiverEnd(_) => ended += 1,
                other => drop(other),
            }
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
