//! Filling the ledger at start: from the journal, compared with what is on the ramdisk (DESIGN: replay, compare, requeue).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::journal::{Journal, Opened, Origin};
use crate::model::file_version::{DetectorIndex, StorageIndex};
use crate::model::half::Half;
use crate::model::job::{Brand, Local};
use crate::model::ledger::{Copy, CopyState, Ledger, Now, Order, Settings, Tally, Version};
use crate::model::path::RelPath;
use crate::model::record::{self, LiveVersion, Record};
use crate::model::shift::Shift;
use crate::rooted::{BrandSpace, FileStat, Found, Root, hash_content};

/// A ledger that knows what the journal knows, and what landed right before a crash.
#[allow(clippy::too_many_arguments)]
pub(super) fn ledger(
    settings: Settings,
    current: &Arc<Shift>,
    is_new: bool,
    opened: &mut Opened<Vec<LiveVersion>>,
    ramdisk: &Root,
    brands: BrandSpace,
    now: Now,
) -> (Ledger, Vec<Order>) {
    let mut out = Vec::new();
    let (detectors, storages) = (settings.detectors.len(), settings.storages.len());
    let ids: Vec<Arc<str>> = settings.detectors.iter().map(|detector| Arc::clone(&detector.id)).collect();
    let began = Instant::now();
    let mut ledger = Ledger::new(settings, Arc::clone(current));
    if is_new {
        // The first record: versions that belong to it may follow.
        ledger.note(Record::Shift((**current).clone()), &mut out);
    }
    // As it was loaded, the current one may lack detectors that are new.
    for shift in opened.loaded.shifts.iter().filter(|shift| shift.id != current.id) {
        ledger.restore_shift(Arc::new(shift.clone()));
    }
    for (shift, storage, tally) in &opened.loaded.tallies {
        if storage.index() < storages {
            let record::Tally { stored, superseded, lost, .. } = *tally;
            ledger.restore_tally(*shift, *storage, Tally { stored, superseded, lost, ..Tally::default() });
        }
    }
    ledger.restore_numbers(opened.loaded.next_version);
    ledger.restore_paused(opened.loaded.paused);
    for half in Half::ALL.into_iter().filter(|half| opened.loaded.paused.since(*half).is_some()) {
        tracing::warn!("{half} is paused: {}. `ppu-uringd resume {half}` ends that", half.while_paused());
    }
    let live = std::mem::take(&mut opened.live);
    let count = live.len();
    for version in live {
        if version.version.detector.index() < detectors {
            restore(&mut ledger, version, storages, ramdisk, &mut out);
        }
    }
    let mut found = branded(&ledger, current, &opened.loaded.shifts, &ids, ramdisk, brands);
    leave_history_out(&mut found, &opened.journal);
    let adopted = adopt(&mut ledger, found, now, &mut out);
    tracing::info!(
        versions = count,
        adopted,
        ms = began.elapsed().as_millis() as u64,
        journal = ?opened.origin,
        "state restored"
    );
    if let Origin::SetAside { aside, why } = &opened.origin {
        tracing::error!(
            "the journal was damaged ({why}) and is kept as {}; a new one was begun from what is on the ramdisk",
            aside.display()
        );
    }
    (ledger, out)
}

fn restore(ledger: &mut Ledger, live: LiveVersion, storages: usize, ramdisk: &Root, out: &mut Vec<Order>) {
    let LiveVersion { version, gone, copies } = live;
    let mut states = vec![None; storages];
    for (storage, state) in copies {
        if let Some(slot) = states.get_mut(storage.index()) {
            *slot = Some(match state {
                record::CopyState::Stored => CopyState::Stored,
                record::CopyState::Superseded | record::CopyState::Lost => CopyState::Superseded,
                record::CopyState::Pending | record::CopyState::Failed { .. } => CopyState::Queued,
            });
        }
    }
    let open = states.iter().any(|state| matches!(state, None | Some(CopyState::Queued)));
    // An extra file is looked for when it is copied, and only the very file is taken then.
    let elsewhere = ledger.counts_extra(version.detector);
    let local = if open && !elsewhere { intact(ramdisk, &version) } else { Some(version.local) };
    let stored = states.iter().any(|state| matches!(state, Some(CopyState::Stored)));
    let id = version.version;
    let mut states_now = Vec::with_capacity(storages);
    for (storage, state) in states.into_iter().enumerate() {
        let state = state.unwrap_or_else(|| {
            // A storage that was added to the configuration since gets what is still on the ramdisk, or else on another storage.
            if local.is_none() && !stored {
                return CopyState::Superseded;
            }
            let storage = StorageIndex(storage as u16);
            ledger.note(Record::Requeued { version: id, storage }, out);
            CopyState::Queued
        });
        states_now.push(Copy { state, tries: 0 });
    }
    let version = Version {
        detector: version.detector,
        shift: version.shift,
        path: version.path,
        identity: version.identity,
        settled: version.settled,
        hash: version.hash,
        mode: version.mode,
        local: None,
        on_detector: !gone,
        seen: 0,
        closed: None,
        copies: states_now.into(),
    };
    ledger.restore(id, version, local, out);
}

/// The version's file on the ramdisk, if it is still that file with that content.
fn intact(ramdisk: &Root, version: &record::Version) -> Option<Local> {
    let (file, stat) = ramdisk.open_file(&version.at).ok()?;
    let local = Local { ino: stat.ino, ctime_ns: stat.ctime_ns };
    if local == version.local {
        return Some(local);
    }
    // The same inode with another ctime: a chmod or a hard link does no harm, a write does.
    let same = local.ino == version.local.ino && stat.size == version.identity.size;
    (same && hash_content(&file).ok()? == version.hash).then_some(local)
}

/// A file of ours on the ramdisk.
struct Branded {
    detector: DetectorIndex,
    brand: Brand,
    at: RelPath,
    mode: u32,
    local: Local,
}

/// The files of ours that no live version tells of, in the order in which they landed.
fn branded(
    ledger: &Ledger,
    current: &Shift,
    shifts: &[Shift],
    ids: &[Arc<str>],
    ramdisk: &Root,
    brands: BrandSpace,
) -> Vec<Branded> {
    let mut directories: Vec<Option<RelPath>> = shifts
        .iter()
        .chain([current])
        .flat_map(|shift| &shift.places)
        .map(|place| place.target.directory())
        .collect();
    directories.sort();
    directories.dedup();
    let mut all = Vec::new();
    for directory in directories {
        let walked = ramdisk.walk(directory.as_ref(), |found| {
            let Some(brand) = brands.read(&found.file) else { return };
            let Some(index) = ids.iter().position(|id| **id == *brand.detector) else { return };
            let FileStat { ino, ctime_ns, mode, .. } = found.stat;
            let local = Local { ino, ctime_ns };
            let detector = DetectorIndex(index as u16);
            if !ledger.knows(detector, &brand) && is_what_landed(&brand, &found) {
                all.push(Branded { detector, brand, at: found.path, mode: mode & 0o777, local });
            }
        });
        // A target that nothing has landed in yet does not exist.
        if let Err(error) = walked {
            tracing::debug!("{error}");
        }
    }
    // Of one path, the newest comes last, also where it lies with another user's files.
    all.sort_by_key(|branded| branded.local.ctime_ns);
    all
}

/// Nobody has written to it since: else it is not what its brand says, and must not be stored (and released on its detector) as that.
fn is_what_landed(brand: &Brand, found: &Found) -> bool {
    let FileStat { size, mtime_ns, .. } = found.stat;
    let same = size == brand.identity.size
        && (mtime_ns == brand.identity.mtime_ns || hash_content(&found.file) == Ok(brand.hash));
    if !same {
        tracing::warn!(
            "{} was changed by somebody since it landed: it is fetched again, if its detector still has it",
            found.path
        );
    }
    same
}

/// What was stored, and has left its detector, is remembered as history alone: it is not new.
fn leave_history_out(found: &mut Vec<Branded>, journal: &Journal) {
    if found.is_empty() {
        return;
    }
    let key = |branded: &Branded| (branded.detector, branded.local.ino);
    let mut by_file: HashMap<_, &Branded> = found.iter().map(|branded| (key(branded), branded)).collect();
    let read = journal.history(|version| {
        let key = (version.detector, version.local.ino);
        let is_it = |branded: &&Branded| {
            let Branded { brand, .. } = branded;
            (&brand.path, brand.shift, brand.hash) == (&version.path, version.shift, version.hash)
        };
        if by_file.get(&key).is_some_and(is_it) {
            by_file.remove(&key);
        }
    });
    if let Err(error) = read {
        tracing::error!("{error}: what is history may be stored a second time");
    }
    let new: HashSet<_> = by_file.into_keys().collect();
    found.retain(|branded| new.contains(&key(branded)));
}

/// Takes in what landed but did not get into the journal; all of it where the journal was lost.
fn adopt(ledger: &mut Ledger, found: Vec<Branded>, now: Now, out: &mut Vec<Order>) -> usize {
    let adopt = |found: Branded| {
        let Branded { detector, brand, at, mode, local } = found;
        ledger.adopt(now, detector, brand, &at, mode, local, out)
    };
    found.into_iter().map(adopt).filter(|adopted| *adopted).count()
}
