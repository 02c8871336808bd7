//! The end: how fast it was, whether every byte is the same in all three places, and a verdict.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ppu_uringd::model::file_version::Hash;
use ppu_uringd::model::status;
use ppu_uringd::simulate::{Record, cbf};

use super::super::Failure;
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
) -> Result<(), Failure> {
    speed(board, written, end);
    // The end of the simulation has set it; from here on it means Ctrl-C again.
    stop.store(false, Ordering::Relaxed);
    let mut findings = Findings::default();
    daemons_word(written, end, &mut findings);
    for record in &written.records {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted while comparing".into()));
        }
        compare(stage, record, &mut findings);
    }
    nothing_else(&stage.ppu_ramdisk.join(IMAGES), written.records.len(), &mut findings);
    nothing_else(&stage.data.join(IMAGES), written.records.len(), &mut findings);

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
    println!(
        "PASSED: {files} files, {:.3} GB, identical byte for byte on detector, ramdisk and storage{proven}",
        written.summary.bytes as f64 / 1e9
    );
    Ok(())
}

fn speed(board: &Board, written: &Written, end: &End) {
    let summary = &written.summary;
    let (seconds, gb) = (summary.elapsed.as_secs_f64().max(1e-9), summary.bytes as f64 / 1e9);
    println!(
        "written   {} files, {gb:.3} GB in {seconds:.2} s: {:.1} files/s, {:.2} GB/s",
        summary.files,
        summary.files as f64 / seconds,
        gb / seconds
    );
    if summary.latest.as_secs_f64() > 0.1 {
        println!("          (this machine fell up to {:.1} s behind the rate)", summary.latest.as_secs_f64());
    }
    println!("stored    all after {:.2} s", end.elapsed.as_secs_f64());
    if let Some(seen) = board.latency() {
        println!(
            "close to visible   p50 {:8.2} ms   p99 {:8.2} ms   max {:8.2} ms   (seen by this process)",
            seen.p50, seen.p99, seen.max
        );
    }
    let status::Percentiles { p50_us, p99_us, max_us, files } = end.status.latency.stored;
    if files > 0 {
        let ms = |us: u64| us as f64 / 1e3;
        println!(
            "close to stored    p50 {:8.2} ms   p99 {:8.2} ms   max {:8.2} ms   (the daemon's word)",
            ms(p50_us),
            ms(p99_us),
            ms(max_us)
        );
    }
}

#[derive(Default)]
struct Findings {
    count: usize,
    /// Stored images that match their own Content-MD5.
    proven: u64,
}

impl Findings {
    fn add(&mut self, what: String) {
        self.count += 1;
        match self.count {
            count if count <= NAMED_MAX => println!("DIFFERENT {what}"),
            count if count == NAMED_MAX + 1 => println!("DIFFERENT ... further ones are only counted"),
            _ => {}
        }
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
