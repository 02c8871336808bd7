//! Opens the journal; a damaged one is set aside and a new one begun.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::record::{LiveVersion, Loaded};
use crate::model::shift::Shift;

use super::database::{Database, Journal, Settings, sqlite, sync_dir};
use super::rows::write_shift;
use super::{COMPANIONS, DATABASE, JournalError, event_log, shift_log};

/// An opened journal.
#[derive(Debug)]
pub struct Opened<T> {
    /// To be written.
    pub journal: Journal,
    /// What it knows, without the live versions.
    pub loaded: Loaded,
    /// What was made of the live versions.
    pub live: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where an opened journal comes from. If it is not [`Origin::Found`], what lies on the ramdisk and on storages
/// tells the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// As it was left.
    Found,
    /// There was none.
    New,
    /// There was one, but it was damaged.
    SetAside {
        /// Where it is kept, for people.
        aside: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

/// Opens the journal, or begins one. `each` puts a live version into a `T`, oldest first; where the journal turns out
/// to be damaged halfway, that `T` is dropped. Shifts that only `shifts.log` knows are taken from there.
///
/// # Errors
/// [`JournalError`] where the state directory cannot be read or written, or is a newer program's.
pub fn open<T: Default>(
    settings: Settings,
    mut each: impl FnMut(&mut T, LiveVersion),
) -> Result<Opened<T>, JournalError> {
    let (opened, origin) = match try_open(&settings, &mut each) {
        Err(error) if error.is_damage() => {
            let why = error.to_string();
            let aside = set_aside(&settings.state_dir)?;
            let (opened, _) = try_open(&settings, &mut each)?;
            (opened, Origin::SetAside { aside, why })
        }
        Ok((opened, true)) => (opened, Origin::New),
        Ok((opened, false)) => (opened, Origin::Found),
        Err(error) => return Err(error),
    };
    let Parts { database, mut loaded, live } = opened;
    adopt_logged_shifts(&settings, &database, &mut loaded.shifts)?;
    Ok(Opened { journal: Journal::new(settings, database), loaded, live, origin })
}

struct Parts<T> {
    database: Database,
    loaded: Loaded,
    live: T,
}

fn try_open<T: Default>(
    settings: &Settings,
    each: &mut impl FnMut(&mut T, LiveVersion),
) -> Result<(Parts<T>, bool), JournalError> {
    let (mut database, new) = Database::open(settings)?;
    let mut live = T::default();
    let loaded = database.load(|version| each(&mut live, version))?;
    database.committed_event = event_log::base(&database)?;
    Ok((Parts { database, loaded, live }, new))
}

fn adopt_logged_shifts(
    settings: &Settings,
    database: &Database,
    shifts: &mut Vec<Shift>,
) -> Result<(), JournalError> {
    for logged in shift_log::read(&settings.state_dir)? {
        if let Err(at) = shifts.binary_search_by_key(&logged.id, |shift| shift.id) {
            write_shift(&database.connection, &logged)
                .map_err(|source| sqlite(&database.path, "write a shift", source))?;
            shifts.insert(at, logged);
        }
    }
    Ok(())
}

/// Renames the database and what belongs to it; the new name is never one that is taken.
fn set_aside(state_dir: &Path) -> Result<PathBuf, JournalError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let mut aside = state_dir.join(format!("{DATABASE}.damaged-{stamp}"));
    let mut count = 1;
    while aside.exists() {
        count += 1;
        aside = state_dir.join(format!("{DATABASE}.damaged-{stamp}-{count}"));
    }
    for suffix in COMPANIONS.iter().chain(&[""]) {
        let from = with_suffix(&state_dir.join(DATABASE), suffix);
        match fs::rename(&from, with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(JournalError::Io {
                    path: from,
                    operation: "set the damaged file aside",
                    source: error,
                });
            }
            _ => {}
        }
    }
    sync_dir(state_dir)?;
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
