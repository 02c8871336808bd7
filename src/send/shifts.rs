//! What the catalog's attribution needs of the machine: a clock, marks in the watch's queue, and a log that survives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use super::shift_log::{self, Clocks, Known, ShiftLogError};
use crate::host::priority::Priority;
use crate::model::catalog::{KnownSpan, Moment};

/// Directory below the state directory that marks are made in; the watch has an eye on it.
const MARKS: &str = "marks";

/// How the catalog's wishes are carried out.
pub trait Shifts {
    /// On both clocks.
    fn now(&self) -> Moment;
    /// Makes a mark: the watch tells of it in its order.
    ///
    /// # Errors
    /// It could not be made; for people.
    fn mark(&self, number: u64) -> Result<(), String>;
    /// Remembers this; `true` if that is done, else it is told later.
    fn save(&self, revision: u64, spans: Vec<KnownSpan>) -> bool;
}

/// What came of [`Shifts::save`].
#[derive(Debug)]
pub struct Saved {
    /// As it was asked for.
    pub revision: u64,
    /// Why it could not be written, for people.
    pub trouble: Option<String>,
}

/// On disk.
pub struct Keeper {
    marks: PathBuf,
    clock: Box<dyn Fn() -> i64>,
    /// `None`: nothing is remembered.
    to_log: Option<Sender<(u64, Vec<KnownSpan>, Clocks)>>,
}

/// What there is at start.
pub struct Kept {
    /// For the session.
    pub keeper: Keeper,
    /// By an earlier process.
    pub known: Known,
}

impl Keeper {
    /// Reads the log below `state_dir` and starts the thread that writes it; `saved` is called there. `clock` tells which time stamp a file on
    /// the ramdisk would get now. The directory of marks is there already ([`make_marks`]).
    ///
    /// # Errors
    /// [`ShiftLogError`]; or there is no thread.
    pub fn open(
        state_dir: &Path,
        clock: impl Fn() -> i64 + 'static,
        saved: impl Fn(Saved) + Send + 'static,
    ) -> Result<Kept, KeepError> {
        let known = shift_log::read(state_dir, &Clocks::read(clock()))?;
        let (to_log, incoming) = channel::<(u64, Vec<KnownSpan>, Clocks)>();
        let directory = state_dir.to_owned();
        thread::Builder::new()
            .name("shift-log".to_owned())
            .spawn(move || {
                Priority::Usual.take();
                for (revision, spans, clocks) in incoming {
                    let trouble = shift_log::write(&directory, spans, &clocks).err();
                    saved(Saved { revision, trouble: trouble.map(|error| error.to_string()) });
                }
            })
            .map_err(KeepError::Thread)?;
        let keeper = Self { marks: state_dir.join(MARKS), clock: Box::new(clock), to_log: Some(to_log) };
        Ok(Kept { keeper, known })
    }

    /// Remembers nothing beyond the process. Makes the directory of marks.
    ///
    /// # Errors
    /// [`KeepError::Marks`].
    pub fn forgetful(state_dir: &Path, clock: impl Fn() -> i64 + 'static) -> Result<Self, KeepError> {
        Ok(Self { marks: make_marks(state_dir)?, clock: Box::new(clock), to_log: None })
    }
}

impl Shifts for Keeper {
    fn now(&self) -> Moment {
        Moment { at: Instant::now(), file_ns: (self.clock)() }
    }

    fn mark(&self, number: u64) -> Result<(), String> {
        let name = self.marks.join(number.to_string());
        match File::create_new(&name) {
            Ok(_) => {
                // It has been told; should it stay, the next start removes it.
                let _ = fs::remove_file(&name);
                Ok(())
            }
            Err(error) => Err(format!("{}: {error}", name.display())),
        }
    }

    fn save(&self, revision: u64, spans: Vec<KnownSpan>) -> bool {
        let Some(to_log) = &self.to_log else { return true };
        let clocks = Clocks::read((self.clock)());
        // The thread ends with us.
        let _ = to_log.send((revision, spans, clocks));
        false
    }
}

/// Why shifts cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The log.
    #[error(transparent)]
    Log(#[from] ShiftLogError),
    /// The directory of marks.
    #[error("cannot make {}: {source}", path.display())]
    Marks {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that writes the log.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// An empty directory for marks below `state_dir`.
///
/// # Errors
/// [`KeepError::Marks`].
pub fn make_marks(state_dir: &Path) -> Result<PathBuf, KeepError> {
    let path = state_dir.join(MARKS);
    let made = || -> io::Result<()> {
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for left in fs::read_dir(&path)? {
            fs::remove_file(left?.path())?;
        }
        Ok(())
    };
    match made() {
        Ok(()) => Ok(path),
        Err(source) => Err(KeepError::Marks { path, source }),
    }
}
