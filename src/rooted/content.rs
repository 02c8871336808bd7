//! What is in a file.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::model::file_version::Hash;

/// Read at a time: fits the processor's cache.
const PIECE_BYTES: usize = 256 << 10;

/// The hash of a whole file. By reading, not by mapping: its owner may truncate it meanwhile.
///
/// # Errors
/// Whatever pread(2) says.
pub fn hash_content(file: impl AsFd) -> Result<Hash, Errno> {
    let mut hasher = twox_hash::XxHash3_128::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match rustix::io::pread(&file, &mut piece, at) {
            Ok(0) => return Ok(hasher.finish_128().into()),
            Ok(count) => {
                hasher.write(&piece[..count]);
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
