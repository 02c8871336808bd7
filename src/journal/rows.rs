//! Sealed rows, read and written. `SELECT *` and `VALUES` rely on the order of columns in the schema;
//! a migration may only append.

use std::fmt;

use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::model::file_version::{Hash, Identity, VersionId};
use crate::model::half::Half;
use crate::model::job::Local;
use crate::model::path::RelPath;
use crate::model::record::{CopyState, Tally, Version};
use crate::model::shift::{Place, Shift, ShiftId};

use super::database::{Name, Names};
use super::seal::Seal;

/// The error for a row that cannot be true; it counts as damage.
pub fn unfit(what: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(usize::MAX, Type::Null, Box::new(Unfit(what.into())))
}

/// What is wrong with a row.
#[derive(Debug)]
struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// A row of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    pub version: Version,
    /// Rows in `copy`.
    pub copies: i64,
    pub gone: bool,
    pub live: bool,
}

impl VersionRow {
    /// `None`: unknown.
    pub fn find(
        connection: &Connection,
        names: &Names,
        version: VersionId,
    ) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT * FROM version WHERE id = ?")?;
        statement.query_row([int(version.0)], |row| Self::read(names, row)).optional()
    }

    /// From `SELECT *`.
    pub fn read(names: &Names, row: &Row<'_>) -> rusqlite::Result<Self> {
        let id: i64 = row.get(0)?;
        let path = path(row, 3)?;
        let found = Self {
            version: Version {
                version: VersionId(id.cast_unsigned()),
                detector: names.detector_index(row.get(1)?).ok_or_else(|| unfit("unknown detector"))?,
                shift: ShiftId(row.get(2)?),
                identity: Identity {
                    size: row.get::<_, i64>(4)?.cast_unsigned(),
                    mtime_ns: row.get(5)?,
                    ino: row.get::<_, i64>(6)?.cast_unsigned(),
                    ctime_ns: row.get(7)?,
                },
                settled: row.get(8)?,
                hash: Hash(row.get(9)?),
                mode: row.get(10)?,
                local: Local { ino: row.get::<_, i64>(11)?.cast_unsigned(), ctime_ns: row.get(12)? },
                at: with_prefix(names, row.get_ref(13)?, &path)?,
                to: with_prefix(names, row.get_ref(14)?, &path)?,
                landed_ms: row.get(15)?,
                path,
            },
            copies: row.get(16)?,
            gone: row.get(17)?,
            live: row.get(18)?,
        };
        if found.seal(names) != row.get::<_, i64>(19)? {
            return Err(unfit(format!("version {id} does not fit its seal")));
        }
        Ok(found)
    }

    /// Adds it; `false` where the number is taken.
    pub fn insert(&self, connection: &Connection, names: &mut Names) -> rusqlite::Result<bool> {
        let of = &self.version;
        let at = without_prefix(connection, names, &of.at, &of.path)?;
        let to = without_prefix(connection, names, &of.to, &of.path)?;
        let mut statement = connection.prepare_cached(
            "INSERT OR IGNORE INTO version VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        )?;
        let added = statement.execute(params![
            int(of.version.0),
            names.detector(of.detector).map(|name| name.num),
            of.shift.0,
            of.path.as_bytes(),
            int(of.identity.size),
            of.identity.mtime_ns,
            int(of.identity.ino),
            of.identity.ctime_ns,
            of.settled,
            &of.hash.0[..],
            of.mode,
            int(of.local.ino),
            of.local.ctime_ns,
            at,
            to,
            of.landed_ms,
            self.copies,
            self.gone,
            self.live,
            self.seal(names),
        ])?;
        Ok(added == 1)
    }

    /// Writes what may change in a version's life.
    pub fn update(&self, connection: &Connection, names: &Names) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE version SET size = ?, mtime_ns = ?, ino = ?, ctime_ns = ?, settled = ?, \
             copies = ?, gone = ?, live = ?, seal = ? WHERE id = ?",
        )?;
        let identity = self.version.identity;
        statement.execute(params![
            int(identity.size),
            identity.mtime_ns,
            int(identity.ino),
            identity.ctime_ns,
            self.version.settled,
            self.copies,
            self.gone,
            self.live,
            self.seal(names),
            int(self.version.version.0),
        ])?;
        Ok(())
    }

    /// Over names, not their numbers, so that a damaged name is noticed. `live` follows from the rest.
    fn seal(&self, names: &Names) -> i64 {
        let of = &self.version;
        let detector = names.detector(of.detector).map_or("", |name| &name.id);
        Seal::new("version")
            .int(int(of.version.0))
            .bytes(detector.as_bytes())
            .int(of.shift.0)
            .bytes(of.path.as_bytes())
            .int(int(of.identity.size))
            .int(of.identity.mtime_ns)
            .int(int(of.identity.ino))
            .int(of.identity.ctime_ns)
            .int(of.settled.into())
            .bytes(&of.hash.0)
            .int(of.mode.into())
            .int(int(of.local.ino))
            .int(of.local.ctime_ns)
            .bytes(of.at.as_bytes())
            .bytes(of.to.as_bytes())
            .int(of.landed_ms)
            .int(self.copies)
            .int(self.gone.into())
            .value()
    }
}

/// A row of `copy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    pub version: VersionId,
    /// The storage's number.
    pub storage: i64,
    pub state: CopyState,
}

impl CopyRow {
    /// `None`: that version was never meant for that storage.
    pub fn find(
        connection: &Connection,
        names: &Names,
        version: VersionId,
        storage: i64,
    ) -> rusqlite::Result<Option<Self>> {
        let mut statement =
            connection.prepare_cached("SELECT * FROM copy WHERE version = ? AND storage = ?")?;
        statement.query_row(params![int(version.0), storage], |row| Self::read(names, row)).optional()
    }

    /// All of a version.
    pub fn all(connection: &Connection, names: &Names, version: VersionId) -> rusqlite::Result<Vec<Self>> {
        let mut statement = connection.prepare_cached("SELECT * FROM copy WHERE version = ?")?;
        statement.query_map([int(version.0)], |row| Self::read(names, row))?.collect()
    }

    fn read(names: &Names, row: &Row<'_>) -> rusqlite::Result<Self> {
        let state: i64 = row.get(2)?;
        let found = Self {
            version: VersionId(row.get::<_, i64>(0)?.cast_unsigned()),
            storage: row.get(1)?,
            state: match state {
                PENDING => CopyState::Pending,
                STORED => CopyState::Stored,
                FAILED => CopyState::Failed { tries: row.get(3)?, error: row.get::<_, String>(4)?.into() },
                SUPERSEDED => CopyState::Superseded,
                LOST => CopyState::Lost,
                other => return Err(unfit(format!("a copy in state {other}"))),
            },
        };
        if found.seal(names)? != row.get::<_, i64>(5)? {
            return Err(unfit(format!("a copy of version {} does not fit its seal", found.version.0)));
        }
        Ok(found)
    }

    /// Adds or replaces it.
    pub fn write(&self, connection: &Connection, names: &Names) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO copy VALUES (?,?,?,?,?,?)")?;
        let (tries, error) = self.failure();
        statement.execute(params![
            int(self.version.0),
            self.storage,
            state_code(&self.state),
            tries,
            error,
            self.seal(names)?
        ])?;
        Ok(())
    }

    fn failure(&self) -> (Option<u32>, Option<&str>) {
        match &self.state {
            CopyState::Failed { tries, error } => (Some(*tries), Some(error)),
            _ => (None, None),
        }
    }

    fn seal(&self, names: &Names) -> rusqlite::Result<i64> {
        let (tries, error) = self.failure();
        Ok(Seal::new("copy")
            .int(int(self.version.0))
            .bytes(storage(names, self.storage)?.id.as_bytes())
            .int(state_code(&self.state))
            .int(tries.unwrap_or(0).into())
            .bytes(error.unwrap_or("").as_bytes())
            .value())
    }
}

/// A row of `tally`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyRow {
    pub shift: ShiftId,
    /// The storage's number.
    pub storage: i64,
    pub tally: Tally,
}

impl TallyRow {
    /// `None`: nothing was counted yet.
    pub fn find(
        connection: &Connection,
        names: &Names,
        shift: ShiftId,
        storage: i64,
    ) -> rusqlite::Result<Option<Self>> {
        let mut statement =
            connection.prepare_cached("SELECT * FROM tally WHERE shift = ? AND storage = ?")?;
        statement.query_row(params![shift.0, storage], |row| Self::read(names, row)).optional()
    }

    /// From `SELECT *`.
    pub fn read(names: &Names, row: &Row<'_>) -> rusqlite::Result<Self> {
        let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let found = Self {
            shift: ShiftId(row.get(0)?),
            storage: row.get(1)?,
            tally: Tally { stored: count(2)?, failed: count(3)?, superseded: count(4)?, lost: count(5)? },
        };
        if found.seal(names)? != row.get::<_, i64>(6)? {
            return Err(unfit(format!("the tally of shift {} does not fit its seal", found.shift.0)));
        }
        Ok(found)
    }

    /// Adds or replaces it.
    pub fn write(&self, connection: &Connection, names: &Names) -> rusqlite::Result<()> {
        let Tally { stored, failed, superseded, lost } = self.tally;
        let mut statement =
            connection.prepare_cached("INSERT OR REPLACE INTO tally VALUES (?,?,?,?,?,?,?)")?;
        statement.execute(params![
            self.shift.0,
            self.storage,
            int(stored),
            int(failed),
            int(superseded),
            int(lost),
            self.seal(names)?
        ])?;
        Ok(())
    }

    fn seal(&self, names: &Names) -> rusqlite::Result<i64> {
        Ok(Seal::new("tally")
            .int(self.shift.0)
            .bytes(storage(names, self.storage)?.id.as_bytes())
            .int(int(self.tally.stored))
            .int(int(self.tally.failed))
            .int(int(self.tally.superseded))
            .int(int(self.tally.lost))
            .value())
    }
}

/// From `SELECT *`.
pub fn read_shift(row: &Row<'_>) -> rusqlite::Result<Shift> {
    let places: Vec<u8> = row.get(4)?;
    let shift = Shift {
        id: ShiftId(row.get(0)?),
        uid: row.get(1)?,
        gid: row.get(2)?,
        user_dir: if row.get_ref(3)? == ValueRef::Null { None } else { Some(path(row, 3)?) },
        places: postcard::from_bytes(&places).map_err(|error| unfit(format!("a shift's places: {error}")))?,
    };
    if shift_seal(&shift, &places) != row.get::<_, i64>(5)? {
        return Err(unfit(format!("shift {} does not fit its seal", shift.id.0)));
    }
    Ok(shift)
}

/// Adds or replaces it.
pub fn write_shift(connection: &Connection, shift: &Shift) -> rusqlite::Result<()> {
    let places = postcard::to_stdvec::<Vec<Place>>(&shift.places)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO shift VALUES (?,?,?,?,?,?)")?;
    statement.execute(params![
        shift.id.0,
        shift.uid,
        shift.gid,
        shift.user_dir.as_ref().map(RelPath::as_bytes),
        places,
        shift_seal(shift, &places)
    ])?;
    Ok(())
}

fn shift_seal(shift: &Shift, places: &[u8]) -> i64 {
    Seal::new("shift")
        .int(shift.id.0)
        .int(shift.uid.into())
        .int(shift.gid.into())
        .bytes(shift.user_dir.as_ref().map_or(b"", |dir| dir.as_bytes()))
        .bytes(places)
        .value()
}

/// From `SELECT *`.
pub fn read_pause(row: &Row<'_>) -> rusqlite::Result<(Half, Option<i64>)> {
    let half: Half = row.get::<_, String>(0)?.parse().map_err(|_| unfit("a pause of an unknown half"))?;
    let since_ms = row.get(1)?;
    if pause_seal(half, since_ms) != row.get::<_, i64>(2)? {
        return Err(unfit(format!("the pause of {half} does not fit its seal")));
    }
    Ok((half, since_ms))
}

/// Adds or replaces it.
pub fn write_pause(connection: &Connection, half: Half, since_ms: Option<i64>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO pause VALUES (?,?,?)")?;
    statement.execute(params![half.name(), since_ms, pause_seal(half, since_ms)])?;
    Ok(())
}

fn pause_seal(half: Half, since_ms: Option<i64>) -> i64 {
    let seal = Seal::new("pause").bytes(half.name().as_bytes()).int(since_ms.is_some().into());
    seal.int(since_ms.unwrap_or(0)).value()
}

/// SQLite knows signed numbers only; the bit pattern is kept.
pub fn int(value: u64) -> i64 {
    value.cast_signed()
}

const PENDING: i64 = 0;
const STORED: i64 = 1;
const FAILED: i64 = 2;
const SUPERSEDED: i64 = 3;
const LOST: i64 = 4;

fn state_code(state: &CopyState) -> i64 {
    match state {
        CopyState::Pending => PENDING,
        CopyState::Stored => STORED,
        CopyState::Failed { .. } => FAILED,
        CopyState::Superseded => SUPERSEDED,
        CopyState::Lost => LOST,
    }
}

fn storage(names: &Names, num: i64) -> rusqlite::Result<&Name> {
    names.storages.iter().find(|name| name.num == num).ok_or_else(|| unfit("unknown storage"))
}

fn path(row: &Row<'_>, column: usize) -> rusqlite::Result<RelPath> {
    let bytes = row.get_ref(column)?.as_blob()?;
    RelPath::new(bytes).map_err(|error| unfit(error.to_string()))
}

/// How `at` and `to` are kept.
enum Prefixed<'a> {
    Prefix(i64),
    Whole(&'a [u8]),
}

impl ToSql for Prefixed<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Prefix(num) => ToSqlOutput::from(*num),
            Self::Whole(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// Nearly all of a landed path is the path on the detector once more.
fn without_prefix<'a>(
    connection: &Connection,
    names: &mut Names,
    whole: &'a RelPath,
    path: &RelPath,
) -> rusqlite::Result<Prefixed<'a>> {
    match whole.as_bytes().strip_suffix(path.as_bytes()) {
        Some(prefix) => names.prefix_number(connection, prefix).map(Prefixed::Prefix),
        None => Ok(Prefixed::Whole(whole.as_bytes())),
    }
}

fn with_prefix(names: &Names, kept: ValueRef<'_>, path: &RelPath) -> rusqlite::Result<RelPath> {
    let whole = match kept {
        ValueRef::Integer(num) => {
            let prefix = names.prefix(num).ok_or_else(|| unfit("unknown prefix"))?;
            RelPath::new(&[prefix, path.as_bytes()].concat())
        }
        other => RelPath::new(other.as_blob()?),
    };
    whole.map_err(|error| unfit(error.to_string()))
}
