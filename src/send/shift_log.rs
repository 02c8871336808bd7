//! `state_dir/shifts.log` of a detector: which shift had the beam when, by the clock of the ramdisk's time stamps.
//!
//! A few lines, written anew as a whole and fsynced whenever something changes. Each is the xxh3-128 of the rest, a time for people, and
//! JSON; the first says what the clock was. A log that is damaged anywhere is not believed at all: the gap would be given to the shift before
//! it. It is set aside, and the PPU tells again what it knows.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::catalog::KnownSpan;
use crate::model::file_version::Hash;
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;

/// Below the state directory.
const NAME: &str = "shifts.log";
/// Of a thousand spans with the longest paths; a larger file is not ours.
const MAX_BYTES: u64 = 32 << 20;
/// A clock that differs by less was not set.
const STEP_NS: i64 = 50_000_000;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct ShiftLogError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The ramdisk's clock, and one that nobody sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Changes with every boot.
    pub boot: String,
    /// Since then, ns.
    pub boottime_ns: i64,
    /// As a time stamp of a file made at the same moment.
    pub file_ns: i64,
}

/// What an earlier process knew.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Oldest first.
    pub spans: Vec<KnownSpan>,
    /// The clock was set since: the last time stamp there may be before, the first after.
    pub step: Option<(i64, i64)>,
    /// What there was is damaged, and is kept under this name.
    pub damaged: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Clocks(Clocks),
    Span {
        shift: ShiftId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<RelPath>,
        from_ns: (i64, i64),
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ns: Option<i64>,
    },
}

impl Clocks {
    /// Both, now.
    pub fn read(file_ns: i64) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boottime_ns = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
        Self { boot: boot.trim().to_owned(), boottime_ns, file_ns }
    }

    /// The clock was set between `self` and `now`: the last time stamp there may be before, the first after.
    fn step_to(&self, now: &Self) -> Option<(i64, i64)> {
        if self.boot == now.boot && !now.boot.is_empty() {
            let passed = now.boottime_ns.saturating_sub(self.boottime_ns);
            let expected = self.file_ns.saturating_add(passed);
            let set = expected.abs_diff(now.file_ns) > STEP_NS.unsigned_abs();
            return set.then_some((expected, now.file_ns.saturating_sub(passed)));
        }
        // What passed while the machine was off nobody knows; that time went backwards is seen.
        let booted_ns = now.file_ns.saturating_sub(now.boottime_ns);
        (now.file_ns < self.file_ns).then_some((self.file_ns, booted_ns))
    }
}

/// What the log says; nothing where there is none.
///
/// # Errors
/// [`ShiftLogError`].
pub fn read(state_dir: &Path, now: &Clocks) -> Result<Known, ShiftLogError> {
    let path = state_dir.join(NAME);
    let failed = |operation| {
        let path = path.clone();
        move |source| ShiftLogError { operation, path, source }
    };
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut text).map_err(failed("read"))?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(other) => return Err(failed("open")(other)),
    };
    if let Some(known) = parse(&text, now) {
        return Ok(known);
    }
    let aside = state_dir.join(format!("{NAME}.damaged"));
    fs::rename(&path, &aside).map_err(failed("set aside"))?;
    Ok(Known { damaged: Some(aside), ..Known::default() })
}

/// Takes the place of what was there, durable on return.
///
/// # Errors
/// [`ShiftLogError`]; the former log is still there.
pub fn write(state_dir: &Path, spans: Vec<KnownSpan>, now: &Clocks) -> Result<(), ShiftLogError> {
    let path = state_dir.join(NAME);
    let replaced = || -> io::Result<()> {
        let mut text = line(now.file_ns, &Line::Clocks(now.clone()))?;
        for KnownSpan { shift, source, from_ns, until_ns } in spans {
            text += &line(from_ns.0, &Line::Span { shift, source, from_ns, until_ns })?;
        }
        let new = state_dir.join(format!("{NAME}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(state_dir)?.sync_all()
    };
    replaced().map_err(|source| ShiftLogError { operation: "write", path: path.clone(), source })
}

fn line(at_ns: i64, content: &Line) -> io::Result<String> {
    let at = match at_ns {
        i64::MIN => "ever".to_owned(),
        ns => ShiftId(ns / 1_000_000).stamp(),
    };
    let said = format!("{at} {}", serde_json::to_string(content)?);
    Ok(format!("{} {said}\n", Hash::of(said.as_bytes())))
}

/// `None`: not a word of it is to be believed.
fn parse(text: &[u8], now: &Clocks) -> Option<Known> {
    let mut known = Known::default();
    let mut clocks: Option<Clocks> = None;
    for line in str::from_utf8(text).ok()?.lines() {
        let (hash, said) = line.split_once(' ')?;
        if hash != Hash::of(said.as_bytes()).to_string() {
            return None;
        }
        match (serde_json::from_str(said.split_once(' ')?.1).ok()?, &clocks) {
            (Line::Clocks(then), None) => clocks = Some(then),
            (Line::Span { shift, source, from_ns, until_ns }, Some(_)) => {
                known.spans.push(KnownSpan { shift, source, from_ns, until_ns });
            }
            _ => return None,
        }
    }
    known.step = clocks?.step_to(now);
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(boot: &str, boottime_s: i64, file_s: i64) -> Clocks {
        let second = 1_000_000_000;
        Clocks { boot: boot.to_owned(), boottime_ns: boottime_s * second, file_ns: file_s * second }
    }

    fn spans() -> Vec<KnownSpan> {
        let source = Some(RelPath::new(b"run\xff 1\n").unwrap());
        vec![
            KnownSpan {
                shift: ShiftId(7),
                source: None,
                from_ns: (i64::MIN, i64::MIN),
                until_ns: Some(1_785_542_399_000_000_000),
            },
            KnownSpan { shift: ShiftId(9), source, from_ns: (5, 6), until_ns: None },
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let now = clocks("a", 10, 1000);
        assert_eq!(read(dir.path(), &now).unwrap(), Known::default());
        for _ in 0..2 {
            write(dir.path(), spans(), &now).unwrap();
            assert_eq!(
                read(dir.path(), &clocks("a", 20, 1010)).unwrap(),
                Known { spans: spans(), ..Known::default() }
            );
        }
    }

    #[test]
    fn a_damaged_log_is_not_believed_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let now = clocks("a", 10, 1000);
        write(dir.path(), spans(), &now).unwrap();
        let log = dir.path().join(NAME);
        let whole = fs::read(&log).unwrap();
        for at in 0..whole.len() - 1 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&log, &flipped).unwrap();
            let aside = dir.path().join("shifts.log.damaged");
            let known = Known { damaged: Some(aside.clone()), ..Known::default() };
            assert_eq!(read(dir.path(), &now).unwrap(), known, "byte {at}");
            assert!(aside.exists());
        }
    }

    #[test]
    fn a_clock_that_was_set_while_we_were_gone() {
        let second = 1_000_000_000;
        let then = clocks("a", 100, 5000);
        assert_eq!(then.step_to(&clocks("a", 160, 5060)), None);
        // Two hours back, at some time within that minute.
        let back = then.step_to(&clocks("a", 160, 5060 - 7200));
        assert_eq!(back, Some((5060 * second, (5000 - 7200) * second)));
        let forth = then.step_to(&clocks("a", 160, 5060 + 7200));
        assert_eq!(forth, Some((5060 * second, (5000 + 7200) * second)));
        assert_eq!(then.step_to(&clocks("b", 30, 6000)), None, "a reboot");
        assert_eq!(then.step_to(&clocks("b", 30, 4000)), Some((5000 * second, 3970 * second)));
    }
}
