//! How fast files leave a ramdisk: `cargo run --release -p ppu-bench --example keep -- 50000 [DIRECTORY]` makes that many files
//! (4 kB, 1000 a directory) and a journal that calls them stored, and prints how many a second are *decided* (the journal's proof) and
//! *carried out*: evicted to links, and purged. DIRECTORY: on a tmpfs; /dev/shm by default.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ppu_uringd::journal::{self, JournalError, News, Queries, Running, Unanswered};
use ppu_uringd::keep::{Ground, Keeper, Kept, Leaving, Settings, Shown, Situation, View};
use ppu_uringd::model::file_version::{DetectorIndex, Hash, Identity, StorageIndex, VersionId};
use ppu_uringd::model::job::Local;
use ppu_uringd::model::path::{PathError, RelPath};
use ppu_uringd::model::pressure::Marks;
use ppu_uringd::model::record::{Record, Version};
use ppu_uringd::model::residents::Resident;
use ppu_uringd::model::shift::{Shift, ShiftId};
use ppu_uringd::rooted::{Root, RootError, Staging};

const FILE_BYTES: usize = 4096;
/// Of the files.
const SHIFT: ShiftId = ShiftId(1_785_542_399_000);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().and_then(|files| files.parse().ok()).unwrap_or(50_000);
    let below = arguments.next().unwrap_or_else(|| "/dev/shm".to_owned());
    for repetition in 1..=3 {
        let evicted = leave(Path::new(&below), files, false)?;
        let purged = leave(Path::new(&below), files, true)?;
        println!(
            "{repetition}: decided {:.0}/s; evicted to links {:.0}/s; purged {:.0}/s ({files} files)",
            evicted.decided, evicted.carried_out, purged.carried_out
        );
    }
    Ok(())
}

struct Rates {
    decided: f64,
    carried_out: f64,
}

fn leave(below: &Path, files: u64, past: bool) -> Result<Rates, Error> {
    let dir = tempfile::tempdir_in(below)?;
    let ramdisk = dir.path().join("ramdisk");
    let versions = make(&ramdisk, files)?;
    let state = tempfile::tempdir()?;
    let running = stored(state.path(), &versions)?;
    let residents: Vec<Resident> =
        versions.iter().map(|version| Resident { version: version.version, shift: SHIFT }).collect();
    let decided = decide(&running.queries, &residents)?;
    let current = if past { ShiftId(SHIFT.0 + 1) } else { SHIFT };
    let current = Shift { id: current, uid: 1, gid: 1, user_dir: None, places: Vec::new() };
    let (sender, inbox) = channel();
    for resident in &residents {
        let _ = sender.send(*resident);
    }
    let shown = Arc::new(Shown::default());
    // Everything is too much, or nothing.
    let marks = match past {
        true => Marks { limit: 1.0, low: 0.99, almost: 1.0 },
        false => Marks { limit: 1e-12, low: 0.0, almost: 1.0 },
    };
    let begun = Instant::now();
    let keeper = Keeper::start(Settings {
        id: "bench".to_owned(),
        name: "bench".to_owned(),
        ground: Ground::ramdisk(Arc::new(Staging::open(Arc::new(Root::open(&ramdisk)?))?))?,
        marks,
        leaving: Some(Leaving {
            stored_on: vec![StorageIndex(0)],
            link_to: dir.path().join("storage"),
            create_links: true,
            queries: running.queries.clone(),
            residents: inbox,
            situation: Arc::new(Situation::new(View {
                current: Arc::new(current),
                doubtful: Vec::new(),
                room_needed: 0,
                landing: false,
            })),
        }),
        shown: Arc::clone(&shown),
        tell: Box::new(|_| ()),
        seen: Box::new(|_| ()),
    })?;
    let count = |kept: Kept| if past { kept.left.purged.files } else { kept.left.evicted.files };
    while count(shown.get()) < files {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("only {} of {files} have left", count(shown.get()))).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let carried_out = files as f64 / begun.elapsed().as_secs_f64();
    keeper.stop(PATIENCE);
    drop(running.records);
    drop(running.thread.join());
    Ok(Rates { decided, carried_out })
}

/// The files, as if they had landed.
fn make(ramdisk: &Path, files: u64) -> Result<Vec<Version>, Error> {
    let mut versions = Vec::new();
    for number in 1..=files {
        let name = format!("run_{:04}/frame_{number:07}.cbf", number / 1000);
        let at = ramdisk.join(&name);
        if let Some(directory) = at.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&at, [number as u8; FILE_BYTES])?;
        let meta = at.metadata()?;
        let path = RelPath::new(name.as_bytes())?;
        let ctime_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        versions.push(Version {
            version: VersionId(number),
            detector: DetectorIndex(0),
            shift: SHIFT,
            path: path.clone(),
            identity: Identity { size: FILE_BYTES as u64, mtime_ns: ctime_ns, ino: number, ctime_ns },
            settled: true,
            hash: Hash::of(&number.to_le_bytes()),
            mode: 0o644,
            local: Local { ino: meta.ino(), ctime_ns },
            at: path.clone(),
            to: path,
            landed_ms: SHIFT.0,
        });
    }
    Ok(versions)
}

/// A journal that calls them stored.
fn stored(dir: &Path, versions: &[Version]) -> Result<Running, Error> {
    let settings = journal::Settings::new(dir, vec!["1MF".into()], vec!["internal".into()]);
    let journal = journal::open(settings, |count: &mut u64, _| *count += 1)?.journal;
    let (tell, news) = channel();
    let running = journal::start(journal, move |news| drop(tell.send(news)))?;
    let mut last = 0;
    for version in versions {
        let stored = Record::Stored { version: version.version, storage: StorageIndex(0), file: None };
        for record in [Record::Landed(Box::new(version.clone())), stored] {
            last += 1;
            let _ = running.records.send((last, record));
        }
    }
    while news.recv().is_ok_and(|news| news != (News::Committed { up_to: last })) {}
    Ok(running)
}

/// Per second.
fn decide(queries: &Queries, residents: &[Resident]) -> Result<f64, Error> {
    let begun = Instant::now();
    let mut safe = 0;
    for page in residents.chunks(256) {
        safe += queries.safe(page.to_vec(), vec![StorageIndex(0)], PATIENCE)?.len();
    }
    if safe != residents.len() {
        return Err(io::Error::other(format!("only {safe} of {} are safe", residents.len())).into());
    }
    Ok(safe as f64 / begun.elapsed().as_secs_f64())
}
