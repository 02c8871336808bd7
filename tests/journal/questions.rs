//! What is asked of a running journal is what it has committed.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ppu_uringd::journal::{News, Running, Unanswered, start};
use ppu_uringd::model::departures::Proof;
use ppu_uringd::model::file_version::{StorageIndex, VersionId};
use ppu_uringd::model::record::Record;
use ppu_uringd::model::residents::Resident;

use super::model::{landed, open_sound};

const PATIENCE: Duration = Duration::from_secs(30);

fn committed(news: &Receiver<News>, sequence: u64) {
    while news.recv_timeout(PATIENCE).unwrap() != (News::Committed { up_to: sequence }) {}
}

#[test]
fn what_is_stored_is_told_page_by_page_the_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_sound(dir.path());
    let (say, news) = channel();
    let Running { records, queries, thread } = start(journal, move |news| drop(say.send(news))).unwrap();
    let mut sequence = 0;
    let mut record = |record| {
        sequence += 1;
        records.send((sequence, record)).unwrap();
        sequence
    };
    for version in 1..=10_u64 {
        record(landed(version, version as u16, 1));
    }
    for version in [2, 3, 5, 9] {
        record(Record::Stored { version: VersionId(version), storage: StorageIndex(0), file: None });
    }
    let last = record(Record::Stored { version: VersionId(3), storage: StorageIndex(1), file: None });
    committed(&news, last);
    assert_eq!(queries.next_version(PATIENCE).unwrap(), VersionId(11));
    let stored = |storage: u16, first: u64, end: u64| {
        let page = (VersionId(first), VersionId(end));
        let found = queries.stored(StorageIndex(storage), page, PATIENCE).unwrap();
        found.into_iter().map(|version| (version.version.0, version.on.len())).collect::<Vec<_>>()
    };
    assert_eq!(stored(0, 0, 11), [(9, 1), (5, 1), (3, 2), (2, 1)]);
    assert_eq!(stored(0, 3, 9), [(5, 1), (3, 2)]);
    assert_eq!(stored(1, 0, 11), [(3, 2)]);
    // What may leave, and the proof of it.
    let residents = |on: &[u16]| {
        let on: Vec<_> = on.iter().copied().map(StorageIndex).collect();
        queries.residents((VersionId(3), VersionId(11)), on, PATIENCE).unwrap()
    };
    assert_eq!(residents(&[0]).iter().map(|resident| resident.version.0).collect::<Vec<_>>(), [3, 5, 9]);
    let [both] = residents(&[0, 1])[..] else { panic!("only 3 is on both") };
    assert_eq!(both.version, VersionId(3));
    let all: Vec<_> =
        (1..=20).map(|version| Resident { version: VersionId(version), shift: both.shift }).collect();
    let safe = |on: &[u16]| {
        let on: Vec<_> = on.iter().copied().map(StorageIndex).collect();
        let safe = queries.safe(all.clone(), on, PATIENCE).unwrap();
        safe.iter().map(|safe| (safe.resident().version.0, safe.is_copied())).collect::<Vec<_>>()
    };
    assert_eq!(safe(&[0]), [(2, false), (3, true), (5, false), (9, false)]);
    assert_eq!(safe(&[0, 1]), [(3, true)]);
    assert_eq!(safe(&[]), [], "no proof without a storage");
    let found = queries.stored(StorageIndex(1), (VersionId(3), VersionId(4)), PATIENCE).unwrap();
    assert!(found[0].to.as_bytes().ends_with(b"_00003.cbf"), "{found:?}");
    drop(records);
    thread.join().unwrap();
    assert!(matches!(queries.next_version(PATIENCE), Err(Unanswered::Ended)));
}
