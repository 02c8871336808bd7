//! What a start makes of what the journal knows, and of what lies on the ramdisk.

use super::*;

const DETECTOR: DetectorIndex = DetectorIndex(0);

fn version(shift: i64, content: i64, local: Option<Local>, copies: [CopyState; STORAGES]) -> Version {
    Version {
        detector: DETECTOR,
        shift: ShiftId(shift),
        path: path(1),
        identity: Identity { size: 1, mtime_ns: content, ino: 1, ctime_ns: content },
        settled: true,
        hash: Hash::of(&content.to_le_bytes()),
        mode: 0o644,
        local,
        on_detector: true,
        seen: 0,
        closed: None,
        copies: copies.iter().map(|state| Copy { state: *state, tries: 0 }).collect(),
    }
}

#[test]
fn a_restart_supersedes_what_a_crash_left_open() {
    let local = Some(Local { ino: 1, ctime_ns: 1 });
    // The older one was in flight to the first storage, or had fallen from the ramdisk, when the newer one landed.
    let mut first = [CopyState::Superseded; STORAGES];
    first[0] = CopyState::Queued;
    for (copies, before) in [(first, local), ([CopyState::Queued; STORAGES], None)] {
        let mut world = World::new();
        let mut out = Vec::new();
        world.ledger.restore(VersionId(1), version(1, 1, before, copies), before, &mut out);
        let newer = version(1, 2, local, [CopyState::Queued; STORAGES]);
        world.ledger.restore(VersionId(2), newer, local, &mut out);
        let tally = world.ledger.tallies.get(ShiftId(1), StorageIndex(0));
        assert_eq!((tally.pending, tally.superseded, tally.lost), (1, 1, 0));
        world.ledger.manifest_begin(DETECTOR);
        world.ledger.manifest_end(DETECTOR, &mut out);
        assert_eq!(world.ledger.tallies.get(ShiftId(1), StorageIndex(0)).lost, 0, "{out:?}");
    }
}

/// The first shift's file has a copy to make when the second's of the same name has landed, in another user's directory: a start finds both
/// on the ramdisk, and takes neither for new.
#[test]
fn a_restart_knows_every_shifts_file_of_a_name() {
    let mut world = World::new();
    let mut out = Vec::new();
    let places = world.ledger.current_shift().places.clone();
    let second = Shift::new(ShiftId(2), 600, 600, "$UID", places).unwrap();
    world.ledger.restore_shift(Arc::new(second));
    let local = |ino| Some(Local { ino, ctime_ns: 1 });
    let brand = |shift: i64, content: i64| {
        let Version { path, identity, settled, hash, .. } =
            version(shift, content, None, [CopyState::Queued; STORAGES]);
        Brand { detector: "1MF".to_owned(), shift: ShiftId(shift), path, identity, settled, hash }
    };
    let half = [CopyState::Stored, CopyState::Queued];
    world.ledger.restore(VersionId(1), version(1, 1, local(1), half), local(1), &mut out);
    world.ledger.restore(VersionId(2), version(2, 2, local(2), half), local(2), &mut out);
    for (known, shift, content) in [(true, 1, 1), (true, 2, 2), (false, 1, 2), (false, 2, 1), (false, 3, 1)] {
        assert_eq!(world.ledger.knows(DETECTOR, &brand(shift, content)), known, "{shift} {content}");
    }
    let at = world.ledger.places(&version(1, 1, None, half)).0.unwrap();
    assert!(!world.ledger.adopt(world.now, DETECTOR, brand(1, 1), &at, 0o644, local(1).unwrap(), &mut out));
    let newest = world.ledger.versions.newest(DETECTOR, &path(1));
    assert_eq!(newest, Some(VersionId(2)), "what the detector has is what it was before");
    // What is done is forgotten, and what is left is still known.
    world.ledger.versions.remove(VersionId(1));
    assert!(!world.ledger.knows(DETECTOR, &brand(1, 1)) && world.ledger.knows(DETECTOR, &brand(2, 2)));
}

/// A crash between two records of one commit left a version superseded on one storage and open on the other, and it is not on the ramdisk any more.
#[test]
fn what_fell_and_was_replaced_is_counted_once_on_each_storage() {
    let mut world = World::new();
    let mut out = Vec::new();
    let mut copies = [CopyState::Queued; STORAGES];
    copies[0] = CopyState::Superseded;
    world.ledger.restore(VersionId(1), version(1, 1, None, copies), None, &mut out);
    let superseded = |world: &World| {
        [0, 1].map(|storage| world.ledger.tallies.get(ShiftId(1), StorageIndex(storage)).superseded)
    };
    let before = superseded(&world);
    world.run(Event::Close { detector: 0, name: 1 });
    assert_eq!(superseded(&world), [before[0], before[1] + 1]);
}
