//! Reads a journal at start.

use crate::model::file_version::VersionId;
use crate::model::message::Message;
use crate::model::record::{LiveVersion, Loaded};
use crate::model::status::Told;

use super::JournalError;
use super::database::{Database, Name, damaged, sqlite};
use super::rows::{CopyRow, TallyRow, VersionRow, read_pause, read_shift, unfit};

impl Database {
    /// Everything but history; `each` gets the live versions, oldest first.
    pub fn load(&self, mut each: impl FnMut(LiveVersion)) -> Result<Loaded, JournalError> {
        if !self.meta.clean {
            self.quick_check()?;
        }
        let read = |source| sqlite(&self.path, "read", source);
        let loaded = self.load_small().map_err(read)?;
        let live = self.load_live(&mut each).map_err(read)?;
        if live != self.meta.live {
            let what = format!("{live} live versions are there, not {}", self.meta.live);
            return Err(damaged(&self.path, what));
        }
        Ok(loaded)
    }

    /// SQLite's own check of its structure, after a run that did not end in good order.
    fn quick_check(&self) -> Result<(), JournalError> {
        let found: rusqlite::Result<String> =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match found {
            Ok(ok) if ok == "ok" => Ok(()),
            Ok(what) => Err(damaged(&self.path, what)),
            Err(source) => Err(sqlite(&self.path, "check", source)),
        }
    }

    fn load_small(&self) -> rusqlite::Result<Loaded> {
        let names = &self.names;
        let mut loaded = Loaded {
            next_version: VersionId(self.meta.next_version),
            former_detectors: ids(&names.detectors[names.configured_detectors..]),
            former_storages: ids(&names.storages[names.configured_storages..]),
            ..Loaded::default()
        };
        let mut shifts = self.connection.prepare("SELECT * FROM shift ORDER BY id")?;
        loaded.shifts = shifts.query_map([], read_shift)?.collect::<Result<_, _>>()?;
        let mut tallies = self.connection.prepare("SELECT * FROM tally ORDER BY shift, storage")?;
        for row in tallies.query_map([], |row| TallyRow::read(names, row))? {
            let row = row?;
            let storage = names.storage_index(row.storage).ok_or_else(|| unfit("unknown storage"))?;
            loaded.tallies.push((row.shift, storage, row.tally));
        }
        let mut pauses = self.connection.prepare("SELECT * FROM pause")?;
        for row in pauses.query_map([], read_pause)? {
            let (half, since_ms) = row?;
            loaded.paused.set(half, since_ms);
        }
        let mut messages = self
            .connection
            .prepare("SELECT num, count, at_ms, code, short, long FROM message ORDER BY num")?;
        let mut rows = messages.query([])?;
        while let Some(row) = rows.next()? {
            let code: String = row.get(3)?;
            let code = serde_json::from_value(code.into()).map_err(|error| unfit(error.to_string()))?;
            loaded.messages.push(Told {
                number: row.get::<_, i64>(0)?.cast_unsigned(),
                count: row.get::<_, i64>(1)?.cast_unsigned(),
                at_ms: row.get(2)?,
                message: Message { code, short: row.get(4)?, long: row.get(5)? },
            });
        }
        Ok(loaded)
    }

    /// How many there are, those included that concern only former detectors or storages and are not handed over.
    fn load_live(&self, each: &mut impl FnMut(LiveVersion)) -> rusqlite::Result<u64> {
        let names = &self.names;
        let mut live = 0;
        let mut last = None;
        let mut statement = self.connection.prepare("SELECT * FROM version WHERE live = 1 ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let found = VersionRow::read(names, row)?;
            let version = found.version.version;
            let copies = CopyRow::all(&self.connection, names, version)?;
            if copies.len().cast_signed() as i64 != found.copies {
                return Err(unfit(format!("{} copies of version {}", copies.len(), version.0)));
            }
            // A damaged index may name a version twice, or one that is history.
            if !found.live || last >= Some(version) {
                return Err(unfit(format!("version {} is not where the index says", version.0)));
            }
            last = Some(version);
            live += 1;
            let copies: Vec<_> = copies
                .into_iter()
                .filter_map(|copy| Some((names.storage_index(copy.storage)?, copy.state)))
                .filter(|(storage, _)| usize::from(storage.0) < names.configured_storages)
                .collect();
            let former = usize::from(found.version.detector.0) >= names.configured_detectors;
            if copies.iter().any(|(_, state)| state.is_open()) || !(found.gone || former) {
                each(LiveVersion { version: found.version, gone: found.gone, copies });
            }
        }
        Ok(live)
    }
}

fn ids(names: &[Name]) -> Vec<String> {
    names.iter().map(|name| name.id.clone()).collect()
}
