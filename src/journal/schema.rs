//! The tables, and how SQLite is to treat them.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::rows::unfit;

/// `MIGRATIONS[n]` brings `user_version` n to n + 1.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        run INTEGER NOT NULL,           -- counts the openings that wrote something
        sequence INTEGER NOT NULL,      -- last record of that run that is in here
        clean INTEGER NOT NULL,         -- closed in good order
        next_version INTEGER NOT NULL,
        live INTEGER NOT NULL,          -- number of live versions
        seal INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE detector (num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE storage (num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
    -- What at and \"to\" have before the path: a few per shift.
    CREATE TABLE prefix (num INTEGER PRIMARY KEY, bytes BLOB NOT NULL UNIQUE) STRICT;
    CREATE TABLE shift (
        id INTEGER PRIMARY KEY,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        user_dir BLOB,
        places BLOB NOT NULL,           -- postcard
        seal INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE version (
        id INTEGER PRIMARY KEY,
        detector INTEGER NOT NULL,
        shift INTEGER NOT NULL,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,          -- u64 as its bit pattern, like ino
        mtime_ns INTEGER NOT NULL,
        ino INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        settled INTEGER NOT NULL,
        hash BLOB NOT NULL,
        mode INTEGER NOT NULL,
        local_ino INTEGER NOT NULL,
        local_ctime_ns INTEGER NOT NULL,
        at ANY NOT NULL,                -- INTEGER: that prefix, then path; BLOB: the whole
        \"to\" ANY NOT NULL,
        landed_ms INTEGER NOT NULL,
        copies INTEGER NOT NULL,        -- rows in copy
        gone INTEGER NOT NULL,          -- from the detector
        live INTEGER NOT NULL,          -- not gone, or a copy is open
        seal INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX live_version ON version (live) WHERE live = 1;
    CREATE TABLE copy (
        version INTEGER NOT NULL,
        storage INTEGER NOT NULL,
        state INTEGER NOT NULL,         -- 0 pending 1 stored 2 failed 3 superseded 4 lost
        tries INTEGER,
        error TEXT,
        seal INTEGER NOT NULL,
        PRIMARY KEY (version, storage)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tally (
        shift INTEGER NOT NULL,
        storage INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        superseded INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        PRIMARY KEY (shift, storage)
    ) STRICT, WITHOUT ROWID;
    -- Files that vanished before they landed.
    CREATE TABLE lost (
        num INTEGER PRIMARY KEY,
        detector INTEGER NOT NULL,
        shift INTEGER NOT NULL,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE message (
        num INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        code TEXT NOT NULL,
        short TEXT NOT NULL,
        long TEXT NOT NULL
    ) STRICT;
",
    "
    -- Messages that it stands for.
    ALTER TABLE message ADD COLUMN count INTEGER NOT NULL DEFAULT 1;
    -- What became visible or was stored, a row per commit: which event has which number.
    CREATE TABLE event (
        first INTEGER PRIMARY KEY,      -- number of its first event
        last INTEGER NOT NULL,          -- of its last one
        total INTEGER NOT NULL,         -- events up to here, those that are forgotten included
        at_ms INTEGER NOT NULL,
        entries BLOB NOT NULL,          -- postcard
        seal INTEGER NOT NULL
    ) STRICT;
    -- What people have paused; since_ms NULL: it goes on.
    CREATE TABLE pause (
        half TEXT PRIMARY KEY,
        since_ms INTEGER,
        seal INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
];

/// The schema that this program writes.
pub const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// Opens the database at `path`; `create` it where there is none.
pub fn connect(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    // EXCLUSIVE, before WAL is first touched, keeps the WAL's index in our memory: no shared mapping that could raise
    // SIGBUS on a bad disk, fewer system calls, and nobody else writes. NORMAL: a commit survives the end of
    // the process; FULL is switched on for batches that must survive a power cut.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -8192;
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// `user_version` is the schema's number times this: a flipped bit makes no other multiple of a prime
/// above 256, so it is not taken for a newer schema.
const STRIDE: i64 = 257;

/// The schema that `connection`'s database has; 0: none yet.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let user_version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if user_version < 0 || user_version % STRIDE != 0 {
        return Err(unfit(format!("user_version {user_version}")));
    }
    Ok(user_version / STRIDE)
}

/// Brings the schema up to date; all or nothing.
pub fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    let from = version(connection)?;
    let missing = MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)).copied();
    let statements: String = missing.collect();
    if statements.is_empty() {
        return Ok(());
    }
    let user_version = SCHEMA * STRIDE;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {statements} PRAGMA user_version = {user_version}; COMMIT;"
    ))
}

/// Everything that is not the environment's fault (no room, no rights, a dead disk) is the file's.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    // A sector that cannot be read will not come back; a failed write may.
    const UNREADABLE: [i32; 3] =
        [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_CORRUPTFS];
    let Some(code) = error.sqlite_error_code() else { return true };
    if error.sqlite_extended_error_code().is_some_and(|code| UNREADABLE.contains(&code)) {
        return true;
    }
    !matches!(
        code,
        ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::NoLargeFileSupport
    )
}
