//! What was closed, and when: one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::SimulateError;
use super::images::Image;
use crate::model::file_version::Hash;
use crate::model::path::{RelPath, printable};

/// One closed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Below the target, for people.
    pub path: String,
    /// The same, exactly: its bytes in hexadecimal.
    pub path_hex: String,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// xxh3-128 of the content, hexadecimal.
    pub hash: String,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<String>,
    /// Nanoseconds since the epoch.
    pub closed_at_ns: i64,
}

impl Record {
    pub(super) fn new(image: &Image<'_>, mtime_ns: i64, shift: Option<String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = image.name.as_bytes();
        let mut hash = twox_hash::XxHash3_128::new();
        hash.write(&image.head);
        hash.write(&image.body);
        Self {
            path: printable(bytes),
            path_hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: (image.head.len() + image.body.len()) as u64,
            mtime_ns,
            hash: Hash::from(hash.finish_128()).to_string(),
            shift,
            closed_at_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// The path's bytes; `None` where `path_hex` is not the hexadecimal form of a path.
    pub fn rel_path(&self) -> Option<RelPath> {
        let digits = self.path_hex.as_bytes();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        RelPath::new(&bytes?).ok()
    }
}

/// Written line by line as it happens, so that it is right however the simulation ends.
pub(super) struct Manifest(Option<(PathBuf, File)>);

impl Manifest {
    pub(super) fn create(path: Option<&Path>) -> Result<Self, SimulateError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create_new(path).map_err(|source| SimulateError::Io {
            operation: "make manifest",
            path: path.into(),
            source,
        })?;
        Ok(Self(Some((path.into(), file))))
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<(), SimulateError> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        let failed = |source| SimulateError::Io { operation: "write manifest", path: path.clone(), source };
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        file.write_all(&line).map_err(failed)
    }
}
