//! Whatever chain is submitted, the ring and the plain system calls make the same of it: same results, same bytes.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::*;
use ppu_uring::ops::{Data, Read, Splice, Sync, Write};
use ppu_uring::{AlignedBuf, Choice, Driver, Entry, Fd, Link, Op, Pipe};
use proptest::prelude::*;

/// An operation on one file, one pipe, and a file that cannot be written.
#[derive(Debug, Clone)]
enum Step {
    Write { at: u64, len: usize },
    Read { at: u64, len: usize },
    IntoPipe { at: u64, len: u32 },
    OutOfPipe { at: u64, len: u32 },
    Refused,
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0u64..20_000;
    prop_oneof![
        (at.clone(), 0usize..9000).prop_map(|(at, len)| Step::Write { at, len }),
        (at.clone(), 0usize..9000).prop_map(|(at, len)| Step::Read { at, len }),
        (at.clone(), 1u32..9000).prop_map(|(at, len)| Step::IntoPipe { at, len }),
        (at, 1u32..9000).prop_map(|(at, len)| Step::OutOfPipe { at, len }),
        Just(Step::Refused),
        Just(Step::Sync),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    // Without `Link::No`: what is not linked runs in no particular order.
    prop_oneof![Just(Link::Soft), Just(Link::Hard)]
}

struct World {
    driver: Box<dyn Driver>,
    file: File,
    read_only: Fd,
    pipe: Pipe,
}

impl World {
    fn new(choice: Choice) -> Self {
        let read_only = File::open("/dev/null").unwrap().into();
        let file = memory_file(&content(12_345, 1));
        Self { driver: open(choice), file, read_only, pipe: Pipe::new().unwrap() }
    }

    fn op(&self, step: &Step) -> Op {
        let file: Fd = self.file.try_clone().unwrap().into();
        match *step {
            Step::Write { at, len } => {
                let mut buf = AlignedBuf::new(len);
                buf.copy_from_slice(&content(len, at));
                Write { to: file, at, data: Data::Buf(buf), range: 0..len }.into()
            }
            Step::Read { at, len } => {
                Read { from: file, at, buf: AlignedBuf::new(len), range: 0..len }.into()
            }
            Step::IntoPipe { at, len } => {
                let to = self.pipe.into.clone();
                Splice { from: file, from_at: Some(at), to, to_at: None, len, more: false, nonblock: true }
                    .into()
            }
            Step::OutOfPipe { at, len } => {
                let from = self.pipe.out.clone();
                Splice { from, from_at: None, to: file, to_at: Some(at), len, more: false, nonblock: true }
                    .into()
            }
            Step::Refused => {
                let data = Data::Buf(AlignedBuf::new(1));
                Write { to: self.read_only.clone(), at: 0, data, range: 0..1 }.into()
            }
            Step::Sync => Sync { file, data_only: true }.into(),
        }
    }

    /// Results of a chain, and the bytes that were read.
    fn run(&mut self, steps: &[(Step, Link)]) -> (Vec<i64>, Vec<Vec<u8>>) {
        let entries = steps.iter().enumerate();
        let chain: Vec<_> = entries
            .map(|(i, (step, link))| {
                // Nothing may depend on a sync.
                let link = if matches!(step, Step::Sync) { Link::Hard } else { *link };
                Entry { op: self.op(step), token: i as u64, link }
            })
            .collect();
        let done = run(&mut *self.driver, chain);
        let read = |done: &ppu_uring::Done| match (&done.op, &done.result) {
            (Op::Read(read), Ok(n)) => Some(read.buf[..*n as usize].to_vec()),
            _ => None,
        };
        (numbers(&done), done.iter().filter_map(read).collect())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.file.metadata().unwrap().len() as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn ring_and_system_calls_agree(
        chains in proptest::collection::vec(proptest::collection::vec((step(), link()), 1..8), 1..6)
    ) {
        let (mut ring, mut threads) = (World::new(Choice::Uring), World::new(Choice::Syscall));
        for chain in &chains {
            prop_assert_eq!(ring.run(chain), threads.run(chain));
        }
        prop_assert_eq!(ring.bytes(), threads.bytes());
    }
}
