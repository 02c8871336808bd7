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

const MIB: usize = 1 << 20;
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

/// One file of each kind: small ones in a batch, a spliced one of one segment, one of two.
const SIZES: [usize; 5] = [20_000, 3, 2_500_000, 70_000, 17 * MIB];

#[test]
fn every_operation_every_fault_every_engine() {
    let contents: Vec<Vec<u8>> = SIZES.iter().enumerate().map(|(i, &size)| content(size, i as u64)).collect();
    let name = |i: usize| format!("file {i}");
    let versions: HashMap<_, _> =
        contents.iter().enumerate().map(|(i, c)| (name(i), vec![c.clone()])).collect();
    let run = |sender: Side, receiver: Side| {
        let room = Room::new();
        contents.iter().enumerate().for_each(|(i, content)| room.put(&name(i), content));
        let jobs: Vec<_> = (0..SIZES.len()).map(|i| room.job(i as u64, &name(i))).collect();
        let outcome = transfer(&room, &jobs, sender, receiver);
        assert_sound(&room, &versions, &format!("{sender:?} {receiver:?}"));
        let published = room.target.read_dir().unwrap().count();
        assert_eq!(published, outcome.landed.values().filter(|landed| landed.is_ok()).count());
        outcome
    };

    // The first run starts what is started once.
    run(URING, URING);
    let before = open_fds();
    for engine in [URING, SYSCALL] {
        let clean = run(engine, engine);
        assert_eq!(clean.landed.values().filter(|landed| landed.is_ok()).count(), SIZES.len());
        let (of_sender, of_receiver) = clean.operations;
        // Splices of the receiver are as many as the socket's mood wants: a few more than a clean run needed.
        let faults = (0..of_sender).map(|n| (true, n)).chain((0..of_receiver + 4).map(|n| (false, n)));
        for (at_sender, n) in faults {
            for fault in FAULTS {
                let faulty = Side { fault: Some((n, fault)), ..engine };
                let (sender, receiver) = if at_sender { (faulty, engine) } else { (engine, faulty) };
                let outcome = run(sender, receiver);
                let complete = outcome.landed.values().filter(|landed| landed.is_ok()).count() == SIZES.len();
                let harmless = matches!(fault, Fault::Short | Fault::Cancelled | Fault::Late(_));
                // What is not an error is made good.
                assert!(complete || !harmless, "{sender:?} {receiver:?}: {outcome:?}");
                let told = outcome.broken != (None, None) || outcome.landed.values().any(|l| l.is_err());
                assert!(complete || told, "{sender:?} {receiver:?}: lost without a word: {outcome:?}");
            }
        }
    }
    assert_eq!(open_fds(), before, "leaked");
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
