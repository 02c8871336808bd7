//! Copies: where each is read, what is tried again, and what a storage's trouble does to others.

use super::*;

/// A landed file, and its copies in flight to both storages.
fn landed() -> World {
    let mut world = World::new();
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Land { detector: 0, how: 7 });
    assert!(world.copies.iter().all(|copies| copies.len() == 1));
    world
}

fn tally(world: &World, storage: u16) -> Tally {
    world.ledger.tallies.get(ShiftId(1), StorageIndex(storage))
}

#[test]
fn what_left_the_ramdisk_is_copied_from_another_storage() {
    let mut world = landed();
    let job = world.copies[1].remove(0);
    world.copied(1, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    assert!(world.copies[1].is_empty(), "the other copy may still succeed");
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    world.run(Event::Wait { ms: 1000 });
    let job = world.copies[1].remove(0);
    assert_eq!(
        job.local(),
        Some(Local { ino: 1, ctime_ns: 1 }),
        "it may only have been renamed for a moment"
    );
    world.copied(1, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    assert_eq!(world.copies[1][0].sources, [Source::Stored(StorageIndex(0))]);
    // Its source may be away for hours: that is no failure.
    for _ in 0..100 {
        let job = world.copies[1].remove(0);
        world.copied(1, job.version, CopyOutcome::NotNow("not mounted".to_owned()));
        world.run(Event::Wait { ms: 1000 });
    }
    world.run(Event::Copy { storage: 1, how: 11, which: 0 });
    world.run(Event::Commit);
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (1, 1));
}

#[test]
fn a_storage_that_is_away_is_not_read() {
    let mut world = landed();
    let lost = || CopyOutcome::SourceLost("removed".to_owned());
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    // The internal storage goes away with the next file's copy.
    world.run(Event::Close { detector: 0, name: 2 });
    world.run(Event::Land { detector: 0, how: 7 });
    let away = world.copies[0].remove(0);
    world.copied(0, away.version, CopyOutcome::Unavailable("not mounted".to_owned()));
    let first = world.copies[1].remove(0);
    world.copied(1, first.version, lost());
    assert!(world.copies[1].iter().all(|job| job.version != first.version));
    world.run(Event::Wait { ms: 3000 });
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    let job = world.copies[1].iter().find(|job| job.version == first.version).unwrap();
    assert_eq!(job.sources, [Source::Stored(StorageIndex(0))]);
}

#[test]
fn what_left_the_ramdisk_unstored_is_fetched_again() {
    let mut world = landed();
    let lost = || CopyOutcome::SourceLost("removed".to_owned());
    for storage in [0, 1] {
        let job = world.copies[storage].remove(0);
        world.copied(storage, job.version, lost());
        world.check();
    }
    // The first one waited for the second one's word.
    world.run(Event::Wait { ms: 1000 });
    world.check();
    assert_eq!(world.detectors[0].wants.len(), 1, "fetched again");
    assert!(world.told.iter().any(|told| told.code == Code::LandError));
    world.run(Event::Land { detector: 0, how: 7 });
    world.calm();
    world.check();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (1, 1));
}

/// It was closed again, and fell from the ramdisk while its detector was asked whether it had changed: it must travel, which "unchanged" says it need not.
#[test]
fn what_fell_while_its_detector_was_asked_travels() {
    let mut world = landed();
    let identity = world.detectors[0].files[&1];
    let closed_again = Identity { ctime_ns: identity.ctime_ns + 1, ..identity };
    world.detectors[0].files.insert(1, closed_again);
    world.offer(0, 1, closed_again, true);
    let (wanted, _) = world.detectors[0].wants.pop_front().unwrap();
    assert!(wanted.known_hash.is_some());
    for storage in [0, 1] {
        let job = world.copies[storage].remove(0);
        world.copied(storage, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    }
    world.run(Event::Wait { ms: 1000 });
    let why = Decline::Unchanged { identity: closed_again, settled: true };
    world.tell(Fact::Declined { transfer: wanted.transfer, why });
    world.run(Event::Wait { ms: 1000 });
    assert_eq!(world.detectors[0].wants[0].0.known_hash, None);
    world.run(Event::Land { detector: 0, how: 7 });
    world.calm();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (1, 1));
}

/// It is on offer once more (the link broke before its detector heard that it had landed) when it falls: then it is what was never landed,
/// whatever becomes of it.
#[test]
fn what_fell_while_it_was_on_offer_again_counts_once() {
    for becomes in ["landed", "replaced", "vanished"] {
        let mut world = landed();
        world.offer(0, 1, world.detectors[0].files[&1], true);
        world.check();
        for storage in [0, 1] {
            let job = world.copies[storage].remove(0);
            world.copied(storage, job.version, CopyOutcome::SourceLost("removed".to_owned()));
        }
        world.run(Event::Wait { ms: 1000 });
        world.check();
        if becomes != "landed" {
            let (wanted, _) = world.detectors[0].wants.pop_front().unwrap();
            match becomes {
                "replaced" => world.run(Event::Close { detector: 0, name: 1 }),
                _ => world.run(Event::Remove { detector: 0, name: 1 }),
            }
            world.tell(Fact::Declined { transfer: wanted.transfer, why: Decline::Changed });
            world.check();
        }
        world.calm();
        world.check();
        let Tally { stored, superseded, lost, .. } = tally(&world, 0);
        let expected = match becomes {
            "landed" => (1, 0, 0),
            "replaced" => (1, 1, 0),
            _ => (0, 0, 1),
        };
        assert_eq!((stored, superseded, lost), expected, "{becomes}");
    }
}

/// It falls when a newer version is on offer already, which vanishes: nobody waits for the older one, and each is counted once.
#[test]
fn what_fell_behind_a_newer_version_is_superseded_also_when_that_vanishes() {
    let mut world = landed();
    world.run(Event::Close { detector: 0, name: 1 });
    for storage in [0, 1] {
        let job = world.copies[storage].remove(0);
        world.copied(storage, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    }
    world.run(Event::Wait { ms: 1000 });
    let (wanted, _) = world.detectors[0].wants.pop_front().unwrap();
    world.remove(0, 1);
    world.tell(Fact::Declined { transfer: wanted.transfer, why: Decline::Vanished });
    world.check();
    assert_eq!((tally(&world, 0).superseded, tally(&world, 0).lost), (1, 1));
    assert_eq!(world.ledger.report(world.now).detectors[0].backlog.files, 0);
}

/// The manifest that is on its way was made before the detector heard that it is needed again.
#[test]
fn what_fell_within_a_manifest_is_not_lost_at_its_end() {
    let mut world = landed();
    let detector = DetectorIndex(0);
    world.tell(Fact::ManifestBegin { detector });
    let identity = world.detectors[0].files[&1];
    world.offer(0, 1, identity, false);
    let job = world.copies[0].remove(0);
    world.copied(0, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    let job = world.copies[1].remove(0);
    let mut orders = Vec::new();
    let report = CopyReport {
        file: None,
        version: job.version,
        storage: StorageIndex(1),
        outcome: CopyOutcome::SourceLost("removed".to_owned()),
        set_aside: None,
    };
    world.ledger.apply(world.now, Fact::Copying(report), &mut orders);
    world.ledger.apply(world.now, Fact::ManifestEnd { detector }, &mut orders);
    for order in orders {
        world.obey(order);
    }
    world.run(Event::Wait { ms: 1 });
    world.check();
    assert_eq!((tally(&world, 0).lost, tally(&world, 1).lost), (0, 0));
    world.calm();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (1, 1));
}

#[test]
fn what_left_the_ramdisk_and_the_detector_has_failed_until_retried() {
    let mut world = landed();
    world.run(Event::Remove { detector: 0, name: 1 });
    for storage in [0, 1] {
        let job = world.copies[storage].remove(0);
        world.copied(storage, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    }
    world.run(Event::Wait { ms: 1000 });
    let job = world.copies[0].remove(0);
    world.copied(0, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    world.check();
    assert_eq!((tally(&world, 0).failed, tally(&world, 1).failed), (1, 1));
    assert_eq!(world.told.iter().filter(|told| told.code == Code::CopyError).count(), 2);
    // Somebody has found it and put it back.
    let only = Selection { storage: Some(StorageIndex(1)), ..Selection::default() };
    assert_eq!(retry(&mut world, &only), Retried { copies: 1, files: 1 });
    assert_eq!(retry(&mut world, &only), Retried::default());
    assert_eq!(retry(&mut world, &Selection::default()), Retried { copies: 1, files: 1 });
    world.calm();
    world.check();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (1, 1));
}

fn retry(world: &mut World, selection: &Selection) -> Retried {
    let mut orders = Vec::new();
    let retried = world.ledger.retry(selection, &mut orders);
    world.ledger.work(world.now, &mut orders);
    for order in orders {
        world.obey(order);
    }
    retried
}

#[test]
fn retry_takes_what_is_named() {
    let mut world = World::new();
    for name in [1, 2, 3] {
        world.run(Event::Close { detector: 0, name });
        world.run(Event::Land { detector: 0, how: 7 });
    }
    while let Some(job) = world.copies[0].pop() {
        world.copied(0, job.version, CopyOutcome::Taken("another's".to_owned()));
    }
    assert_eq!(tally(&world, 0).failed, 3);
    let at = |place| Selection { paths: vec![place], ..Selection::default() };
    let rel = |path: &str| RelPath::new(path.as_bytes()).unwrap();
    let none = [
        Selection { shift: Some(ShiftId(2)), ..Selection::default() },
        Selection { storage: Some(StorageIndex(1)), ..Selection::default() },
        at(RetryPlace::Detector(rel("run/4.cbf"))),
        at(RetryPlace::Detector(rel("ru"))),
        at(RetryPlace::Ramdisk(Some(rel("run")))),
    ];
    for selection in none {
        assert_eq!(retry(&mut world, &selection), Retried::default(), "{selection:?}");
    }
    let one = Retried { copies: 1, files: 1 };
    assert_eq!(retry(&mut world, &at(RetryPlace::Detector(rel("run/1.cbf")))), one);
    assert_eq!(retry(&mut world, &at(RetryPlace::Ramdisk(Some(rel("1MF/500/run/2.cbf"))))), one);
    assert_eq!(retry(&mut world, &at(RetryPlace::Storage(Some(rel("1MF/500"))))), one);
}

#[test]
fn a_hanging_storage_leaves_the_other_alone_and_goes_on_by_itself() {
    let mut world = landed();
    let steps = |world: &mut World, steps| {
        for storage in [0, 1] {
            let steps = if storage == 0 { 7 } else { steps };
            world.tell(Fact::Steps { storage: StorageIndex(storage), steps, reads: 0 });
        }
    };
    steps(&mut world, 1);
    world.run(Event::Wait { ms: 11_000 });
    steps(&mut world, 2);
    let condition = |world: &World, storage: usize| {
        serde_json::to_value(&world.ledger.report(world.now).storages[storage].health).unwrap()["state"]
            .clone()
    };
    assert_eq!((condition(&world, 0), condition(&world, 1)), ("hung".into(), "ok".into()));
    assert!(world.told.iter().any(|told| told.code == Code::StorageUnavailable && told.short == "/storage0"));
    for name in 2..42 {
        world.run(Event::Close { detector: 0, name });
        world.run(Event::Land { detector: 0, how: 7 });
        world.run(Event::Copy { storage: 1, how: 11, which: 0 });
    }
    assert_eq!(world.copies[0].len(), 32, "no more than sixteen times its queue depth");
    world.calm();
    world.tell(Fact::Steps { storage: StorageIndex(0), steps: 8, reads: 0 });
    world.check();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (41, 41));
    assert_eq!(condition(&world, 0), "ok");
}

#[test]
fn a_hanging_source_is_told_and_only_its_files_wait() {
    let mut world = landed();
    world.run(Event::Copy { storage: 0, how: 11, which: 0 });
    let job = world.copies[1].remove(0);
    world.copied(1, job.version, CopyOutcome::SourceLost("removed".to_owned()));
    assert_eq!(world.copies[1][0].sources, [Source::Stored(StorageIndex(0))]);
    let steps = |world: &mut World, steps, reads| {
        world.tell(Fact::Steps { storage: StorageIndex(1), steps, reads });
        world.ledger.report(world.now).storages[1].health.clone()
    };
    assert_eq!(steps(&mut world, 1, 1), crate::model::status::Health::Ok);
    world.run(Event::Wait { ms: 10_000 });
    let crate::model::status::Health::Hung { reason } = steps(&mut world, 1, 1) else { panic!("not hung") };
    assert!(reason.contains("another storage"), "{reason}");
    assert_eq!(world.told.iter().filter(|told| told.code == Code::StorageUnavailable).count(), 1);
    for name in 2..5 {
        world.run(Event::Close { detector: 0, name });
        world.run(Event::Land { detector: 0, how: 7 });
        let at = world.copies[1].iter().position(|job| job.local().is_some()).unwrap();
        world.run(Event::Copy { storage: 1, how: 11, which: at });
    }
    world.run(Event::Commit);
    assert_eq!(tally(&world, 1).stored, 3);
    assert_eq!(steps(&mut world, 9, 2), crate::model::status::Health::Ok);
}

#[test]
fn one_bad_file_does_not_hold_up_a_quarantined_disk() {
    let mut world = World::new();
    for name in 1..6 {
        world.run(Event::Close { detector: 0, name });
        world.run(Event::Land { detector: 0, how: 7 });
    }
    let mut tried = Vec::new();
    for _ in 0..5 {
        let job = world.copies[0].remove(0);
        world.copied(0, job.version, CopyOutcome::DiskError("EIO".to_owned()));
        tried.push(job.version);
    }
    assert_eq!(tally(&world, 0).failed, 0);
    assert!(world.told.iter().any(|told| told.code == Code::StorageUnavailable));
    // Now it is only probed, with one file after the other, and none of them is blamed.
    let mut probed = Vec::new();
    for _ in 0..10 {
        while world.copies[0].is_empty() {
            world.run(Event::Wait { ms: 1000 });
        }
        assert_eq!(world.copies[0].len(), 1);
        let job = world.copies[0].remove(0);
        world.copied(0, job.version, CopyOutcome::DiskError("EIO".to_owned()));
        probed.push(job.version);
    }
    probed.sort();
    probed.dedup();
    assert!(probed.len() > 1, "{probed:?}");
    assert_eq!(tally(&world, 0).failed, 0, "copy_tries is 3, but it is the disk's fault");
    world.calm();
    assert_eq!((tally(&world, 0).stored, tally(&world, 1).stored), (5, 5));
}

#[test]
fn a_file_set_aside_is_told() {
    let mut world = landed();
    let version = world.copies[0].remove(0).version;
    let set_aside = Some(Aside::Other(b"1.cbf.~20260131-235959~".to_vec()));
    let report =
        CopyReport { version, storage: StorageIndex(0), outcome: CopyOutcome::Stored, file: None, set_aside };
    world.tell(Fact::Copying(report));
    let told = world.told.iter().find(|told| told.code == Code::FileReplaced).unwrap();
    assert!(told.short.ends_with("run/1.cbf") && told.long.contains("1.cbf.~20260131-235959~"), "{told:?}");
}

/// Else the file of a later shift that is to have the same place would wait for ever for the older version's copy.
#[test]
fn what_is_superseded_and_no_longer_on_its_detector_is_forgotten() {
    let mut world = landed();
    world.run(Event::Copy { storage: 1, how: 11, which: 0 });
    world.run(Event::Commit);
    let job = world.copies[0].remove(0);
    world.copied(0, job.version, CopyOutcome::Unavailable("away".to_owned()));
    world.run(Event::Remove { detector: 0, name: 1 });
    world.run(Event::Close { detector: 0, name: 1 });
    world.run(Event::Land { detector: 0, how: 7 });
    assert!(world.ledger.versions.get(job.version).is_none());
    assert_eq!(tally(&world, 0).superseded, 1);
}

/// A later shift's file has landed in its place, which somebody had emptied before it was stored.
#[test]
fn what_is_nowhere_any_more_has_failed() {
    let mut world = landed();
    let id = world.copies[0][0].version;
    for storage in [0, 1] {
        world.copies[storage].clear();
        world.copied(storage, id, CopyOutcome::Unavailable("away".to_owned()));
    }
    world.ledger.versions.retire(id);
    world.ledger.versions.get_mut(id).unwrap().local = None;
    for _ in 0..20 {
        world.run(Event::Wait { ms: 2000 });
    }
    assert_eq!([0, 1].map(|storage| tally(&world, storage).failed), [1, 1]);
    assert!(world.told.iter().any(|told| told.code == Code::CopyError));
}
