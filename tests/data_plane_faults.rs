//! FAULTS 39: the Nth operation fails, is short, is cancelled or late, for every N, on either side of a data connection and on either
//! engine. A transfer ends, with whole files or with an error; it leaks nothing. Alone in its process: it counts descriptors.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "data_plane/pair.rs"]
#[allow(dead_code)] // Shared with the tests without faults.
mod pair;

use std::collections::HashMap;
use std::time::Duration;

use pair::*;
use ppu_uring::Fault;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ECONNRESET: i32 = 104;

const FAULTS: [Fault; 6] = [
    Fault::Error(EIO),
    Fault::Error(ENOSPC),
    Fault::Error(ECONNRESET),
    Fault::Short,
    Fault::Cancelled,
    Fault::Late(Duration::from_millis(3)),
];

/// Small ones in a batch, and larger ones, spliced by the sender, of one segment.
const SIZES: [usize; 5] = [20_000, 3, 2_500_000, 70_000, 300_000];
/// Two segments, so that the mark between them is hit too.
const TWO_SEGMENTS: [usize; 2] = [(16 << 20) + 70_000, 500];

#[test]
fn every_operation_every_fault_every_engine() {
    // The first run starts what is started once.
    Files::new(&SIZES).run(URING, URING);
    let before = open_fds();
    for engine in [URING, SYSCALL] {
        every_operation(&SIZES, &FAULTS, engine);
        every_operation(&TWO_SEGMENTS, &[Fault::Error(EIO), Fault::Short], engine);
    }
    assert_eq!(open_fds(), before, "leaked");
}

fn every_operation(sizes: &[usize], faults: &[Fault], engine: Side) {
    let files = Files::new(sizes);
    let clean = files.run(engine, engine);
    assert!(files.complete(&clean));
    let (of_sender, of_receiver) = clean.operations;
    // Receives are as many as the socket's mood wants: a few more than a clean run needed.
    let places = (0..of_sender).map(|n| (true, n)).chain((0..of_receiver + 4).map(|n| (false, n)));
    for (at_sender, n) in places {
        for &fault in faults {
            let faulty = Side { fault: Some((n, fault)), ..engine };
            let (sender, receiver) = if at_sender { (faulty, engine) } else { (engine, faulty) };
            let outcome = files.run(sender, receiver);
            let complete = files.complete(&outcome);
            // What is not an error is made good.
            let harmless = matches!(fault, Fault::Short | Fault::Cancelled | Fault::Late(_));
            assert!(complete || !harmless, "{sender:?} {receiver:?}: {outcome:?}");
            let told =
                outcome.broken != (None, None) || outcome.landed.values().any(|landed| landed.is_err());
            assert!(complete || told, "{sender:?} {receiver:?}: lost without a word: {outcome:?}");
        }
    }
}

struct Files {
    contents: Vec<Vec<u8>>,
    versions: HashMap<String, Vec<Vec<u8>>>,
}

impl Files {
    fn new(sizes: &[usize]) -> Self {
        let contents: Vec<_> = sizes.iter().enumerate().map(|(i, &size)| content(size, i as u64)).collect();
        let versions = contents.iter().enumerate().map(|(i, c)| (i.to_string(), vec![c.clone()])).collect();
        Self { contents, versions }
    }

    /// Whatever happens: only whole files under their names, nothing left over, and it ends.
    fn run(&self, sender: Side, receiver: Side) -> Outcome {
        let room = Room::new();
        self.contents.iter().enumerate().for_each(|(i, content)| room.put(&i.to_string(), content));
        let jobs: Vec<_> = (0..self.contents.len()).map(|i| room.job(i as u64, &i.to_string())).collect();
        let outcome = transfer(&room, &jobs, sender, receiver);
        assert_sound(&room, &self.versions, &format!("{sender:?} {receiver:?}"));
        let published = room.target.read_dir().unwrap().count();
        assert_eq!(published, outcome.landed.values().filter(|landed| landed.is_ok()).count());
        outcome
    }

    fn complete(&self, outcome: &Outcome) -> bool {
        outcome.landed.values().filter(|landed| landed.is_ok()).count() == self.contents.len()
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
