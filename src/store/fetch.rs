//! Reading a copy's bytes from another storage (SPEC 3.5), on a thread of its own: should that storage hang, this thread does, and the
//! writer goes on with what it has from the ramdisk.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use ppu_uring::Waker;
use rustix::io::Errno;

use super::copy::{disk_outcome, of_errno};
use super::writer::Steps;
use crate::host::priority::Priority;
use crate::model::file_version::{Hash, StorageIndex};
use crate::model::job::{CopyJob, CopyOutcome, Source};
use crate::model::path::RelPath;
use crate::rooted::Root;
use crate::rooted::mount::Place;

/// Read and written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// So many files that gave way to later shifts' are looked at under one name.
const ASIDE_MAX: usize = 8;

/// Fetches for one writer, one file after the other.
pub(super) struct Fetcher {
    wanted: Sender<Wanted>,
    fetched: Receiver<Fetched>,
}

/// What is to be fetched, and into which file.
struct Wanted {
    id: u64,
    sources: Vec<(StorageIndex, Place)>,
    at: RelPath,
    /// Of the shift that it belongs to: in its name where a later shift's file made it give way (SPEC 2.5).
    stamp: String,
    size: u64,
    hash: Hash,
    into: Arc<OwnedFd>,
}

/// A fetch that has ended; `Ok`: the file holds exactly what was wanted.
pub(super) struct Fetched {
    pub(super) id: u64,
    pub(super) result: Result<(), CopyOutcome>,
}

impl Fetcher {
    /// Starts the thread; it ends by itself some time after this is dropped.
    pub(super) fn start(storage: &str, waker: Waker, steps: Steps) -> io::Result<Self> {
        let (wanted, wants) = channel::<Wanted>();
        let (report, fetched) = channel();
        std::thread::Builder::new().name(format!("fetch {storage}")).spawn(move || {
            Priority::Later.take();
            for wanted in wants {
                let Wanted { id, .. } = wanted;
                steps.read();
                let result = fetch(&wanted, &steps);
                steps.read();
                // Closed before anybody hears of it.
                drop(wanted);
                if report.send(Fetched { id, result }).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok(Self { wanted, fetched })
    }

    /// Fills `into`, an empty file, from the first of the job's sources that has the version.
    pub(super) fn fetch(&self, id: u64, job: &CopyJob, places: &[Place], into: Arc<OwnedFd>) -> bool {
        let sources = job.sources.iter().filter_map(|source| match source {
            Source::Stored(storage) => Some((*storage, places.get(storage.index())?.clone())),
            Source::Ramdisk(_) => None,
        });
        let wanted = Wanted {
            id,
            sources: sources.collect(),
            at: job.to.clone(),
            stamp: job.brand.shift.stamp(),
            size: job.brand.identity.size,
            hash: job.brand.hash,
            into,
        };
        self.wanted.send(wanted).is_ok()
    }

    /// The next one that has ended.
    pub(super) fn fetched(&self) -> Option<Fetched> {
        self.fetched.try_recv().ok()
    }
}

/// Why one source did not do.
enum Unfit {
    /// Another may.
    Source(CopyOutcome),
    /// The file that is written is at fault.
    Target(CopyOutcome),
}

fn fetch(wanted: &Wanted, steps: &Steps) -> Result<(), CopyOutcome> {
    let mut first = None;
    for (_, place) in &wanted.sources {
        match fetch_from(wanted, place, steps) {
            Ok(()) => return Ok(()),
            Err(Unfit::Target(outcome)) => return Err(outcome),
            // That a storage cannot be read now weighs more than that another has lost its copy: there is hope.
            Err(Unfit::Source(outcome @ CopyOutcome::NotNow(_))) => first = Some(outcome),
            Err(Unfit::Source(outcome)) => first = first.or(Some(outcome)),
        }
    }
    Err(first.unwrap_or_else(|| CopyOutcome::SourceLost(format!("{} is on no other storage", wanted.at))))
}

fn fetch_from(wanted: &Wanted, place: &Place, steps: &Steps) -> Result<(), Unfit> {
    let root = place.open_as_is().map_err(|gone| Unfit::Source(CopyOutcome::NotNow(gone.0)))?;
    let under_its_name = match fetch_file(wanted, &root, &wanted.at, steps) {
        Err(Unfit::Source(CopyOutcome::SourceLost(text))) => text,
        ended => return ended,
    };
    let aside = (0..ASIDE_MAX).map_while(|nth| wanted.at.set_aside(&wanted.stamp, nth));
    for at in aside.take_while(|at| root.stat(at).is_ok()) {
        match fetch_file(wanted, &root, &at, steps) {
            Err(Unfit::Source(CopyOutcome::SourceLost(_))) => {}
            ended => return ended,
        }
    }
    Err(Unfit::Source(CopyOutcome::SourceLost(under_its_name)))
}

fn fetch_file(wanted: &Wanted, root: &Root, at: &RelPath, steps: &Steps) -> Result<(), Unfit> {
    let lost = |text: String| Unfit::Source(CopyOutcome::SourceLost(text));
    let (file, stat) = root.open_file(at).map_err(|error| match error.errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => lost(error.to_string()),
        _ => Unfit::Source(CopyOutcome::NotNow(error.to_string())),
    })?;
    let shown = || root.path().join(at.as_path()).display().to_string();
    if stat.size != wanted.size {
        return Err(lost(format!("{} has {} bytes, not {}", shown(), stat.size, wanted.size)));
    }
    let mut hasher = twox_hash::XxHash3_128::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut from = 0;
    loop {
        let count = match rustix::io::pread(&file, &mut piece, from) {
            Ok(0) => break,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(lost(format!("read {}: {errno}", shown()))),
        };
        hasher.write(&piece[..count]);
        write_all(&wanted.into, &piece[..count], from).map_err(|errno| {
            Unfit::Target(disk_outcome(of_errno(errno, format!("write the copy of {}: {errno}", shown()))))
        })?;
        from += count as u64;
        steps.read();
    }
    // The hash is over all that was read and written: it decides, whatever the file says that it is.
    let hash: Hash = hasher.finish_128().into();
    if hash != wanted.hash {
        return Err(lost(format!("{} is damaged: its hash is {hash}, not {}", shown(), wanted.hash)));
    }
    // A longer, damaged one may have been tried before.
    rustix::fs::ftruncate(&wanted.into, wanted.size)
        .map_err(|errno| Unfit::Target(of_errno(errno, format!("truncate the copy of {}: {errno}", shown()))))
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
