//! The predecessors' configuration files (`furka_dectris.conf`, `grimsel_dectris.conf`) as a `ppu.toml` (SPEC 5.7).
//!
//! What they say is taken over where it means the same, and marked DECIDE where somebody must look: nothing is guessed without a word. Both
//! the file and a report of every line come out; the file is checked like any other.

mod draft;
mod furka;
mod grimsel;
mod old_file;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::problem::ConfigError;
use crate::{CONFIG_MAX_BYTES, Checked, Ppu};
use draft::Draft;
use old_file::OldFile;

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// The new file.
    pub toml: String,
    /// A line for every line of the old files that says something, and for what they do not say.
    pub findings: Vec<Finding>,
    /// What `config check` says of the new file in itself.
    pub checked: Result<Checked<Ppu>, ConfigError>,
}

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `furka_dectris.conf:12`, or empty where no old file says anything.
    pub from: String,
    /// As it was written, with its section: `storageID 1: type`.
    pub key: String,
    /// In a word.
    pub verdict: Verdict,
    /// The new setting, or why there is none, and what to do; for people.
    pub what: String,
}

/// See [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the new file.
    Mapped,
    /// It is not, and nothing is lost by that.
    Ignored,
    /// Somebody must look at it.
    Decide,
}

/// An old file as it was read.
#[derive(Debug, Clone)]
pub struct OldText {
    path: PathBuf,
    text: String,
}

impl OldText {
    /// Reads it; what is not UTF-8 in it is marked.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be read, or is no such file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { file: path.into(), source };
        let mut bytes = Vec::new();
        File::open(path)
            .map_err(failed)?
            .take(CONFIG_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > CONFIG_MAX_BYTES {
            return Err(ConfigError::one(path, 1, "file", "is longer than 1 MiB, so it is no configuration"));
        }
        Ok(Self::new(path, &String::from_utf8_lossy(&bytes)))
    }

    /// `path` is for the report only.
    pub fn new(path: &Path, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// Of one old file or both; `output` is what the new one will be called, for its check.
pub fn import(furka: Option<&OldText>, grimsel: Option<&OldText>, output: &Path) -> Imported {
    let parse = |old: &OldText, keys| OldFile::parse(&old.path, &old.text, keys);
    let mut furka = furka.map(|old| parse(old, &furka::KEYS));
    let mut grimsel = grimsel.map(|old| parse(old, &grimsel::KEYS));
    let mut draft = Draft::default();
    // The ramdisk and the storages come from one, whose images they are and whence they come from the other.
    grimsel::import(grimsel.as_mut(), &mut draft);
    furka::import(furka.as_mut(), &mut draft);
    let names: Vec<String> = furka.iter().chain(&grimsel).map(|old| old.name.clone()).collect();
    for old in furka.into_iter().chain(grimsel) {
        old.leftovers(&mut draft);
    }
    draft.logs();
    draft.new_keys();
    let (toml, findings) = draft.finish(&names);
    let checked = Ppu::parse(&toml, output);
    Imported { toml, findings, checked }
}
