//! The end: how fast it was, whether every byte is the same in all three places, and a verdict.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ppu_uringd::host;
use ppu_uringd::model::file_version::Hash;
use ppu_uringd::model::status;
use ppu_uringd::simulate::{Record, cbf};
use serde::Serialize;

use super::super::Failure;
use super::super::output::{self, People};
use super::super::simulate;
use super::board::Board;
use super::follow::{End, Written, counts};
use super::stage::{IMAGES, Stage};

/// Differences that are named; the rest is counted.
const NAMED_MAX: usize = 10;

pub(super) fn give(
    stage: &Stage,
    board: &Board,
    written: &Written,
    end: &End,
    stop: &AtomicBool,
    people: People,
) -> Result<(), Failure> {
    speed(board, written, end, people)?;
    // The end of the simulation has set it; from here on it means Ctrl-C again.
    stop.store(false, Ordering::Relaxed);
    let mut findings = Findings { people, different: Vec::new(), count: 0, proven: 0 };
    daemons_word(written, end, &mut findings);
    for record in &written.records {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted while comparing".into()));
        }
        compare(stage, record, &mut findings);
    }
    nothing_else(&stage.ppu_ramdisk.join(IMAGES), written.records.len(), &mut findings);
    nothing_else(&stage.data.join(IMAGES), written.records.len(), &mut findings);

    if people == People::Error {
        output::object(&Verdict::new(board, written, end, &findings))?;
    }
    let files = written.records.len();
    if findings.count > 0 {
        return Err(Failure::Failed(format!(
            "NOT PASSED: {} of {files} files or checks failed",
            findings.count
        )));
    }
    let proven = match findings.proven {
        0 => String::new(),
        proven => format!("; {proven} stored images match their own Content-MD5"),
    };
    people.line(&format!(
        "PASSED: {files} files, {:.3} GB, identical byte for byte on detector, ramdisk and storage{proven}",
        written.summary.bytes as f64 / 1e9
    ))
}

/// The same for scripts.
#[derive(Serialize)]
struct Verdict<'a> {
    passed: bool,
    engine: &'a str,
    written: simulate::Written,
    /// From the first file's beginning until the last one was stored.
    stored_after_s: f64,
    /// From close to visible, seen by this process.
    visible_ms: Option<Latency>,
    /// From close to stored, the daemon's word.
    stored_ms: Option<Latency>,
    /// Stored images that match their own Content-MD5.
    proven: u64,
    /// What is not as it should be: how much, and the first of it, for people.
    differences: usize,
    different: &'a [String],
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl<'a> Verdict<'a> {
    fn new(board: &Board, written: &Written, end: &'a End, findings: &'a Findings) -> Self {
        let status::Percentiles { p50_us, p99_us, max_us, files } = end.status.latency.stored;
        let ms = |us: u64| us as f64 / 1e3;
        Self {
            passed: findings.count == 0,
            engine: &end.status.daemon.engine,
            written: (&written.summary).into(),
            stored_after_s: end.elapsed.as_secs_f64(),
            visible_ms: board.latency().map(|seen| Latency { p50: seen.p50, p99: seen.p99, max: seen.max }),
            stored_ms: (files > 0).then(|| Latency { p50: ms(p50_us), p99: ms(p99_us), max: ms(max_us) }),
            proven: findings.proven,
            differences: findings.count,
            different: &findings.different,
        }
    }
}

fn speed(board: &Board, written: &Written, end: &End, people: People) -> Result<(), Failure> {
    let summary = &written.summary;
    let (seconds, gb) = (summary.elapsed.as_secs_f64().max(1e-9), summary.bytes as f64 / 1e9);
    people.line(&format!(
        "written   {} files, {gb:.3} GB in {seconds:.2} s: {:.1} files/s, {:.2} GB/s",
        summary.files,
        summary.files as f64 / seconds,
        gb / seconds
    ))?;
    if summary.latest.as_secs_f64() > 0.1 {
        let behind = summary.latest.as_secs_f64();
        people.line(&format!("          (this machine fell up to {behind:.1} s behind the rate)"))?;
    }
    if host::look(0).gives_memory_back {
        people.line("          (this virtual machine gives free memory back to its host: memory is slow where it is used anew)")?;
    }
    people.line(&format!("stored    all after {:.2} s", end.elapsed.as_secs_f64()))?;
    if let Some(seen) = board.latency() {
        people.line(&format!(
            "close to visible   p50 {:8.2} ms   p99 {:8.2} ms   max {:8.2} ms   (seen by this process)",
            seen.p50, seen.p99, seen.max
        ))?;
    }
    let status::Percentiles { p50_us, p99_us, max_us, files } = end.status.latency.stored;
    if files > 0 {
        let ms = |us: u64| us as f64 / 1e3;
        people.line(&format!(
            "close to stored    p50 {:8.2} ms   p99 {:8.2} ms   max {:8.2} ms   (the daemon's word)",
            ms(p50_us),
            ms(p99_us),
            ms(max_us)
        ))?;
    }
    Ok(())
}

struct Findings {
    people: People,
    /// The first ones.
    different: Vec<String>,
    count: usize,
    /// Stored images that match their own Content-MD5.
    proven: u64,
}

impl Findings {
    fn add(&mut self, what: String) {
        self.count += 1;
        let text = match self.count {
            count if count <= NAMED_MAX => format!("DIFFERENT {what}"),
            count if count == NAMED_MAX + 1 => "DIFFERENT ... further ones are only counted".to_owned(),
            _ => return,
        };
        if self.count <= NAMED_MAX {
            self.different.push(what);
        }
        // The verdict is what counts, and it says so as well.
        let _ = self.people.line(&text);
    }
}

/// The daemon must claim exactly what is true.
fn daemons_word(written: &Written, end: &End, findings: &mut Findings) {
    let files = written.records.len() as u64;
    let counts = counts(&end.status);
    if (counts.copied, counts.failed, counts.lost, counts.pending) != (files, 0, 0, 0) {
        findings.add(format!(
            "the daemon says stored {}, pending {}, failed {}, lost {} of {files} files",
            counts.copied, counts.pending, counts.failed, counts.lost
        ));
    }
}

fn compare(stage: &Stage, record: &Record, findings: &mut Findings) {
    let Some(path) = record.rel_path() else {
        return findings.add(format!("{}: the manifest's path cannot be read", record.path));
    };
    let path = path.as_path();
    let source = match read(&stage.detector_ramdisk.join(path), record) {
        Ok(source) => source,
        Err(reason) => return findings.add(format!("on the detector: {reason}")),
    };
    if Hash::of(&source).to_string() != record.hash {
        return findings.add(format!("on the detector: {}: not what was written", record.path));
    }
    for (place, at) in [("landed", stage.landed(path)), ("stored", stage.stored(path))] {
        match read(&at, record) {
            Err(reason) => findings.add(format!("{place}: {reason}")),
            Ok(copy) if copy != source => findings.add(format!("{place}: {}: other content", record.path)),
            Ok(copy) if place == "stored" => match cbf::check(&copy) {
                Ok(cbf::Integrity::Proven) => findings.proven += 1,
                Ok(cbf::Integrity::Unsaid) | Err(cbf::CbfError::NoBinary) => {}
                Err(error) => findings.add(format!("{place}: {}: {error}", record.path)),
            },
            Ok(_) => {}
        }
    }
}

/// The content, where its modification time is the manifest's.
fn read(path: &Path, record: &Record) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let stat = fs::symlink_metadata(path).map_err(failed)?;
    if stat.mtime() * 1_000_000_000 + stat.mtime_nsec() != record.mtime_ns {
        return Err(format!("{}: other modification time", path.display()));
    }
    fs::read(path).map_err(failed)
}

/// No file beside the `files` that there must be: no remains, no partial ones.
fn nothing_else(directory: &Path, files: usize, findings: &mut Findings) {
    match count(directory) {
        Ok(found) if found == files => {}
        Ok(found) => findings.add(format!("{}: {found} files instead of {files}", directory.display())),
        Err(error) => findings.add(format!("{}: {error}", directory.display())),
    }
}

fn count(directory: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}
