//! Random records in random batches; the process ends between any two bytes.

use std::fs;
use std::path::Path;

use ppu_uringd::journal::{Opened, Settings, open};
use ppu_uringd::model::file_version::{DetectorIndex, StorageIndex, VersionId};
use ppu_uringd::model::record::{CopyState, LiveVersion, Record};
use proptest::prelude::*;

use crate::model::{Known, Model, Numbers, landed, open_sound, settings};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every commit, and after an end in good order, the journal knows what its twin knows.
    #[test]
    fn what_was_committed_is_loaded(
        batches in proptest::collection::vec(
            (proptest::collection::vec(any::<(u8, u16, u8)>(), 1..40), any::<bool>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, known) = open_sound(dir.path());
        prop_assert_eq!(known, Model::default().known());
        let mut model = Model::default();
        let mut sequence = 0;
        for (numbers, in_good_order) in batches {
            let mut batch = Vec::new();
            for numbers in numbers {
                let record = model.record(numbers);
                model.apply(&record);
                sequence += 1;
                batch.push((sequence, record));
            }
            journal.commit(&batch).unwrap();
            let crashed = tempfile::tempdir().unwrap();
            copy(dir.path(), crashed.path());
            prop_assert_eq!(open_sound(crashed.path()).1, model.known());
            // A batch that is tried again must not count twice.
            journal.commit(&batch).unwrap();
            sequence = 0;
            if in_good_order {
                journal.close().unwrap();
            } else {
                drop(journal);
            }
            let (again, known) = open_sound(dir.path());
            prop_assert_eq!(known, model.known());
            journal = again;
        }
    }
}

/// The write-ahead log, cut off anywhere while a batch is on its way, gives the state before or after it.
#[test]
fn a_batch_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open_sound(dir.path());
    let mut model = Model::default();
    let mut numbers = Numbers(7);
    let mut sequence = 0;
    let mut batch = |model: &mut Model| -> Vec<(u64, Record)> {
        numbers
            .by_ref()
            .take(60)
            .map(|numbers| {
                let record = model.record(numbers);
                model.apply(&record);
                sequence += 1;
                (sequence, record)
            })
            .collect()
    };
    journal.commit(&batch(&mut model)).unwrap();
    let before = model.known();
    let wal_before = fs::read(dir.path().join("journal.db-wal")).unwrap().len();
    journal.commit(&batch(&mut model)).unwrap();
    let after = model.known();
    let wal = fs::read(dir.path().join("journal.db-wal")).unwrap();
    assert!(wal.len() > wal_before);

    let mut seen_before = 0;
    for cut in (wal_before..=wal.len()).step_by(509).chain([wal.len()]) {
        let crashed = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join("journal.db"), crashed.path().join("journal.db")).unwrap();
        fs::write(crashed.path().join("journal.db-wal"), &wal[..cut]).unwrap();
        let known = open_sound(crashed.path()).1;
        if cut < wal.len() && known.next_version == before.next_version {
            assert_eq!(known, before, "cut at {cut}");
            seen_before += 1;
        } else {
            assert_eq!(known, after, "cut at {cut}");
        }
    }
    assert!(seen_before > 10);
}

/// Ids, not places in the configuration, say which storage and detector is meant.
#[test]
fn the_configuration_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let with = |detectors: &[&str], storages: &[&str]| -> Opened<Vec<LiveVersion>> {
        let own = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        open(Settings::new(dir.path(), own(detectors), own(storages)), Vec::push).unwrap()
    };
    let (version, other) = (VersionId(1), VersionId(2));
    let mut first = with(&["1MF", "2MF"], &["internal", "external"]);
    let stored = Record::Stored { version, storage: StorageIndex(1), file: None };
    let batch = [(1, landed(1, 0, 0)), (2, landed(2, 1, 1)), (3, stored)];
    first.journal.commit(&batch).unwrap();
    drop(first);

    let second = with(&["2MF"], &["usb", "external"]);
    assert_eq!(second.loaded.former_storages, ["internal"]);
    assert_eq!(second.loaded.former_detectors, ["1MF"]);
    // Version 1 is stored on what is still configured, and its detector is not: it no longer matters.
    let copies = vec![(StorageIndex(1), CopyState::Pending)];
    assert_eq!(second.live.len(), 1);
    assert_eq!((second.live[0].version.version, &second.live[0].copies), (other, &copies));
    assert_eq!(second.live[0].version.detector, DetectorIndex(0));
    let mut journal = second.journal;
    let requeued = Record::Requeued { version: other, storage: StorageIndex(0) };
    journal.commit(&[(1, requeued)]).unwrap();
    drop(journal);

    let third = with(&["1MF", "2MF"], &["internal", "external", "usb"]);
    let states = |at: usize| third.live[at].copies.iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(states(0), [&CopyState::Pending, &CopyState::Stored]);
    assert_eq!(states(1), [&CopyState::Pending; 3]);
    assert_eq!(third.live[0].version.detector, DetectorIndex(0));
}

/// History is forgotten from the oldest on; what matters never is, and counts stay.
#[test]
fn history_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let keep = 100;
    let mut settings = settings(dir.path());
    settings.history_versions = keep;
    let mut journal = open(settings, Vec::<LiveVersion>::push).unwrap().journal;
    let mut model = Model::default();
    let mut sequence = 0;
    for number in 1..=1000_u64 {
        let version = VersionId(number);
        let mut batch = vec![landed(number, number as u16, 0)];
        // Every tenth stays on its detector and every eleventh is not stored; both die much later.
        if !number.is_multiple_of(11) {
            batch.extend([0, 1].map(|s| Record::Stored { version, storage: StorageIndex(s), file: None }));
        }
        if !number.is_multiple_of(10) {
            batch.push(Record::Gone { version });
        }
        let batch: Vec<_> = batch
            .into_iter()
            .map(|record| {
                sequence += 1;
                (sequence, record)
            })
            .collect();
        batch.iter().for_each(|(_, record)| model.apply(record));
        journal.commit(&batch).unwrap();
    }
    drop(journal);
    let rows = rows(dir.path());
    let (mut journal, known) = open_sound(dir.path());
    assert_eq!(known, model.known());
    assert!(rows <= keep + known.live.len() as u64 + 10, "{rows}");

    let late = (1..=1000)
        .filter(|number| number % 10 == 0)
        .map(|number| Record::Gone { version: VersionId(number) });
    let batch: Vec<_> = (1..).zip(late).collect();
    batch.iter().for_each(|(_, record)| model.apply(record));
    journal.commit(&batch).unwrap();
    drop(journal);
    assert_eq!(open_sound(dir.path()).1, model.known());
}

/// Rows in `version`, asked with SQLite itself.
fn rows(dir: &Path) -> u64 {
    let connection = rusqlite::Connection::open(dir.join("journal.db")).unwrap();
    connection
        .query_row("SELECT count(*) FROM version", [], |row| row.get::<_, i64>(0))
        .unwrap()
        .cast_unsigned()
}

/// What a crash of the process would leave.
pub fn copy(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal", "shifts.log"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

#[test]
fn opened_twice_in_a_row_it_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let known = Known { next_version: 1, ..Known::default() };
    for _ in 0..3 {
        assert_eq!(open_sound(dir.path()).1, known);
    }
}
