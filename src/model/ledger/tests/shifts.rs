//! Shifts on the PPU: when one begins, what detectors are told, and what is asked of one that has not yet given its word.

use super::*;
use crate::model::offer::Decline;
use crate::model::shift::Began;

/// A ledger alone: what it says is looked at.
struct Alone {
    ledger: Ledger,
    now: Now,
}

const DETECTOR: DetectorIndex = DetectorIndex(0);

impl Alone {
    fn new() -> Self {
        let World { ledger, now, .. } = World::new();
        let mut alone = Self { ledger, now };
        alone.tell(Fact::ShiftWord { detector: DETECTOR, shift: ShiftId(1) });
        alone
    }

    fn tell(&mut self, fact: Fact) -> Vec<Order> {
        let mut out = Vec::new();
        self.ledger.apply(self.now, fact, &mut out);
        self.ledger.work(self.now, &mut out);
        out
    }

    fn pass(&mut self, ms: u64) {
        self.now.at += Duration::from_millis(ms);
        self.now.wall_ms += ms as i64;
    }

    /// Asked for; the number of its record.
    fn ask(&mut self) -> (ShiftId, u64) {
        let id = self.ledger.next_shift_id(self.now);
        let places = self.ledger.current_shift().places.clone();
        let mut out = Vec::new();
        let user = 599 + self.ledger.all_shifts().count() as u32;
        self.ledger.start_shift(Shift::new(id, user, user, "$UID", places).unwrap(), &mut out).unwrap();
        let [Order::Record { sequence, record: Record::Shift(_) }] = out[..] else { panic!("{out:?}") };
        (id, sequence)
    }

    fn start(&mut self) -> (ShiftId, Vec<(u16, ShiftId, Began, bool)>) {
        let (id, up_to) = self.ask();
        (id, told(&self.tell(Fact::Committed { up_to })))
    }

    fn offer(&mut self, number: u64, shift: ShiftId, ago_ms: u64) -> Vec<Order> {
        self.offer_of(path(number as u8), number, shift, ago_ms)
    }

    fn offer_of(&mut self, path: RelPath, number: u64, shift: ShiftId, ago_ms: u64) -> Vec<Order> {
        let file = Offered {
            offer: OfferId(number),
            path,
            identity: Identity { size: 10, mtime_ns: 1, ino: number, ctime_ns: 1 },
            shift,
            closed_us_ago: ago_ms * 1000,
            fresh: true,
            superseded: 0,
        };
        self.tell(Fact::Offered { detector: DETECTOR, files: vec![file] })
    }
}

fn told(orders: &[Order]) -> Vec<(u16, ShiftId, Began, bool)> {
    let announced = |order: &Order| match order {
        Order::AnnounceShift { detector, shift, began, more, .. } => {
            Some((detector.0, *shift, *began, *more))
        }
        _ => None,
    };
    orders.iter().filter_map(announced).collect()
}

fn wanted(orders: &[Order]) -> usize {
    orders.iter().filter(|order| matches!(order, Order::Want { .. })).count()
}

/// What a detector with a broken program offers beyond what it may is told once a session, and the rest goes on.
#[test]
fn more_offers_than_there_may_be_are_told() {
    use crate::model::offer::OFFER_WINDOW;
    let mut alone = Alone::new();
    let file = |number: usize| Offered {
        offer: OfferId(number as u64),
        path: RelPath::new(number.to_string().as_bytes()).unwrap(),
        identity: Identity { size: 10, mtime_ns: 1, ino: number as u64, ctime_ns: 1 },
        shift: ShiftId(1),
        closed_us_ago: 0,
        fresh: true,
        superseded: 0,
    };
    for session in 1..3 {
        alone.tell(Fact::LinkUp { detector: DETECTOR, session: Session(session) });
        let files = (0..OFFER_WINDOW + 3).map(file).collect();
        let orders = alone.tell(Fact::Offered { detector: DETECTOR, files });
        let too_much = |order: &Order| matches!(order, Order::Tell(message) if message.long.contains("offers more than"));
        assert_eq!(orders.iter().filter(|order| too_much(order)).count(), 1);
        assert!(wanted(&orders) > 0);
        assert_eq!(alone.ledger.detectors[0].offers.len(), OFFER_WINDOW);
        let reason = "over".to_owned();
        alone.tell(Fact::LinkDown { detector: DETECTOR, session: Session(session), reason, refused: false });
    }
}

#[test]
fn a_shift_begins_when_the_journal_has_it() {
    let mut alone = Alone::new();
    let (id, up_to) = alone.ask();
    let (next, later) = alone.ask();
    assert!(id < next, "also before the first has begun");
    assert!(!alone.ledger.has_begun(id));
    assert_eq!(alone.ledger.current_shift().id, ShiftId(1));
    let orders = alone.tell(Fact::Committed { up_to });
    assert_eq!(told(&orders), [(0, id, Began::Now, false), (1, id, Began::Now, false)]);
    assert!(orders.iter().any(|order| matches!(order, Order::PrepareShift(shift) if shift.id == id)));
    assert!(alone.ledger.has_begun(id) && !alone.ledger.has_begun(next));
    alone.tell(Fact::Committed { up_to: later });
    assert_eq!(alone.ledger.current_shift().id, next);
}

#[test]
fn no_shift_begins_with_a_broken_journal() {
    let mut alone = Alone::new();
    alone.tell(Fact::JournalTrouble(Some("disk full".to_owned())));
    let shift = Shift { id: ShiftId(9), ..alone.ledger.current_shift().clone() };
    let refused = alone.ledger.start_shift(shift, &mut Vec::new()).unwrap_err();
    assert!(refused.contains("disk full") && refused.contains("Make room"), "{refused}");
}

#[test]
fn a_detector_that_was_away_hears_of_all_with_their_age() {
    let mut alone = Alone::new();
    let session = Session(1);
    let reason = "broken".to_owned();
    alone.tell(Fact::LinkDown { detector: DETECTOR, session, reason, refused: false });
    alone.pass(1000);
    let (first, announced) = alone.start();
    assert_eq!(announced, [(1, first, Began::Now, false)], "only who is there");
    alone.pass(5000);
    let (second, _) = alone.start();
    assert_eq!(alone.ledger.without_word(second)[0].0, "1MF");
    alone.pass(500);
    // The wall clock was set meanwhile: nobody asks it.
    alone.now.wall_ms -= 7_200_000;
    let orders = alone.tell(Fact::LinkUp { detector: DETECTOR, session: Session(2) });
    assert_eq!(
        told(&orders),
        [
            (0, ShiftId(1), Began::Ever, true),
            (0, first, Began::Ago { us: 5_500_000 }, true),
            (0, second, Began::Ago { us: 500_000 }, false)
        ]
    );
    assert_eq!(told(&alone.tell(Fact::ShiftWord { detector: DETECTOR, shift: second })), []);
    assert_eq!(alone.ledger.word_of("1MF", second), Some(true));
    assert_eq!(alone.ledger.word_of("gone", second), None);
}

#[test]
fn a_word_in_time_ends_it_and_a_late_one_is_corrected() {
    let mut alone = Alone::new();
    let (id, _) = alone.start();
    alone.pass(1999);
    assert_eq!(told(&alone.tell(Fact::ShiftWord { detector: DETECTOR, shift: id })), []);
    let (id, _) = alone.start();
    alone.pass(3000);
    let word = || Fact::ShiftWord { detector: DETECTOR, shift: id };
    assert_eq!(told(&alone.tell(word())), [(0, id, Began::Ago { us: 3_000_000 }, false)]);
    assert_eq!(told(&alone.tell(word())), [], "once");
}

/// A detector that is silent while two shifts begin is corrected for both.
#[test]
fn two_that_begin_in_silence_are_both_corrected() {
    let mut alone = Alone::new();
    let (first, _) = alone.start();
    alone.pass(3000);
    let (second, _) = alone.start();
    alone.pass(4000);
    let word = |shift| Fact::ShiftWord { detector: DETECTOR, shift };
    let of_the_first = [(0, first, Began::Ago { us: 7_000_000 }, true), (0, second, Began::Ever, false)];
    assert_eq!(told(&alone.tell(word(first))), of_the_first);
    assert_eq!(told(&alone.tell(word(second))), [(0, second, Began::Ago { us: 4_000_000 }, false)]);
    assert_eq!(told(&alone.tell(word(second))), [], "once");
}

/// What waited when the link broke is rewritten in a shift that takes another part of the detector: its name is another one below that, and
/// it is replaced, not lost.
#[test]
fn what_waited_is_found_below_another_shifts_source() {
    let mut alone = Alone::new();
    alone.tell(offered(1, b"run/x", ShiftId(1)));
    let reason = "broken".to_owned();
    alone.tell(Fact::LinkDown { detector: DETECTOR, session: Session(1), reason, refused: false });
    let id = alone.start_with_source(b"run");
    alone.tell(Fact::LinkUp { detector: DETECTOR, session: Session(2) });
    alone.tell(Fact::ManifestBegin { detector: DETECTOR });
    alone.tell(offered(2, b"x", id));
    alone.tell(Fact::ManifestEnd { detector: DETECTOR });
    let before = alone.ledger.tallies.get(ShiftId(1), StorageIndex(0));
    assert_eq!((before.lost, before.superseded), (0, 1));
}

/// What was held is closed again, as people are told to do, while a shift takes another part of the detector.
#[test]
fn what_was_held_is_found_below_another_shifts_source() {
    let mut alone = Alone::new();
    alone.start_with_source(b"run");
    alone.tell(offered(1, b"x", ShiftId::UNKNOWN));
    let reason = "broken".to_owned();
    alone.tell(Fact::LinkDown { detector: DETECTOR, session: Session(1), reason, refused: false });
    alone.tell(Fact::LinkUp { detector: DETECTOR, session: Session(2) });
    alone.tell(Fact::ManifestBegin { detector: DETECTOR });
    alone.tell(offered(2, b"run/x", ShiftId(1)));
    let orders = alone.tell(Fact::ManifestEnd { detector: DETECTOR });
    assert!(!orders.iter().any(|order| matches!(order, Order::Tell(_))), "{orders:?}");
    let held = alone.ledger.tallies.get(ShiftId::UNKNOWN, StorageIndex(0));
    assert_eq!((held.lost, held.superseded), (0, 1));
    assert_eq!(alone.ledger.report(alone.now).detectors[0].backlog.files, 1);
}

fn offered(number: u64, name: &[u8], shift: ShiftId) -> Fact {
    let identity = Identity { size: 10, mtime_ns: number as i64, ino: 1, ctime_ns: number as i64 };
    let (offer, path) = (OfferId(number), RelPath::new(name).unwrap());
    let file = Offered { offer, path, identity, shift, closed_us_ago: 0, fresh: true, superseded: 0 };
    Fact::Offered { detector: DETECTOR, files: vec![file] }
}

impl Alone {
    fn start_with_source(&mut self, source: &[u8]) -> ShiftId {
        let id = self.ledger.next_shift_id(self.now);
        let mut places = self.ledger.current_shift().places.clone();
        places[0].source = Some(RelPath::new(source).unwrap());
        let mut out = Vec::new();
        self.ledger.start_shift(Shift::new(id, 600, 600, "$UID", places).unwrap(), &mut out).unwrap();
        let Some(Order::Record { sequence: up_to, .. }) = out.pop() else { panic!("{out:?}") };
        self.tell(Fact::Committed { up_to });
        id
    }
}

#[test]
fn what_may_be_misplaced_is_not_asked_for() {
    let mut alone = Alone::new();
    alone.pass(10_000);
    let (id, _) = alone.start();
    alone.pass(100);
    assert_eq!(wanted(&alone.offer(1, ShiftId(1), 200)), 1, "closed before");
    assert_eq!(wanted(&alone.offer(2, ShiftId(1), 50)), 0, "closed after, as the PPU sees it");
    assert_eq!(wanted(&alone.offer(3, id, 50)), 1);
    alone.tell(Fact::ShiftWord { detector: DETECTOR, shift: id });
    alone.pass(100);
    assert_eq!(wanted(&alone.tell(Fact::Tick)), 1, "the detector knows better");
}

#[test]
fn what_no_shift_covers_is_not_asked_for_and_told() {
    let mut alone = Alone::new();
    let orders = alone.offer(1, ShiftId::UNKNOWN, 0);
    assert_eq!(wanted(&orders), 0);
    let said = orders.iter().find_map(|order| match order {
        Order::Tell(message) => Some(message.long.clone()),
        _ => None,
    });
    assert!(said.unwrap().contains("touch it"));
}

/// It was put back, say, when it was about to be released, by a daemon that was restarted.
#[test]
fn what_looks_like_a_landed_file_is_compared_before_it_is_held() {
    let landed = Identity { size: 10, mtime_ns: 1, ino: 1, ctime_ns: 1 };
    let moved = Identity { ctime_ns: 9, ..landed };
    let offered_again = |identity| {
        let mut alone = Alone::new();
        let (wanted, job) = the_want(alone.offer_of(path(1), 1, ShiftId(1), 0));
        let outcome = Ok(Landed {
            identity: job.offered,
            mode: 0o644,
            settled: true,
            hash: Hash::of(b"x"),
            local: Local { ino: 1, ctime_ns: 1 },
            visible: alone.now.at,
        });
        alone.tell(Fact::Landing(LandReport { transfer: wanted.transfer, outcome }));
        let (shift, _) = alone.start();
        let (reason, refused) = ("restarted".to_owned(), false);
        alone.tell(Fact::LinkDown { detector: DETECTOR, session: Session(1), reason, refused });
        alone.tell(Fact::LinkUp { detector: DETECTOR, session: Session(2) });
        alone.tell(Fact::ShiftWord { detector: DETECTOR, shift });
        alone.tell(Fact::ManifestBegin { detector: DETECTOR });
        let file = Offered {
            offer: OfferId(2),
            path: path(1),
            identity,
            shift: ShiftId::UNKNOWN,
            closed_us_ago: 0,
            fresh: false,
            superseded: 0,
        };
        let orders = alone.tell(Fact::Offered { detector: DETECTOR, files: vec![file] });
        (alone, orders)
    };
    let is_told = |orders: &[Order]| orders.iter().any(|order| matches!(order, Order::Tell(_)));

    let (_, orders) = offered_again(Identity { mtime_ns: 2, ..moved });
    assert!(wanted(&orders) == 0 && is_told(&orders), "it was written since: {orders:?}");

    let (mut alone, orders) = offered_again(moved);
    assert!(!is_told(&orders));
    let (want, job) = the_want(orders);
    assert!(want.known_hash == Some(Hash::of(b"x")) && job.compare_only && job.shift.id == ShiftId(1));
    let why = Decline::Unchanged { identity: moved, settled: true };
    let orders = alone.tell(Fact::Declined { transfer: want.transfer, why });
    assert!(
        orders.iter().any(|order| matches!(order, Order::Have { offers, .. } if *offers == [OfferId(2)]))
    );
    assert!(!is_told(&orders));

    let (mut alone, orders) = offered_again(moved);
    let (want, _) = the_want(orders);
    let outcome = Err(LandFailure::Nobodys);
    let orders = alone.tell(Fact::Landing(LandReport { transfer: want.transfer, outcome }));
    assert!(wanted(&orders) == 0 && !is_told(&orders));
    alone.pass(300);
    let orders = alone.tell(Fact::Tick);
    assert!(wanted(&orders) == 0 && is_told(&orders), "another content: it is held");
}

fn the_want(orders: Vec<Order>) -> (Wanted, LandJob) {
    let want = orders.into_iter().find_map(|order| match order {
        Order::Want { mut wants, .. } => wants.pop(),
        _ => None,
    });
    want.unwrap()
}

/// The first of them flies still, and the others are waiting for that.
#[test]
fn the_same_path_of_every_shift_is_copied_to_a_slow_storage() {
    const SLOW: StorageIndex = StorageIndex(1);
    let mut alone = Alone::new();
    let mut shift = ShiftId(1);
    let mut flying = Vec::new();
    for number in 1..=3 {
        let orders = alone.offer_of(path(1), number, shift, 0);
        for order in orders {
            let Order::Want { wants, .. } = order else { continue };
            let (wanted, job) = &wants[0];
            let outcome = Ok(Landed {
                identity: job.offered,
                mode: 0o644,
                settled: true,
                hash: Hash::of(&number.to_le_bytes()),
                local: Local { ino: number, ctime_ns: 1 },
                visible: alone.now.at,
            });
            let report = LandReport { transfer: wanted.transfer, outcome };
            flying.extend(copies_to(SLOW, alone.tell(Fact::Landing(report))));
        }
        (shift, _) = alone.start();
        alone.tell(Fact::ShiftWord { detector: DETECTOR, shift });
    }
    let mut stored = Vec::new();
    while let Some(version) = flying.pop() {
        stored.push(version);
        let outcome = CopyOutcome::Stored;
        let report = CopyReport { version, storage: SLOW, outcome, file: None, set_aside: None };
        flying.extend(copies_to(SLOW, alone.tell(Fact::Copying(report))));
    }
    assert_eq!(stored, [VersionId(1), VersionId(2), VersionId(3)]);
}

fn copies_to(slow: StorageIndex, orders: Vec<Order>) -> Vec<VersionId> {
    let copy = |order| match order {
        Order::Copy { storage, job } if storage == slow => Some(job.version),
        _ => None,
    };
    orders.into_iter().filter_map(copy).collect()
}
