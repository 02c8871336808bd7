//! The ledger's log (DESIGN 4): `state_dir/journal.db`, SQLite in WAL mode, and `state_dir/shifts.log`.
//!
//! [`open`] reads it at start, [`start`] runs its thread: records go in by a channel, and what is committed comes
//! back through a callback. Nothing is called committed that would not be read again after a crash of the
//! process; for batches with a *stored* in them, after a power cut.
//!
//! Every row that matters carries a seal (a hash over its columns), because a flipped bit in a
//! database is no error to SQLite: a damaged journal is never believed, it is set aside.

mod database;
mod event_log;
mod history;
mod load;
mod query;
mod record;
mod recover;
mod rows;
mod safe;
mod schema;
mod seal;
mod shift_log;
mod writer;

use std::io;
use std::path::PathBuf;

pub use database::{Journal, Settings};
pub use event_log::{LoggedEvent, LoggedEvents};
pub use query::{Queries, StoredVersion, Unanswered};
pub use recover::{Opened, Origin, open};
pub use safe::{Safe, StoredOn};
pub use writer::{News, Running, start};

/// The database below the state directory.
const DATABASE: &str = "journal.db";
/// What SQLite keeps beside it.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite says so.
    #[error("journal {path}: {operation}: {source}{}", code(.source))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// Cause.
        source: rusqlite::Error,
    },
    /// The operating system says so.
    #[error("journal {path}: {operation}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// What it says cannot be true.
    #[error("journal {path} is damaged: {what}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file under the journal's name is not the open one.
    #[error("journal {path} was removed or replaced while in use; restart ppu-uringd to begin a new one")]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// Its schema is unknown.
    #[error("journal {path} was written by a newer ppu-uringd (schema {found}; known are up to {known})")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl JournalError {
    /// The content is at fault, not the disk: only a new journal helps.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sqlite { source, .. } => schema::is_damage(source),
            Self::Io { .. } | Self::Replaced { .. } | Self::Newer { .. } => false,
        }
    }
}

/// SQLite's extended code, which tells a failed fsync from a failed read where its text does not.
fn code(error: &rusqlite::Error) -> String {
    match error.sqlite_extended_error_code() {
        Some(code) => format!(" (SQLite code {code})"),
        None => String::new(),
    }
}
