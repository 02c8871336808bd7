//! Files that come unasked.

use super::*;
use crate::model::offer::Coming;

const DETECTOR: DetectorIndex = DetectorIndex(0);

/// With room for what grants could bring.
fn roomy() -> World {
    let mut world = World::new();
    world.tell(Fact::Space(room(100_000)));
    assert_eq!(world.detectors[0].grants.len(), 8);
    world
}

/// A file is closed and comes at once: what the ledger makes of it.
fn come(world: &mut World, name: u8) -> (TransferId, Option<LandJob>) {
    let transfer = world.detectors[0].grants.pop_front().unwrap();
    come_with(world, name, transfer, ShiftId(1));
    world.detectors[0].told.pop().unwrap()
}

fn come_with(world: &mut World, name: u8, transfer: TransferId, shift: ShiftId) {
    let n = i64::from(name);
    let identity = Identity { size: FILE_BYTES, mtime_ns: n, ino: u64::from(name), ctime_ns: n };
    let fake = &mut world.detectors[0];
    fake.last_offer += 1;
    let offer = OfferId(fake.last_offer);
    fake.files.insert(name, identity);
    fake.offers.insert(offer, (name, identity));
    world.produced += 1;
    let shifts_heard = world.ledger.detectors[0].shifts_told;
    let file =
        Offered { offer, path: path(name), identity, shift, closed_us_ago: 0, fresh: true, superseded: 0 };
    world.tell(Fact::Coming { detector: DETECTOR, files: vec![Coming { transfer, shifts_heard, file }] });
}

fn arrives(world: &mut World, (transfer, job): (TransferId, LandJob)) {
    let wanted = Wanted { transfer, offer: OfferId(0), known_hash: None };
    world.detectors[0].wants.push_back((wanted, job));
    world.run(Event::Land { detector: 0, how: 7 });
}

#[test]
fn what_comes_unasked_lands_and_uses_a_grant_up() {
    let mut world = roomy();
    for name in 0..3 {
        let (transfer, job) = come(&mut world, name);
        assert!(world.detectors[0].wants.is_empty(), "nobody asks for what comes");
        assert_eq!(world.ledger.wanted_files(), 1);
        world.check();
        arrives(&mut world, (transfer, job.unwrap()));
        world.check();
    }
    assert_eq!(world.detectors[0].grants.len(), 5, "no new ones before half of them are used");
    let (transfer, job) = come(&mut world, 3);
    arrives(&mut world, (transfer, job.unwrap()));
    assert_eq!(world.detectors[0].grants.len(), 8);
    world.calm();
    world.check();
    assert_eq!(world.ledger.tallies.get(ShiftId(1), StorageIndex(0)).stored, 4);
}

#[test]
fn what_cannot_be_taken_as_it_comes_is_asked_for_when_it_can() {
    let pause = |world: &mut World, pause| _ = world.switch(Half::Fetch, pause);
    let fill = |world: &mut World, files| world.tell(Fact::Space(room(files)));
    type Do = Box<dyn Fn(&mut World)>;
    let cases: [(Do, Do); 2] = [
        (Box::new(move |world| pause(world, true)), Box::new(move |world| pause(world, false))),
        (Box::new(move |world| fill(world, 0)), Box::new(move |world| fill(world, 10))),
    ];
    for (hinder, relieve) in cases {
        let mut world = roomy();
        hinder(&mut world);
        let (transfer, job) = come(&mut world, 1);
        assert!(job.is_none() && world.detectors[0].wants.is_empty());
        world.check();
        relieve(&mut world);
        assert_eq!(world.detectors[0].wants.len(), 1, "asked for like any other");
        assert_ne!(world.detectors[0].wants[0].0.transfer, transfer);
        world.run(Event::Land { detector: 0, how: 7 });
        world.check();
        // What is said of the transfer that was not taken says nothing.
        world.tell(Fact::Declined { transfer, why: Decline::Vanished });
        world.check();
    }
}

#[test]
fn what_nobody_can_attribute_is_not_taken_as_it_comes() {
    let mut world = roomy();
    let transfer = world.detectors[0].grants.pop_front().unwrap();
    come_with(&mut world, 1, transfer, ShiftId::UNKNOWN);
    assert!(matches!(&world.detectors[0].told[..], [(_, None)]));
    assert!(world.told.iter().any(|told| told.code == Code::LandError), "it is held, and people know");
}

#[test]
fn a_grant_is_good_once_and_in_its_session() {
    let mut world = roomy();
    let before = world.detectors[0].grants[1];
    let (used, _) = come(&mut world, 1);
    come_with(&mut world, 2, used, ShiftId(1));
    assert!(world.detectors[0].told.is_empty());
    assert_eq!(world.detectors[0].wants.len(), 1, "it is an offer like any other");
    world.run(Event::Relink { detector: 0 });
    come_with(&mut world, 3, before, ShiftId(1));
    assert!(world.detectors[0].told.is_empty());
}

#[test]
fn who_is_busy_or_has_no_room_gets_none() {
    assert!(World::new().detectors[0].grants.is_empty(), "no room");
    let mut world = roomy();
    let beat = crate::model::offer::Heartbeat { backlog_files: 30, ..Default::default() };
    world.run(Event::Relink { detector: 0 });
    assert_eq!(world.detectors[0].grants.len(), 8, "of the new session");
    world.tell(Fact::Beat { detector: DETECTOR, beat });
    for name in 0..6 {
        let (transfer, job) = come(&mut world, name);
        arrives(&mut world, (transfer, job.unwrap()));
    }
    assert_eq!(world.detectors[0].grants.len(), 2, "it has a backlog: it is asked for many at a time");
}
