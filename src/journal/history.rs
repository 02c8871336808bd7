//! Versions whose story is over: neither on their detector nor to be copied.

use super::JournalError;
use super::database::{Journal, sqlite};
use super::rows::VersionRow;
use crate::model::record::Version;

impl Journal {
    /// Hands all of them to `each`.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn history(&self, mut each: impl FnMut(Version)) -> Result<(), JournalError> {
        let Some(database) = self.database() else { return Ok(()) };
        let read = |source| sqlite(&database.path, "read the history", source);
        let mut statement =
            database.connection.prepare("SELECT * FROM version WHERE live = 0").map_err(read)?;
        let mut rows = statement.query([]).map_err(read)?;
        while let Some(row) = rows.next().map_err(read)? {
            each(VersionRow::read(&database.names, row).map_err(read)?.version);
        }
        Ok(())
    }
}
