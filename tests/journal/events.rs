//! What became visible and what was stored can be asked for again, by numbers that only grow.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ppu_uringd::journal::{
    Journal, LoggedEvent, LoggedEvents, News, Opened, Queries, Running, Settings, open, start,
};
use ppu_uringd::model::event::EventKind;
use ppu_uringd::model::file_version::{StorageIndex, VersionId};
use ppu_uringd::model::record::{LiveVersion, Record};
use ppu_uringd::model::shift::{Shift, ShiftId};

use super::model::{landed, open_sound, settings};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running journal.
struct Run {
    running: Running,
    news: Receiver<News>,
    /// Numbers of what follows the shifts come after it.
    base: u64,
    sequence: u64,
}

impl Run {
    fn start(journal: Journal) -> Self {
        let base = journal.event_base() + 3;
        let (say, news) = channel();
        let running = start(journal, move |news| drop(say.send(news))).unwrap();
        let mut run = Self { running, news, base, sequence: 0 };
        // An event needs its shift.
        run.commit((0..3).map(|n| {
            let id = ShiftId(1_785_542_399_000 + n);
            Record::Shift(Shift { id, uid: 500, gid: 600, user_dir: None, places: vec![] })
        }));
        run
    }

    /// In commits of their own.
    fn commit(&mut self, records: impl IntoIterator<Item = Record>) -> u64 {
        for record in records {
            self.sequence += 1;
            self.running.records.send((self.sequence, record)).unwrap();
            while self.news.recv_timeout(PATIENCE).unwrap() != (News::Committed { up_to: self.sequence }) {}
        }
        self.sequence
    }

    fn stop(self) {
        drop(self.running.records);
        self.running.thread.join().unwrap();
    }
}

fn stored(version: u64, storage: u16) -> Record {
    Record::Stored { version: VersionId(version), storage: StorageIndex(storage) }
}

fn ask(queries: &Queries, kind: EventKind, after: u64, up_to: u64, most: usize) -> LoggedEvents {
    queries.events(kind, (after, up_to), most, PATIENCE).unwrap()
}

/// Numbers below `base`, and versions: 0 where they are forgotten.
fn briefly(found: &LoggedEvents, base: u64) -> Vec<(u64, u64)> {
    let version = |event: &LoggedEvent| event.version.as_ref().map_or(0, |(version, _)| version.version.0);
    found.events.iter().map(|event| (event.number - base, version(event))).collect()
}

#[test]
fn asked_page_by_page_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_sound(dir.path());
    let mut run = Run::start(journal);
    let base = run.base;
    let nothing = ask(&run.running.queries, EventKind::Visible, 0, u64::MAX, 10);
    assert_eq!(nothing, LoggedEvents { events: vec![], complete_after: base, complete_to: base });

    run.commit([
        landed(1, 1, 1),
        landed(2, 2, 1),
        stored(1, 0),
        Record::Requeued { version: VersionId(2), storage: StorageIndex(0) },
        stored(1, 1),
        landed(3, 3, 1),
    ]);
    let queries = run.running.queries.clone();
    let visible = |after, up_to, most| ask(&queries, EventKind::Visible, after, up_to, most);
    let all = visible(0, u64::MAX, 10);
    assert_eq!(briefly(&all, base), [(1, 1), (2, 2), (6, 3)]);
    assert_eq!((all.complete_after, all.complete_to), (base, base + 6));
    assert!(all.events.iter().all(|event| event.storage.is_none()));
    assert!(all.events.iter().all(|event| event.version.as_ref().unwrap().1 == (500, 600)));
    let page = visible(base, u64::MAX, 2);
    assert_eq!((briefly(&page, base), page.complete_to), (vec![(1, 1), (2, 2)], base + 2));
    let page = visible(page.complete_to, u64::MAX, 2);
    assert_eq!((briefly(&page, base), page.complete_to), (vec![(6, 3)], base + 6));
    let page = visible(base + 1, base + 5, 9);
    assert_eq!((briefly(&page, base), page.complete_to), (vec![(2, 2)], base + 5));
    let on = ask(&queries, EventKind::Stored, base + 3, u64::MAX, 9);
    assert_eq!(briefly(&on, base), [(5, 1)]);
    assert_eq!(on.events[0].storage, Some(StorageIndex(1)));
    assert!(on.events[0].at_ms > 1_700_000_000_000);

    // One that fell from the ramdisk before it was stored is forgotten, and the log says so.
    run.commit([Record::Unlanded { version: VersionId(2) }]);
    assert_eq!(briefly(&visible(base, u64::MAX, 9), base), [(1, 1), (2, 0), (6, 3)]);
    run.stop();
}

#[test]
fn numbers_grow_over_restarts_and_losses() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_sound(dir.path());
    let mut run = Run::start(journal);
    let first = run.base;
    run.commit([landed(1, 1, 1), stored(1, 0)]);
    run.stop();

    let (journal, _) = open_sound(dir.path());
    let mut run = Run::start(journal);
    let second = run.base;
    assert!(second > first + 2);
    run.commit([landed(2, 2, 1)]);
    let found = ask(&run.running.queries, EventKind::Visible, 0, u64::MAX, 9);
    let numbers: Vec<u64> = found.events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, [first + 1, second + 1]);
    assert_eq!((found.complete_after, found.complete_to), (first, second + 1));
    run.stop();

    for name in ["journal.db", "journal.db-wal"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    let (journal, _) = open_sound(dir.path());
    assert!(journal.event_base() > second + 1, "also where the journal is gone");
}

#[test]
fn what_is_damaged_is_known_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_sound(dir.path());
    let mut run = Run::start(journal);
    let base = run.base;
    run.commit((1..=5).map(|version| landed(version, version as u16, 1)));
    run.stop();
    let spoil = |number: u64| {
        let connection = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
        let changed = connection
            .execute("UPDATE event SET at_ms = at_ms + 1 WHERE first = ?", [(base + number) as i64]);
        assert_eq!(changed.unwrap(), 1);
    };
    spoil(3);
    let reopened = || {
        let (journal, _) = open_sound(dir.path());
        Run::start(journal)
    };
    let mut run = reopened();
    let visible = |run: &Run, after| ask(&run.running.queries, EventKind::Visible, after, u64::MAX, 9);
    let found = visible(&run, base);
    assert_eq!((briefly(&found, base), found.complete_to), (vec![(1, 1), (2, 2)], base + 2));
    let found = visible(&run, base + 2);
    assert_eq!((briefly(&found, base), found.complete_after), (vec![(4, 4), (5, 5)], base + 3));
    run.commit([landed(6, 6, 1)]);
    run.stop();

    spoil(5);
    let run = reopened();
    let found = visible(&run, base + 4);
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.complete_after + 1, found.events[0].number, "up to the next that is known");
    run.stop();
}

#[test]
fn the_oldest_are_forgotten_and_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let few = Settings { history_versions: 10, ..settings(dir.path()) };
    let opened: Opened<Vec<LiveVersion>> = open(few, Vec::push).unwrap();
    let mut run = Run::start(opened.journal);
    let base = run.base;
    run.commit((1..=20).map(|version| landed(version, version as u16, 1)));
    let found = ask(&run.running.queries, EventKind::Visible, 0, u64::MAX, 100);
    let expected: Vec<(u64, u64)> = (11..=20).map(|n| (n, n)).collect();
    assert_eq!(briefly(&found, base), expected);
    assert_eq!((found.complete_after, found.complete_to), (base + 10, base + 20));
    run.stop();
}
