//! Pauses that people make: what stands still, what ends all the same, and what goes on.

use super::*;
use crate::model::half::Paused;
use crate::model::status::Health;

#[test]
fn a_paused_fetch_asks_for_nothing_and_what_is_on_its_way_lands() {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    let switched = world.switch(Half::Fetch, true);
    assert_eq!(switched, Switched { half: Half::Fetch, since_ms: Some(1), changed: true, kept: false });
    world.now.wall_ms = 2;
    assert_eq!(
        world.switch(Half::Fetch, true),
        Switched { changed: false, ..switched },
        "since the first time"
    );
    world.run(Event::Close { detector: 0, name: 2 });
    world.run(Event::Close { detector: 1, name: 1 });
    assert_eq!(world.detectors[0].wants.len(), 1, "asked for before");
    world.run(Event::Land { detector: 0, how: 7 });
    assert!(world.copies.iter().all(|copies| copies.len() == 1), "the other half works");
    world.run(Event::Relink { detector: 0 });
    world.run(Event::Wait { ms: 60_000 });
    assert!(world.detectors.iter().all(|detector| detector.wants.is_empty()));
    assert_eq!(world.ledger.report(world.now).paused, Paused { fetch_ms: Some(1), store_ms: None });
    assert!(world.switch(Half::Fetch, false).changed);
    assert!(!world.switch(Half::Fetch, false).changed);
    assert!(world.detectors.iter().all(|detector| detector.wants.len() == 1));
    let about_it = |told: &&Message| matches!(told.code, Code::Paused | Code::Resumed);
    let told: Vec<_> = world.told.iter().filter(about_it).map(|told| (told.code, &*told.short)).collect();
    assert_eq!(told, [(Code::Paused, "fetch"), (Code::Resumed, "fetch")], "each once");
}

#[test]
fn a_paused_store_begins_no_copy_and_is_not_slow() {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Land { detector: 0, how: 7 });
    world.switch(Half::Store, true);
    world.run(Event::Close { detector: 0, name: 2 });
    world.run(Event::Land { detector: 0, how: 7 });
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    world.run(Event::Copy { storage: 1, how: 2, which: 0 });
    world.run(Event::Commit);
    world.run(Event::Wait { ms: 60_000 });
    assert!(world.copies.iter().all(Vec::is_empty), "neither a new one nor a second try");
    let report = world.ledger.report(world.now);
    assert_eq!(report.storages.iter().map(|storage| storage.pending).collect::<Vec<_>>(), [1, 2]);
    assert!(report.storages.iter().all(|storage| storage.health == Health::Ok));
    world.switch(Half::Store, false);
    assert_eq!(world.copies.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    world.check();
}

#[test]
fn a_pause_is_remembered() {
    let mut world = World::new();
    let mut orders = Vec::new();
    world.ledger.switch(world.now, Half::Store, true, &mut orders);
    let record = orders.into_iter().find_map(|order| match order {
        Order::Record { record: Record::Paused { half, since_ms }, .. } => Some((half, since_ms)),
        _ => None,
    });
    assert_eq!(record, Some((Half::Store, Some(1))));
    let mut again = World::new();
    again.ledger.restore_paused(Paused { fetch_ms: None, store_ms: Some(1) });
    again.run(Event::Close { detector: 0, name: 1 });
    again.run(Event::Land { detector: 0, how: 7 });
    assert!(again.copies.iter().all(Vec::is_empty));
}
