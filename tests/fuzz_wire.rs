//! A fuzzer that needs no nightly compiler: valid byte streams, mutated at random, into everything that reads a peer.
//! A failure prints the seed; `FUZZ_WIRE_SEED=seed` repeats it, `FUZZ_WIRE_MB=n` sets the bytes per target.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::env;
use std::fmt::Debug;
use std::ops::Range;

use ppu_uringd::model::file_version::{Hash, Identity, OfferId, TransferId};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::{Began, ShiftId};
use ppu_uringd::model::trouble::{ABOUT_MAX_BYTES, About, Matter, TEXT_MAX_BYTES, Text};
use ppu_uringd::wire::control::{
    Coming, Decline, FromDetector, FromPpu, Heartbeat, Offered, Report, Wanted, Withdrawal,
};
use ppu_uringd::wire::frame::{Decoder, MAX_FRAME_BYTES, Message, encode};
use ppu_uringd::wire::handshake::{Client, Key, PpuId, Role, Server, SessionId};

const DEFAULT_MEGABYTES: usize = 25;

#[test]
fn frames_from_the_detector() {
    fuzz(&from_detector(), check_frames::<FromDetector>);
}

#[test]
fn frames_from_the_ppu() {
    fuzz(&from_ppu(), check_frames::<FromPpu>);
}

#[test]
fn a_servers_handshake() {
    let (hello, _, proof, _) = handshake();
    let genuine = [hello, proof].concat();
    fuzz(std::slice::from_ref(&genuine), |bytes, rng| {
        let mut server = server();
        let caller = in_pieces(bytes, rng, |piece| server.feed(piece).unwrap_or_default());
        assert!(server.take_output().len() < 2048);
        assert_eq!(caller.is_some(), bytes.starts_with(&genuine), "let in by what the client did not say");
    });
}

#[test]
fn a_clients_handshake() {
    let (_, hello, _, welcome) = handshake();
    let genuine = [hello, welcome].concat();
    fuzz(std::slice::from_ref(&genuine), |bytes, rng| {
        let mut client = client();
        let established = in_pieces(bytes, rng, |piece| client.feed(piece).unwrap_or_default());
        assert!(client.take_output().len() < 2048);
        let believable = bytes.starts_with(&genuine[..genuine.len() - 5]);
        assert!(established.is_none() || believable, "believed what the server did not say");
    });
}

/// The same messages come out however the bytes are cut; each survives being sent again.
fn check_frames<M: Message + Debug + PartialEq>(bytes: &[u8], rng: &mut Rng) {
    let mut whole = Decoder::new(MAX_FRAME_BYTES);
    whole.feed(bytes);
    let mut expected = Vec::new();
    let end = loop {
        match whole.next_message::<M>() {
            Ok(Some(message)) => expected.push(message),
            end => break end,
        }
    };
    for message in &expected {
        let mut again = Decoder::new(MAX_FRAME_BYTES);
        again.feed(&encode(message).unwrap());
        assert_eq!(again.next_message().unwrap().as_ref(), Some(message));
    }

    let mut cut = Decoder::new(MAX_FRAME_BYTES);
    let mut expected = expected.into_iter();
    let cut_end = in_pieces(bytes, rng, |piece| {
        cut.feed(piece);
        loop {
            match cut.next_message::<M>() {
                Ok(Some(message)) => assert_eq!(Some(message), expected.next()),
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    });
    assert_eq!(expected.next(), None);
    assert_eq!(cut_end, end.err());
}

/// Feeds `bytes` cut at random until `feed` has a result.
fn in_pieces<T>(mut bytes: &[u8], rng: &mut Rng, mut feed: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    while !bytes.is_empty() {
        let longest = if rng.below(4) == 0 { 3 } else { bytes.len() };
        let (piece, rest) = bytes.split_at(1 + rng.below(longest.min(bytes.len())));
        if let Some(result) = feed(piece) {
            return Some(result);
        }
        bytes = rest;
    }
    None
}

/// Calls `check` with mutations of `corpus` until enough bytes have been through.
fn fuzz(corpus: &[Vec<u8>], mut check: impl FnMut(&[u8], &mut Rng)) {
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seed = number("FUZZ_WIRE_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    println!("FUZZ_WIRE_SEED={seed}");
    let mut rng = Rng(seed);
    let mut left = number("FUZZ_WIRE_MB").map_or(DEFAULT_MEGABYTES, |n| n as usize) * 1_000_000;
    for genuine in corpus {
        check(genuine, &mut rng);
    }
    while left > 0 {
        let mut bytes = Vec::new();
        for _ in 0..=rng.below(3) {
            bytes.extend_from_slice(&corpus[rng.below(corpus.len())]);
        }
        for _ in 0..=rng.below(4) {
            mutate(&mut bytes, corpus, &mut rng);
        }
        check(&bytes, &mut rng);
        left = left.saturating_sub(bytes.len() + 1);
    }
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    if bytes.is_empty() {
        bytes.push(rng.next() as u8);
    }
    let at = rng.below(bytes.len());
    match rng.below(9) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next() as u8,
        2 => bytes.truncate(at),
        3 => _ = bytes.drain(range(bytes.len(), rng)),
        4 => {
            let copy = bytes[range(bytes.len(), rng)].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            let other = &corpus[rng.below(corpus.len())];
            let part = &other[range(other.len(), rng)];
            bytes.splice(at..at, part.iter().copied());
        }
        // Borders of varints and lengths.
        6 => {
            let border = [0, 1, 0x7f, 0x80, 0x3ff, 0x400, 0x401, 0xffff, 0x1_0000, 0x1_0001, u32::MAX];
            let value = border[rng.below(border.len())].to_le_bytes();
            let end = bytes.len().min(at + value.len());
            bytes[at..end].copy_from_slice(&value[..end - at]);
        }
        7 => {
            let end = bytes.len().min(at + 1 + rng.below(12));
            bytes[at..end].fill(0xff);
        }
        _ => {
            let noise: Vec<u8> = (0..rng.below(40)).map(|_| rng.next() as u8).collect();
            bytes.splice(at..at, noise);
        }
    }
}

fn range(length: usize, rng: &mut Rng) -> Range<usize> {
    let start = rng.below(length);
    start..start + rng.below((length - start).min(200))
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }
}

fn client() -> Client {
    Client::new(&Key::new(b"key"), Role::Control { ppu: PpuId([7; 16]) }, [1; 32]).unwrap()
}

fn server() -> Server {
    Server::new(&Key::new(b"key"), SessionId([2; 16]), [3; 32])
}

/// The bytes of the four steps.
fn handshake() -> (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = (client(), server());
    let hello = client.take_output();
    assert!(server.feed(&hello).unwrap().is_none());
    let answer = server.take_output();
    assert!(client.feed(&answer).unwrap().is_none());
    let proof = client.take_output();
    assert!(server.feed(&proof).unwrap().is_some());
    let (welcome, _) = server.welcome().unwrap();
    (hello, answer, proof, welcome)
}

fn from_detector() -> Vec<Vec<u8>> {
    let identity = Identity { size: 2_400_000, mtime_ns: 1_785_542_399_000_000_000, ino: 77, ctime_ns: 1 };
    let offered = |n: u64, path: &[u8]| Offered {
        offer: OfferId(n),
        path: RelPath::new(path).unwrap(),
        identity,
        shift: ShiftId(1_785_542_399_000),
        closed_us_ago: 900,
        fresh: n.is_multiple_of(2),
        superseded: 3,
    };
    let report = |about: &[u8], text: &str| Report {
        life: u64::MAX / 3,
        number: 300,
        us_ago: 1_000_000,
        matter: Matter::CannotRemove,
        about: About::try_from(about.to_vec()).unwrap(),
        text: Text::cut(text),
        lasts: true,
    };
    let long = [&[b'x'; 255][..]; 15].join(&b'/');
    let paths = [&b"a/b_001.cbf"[..], b"new\nline \xff", &long];
    let files: Vec<_> = paths.iter().zip(0..).map(|(path, n)| offered(n, path)).collect();
    [
        FromDetector::Heartbeat(Heartbeat { backlog_files: 300, ..Heartbeat::default() }),
        FromDetector::ManifestBegin,
        FromDetector::ManifestEnd,
        FromDetector::Offer { files: files[..2].to_vec() },
        FromDetector::Offer { files: files.clone() },
        FromDetector::Withdrawn { offer: OfferId(9), why: Withdrawal::Reopened },
        FromDetector::Declined {
            transfer: TransferId(1 << 40),
            why: Decline::Unchanged { identity, settled: true },
        },
        FromDetector::Declined { transfer: TransferId(8), why: Decline::Failed("read: EIO".to_owned()) },
        FromDetector::Gone { offers: (0..40).map(|n| OfferId(n * 1000)).collect() },
        FromDetector::ShiftWord { shift: ShiftId(-1) },
        FromDetector::ClockReply { sent_ns: 1, received_ns: i64::MIN, replied_ns: i64::MAX },
        FromDetector::Goodbye { reason: "stopped".to_owned() },
        FromDetector::Trouble(report(b"/ramdisk/run 1\n\xff", "cannot be listed: EIO. See dmesg.")),
        FromDetector::Trouble(report(&[b'x'; ABOUT_MAX_BYTES], &"\u{e9}".repeat(TEXT_MAX_BYTES))),
        FromDetector::TroubleOver { number: 1 << 20 },
        FromDetector::Coming {
            files: files
                .into_iter()
                .map(|file| Coming { transfer: TransferId(1 << 33), shifts_heard: 3, file })
                .collect(),
        },
    ]
    .iter()
    .map(|message| encode(message).unwrap())
    .collect()
}

fn from_ppu() -> Vec<Vec<u8>> {
    let wanted = |n| Wanted {
        transfer: TransferId(n),
        offer: OfferId(n << 30),
        known_hash: n.is_multiple_of(2).then_some(Hash([n as u8; 16])),
    };
    let offers: Vec<_> = (0..40).map(|n| OfferId(n << 20)).collect();
    [
        FromPpu::Heartbeat,
        FromPpu::ShiftBegan {
            shift: ShiftId(5),
            source: Some(RelPath::new(b"run 1/img").unwrap()),
            began: Began::Ago { us: 70_000 },
            more: true,
        },
        FromPpu::ShiftBegan { shift: ShiftId(i64::MAX), source: None, began: Began::Ever, more: false },
        FromPpu::Want { wants: (0..30).map(wanted).collect() },
        FromPpu::Have { offers: offers.clone() },
        FromPpu::Landed { offers: offers.clone() },
        FromPpu::Stored { offers: offers.clone() },
        FromPpu::ClockProbe { sent_ns: 1_785_542_399_000_000_000 },
        FromPpu::Goodbye { reason: "shift over".to_owned() },
        FromPpu::Fell { offers },
        FromPpu::Noted { number: 0 },
        FromPpu::Noted { number: 70_000 },
        FromPpu::NotTaken { transfer: TransferId(1 << 20) },
        FromPpu::Grant { transfers: (0..8).map(TransferId).collect(), max_bytes: 8 << 20 },
    ]
    .iter()
    .map(|message| encode(message).unwrap())
    .collect()
}
