//! `state_dir/shifts.log`: who had the beam since when, one fsynced line a shift, for the day the journal is lost.
//!
//! A line is the xxh3-128 of the rest, the shift's start for people, and the shift as JSON. Lines that do not fit
//! their hash (a torn tail, damage) are skipped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::model::file_version::Hash;
use crate::model::shift::Shift;

use super::JournalError;

/// Below the state directory.
const NAME: &str = "shifts.log";
/// More than a century of hourly shifts; a larger file is not ours.
const MAX_BYTES: u64 = 1 << 30;

/// Adds a line, durable on return.
///
/// # Errors
/// [`JournalError::Io`].
pub fn append(state_dir: &Path, shift: &Shift) -> Result<(), JournalError> {
    try_append(state_dir, shift).map_err(|source| error(state_dir, "write", source))
}

/// Every whole line, oldest first; nothing where there is no log.
///
/// # Errors
/// [`JournalError::Io`].
pub fn read(state_dir: &Path) -> Result<Vec<Shift>, JournalError> {
    let mut text = Vec::new();
    match File::open(state_dir.join(NAME)) {
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(other) => Err(other),
    }
    .map_err(|source| error(state_dir, "read", source))?;
    let mut shifts = Vec::new();
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match parse(line) {
            Some(shift) => shifts.push(shift),
            None => tracing::warn!("{NAME}: skipped a line that is torn or damaged"),
        }
    }
    // A commit that was tried again may have logged its shift twice; one that got a new detector is there again, the last line counts.
    shifts.reverse();
    shifts.sort_by_key(|shift: &Shift| shift.id);
    shifts.dedup_by_key(|shift| shift.id);
    Ok(shifts)
}

fn try_append(state_dir: &Path, shift: &Shift) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(state_dir.join(NAME))?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut line = String::new();
    if end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.push('\n');
        }
    }
    let said = format!("{} {}", shift.id.stamp(), serde_json::to_string(shift)?);
    line.push_str(&format!("{} {said}\n", Hash::of(said.as_bytes())));
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    if end == 0 {
        File::open(state_dir)?.sync_all()?;
    }
    Ok(())
}

fn parse(line: &[u8]) -> Option<Shift> {
    let (hash, said) = str::from_utf8(line).ok()?.split_once(' ')?;
    if hash != Hash::of(said.as_bytes()).to_string() {
        return None;
    }
    let (_, json) = said.split_once(' ')?;
    serde_json::from_str(json).ok()
}

fn error(state_dir: &Path, operation: &'static str, source: io::Error) -> JournalError {
    JournalError::Io { path: state_dir.join(NAME), operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::RelPath;
    use crate::model::replica_path::Target;
    use crate::model::shift::{Place, ShiftId};

    fn shift(start: i64) -> Shift {
        let places = vec![Place {
            detector: "1MF".into(),
            source: Some(RelPath::new(b"run\xff 1\n").unwrap()),
            target: Target::parse(b"/ramdisk", b"/ramdisk/./1mf").unwrap(),
        }];
        Shift::new(ShiftId(start), 500, 501, "$UID_$GID", places).unwrap()
    }

    #[test]
    fn a_torn_tail_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        for start in [1_000, 2_000, 2_000] {
            append(dir.path(), &shift(start)).unwrap();
        }
        let log = dir.path().join(NAME);
        let whole = std::fs::read(&log).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&log, &whole[..cut]).unwrap();
            append(dir.path(), &shift(3_000)).unwrap();
            let read = read(dir.path()).unwrap();
            assert_eq!(read.last(), Some(&shift(3_000)), "cut at {cut}");
            let before = whole[..cut].iter().filter(|&&byte| byte == b'\n').count();
            // A line that lacks only its newline is whole.
            let expected = 1 + before.min(2);
            assert!(read.len() == expected || read.len() == (expected + 1).min(3), "cut at {cut}");
        }
    }

    #[test]
    fn of_one_shift_the_last_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let longer = Shift { places: [shift(1_000).places, shift(1_000).places].concat(), ..shift(1_000) };
        for shift in [shift(1_000), shift(2_000), longer.clone()] {
            append(dir.path(), &shift).unwrap();
        }
        assert_eq!(read(dir.path()).unwrap(), [longer, shift(2_000)]);
    }

    #[test]
    fn a_flipped_bit_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), &shift(1_000)).unwrap();
        let log = dir.path().join(NAME);
        let whole = std::fs::read(&log).unwrap();
        for at in 0..whole.len() - 1 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&log, flipped).unwrap();
            assert_eq!(read(dir.path()).unwrap(), [], "byte {at}");
        }
    }
}
