//! A journal that was truncated, scribbled over or deleted (FAULTS 47) is never believed.

use std::fs;
use std::path::Path;

use ppu_uringd::journal::{JournalError, Opened, Origin, open};
use ppu_uringd::model::record::LiveVersion;

use crate::model::{Known, history, open_sound, settings};

const RECORDS: usize = 600;

/// A journal with some content, and what it knows.
fn written(dir: &Path, in_good_order: bool) -> Known {
    let (records, models) = history(3, RECORDS);
    let (mut journal, _) = open_sound(dir);
    journal.commit(&records).unwrap();
    // Either way SQLite checkpoints, so that everything is in the database file.
    if in_good_order {
        journal.close().unwrap();
    } else {
        drop(journal);
    }
    models[RECORDS].known()
}

fn open_any(dir: &Path) -> Opened<Vec<LiveVersion>> {
    open(settings(dir), Vec::push).unwrap()
}

/// Either everything is as it was, or the journal was set aside and a new one knows the shifts only.
fn check(dir: &Path, whole: &Known, shifts_logged: bool, case: &str) -> bool {
    let opened = open_any(dir);
    // Messages are for people, and not sealed.
    let messages = whole.messages.clone();
    let known = Known { messages, ..Known::of(&opened) };
    match &opened.origin {
        Origin::Found => {
            assert!(known == *whole, "{case}");
            return false;
        }
        Origin::SetAside { aside, .. } => assert!(aside.exists(), "{case}"),
        Origin::New => {}
    }
    let shifts = if shifts_logged { known.shifts.clone() } else { vec![] };
    let messages = whole.messages.clone();
    assert_eq!(known, Known { shifts, next_version: 1, messages, ..Known::default() }, "{case}");
    assert!(!shifts_logged || !known.shifts.is_empty(), "{case}");
    drop(opened);
    assert_eq!(open_any(dir).origin, Origin::Found, "{case}");
    true
}

#[test]
fn truncated_anywhere() {
    for in_good_order in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let known = written(dir.path(), in_good_order);
        let whole = fs::read(dir.path().join("journal.db")).unwrap();
        for keep in (0..whole.len()).step_by(5003) {
            let damaged = tempfile::tempdir().unwrap();
            fs::copy(dir.path().join("shifts.log"), damaged.path().join("shifts.log")).unwrap();
            fs::write(damaged.path().join("journal.db"), &whole[..keep]).unwrap();
            assert!(check(damaged.path(), &known, true, &format!("{keep} bytes kept")));
        }
    }
}

/// Any flipped bit is noticed or changes nothing that is loaded.
#[test]
fn flipped_bits() {
    let dir = tempfile::tempdir().unwrap();
    let known = written(dir.path(), true);
    let whole = fs::read(dir.path().join("journal.db")).unwrap();
    let mut set_aside = 0;
    let mut flips = 0;
    let damaged = tempfile::tempdir().unwrap();
    for at in (0..whole.len()).step_by(197) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(damaged.path().join("journal.db"), &flipped).unwrap();
        set_aside += usize::from(check(damaged.path(), &known, false, &format!("byte {at}")));
        flips += 1;
    }
    // The rest hit free space, history, or SQLite's counters.
    assert!(set_aside * 4 > flips, "{set_aside} of {flips}");
}

#[test]
fn overwritten_pages() {
    let dir = tempfile::tempdir().unwrap();
    let known = written(dir.path(), true);
    let whole = fs::read(dir.path().join("journal.db")).unwrap();
    for page in 0..whole.len() / 4096 {
        for with in [0x00, 0xFF, 0x0D] {
            let mut scribbled = whole.clone();
            scribbled[page * 4096..(page + 1) * 4096].fill(with);
            let damaged = tempfile::tempdir().unwrap();
            fs::write(damaged.path().join("journal.db"), &scribbled).unwrap();
            check(damaged.path(), &known, false, &format!("page {page} filled with {with}"));
        }
    }
}

#[test]
fn deleted() {
    let dir = tempfile::tempdir().unwrap();
    let known = written(dir.path(), true);
    fs::remove_file(dir.path().join("journal.db")).unwrap();
    let opened = open_any(dir.path());
    assert_eq!(opened.origin, Origin::New);
    // The log keeps a shift's first line; records of the random history change shifts.
    let ids = |shifts: &[ppu_uringd::model::shift::Shift]| shifts.iter().map(|s| s.id).collect::<Vec<_>>();
    assert_eq!(ids(&opened.loaded.shifts), ids(&known.shifts));
}

/// A file that was deleted under us would swallow commits.
#[test]
fn deleted_while_open() {
    let dir = tempfile::tempdir().unwrap();
    let (records, _) = history(4, 20);
    let (mut journal, _) = open_sound(dir.path());
    journal.commit(&records[..10]).unwrap();
    fs::remove_file(dir.path().join("journal.db")).unwrap();
    let refused = journal.commit(&records[10..]).unwrap_err();
    assert!(matches!(refused, JournalError::Replaced { .. }), "{refused}");
    journal.commit(&records[10..]).unwrap_err();
    assert!(!dir.path().join("journal.db").exists());
}

#[test]
fn a_newer_schema_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), true);
    let connection = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    connection.execute_batch("PRAGMA user_version = 25700").unwrap();
    drop(connection);
    let refused = open(settings(dir.path()), Vec::<LiveVersion>::push).unwrap_err();
    assert!(refused.to_string().contains("newer"), "{refused}");
    assert_eq!(
        fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().contains("damaged") })
            .count(),
        0
    );
}
