//! The open database, and the journal that opens it again after trouble.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::record::Record;
use crate::model::shift::Shift;

use super::seal::Seal;
use super::{DATABASE, JournalError, schema, shift_log};

/// History is kept for about so many versions: 400 MB, days at 25 files/s. Live ones do not count.
const HISTORY_VERSIONS: u64 = 2_000_000;

/// What the journal is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub state_dir: PathBuf,
    /// Ids of the configured detectors, in their order.
    pub detectors: Vec<String>,
    /// Ids of the configured storages, in their order.
    pub storages: Vec<String>,
    /// How many versions that no longer matter are remembered.
    pub history_versions: u64,
}

impl Settings {
    /// With the usual history.
    pub fn new(state_dir: &Path, detectors: Vec<String>, storages: Vec<String>) -> Self {
        Self { state_dir: state_dir.to_owned(), detectors, storages, history_versions: HISTORY_VERSIONS }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.state_dir.join(DATABASE)
    }
}

/// The journal, writable.
#[derive(Debug)]
pub struct Journal {
    settings: Settings,
    /// Counts this opening.
    run: i64,
    /// Numbers of this run's events come after it.
    event_base: u64,
    /// `None` after trouble, until the next commit opens it again.
    database: Option<Database>,
}

impl Journal {
    pub(super) fn new(settings: Settings, database: Database) -> Self {
        let event_base = database.committed_event;
        Self { settings, run: database.meta.run + 1, event_base, database: Some(database) }
    }

    /// The event that record `n` of this run is, if it is one, has this number plus `n`.
    pub fn event_base(&self) -> u64 {
        self.event_base
    }

    /// Commits `batch`, records with rising sequence numbers (from 1), all or nothing. After an error nothing is known
    /// of it; the same batch is to be tried again, and what it turns out to have committed is skipped then.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn commit(&mut self, batch: &[(u64, Record)]) -> Result<(), JournalError> {
        // On any error the connection is dropped: its caches, and SQLite's idea of what has been synced,
        // are no longer to be trusted.
        let mut database = match self.database.take() {
            Some(database) => database,
            None => Database::reopen(&self.settings)?,
        };
        database.still_there()?;
        for (_, record) in batch {
            if let Record::Shift(shift) = record {
                shift_log::append(&self.settings.state_dir, shift)?;
            }
        }
        let done = if database.meta.run == self.run { database.meta.sequence } else { 0 };
        database.committed_event = self.event_base.saturating_add(done.cast_unsigned());
        let rest = batch.partition_point(|&(sequence, _)| sequence.cast_signed() <= done);
        database.commit((self.run, self.event_base), &batch[rest..], self.settings.history_versions)?;
        self.database = Some(database);
        Ok(())
    }

    /// Into the text log, durable on return: the next opening finds it there, whatever becomes of its record.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn remember_shift(&self, shift: &Shift) -> Result<(), JournalError> {
        shift_log::append(&self.settings.state_dir, shift)
    }

    /// What is open, for questions; `None` after trouble.
    pub(super) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Marks the end of the run, so that the next start need not search for damage.
    ///
    /// # Errors
    /// [`JournalError`]. Nothing committed is at risk.
    pub fn close(mut self) -> Result<(), JournalError> {
        match self.database.take() {
            Some(database) => database.close(),
            None => Ok(()),
        }
    }
}

/// The one row of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    pub run: i64,
    pub sequence: i64,
    pub clean: bool,
    pub next_version: u64,
    pub live: u64,
}

/// An open connection with what is cached of its content.
#[derive(Debug)]
pub(super) struct Database {
    pub connection: Connection,
    pub path: PathBuf,
    pub names: Names,
    pub meta: Meta,
    /// History up to this version has been searched for what may be forgotten.
    pub pruned_to: u64,
    /// Events up to this number are in the log, or never were.
    pub committed_event: u64,
    /// `synchronous = FULL` is on.
    full: bool,
    /// Device and inode of the database, to notice when it is taken away.
    file: (u64, u64),
}

impl Database {
    /// Opens or creates the database; the second is whether it is new.
    pub fn open(settings: &Settings) -> Result<(Self, bool), JournalError> {
        let path = settings.database();
        let connection = schema::connect(&path, true).map_err(|source| sqlite(&path, "open", source))?;
        let found = schema::version(&connection).map_err(|source| sqlite(&path, "read", source))?;
        if found > schema::SCHEMA {
            return Err(JournalError::Newer { path, found, known: schema::SCHEMA });
        }
        schema::migrate(&connection).map_err(|source| sqlite(&path, "create tables", source))?;
        let database = Self::with(connection, settings)?;
        if found == 0 {
            sync_dir(&settings.state_dir)?;
        }
        Ok((database, found == 0))
    }

    /// Opens the database again after trouble. It must be there: an empty one would say that nothing is stored.
    fn reopen(settings: &Settings) -> Result<Self, JournalError> {
        let path = settings.database();
        let connection =
            schema::connect(&path, false).map_err(|source| sqlite(&path, "open again", source))?;
        // After a failed fsync the kernel may call pages of the WAL clean that never reached the disk, and the
        // next fsync of the WAL would report success. A checkpoint writes their content anew, into the database.
        let busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|source| sqlite(&path, "checkpoint", source))?;
        if busy != 0 {
            let source = rusqlite::Error::QueryReturnedNoRows;
            return Err(sqlite(&path, "checkpoint while another program reads", source));
        }
        Self::with(connection, settings)
    }

    fn with(connection: Connection, settings: &Settings) -> Result<Self, JournalError> {
        let path = settings.database();
        let read = |source| sqlite(&path, "read", source);
        let names = Names::load(&connection, settings).map_err(read)?;
        let meta = Meta::load(&connection).map_err(read)?;
        let meta = meta.ok_or_else(|| damaged(&path, "its first row does not fit its seal"))?;
        let file = file_id(&path)?;
        Ok(Self { connection, path, names, meta, pruned_to: 0, committed_event: 0, full: false, file })
    }

    /// SQLite would go on writing to an unlinked file.
    fn still_there(&self) -> Result<(), JournalError> {
        match file_id(&self.path) {
            Ok(file) if file == self.file => Ok(()),
            Ok(_) => Err(JournalError::Replaced { path: self.path.clone() }),
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(JournalError::Replaced { path: self.path.clone() })
            }
            Err(other) => Err(other),
        }
    }

    /// From now on commits reach the disk before they return, or only the operating system.
    pub fn set_full(&mut self, full: bool) -> rusqlite::Result<()> {
        if self.full != full {
            let level = if full { "FULL" } else { "NORMAL" };
            self.connection.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
            self.full = full;
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), JournalError> {
        let path = self.path.clone();
        let mut finish = || {
            self.set_full(true)?;
            self.meta.clean = true;
            self.meta.save(&self.connection)
        };
        finish().map_err(|source| sqlite(&path, "close", source))?;
        self.connection.close().map_err(|(_, source)| sqlite(&path, "close", source))
    }
}

impl Meta {
    /// `None` where the row does not fit its seal.
    fn load(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let row = connection
            .query_row("SELECT run, sequence, clean, next_version, live, seal FROM meta", [], |row| {
                let meta = Self {
                    run: row.get(0)?,
                    sequence: row.get(1)?,
                    clean: row.get(2)?,
                    next_version: row.get::<_, i64>(3)?.cast_unsigned(),
                    live: row.get::<_, i64>(4)?.cast_unsigned(),
                };
                Ok((meta, row.get::<_, i64>(5)?))
            })
            .optional()?;
        Ok(match row {
            Some((meta, seal)) => (meta.seal() == seal).then_some(meta),
            None => Some(Self { next_version: 1, clean: true, ..Self::default() }),
        })
    }

    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement =
            connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?)")?;
        let (next_version, live) = (self.next_version.cast_signed(), self.live.cast_signed());
        statement.execute(params![self.run, self.sequence, self.clean, next_version, live, self.seal()])?;
        Ok(())
    }

    fn seal(&self) -> i64 {
        Seal::new("meta")
            .int(self.run)
            .int(self.sequence)
            .int(self.clean.into())
            .int(self.next_version.cast_signed())
            .int(self.live.cast_signed())
            .value()
    }
}

/// Numbers that stand for detectors, storages and prefixes in rows.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The configured ones in their order, then the former ones.
    pub detectors: Vec<Name>,
    /// The configured ones in their order, then the former ones.
    pub storages: Vec<Name>,
    pub configured_detectors: usize,
    pub configured_storages: usize,
    prefix_numbers: HashMap<Box<[u8]>, i64>,
    prefixes: HashMap<i64, Box<[u8]>>,
}

/// A configured id and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub num: i64,
    pub id: String,
}

impl Names {
    fn load(connection: &Connection, settings: &Settings) -> rusqlite::Result<Self> {
        let mut names = Self {
            detectors: load_names(connection, "detector", &settings.detectors)?,
            storages: load_names(connection, "storage", &settings.storages)?,
            configured_detectors: settings.detectors.len(),
            configured_storages: settings.storages.len(),
            ..Self::default()
        };
        let mut statement = connection.prepare("SELECT num, bytes FROM prefix")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            names.remember_prefix(row.get(0)?, row.get_ref(1)?.as_blob()?);
        }
        Ok(names)
    }

    pub fn detector(&self, index: DetectorIndex) -> Option<&Name> {
        self.detectors.get(usize::from(index.0))
    }

    pub fn storage(&self, index: StorageIndex) -> Option<&Name> {
        self.storages.get(usize::from(index.0))
    }

    pub fn detector_index(&self, num: i64) -> Option<DetectorIndex> {
        index(&self.detectors, num).map(DetectorIndex)
    }

    pub fn storage_index(&self, num: i64) -> Option<StorageIndex> {
        index(&self.storages, num).map(StorageIndex)
    }

    pub fn prefix(&self, num: i64) -> Option<&[u8]> {
        self.prefixes.get(&num).map(|bytes| &**bytes)
    }

    /// The number of `prefix`, which is written down if it is new.
    pub fn prefix_number(&mut self, connection: &Connection, prefix: &[u8]) -> rusqlite::Result<i64> {
        if let Some(&num) = self.prefix_numbers.get(prefix) {
            return Ok(num);
        }
        connection.prepare_cached("INSERT INTO prefix (bytes) VALUES (?)")?.execute([prefix])?;
        let num = connection.last_insert_rowid();
        self.remember_prefix(num, prefix);
        Ok(num)
    }

    fn remember_prefix(&mut self, num: i64, bytes: &[u8]) {
        self.prefix_numbers.insert(bytes.into(), num);
        self.prefixes.insert(num, bytes.into());
    }
}

fn load_names(
    connection: &Connection,
    table: &'static str,
    configured: &[String],
) -> rusqlite::Result<Vec<Name>> {
    let mut known: Vec<Name> = connection
        .prepare(&format!("SELECT num, id FROM {table} ORDER BY num"))?
        .query_map([], |row| Ok(Name { num: row.get(0)?, id: row.get(1)? }))?
        .collect::<Result<_, _>>()?;
    let mut names = Vec::new();
    for id in configured {
        names.push(match known.iter().position(|name| name.id == *id) {
            Some(at) => known.remove(at),
            None => {
                connection.execute(&format!("INSERT INTO {table} (id) VALUES (?)"), [id])?;
                Name { num: connection.last_insert_rowid(), id: id.clone() }
            }
        });
    }
    names.append(&mut known);
    Ok(names)
}

fn index(names: &[Name], num: i64) -> Option<u16> {
    names.iter().position(|name| name.num == num).and_then(|at| u16::try_from(at).ok())
}

fn file_id(path: &Path) -> Result<(u64, u64), JournalError> {
    let found = fs::metadata(path);
    let found =
        found.map_err(|source| JournalError::Io { path: path.to_owned(), operation: "stat", source })?;
    Ok((found.dev(), found.ino()))
}

/// SQLite does not sync the directory of a new database.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| JournalError::Io { path: dir.to_owned(), operation: "sync", source })
}

pub(super) fn sqlite(path: &Path, operation: &'static str, source: rusqlite::Error) -> JournalError {
    JournalError::Sqlite { path: path.to_owned(), operation, source }
}

pub(super) fn damaged(path: &Path, what: impl Into<String>) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), what: what.into() }
}
