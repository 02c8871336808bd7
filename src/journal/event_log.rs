//! Which event has which number (`model/event.rs`), so that consumers can ask for what they have missed. One short row per commit:
//! numbers of versions and storages alone; everything else is in the versions' own rows.
//!
//! An event's number is a base, which every run has of its own, and the sequence number of its record. The base is the time in
//! microseconds: records come at far less than one in a microsecond, so a later run's numbers are greater, also when the journal
//! was lost.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::model::event::EventKind;
use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::record::{self, Record};

use super::JournalError;
use super::database::{Database, Names, sqlite};
use super::query::{Queries, Unanswered};
use super::rows::{VersionRow, int, read_shift, unfit};
use super::seal::Seal;

/// More records than that are never under way uncommitted (`model/ledger`).
const UNCOMMITTED_MAX: u64 = 1_000_000;
/// Most events may be of the other kind, and a question must end.
const LOOKED_AT_MAX: usize = 20_000;

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its number.
    pub number: u64,
    /// When it was committed, milliseconds since the epoch.
    pub at_ms: i64,
    /// Where it was stored; `None`: it became visible.
    pub storage: Option<StorageIndex>,
    /// `None`: it is forgotten.
    pub version: Option<Owned>,
}

/// With its shift's user and group.
pub type Owned = (Box<record::Version>, (u32, u32));

/// A part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvents {
    /// Oldest first.
    pub events: Vec<LoggedEvent>,
    /// All with a greater number are remembered.
    pub complete_after: u64,
    /// Up to this number there are no others, and never will be.
    pub complete_to: u64,
}

impl Queries {
    /// The oldest `most` events of a kind with numbers greater than `after`, up to `up_to`. Keep it few: no record is committed meanwhile.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn events(
        &self,
        kind: EventKind,
        (after, up_to): (u64, u64),
        most: usize,
        at_most: Duration,
    ) -> Result<LoggedEvents, Unanswered> {
        self.ask(at_most, move |database| {
            database
                .events(kind, after, up_to, most)
                .map_err(|source| sqlite(&database.path, "read events", source))
        })
    }
}

/// The base of a run that begins now.
pub(super) fn base(database: &Database) -> Result<u64, JournalError> {
    let last = last(&database.connection).map_err(|source| sqlite(&database.path, "read events", source))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(now.as_micros()).unwrap_or(0);
    Ok(match last {
        // The clock was set back.
        Some(row) if row.last >= now_us => row.last.saturating_add(UNCOMMITTED_MAX),
        _ => now_us,
    })
}

/// Logs the events of `batch`, in the transaction that applies it; keeps about `keep` events.
pub(super) fn append(
    connection: &Connection,
    names: &Names,
    base: u64,
    batch: &[(u64, Record)],
    keep: u64,
) -> rusqlite::Result<()> {
    let mut entries = Vec::new();
    let mut first = 0;
    for (sequence, record) in batch {
        let (version, storage) = match record {
            Record::Landed(version) => (version.version, None),
            Record::Stored { version, storage } => (*version, names.storage(*storage).map(|name| name.num)),
            _ => continue,
        };
        let number = base.saturating_add(*sequence);
        if entries.is_empty() {
            first = number;
        }
        entries.push(Entry { offset: number - first, version: version.0, storage });
    }
    let Some(last_entry) = entries.last() else { return Ok(()) };
    let before = last(connection)?.map_or(0, |row| row.total);
    let total = before.saturating_add(entries.len() as u64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = LogRow {
        first,
        last: first + last_entry.offset,
        total,
        at_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        entries: postcard::to_stdvec(&entries)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
    };
    row.insert(connection)?;
    prune(connection, total, keep)
}

/// Two rows at most, twice as many as are added.
fn prune(connection: &Connection, total: u64, keep: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT first, total FROM event ORDER BY first LIMIT 2")?;
    let oldest: Vec<(i64, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (first, up_to) in oldest {
        if total.saturating_sub(up_to.cast_unsigned()) >= keep {
            connection.prepare_cached("DELETE FROM event WHERE first = ?")?.execute([first])?;
        }
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Its number minus the row's first.
    offset: u64,
    version: u64,
    /// The number of the storage.
    storage: Option<i64>,
}

/// A row of `event`.
struct LogRow {
    /// Number of its first event.
    first: u64,
    /// Of its last.
    last: u64,
    /// Events in all rows up to this one, also in those that are forgotten.
    total: u64,
    /// When it was committed.
    at_ms: i64,
    /// [`Entry`]s.
    entries: Vec<u8>,
}

impl LogRow {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let found = Self {
            first: row.get::<_, i64>(0)?.cast_unsigned(),
            last: row.get::<_, i64>(1)?.cast_unsigned(),
            total: row.get::<_, i64>(2)?.cast_unsigned(),
            at_ms: row.get(3)?,
            entries: row.get(4)?,
        };
        if found.seal() != row.get::<_, i64>(5)? {
            return Err(unfit(format!("the events from {} do not fit their seal", found.first)));
        }
        Ok(found)
    }

    fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO event VALUES (?,?,?,?,?,?)")?;
        let (first, last, total) = (int(self.first), int(self.last), int(self.total));
        statement.execute(params![first, last, total, self.at_ms, self.entries, self.seal()])?;
        Ok(())
    }

    fn entries(&self) -> rusqlite::Result<Vec<Entry>> {
        postcard::from_bytes(&self.entries)
            .map_err(|error| unfit(format!("the events from {}: {error}", self.first)))
    }

    fn seal(&self) -> i64 {
        Seal::new("event")
            .int(int(self.first))
            .int(int(self.last))
            .int(int(self.total))
            .int(self.at_ms)
            .bytes(&self.entries)
            .value()
    }
}

/// The newest row. One that is damaged is not believed, and the base is the time alone.
fn last(connection: &Connection) -> rusqlite::Result<Option<LogRow>> {
    let mut statement = connection.prepare_cached("SELECT * FROM event ORDER BY first DESC LIMIT 1")?;
    match statement.query_row([], LogRow::read).optional() {
        Err(error) if is_unfit(&error) => Ok(None),
        found => found,
    }
}

/// The row is there, and what it says cannot be true.
fn is_unfit(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::FromSqlConversionFailure(..))
}

impl Database {
    fn events(&self, kind: EventKind, after: u64, up_to: u64, most: usize) -> rusqlite::Result<LoggedEvents> {
        // SQLite's numbers end earlier than ours.
        let [after, up_to] = [after, up_to].map(|number| number.min(i64::MAX.cast_unsigned()));
        let oldest: Option<i64> =
            self.connection.query_row("SELECT MIN(first) FROM event", [], |row| row.get(0))?;
        let mut found = LoggedEvents {
            events: Vec::new(),
            complete_after: oldest
                .map_or(self.committed_event, |first| first.cast_unsigned().saturating_sub(1)),
            complete_to: up_to.min(self.committed_event),
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM event WHERE first >= (SELECT COALESCE(MAX(first), 0) FROM event WHERE first <= ?1)
             AND first <= ?2 ORDER BY first",
        )?;
        let mut rows = statement.query(params![int(after), int(up_to)])?;
        let mut looked = 0;
        let mut damaged = false;
        while let Some(row) = rows.next()? {
            let row = match LogRow::read(row) {
                Err(error) if is_unfit(&error) => {
                    if let Some(last) = found.events.last() {
                        // The next question begins here.
                        found.complete_to = last.number;
                        return Ok(found);
                    }
                    damaged = true;
                    continue;
                }
                row => row?,
            };
            if std::mem::take(&mut damaged) {
                found.complete_after = row.first.saturating_sub(1);
            }
            let entries = row.entries()?;
            looked += entries.len();
            for Entry { offset, version, storage } in entries {
                let number = row.first.saturating_add(offset);
                let wanted = (kind == EventKind::Stored) == storage.is_some();
                if !wanted || number <= after || number > up_to {
                    continue;
                }
                if found.events.len() == most {
                    found.complete_to = found.events.last().map_or(after, |event| event.number);
                    return Ok(found);
                }
                let storage = match storage {
                    Some(num) => Some(self.names.storage_index(num).ok_or_else(|| unfit("unknown storage"))?),
                    None => None,
                };
                let version = self.version_and_owner(VersionId(version))?;
                found.events.push(LoggedEvent { number, at_ms: row.at_ms, storage, version });
            }
            if looked >= LOOKED_AT_MAX {
                found.complete_to = found.complete_to.min(row.last);
                break;
            }
        }
        if damaged {
            found.complete_after = self.committed_event;
        }
        found.complete_to = found.complete_to.max(after);
        Ok(found)
    }

    fn version_and_owner(&self, version: VersionId) -> rusqlite::Result<Option<Owned>> {
        let row = match VersionRow::find(&self.connection, &self.names, version) {
            Err(error) if is_unfit(&error) => None,
            row => row?,
        };
        let Some(row) = row else { return Ok(None) };
        let mut statement = self.connection.prepare_cached("SELECT * FROM shift WHERE id = ?")?;
        let shift = statement.query_row([row.version.shift.0], read_shift).optional()?;
        Ok(shift.map(|shift| (Box::new(row.version), (shift.uid, shift.gid))))
    }
}
