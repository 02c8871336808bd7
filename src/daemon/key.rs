//! The pre-shared key.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::wire::handshake::Key;

/// A key file is a line; anything longer is another file.
const KEY_BYTES_MAX: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Missing, or not ours to read.
    #[error("key_file {}: {source}. Both machines need the same file: head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("key_file {} is empty: head -c 32 /dev/urandom | base64 > FILE", .0.display())]
    Empty(PathBuf),
    /// Something else.
    #[error("key_file {} is longer than {KEY_BYTES_MAX} bytes: is it the right file?", .0.display())]
    TooLong(PathBuf),
}

/// Reads it; without a file the key is one that everybody knows, for loopback.
///
/// # Errors
/// [`KeyError`].
pub fn load(path: Option<&Path>) -> Result<Key, KeyError> {
    let Some(path) = path else { return Ok(Key::new(b"")) };
    let error = |source| KeyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let mode = file.metadata().map_err(error)?.mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "key_file {} can be read by others (mode {:o}): chmod 600",
            path.display(),
            mode & 0o777
        );
    }
    let mut contents = Vec::new();
    file.take(KEY_BYTES_MAX + 1).read_to_end(&mut contents).map_err(error)?;
    match contents.trim_ascii() {
        b"" => Err(KeyError::Empty(path.to_owned())),
        _ if contents.len() as u64 > KEY_BYTES_MAX => Err(KeyError::TooLong(path.to_owned())),
        key => Ok(Key::new(key)),
    }
}
