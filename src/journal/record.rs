//! What a record changes. Tallies change with the copies they count, in the same transaction.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::model::file_version::{StorageIndex, VersionId};
use crate::model::message::Message;
use crate::model::record::{CopyState, Record, Tally};
use crate::model::shift::ShiftId;
use crate::model::status::Told;

use super::database::{Database, Names, sqlite};
use super::rows::{CopyRow, TallyRow, VersionRow, int, unfit, write_pause, write_shift};
use super::{JournalError, event_log};

/// Messages that are kept.
pub const MESSAGES_KEPT: i64 = 1000;

impl Database {
    /// All of `batch` or nothing; after an error this database is not to be used again.
    pub fn commit(
        &mut self,
        (run, event_base): (i64, u64),
        batch: &[(u64, Record)],
        history_versions: u64,
    ) -> Result<(), JournalError> {
        let Some(&(last, _)) = batch.last() else { return Ok(()) };
        let path = self.path.clone();
        let full = batch.iter().any(|(_, record)| must_survive_power_cut(record));
        self.set_full(full).map_err(|source| sqlite(&path, "set synchronous", source))?;

        let transaction = self.connection.unchecked_transaction();
        let transaction = transaction.map_err(|source| sqlite(&path, "begin", source))?;
        let mut change = Change {
            connection: &transaction,
            names: &mut self.names,
            next_version: self.meta.next_version,
            live: self.meta.live,
            pruned_to: self.pruned_to,
            tallies: HashMap::new(),
        };
        let applied = batch
            .iter()
            .try_for_each(|(_, record)| change.apply(record))
            .and_then(|()| change.prune(batch.len(), history_versions))
            .and_then(|()| change.write_tallies())
            .and_then(|()| {
                event_log::append(&transaction, change.names, event_base, batch, history_versions)
            });
        applied.map_err(|source| sqlite(&path, "write", source))?;

        self.pruned_to = change.pruned_to;
        self.meta.next_version = change.next_version;
        self.meta.live = change.live;
        self.meta.run = run;
        self.meta.sequence = int(last);
        self.meta.clean = false;
        self.meta.save(&transaction).map_err(|source| sqlite(&path, "write", source))?;
        transaction.commit().map_err(|source| sqlite(&path, "commit", source))?;
        self.committed_event = event_base.saturating_add(last);
        Ok(())
    }
}

/// *Stored* allows others to delete; a shift says whose files are; who has paused something was told that it stays so.
fn must_survive_power_cut(record: &Record) -> bool {
    matches!(record, Record::Stored { .. } | Record::Shift(_) | Record::Paused { .. })
}

/// A transaction in the making.
struct Change<'a> {
    connection: &'a Connection,
    names: &'a mut Names,
    next_version: u64,
    live: u64,
    pruned_to: u64,
    /// What is to be added to the tallies of a shift on a storage's number.
    tallies: HashMap<(ShiftId, i64), Delta>,
}

/// Changes of a [`Tally`].
#[derive(Debug, Default)]
struct Delta {
    stored: i64,
    failed: i64,
    superseded: i64,
    lost: i64,
}

impl Change<'_> {
    fn apply(&mut self, record: &Record) -> rusqlite::Result<()> {
        match record {
            Record::Shift(shift) => write_shift(self.connection, shift),
            Record::Landed(version) => self.landed(VersionRow {
                version: (**version).clone(),
                copies: self.configured().len().cast_signed() as i64,
                gone: false,
                live: true,
            }),
            Record::Refreshed { version, identity, settled } => self.change(*version, |row| {
                row.version.identity = *identity;
                row.version.settled = *settled;
            }),
            Record::Stored { version, storage } => self.copy(*version, *storage, CopyState::Stored),
            Record::CopyFailed { version, storage, tries, error } => {
                let state = CopyState::Failed { tries: *tries, error: error.as_str().into() };
                self.copy(*version, *storage, state)
            }
            Record::Requeued { version, storage } => self.copy(*version, *storage, CopyState::Pending),
            Record::Superseded { version, storage } => self.copy(*version, *storage, CopyState::Superseded),
            Record::Gone { version } => self.change(*version, |row| row.gone = true),
            Record::Unlanded { version } => self.unlanded(*version),
            Record::LostVersion { version } => self.lost_version(*version),
            Record::Lost { detector, shift, path, identity } => {
                self.count_all(*shift, |delta| delta.lost += 1);
                let detector = self.names.detector(*detector).map(|name| name.num);
                let mut statement = self.connection.prepare_cached(
                    "INSERT INTO lost (detector, shift, path, size, mtime_ns) VALUES (?,?,?,?,?)",
                )?;
                let (size, mtime_ns) = (int(identity.size), identity.mtime_ns);
                statement.execute(params![detector, shift.0, path.as_bytes(), size, mtime_ns])?;
                Ok(())
            }
            Record::SupersededUnlanded { shift, count } => {
                self.count_all(*shift, |delta| delta.superseded += int(*count));
                Ok(())
            }
            Record::Message(told) => self.message(told),
            Record::Paused { half, since_ms } => write_pause(self.connection, *half, *since_ms),
        }
    }

    fn landed(&mut self, row: VersionRow) -> rusqlite::Result<()> {
        let version = row.version.version;
        if !row.insert(self.connection, self.names)? {
            tracing::error!("journal: version {} landed twice; the first is kept", version.0);
            return Ok(());
        }
        for storage in self.configured() {
            CopyRow { version, storage, state: CopyState::Pending }.write(self.connection, self.names)?;
        }
        self.next_version = self.next_version.max(version.0.saturating_add(1));
        self.live += 1;
        Ok(())
    }

    /// Changes a version itself; its liveness follows.
    fn change(&mut self, version: VersionId, change: impl FnOnce(&mut VersionRow)) -> rusqlite::Result<()> {
        let Some(mut row) = VersionRow::find(self.connection, self.names, version)? else {
            return unknown(version);
        };
        change(&mut row);
        self.settle(row)
    }

    /// Changes a version's state on a storage; its tally and the version's liveness follow.
    fn copy(&mut self, version: VersionId, storage: StorageIndex, state: CopyState) -> rusqlite::Result<()> {
        let storage = self.names.storage(storage).ok_or_else(|| unfit("unknown storage"))?.num;
        let mut statement =
            self.connection.prepare_cached("SELECT shift, gone, live FROM version WHERE id = ?")?;
        let mut rows = statement.query([int(version.0)])?;
        let Some(row) = rows.next()? else { return unknown(version) };
        let (shift, gone, live): (_, bool, bool) = (ShiftId(row.get(0)?), row.get(1)?, row.get(2)?);
        drop(rows);

        let before = CopyRow::find(self.connection, self.names, version, storage)?;
        self.count(shift, storage, before.as_ref().map(|row| &row.state), -1);
        self.count(shift, storage, Some(&state), 1);
        let open = state.is_open();
        CopyRow { version, storage, state }.write(self.connection, self.names)?;

        // By far the most records need not touch the version's own row.
        let lives_on = !gone || open || self.has_open_copy(version)?;
        if before.is_some() && lives_on == live {
            return Ok(());
        }
        self.change(version, |row| row.copies += i64::from(before.is_none()))
    }

    fn unlanded(&mut self, version: VersionId) -> rusqlite::Result<()> {
        let Some(mut row) = VersionRow::find(self.connection, self.names, version)? else {
            return unknown(version);
        };
        for copy in self.open_copies(version)? {
            self.count(row.version.shift, copy.storage, Some(&copy.state), -1);
            let mut statement =
                self.connection.prepare_cached("DELETE FROM copy WHERE version = ? AND storage = ?")?;
            statement.execute(params![int(version.0), copy.storage])?;
            row.copies -= 1;
        }
        if row.copies == 0 {
            self.live -= u64::from(row.live);
            return self.forget(version);
        }
        row.gone = true;
        self.settle(row)
    }

    fn lost_version(&mut self, version: VersionId) -> rusqlite::Result<()> {
        let Some(mut row) = VersionRow::find(self.connection, self.names, version)? else {
            return unknown(version);
        };
        for copy in self.open_copies(version)? {
            self.count(row.version.shift, copy.storage, Some(&copy.state), -1);
            self.count(row.version.shift, copy.storage, Some(&CopyState::Lost), 1);
            CopyRow { state: CopyState::Lost, ..copy }.write(self.connection, self.names)?;
        }
        row.gone = true;
        self.settle(row)
    }

    /// Writes a version's row with the liveness that follows from it and its copies.
    fn settle(&mut self, mut row: VersionRow) -> rusqlite::Result<()> {
        let version = row.version.version;
        let lives_on = !row.gone || self.has_open_copy(version)?;
        self.live = self.live + u64::from(lives_on) - u64::from(row.live);
        row.live = lives_on;
        if !lives_on && version.0 < self.pruned_to {
            return self.forget(version);
        }
        row.update(self.connection, self.names)
    }

    /// Forgets history older than the newest `keep` versions; `landed` bounds the work, at twice the
    /// pace at which history can grow.
    fn prune(&mut self, landed: usize, keep: u64) -> rusqlite::Result<()> {
        let horizon = self.next_version.saturating_sub(keep);
        if horizon <= self.pruned_to.saturating_add(1) {
            return Ok(());
        }
        let limit = 2 * landed;
        let forgotten: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM version WHERE id >= ? AND id < ? AND live = 0 ORDER BY id LIMIT ?",
            )?
            .query_map(params![int(self.pruned_to), int(horizon), limit.cast_signed() as i64], |row| {
                row.get(0)
            })?
            .collect::<Result<_, _>>()?;
        for &id in &forgotten {
            self.forget(VersionId(id.cast_unsigned()))?;
        }
        self.pruned_to = match forgotten.last() {
            Some(last) if forgotten.len() == limit => last.cast_unsigned(),
            _ => horizon,
        };
        Ok(())
    }

    fn forget(&mut self, version: VersionId) -> rusqlite::Result<()> {
        let id = [int(version.0)];
        self.connection.prepare_cached("DELETE FROM copy WHERE version = ?")?.execute(id)?;
        self.connection.prepare_cached("DELETE FROM version WHERE id = ?")?.execute(id)?;
        Ok(())
    }

    fn message(&mut self, told: &Told) -> rusqlite::Result<()> {
        let Told { number, count, at_ms, message } = told;
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO message (num, count, at_ms, code, short, long) VALUES (?,?,?,?,?,?)",
        )?;
        let Message { code, short, long } = message;
        statement.execute(params![int(*number), int(*count), at_ms, code.name(), short, long])?;
        // Numbers have gaps.
        let surplus =
            "DELETE FROM message WHERE num <= (SELECT num FROM message ORDER BY num DESC LIMIT 1 OFFSET ?)";
        self.connection.prepare_cached(surplus)?.execute([MESSAGES_KEPT])?;
        Ok(())
    }

    /// Numbers of the configured storages.
    fn configured(&self) -> Vec<i64> {
        self.names.storages[..self.names.configured_storages].iter().map(|name| name.num).collect()
    }

    fn open_copies(&self, version: VersionId) -> rusqlite::Result<Vec<CopyRow>> {
        let mut copies = CopyRow::all(self.connection, self.names, version)?;
        copies.retain(|copy| copy.state.is_open());
        Ok(copies)
    }

    fn has_open_copy(&self, version: VersionId) -> rusqlite::Result<bool> {
        Ok(!self.open_copies(version)?.is_empty())
    }

    fn count(&mut self, shift: ShiftId, storage: i64, state: Option<&CopyState>, by: i64) {
        let delta = self.tallies.entry((shift, storage)).or_default();
        match state {
            None | Some(CopyState::Pending) => {}
            Some(CopyState::Stored) => delta.stored += by,
            Some(CopyState::Failed { .. }) => delta.failed += by,
            Some(CopyState::Superseded) => delta.superseded += by,
            Some(CopyState::Lost) => delta.lost += by,
        }
    }

    fn count_all(&mut self, shift: ShiftId, add: impl Fn(&mut Delta)) {
        for storage in self.configured() {
            add(self.tallies.entry((shift, storage)).or_default());
        }
    }

    fn write_tallies(&mut self) -> rusqlite::Result<()> {
        for (&(shift, storage), delta) in &self.tallies {
            let before = TallyRow::find(self.connection, self.names, shift, storage)?;
            let before = before.map(|row| row.tally).unwrap_or_default();
            let tally = Tally {
                stored: before.stored.saturating_add_signed(delta.stored),
                failed: before.failed.saturating_add_signed(delta.failed),
                superseded: before.superseded.saturating_add_signed(delta.superseded),
                lost: before.lost.saturating_add_signed(delta.lost),
            };
            if tally != before {
                TallyRow { shift, storage, tally }.write(self.connection, self.names)?;
            }
        }
        Ok(())
    }
}

/// The ledger only speaks of versions that it made known or was told of, so this is a bug of ours; the
/// journal goes on, because one that stops would endanger everything else.
fn unknown(version: VersionId) -> rusqlite::Result<()> {
    tracing::error!("journal: a record of unknown version {}", version.0);
    Ok(())
}
