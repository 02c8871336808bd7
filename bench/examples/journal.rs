//! How the journal scales: `cargo run --release -p ppu-bench --example journal -- VERSIONS [DIRECTORY]` writes that many
//! landed and stored versions through its thread, loads them again, and prints rates, sizes and memory.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Instant;

use ppu_uringd::journal::{JournalError, News, Settings, open, start};
use ppu_uringd::model::file_version::{DetectorIndex, Hash, Identity, StorageIndex, VersionId};
use ppu_uringd::model::job::Local;
use ppu_uringd::model::path::{PathError, RelPath};
use ppu_uringd::model::record::{Record, Version};
use ppu_uringd::model::shift::ShiftId;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Records that may be on their way, as a ledger's would be bounded by its ramdisk.
const WINDOW: u64 = 100_000;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [load, dir] if load == "load" => read(Path::new(dir)),
        [versions, rest @ ..] => {
            let versions = versions.parse().unwrap_or(200_000);
            let below = rest.first().map_or_else(std::env::temp_dir, |dir| Path::new(dir).to_owned());
            let dir = tempfile::tempdir_in(below)?;
            write(dir.path(), versions)?;
            // Another process, because this one's memory still holds what the records took.
            Command::new(std::env::current_exe()?).arg("load").arg(dir.path()).status()?;
            Ok(())
        }
        [] => {
            println!("usage: journal VERSIONS [DIRECTORY]");
            Ok(())
        }
    }
}

fn settings(dir: &Path) -> Settings {
    Settings::new(dir, vec!["1MF".into()], vec!["internal".into(), "external".into()])
}

fn write(dir: &Path, versions: u64) -> Result<(), Error> {
    let journal = open(settings(dir), |count: &mut u64, _| *count += 1)?.journal;
    let (tell, news) = channel();
    let running = start(journal, move |news| drop(tell.send(news)))?;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let (mut commits, mut committed) = (0, 0);
    let mut wait_until = |sequence: u64| {
        while committed < sequence {
            let Ok(News::Committed { up_to }) = news.recv() else { break };
            committed = up_to;
            commits += 1;
        }
    };
    for number in 1..=versions {
        let stored = Record::Stored { version: VersionId(number), storage: StorageIndex(0), file: None };
        for (sequence, record) in [(2 * number - 1, landed(number)?), (2 * number, stored)] {
            if running.records.send((sequence, record)).is_err() {
                break;
            }
        }
        wait_until((2 * number).saturating_sub(WINDOW));
    }
    wait_until(2 * versions);
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("{versions} landed + stored: {seconds:.2} s, {commits} commits, {cpu:.2} s of CPU");
    let records = 2.0 * versions as f64;
    println!("  {:.0} records/s, {:.1} us of CPU a record", records / seconds, cpu * 1e6 / records);
    drop(running.records);
    drop(running.thread.join());
    let bytes = fs::metadata(dir.join("journal.db"))?.len();
    println!("  {:.0} bytes a version with two storages; RSS {} MB", bytes as f64 / versions as f64, rss());
    Ok(())
}

fn read(dir: &Path) -> Result<(), Error> {
    let before = rss();
    let begun = Instant::now();
    let opened = open(settings(dir), |count: &mut u64, _| *count += 1)?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("loaded {} live versions: {seconds:.2} s; RSS {before} -> {} MB", opened.live, rss());
    let mut journal = opened.journal;
    journal.commit(&[(1, Record::Gone { version: VersionId(1) })])?;
    drop(journal);
    let begun = Instant::now();
    open(settings(dir), |count: &mut u64, _| *count += 1)?;
    println!("after a crash, with SQLite's own check: {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn landed(number: u64) -> Result<Record, PathError> {
    let path = RelPath::new(
        format!("insulin_{:03}/run_{:04}/frame_{number:07}.cbf", number / 100_000, number / 1000).as_bytes(),
    )?;
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Ok(Record::Landed(Box::new(Version {
        version: VersionId(number),
        detector: DetectorIndex(0),
        shift: ShiftId(1_785_542_399_000),
        identity: Identity {
            size: 2_400_000 + spread % 100_000,
            mtime_ns: 1_785_542_399_000_000_000 + (number * 10_000_000) as i64,
            ino: number,
            ctime_ns: 1_785_542_399_000_000_000 + (number * 10_000_000) as i64,
        },
        settled: true,
        hash: Hash(u128::from(spread).wrapping_mul(u128::from(!spread)).to_be_bytes()),
        mode: 0o644,
        local: Local {
            ino: 1_000_000 + number,
            ctime_ns: 1_785_542_399_000_000_000 + (number * 10_000_000) as i64,
        },
        at: RelPath::new(b"1mf/500_501")?.join(&path)?,
        to: RelPath::new(b"500_501")?.join(&path)?,
        landed_ms: 1_785_542_399_000 + (number * 10) as i64,
        path,
    })))
}

/// Of this process, all threads.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the state letter: 11 and 12 are user and system time in ticks of 10 ms.
    fields.get(10).zip(fields.get(11)).map_or(0.0, |(user, system)| (user + system) / 100.0)
}

/// Of this process, MB.
fn rss() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
