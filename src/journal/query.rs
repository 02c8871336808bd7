//! Questions to the journal. Its thread answers them between two commits, so what they say is committed; a journal that cannot be
//! written is not asked either.

use std::sync::mpsc::{RecvTimeoutError, Sender, sync_channel};
use std::time::Duration;

use rusqlite::params;

use crate::model::file_version::{Hash, StorageIndex, VersionId};
use crate::model::path::RelPath;
use crate::model::record::CopyState;
use crate::model::shift::ShiftId;

use super::JournalError;
use super::database::{Database, sqlite};
use super::rows::{CopyRow, VersionRow, int, unfit};
use super::writer::Work;

/// Asks a running journal, from any thread.
#[derive(Debug, Clone)]
pub struct Queries(Sender<Work>);

/// Is handed the database, or `None` while there is trouble.
pub(super) type Question = Box<dyn FnOnce(Option<&Database>) + Send>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The journal has ended.
    #[error("the journal has ended")]
    Ended,
    /// Its disk does not do at the moment.
    #[error("the journal cannot be read at the moment: see JOURNAL_ERROR")]
    Trouble,
    /// It was read, and that went wrong.
    #[error(transparent)]
    Failed(#[from] JournalError),
}

/// A version as it is stored somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// Which.
    pub version: VersionId,
    /// Whose.
    pub shift: ShiftId,
    /// Below every storage's target.
    pub to: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// Of its content.
    pub hash: Hash,
    /// The storages that it is stored on.
    pub on: Vec<StorageIndex>,
}

impl Queries {
    pub(super) fn new(to: Sender<Work>) -> Self {
        Self(to)
    }

    /// Of a journal that has ended.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Self(std::sync::mpsc::channel().0)
    }

    /// Waits for the answer, for `at_most` at most.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(super) fn ask<T: Send + 'static>(
        &self,
        at_most: Duration,
        question: impl FnOnce(&Database) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = sync_channel(1);
        let question: Question = Box::new(move |database| {
            // Who has lost patience is not there any more.
            let _ = reply.try_send(database.map(question));
        });
        self.0.send(Work::Answer(question)).map_err(|_| Unanswered::Ended)?;
        match answer.recv_timeout(at_most) {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) | Err(RecvTimeoutError::Timeout) => Err(Unanswered::Trouble),
            Err(RecvTimeoutError::Disconnected) => Err(Unanswered::Ended),
        }
    }

    /// The number that the next version will have.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn next_version(&self, at_most: Duration) -> Result<VersionId, Unanswered> {
        self.ask(at_most, |database| Ok(VersionId(database.meta.next_version)))
    }

    /// Those of the versions from `first` up to but not with `end` that are stored on `storage`, the newest first. Keep the range small: no
    /// record is committed meanwhile.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn stored(
        &self,
        storage: StorageIndex,
        (first, end): (VersionId, VersionId),
        at_most: Duration,
    ) -> Result<Vec<StoredVersion>, Unanswered> {
        self.ask(at_most, move |database| {
            database
                .stored(storage, first, end)
                .map_err(|source| sqlite(&database.path, "read what is stored", source))
        })
    }
}

impl Database {
    fn stored(
        &self,
        storage: StorageIndex,
        first: VersionId,
        end: VersionId,
    ) -> rusqlite::Result<Vec<StoredVersion>> {
        let number = self.names.storage(storage).ok_or_else(|| unfit("unknown storage"))?.num;
        let mut statement = self.connection.prepare_cached(
            "SELECT * FROM version WHERE id >= ?1 AND id < ?2
             AND EXISTS (SELECT 1 FROM copy WHERE version = id AND storage = ?3 AND state = 1) ORDER BY id DESC",
        )?;
        let mut rows = statement.query(params![int(first.0), int(end.0), number])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let version = VersionRow::read(&self.names, row)?.version;
            let copies = CopyRow::all(&self.connection, &self.names, version.version)?;
            let on = copies
                .into_iter()
                .filter(|copy| copy.state == CopyState::Stored)
                .filter_map(|copy| self.names.storage_index(copy.storage))
                .collect();
            found.push(StoredVersion {
                version: version.version,
                shift: version.shift,
                to: version.to,
                size: version.identity.size,
                hash: version.hash,
                on,
            });
        }
        Ok(found)
    }
}
