//! What may leave the ramdisk, or the internal storage: versions of which the journal has committed that they are stored elsewhere.

use std::time::Duration;

use rusqlite::params;

use super::database::{Database, sqlite};
use super::query::{Queries, Unanswered};
use super::rows::{CopyRow, VersionRow, int, unfit};
use crate::model::departures::Proof;
use crate::model::extra::EXTRA;
use crate::model::file_version::{Hash, StorageIndex, VersionId};
use crate::model::job::Local;
use crate::model::path::RelPath;
use crate::model::record::CopyState;
use crate::model::residents::Resident;
use crate::model::shift::ShiftId;

/// The proof that a version is stored where it was asked for, committed. Only the journal makes one, and nothing is deleted without.
#[derive(Debug)]
pub struct Safe {
    resident: Resident,
    at: RelPath,
    to: RelPath,
    local: Local,
    size: u64,
    hash: Hash,
    is_copied: bool,
    stored: Vec<(StorageIndex, Option<Local>)>,
}

impl Safe {
    /// Where it landed, below the ramdisk.
    pub fn at(&self) -> &RelPath {
        &self.at
    }

    /// Where it is stored, below every storage's target.
    pub fn to(&self) -> &RelPath {
        &self.to
    }

    /// The landed file.
    pub fn local(&self) -> Local {
        self.local
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Of the content.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The stored file on a storage, where it is known.
    pub fn stored(&self, on: StorageIndex) -> Option<Local> {
        self.stored.iter().find(|(storage, _)| *storage == on).and_then(|(_, file)| *file)
    }
}

impl Proof for Safe {
    fn resident(&self) -> Resident {
        self.resident
    }

    fn is_copied(&self) -> bool {
        self.is_copied
    }
}

/// Where a version must be stored, by its storages.
pub type StoredOn = Vec<StorageIndex>;

impl Queries {
    /// Those of `residents` that are stored on all of `on`, in the same order. Keep them few: no record is committed meanwhile. Of extra
    /// files none: they are their owners', and stay where they are (SPEC 3.9).
    ///
    /// # Errors
    /// [`Unanswered`]: then nothing may leave.
    pub fn safe(
        &self,
        residents: Vec<Resident>,
        on: StoredOn,
        at_most: Duration,
    ) -> Result<Vec<Safe>, Unanswered> {
        self.ask(at_most, move |database| {
            database
                .safe(&residents, &on)
                .map_err(|source| sqlite(&database.path, "read what is safe", source))
        })
    }

    /// The versions from `first` up to but not with `end` that seem to be stored on all of `on`, oldest first, to ask
    /// [`safe`](Self::safe) about.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn residents(
        &self,
        (first, end): (VersionId, VersionId),
        on: StoredOn,
        at_most: Duration,
    ) -> Result<Vec<Resident>, Unanswered> {
        self.ask(at_most, move |database| {
            database
                .residents(first, end, &on)
                .map_err(|source| sqlite(&database.path, "read what is stored", source))
        })
    }
}

impl Database {
    fn safe(&self, residents: &[Resident], on: &[StorageIndex]) -> rusqlite::Result<Vec<Safe>> {
        let numbers = self.numbers(on)?;
        let mut found = Vec::with_capacity(residents.len());
        for resident in residents {
            let Some(row) = VersionRow::find(&self.connection, &self.names, resident.version)? else {
                continue;
            };
            let version = row.version;
            if self.names.detector(version.detector).is_none_or(|name| name.id == EXTRA) {
                continue;
            }
            let copies = CopyRow::all(&self.connection, &self.names, version.version)?;
            let stored = |number: &i64| {
                copies.iter().any(|copy| copy.storage == *number && copy.state == CopyState::Stored)
            };
            if numbers.is_empty() || !numbers.iter().all(stored) {
                continue;
            }
            found.push(Safe {
                resident: Resident { version: version.version, shift: version.shift },
                at: version.at,
                to: version.to,
                local: version.local,
                size: version.identity.size,
                hash: version.hash,
                is_copied: !copies.iter().any(|copy| copy.state.is_open()),
                stored: copies
                    .iter()
                    .filter(|copy| copy.state == CopyState::Stored)
                    .filter_map(|copy| Some((self.names.storage_index(copy.storage)?, copy.file)))
                    .collect(),
            });
        }
        Ok(found)
    }

    fn residents(
        &self,
        first: VersionId,
        end: VersionId,
        on: &[StorageIndex],
    ) -> rusqlite::Result<Vec<Resident>> {
        let mut sql = String::from("SELECT id, shift FROM version WHERE id >= ? AND id < ?");
        for number in self.numbers(on)? {
            sql += &format!(
                " AND EXISTS (SELECT 1 FROM copy WHERE version = id AND storage = {number} AND state = 1)"
            );
        }
        let mut statement = self.connection.prepare_cached(&(sql + " ORDER BY id"))?;
        let resident = |row: &rusqlite::Row<'_>| {
            let version = VersionId(row.get::<_, i64>(0)?.cast_unsigned());
            Ok(Resident { version, shift: ShiftId(row.get(1)?) })
        };
        statement.query_map(params![int(first.0), int(end.0)], resident)?.collect()
    }

    /// Of storages, as rows have them.
    fn numbers(&self, on: &[StorageIndex]) -> rusqlite::Result<Vec<i64>> {
        let number = |storage: &StorageIndex| {
            self.names.storage(*storage).map(|name| name.num).ok_or_else(|| unfit("unknown storage"))
        };
        on.iter().map(number).collect()
    }
}
