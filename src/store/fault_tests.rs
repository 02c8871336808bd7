//! The writer against disks that fail, lie, hang, and lose their power.

use std::io;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ppu_uring::{
    Choice, Done, Driver, Engine, EngineError, Entry, Fault, Faulty, Limits, Op, Refused, Waker, open_engine,
};

use super::testing::{Kind, LoopFs, Rig, content};
use crate::model::job::CopyOutcome;
use crate::rooted::FileStat;
use crate::rooted::mount::Place;

const BYTES: u64 = 320 << 20;
/// Empty, one write, through the page cache and past it, and several pieces; in a new directory, below another, and in the target itself.
const FILES: [(&str, usize); 5] =
    [("d/empty", 0), ("d/e/small", 100_001), ("large", (9 << 20) + 1), ("d/one", 1), ("d/middle", 300_001)];

fn engine(limits: Limits) -> Result<Box<dyn Driver>, EngineError> {
    open_engine(Choice::Auto, limits).map(|opened| opened.driver)
}

fn in_memory() -> (tempfile::TempDir, Place) {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let place = Place { target: temp.path().join("data"), mountpoint: None, allow_root_fs: true };
    (temp, place)
}

/// What happened to each of [`FILES`], all given at once.
fn copy_all(rig: &Rig) -> Vec<CopyOutcome> {
    let jobs: Vec<_> = FILES.iter().map(|(path, size)| rig.land(path, &content(*size))).collect();
    jobs.iter().for_each(|job| rig.copy(job));
    let mut outcomes = vec![None; FILES.len()];
    for _ in &jobs {
        let report = rig.report();
        let n = jobs.iter().position(|job| job.version == report.version).unwrap();
        assert!(outcomes[n].replace(report.outcome).is_none(), "one report each");
    }
    outcomes.into_iter().flatten().collect()
}

/// Whatever has a final name is whole, and what was called stored has one.
fn assert_whole(rig: &Rig, outcomes: &[CopyOutcome], case: &str) {
    for ((path, size), outcome) in FILES.iter().zip(outcomes) {
        match std::fs::read(rig.stored(path)) {
            Ok(found) => assert!(found == content(*size), "{case}: {path}: {} of {size} bytes", found.len()),
            Err(error) => assert_ne!(*outcome, CopyOutcome::Stored, "{case}: {path}: {error}"),
        }
    }
}

/// FAULTS 39.
#[test]
fn every_operation_fails_once() {
    let faults = [
        Fault::Error(libc_errno::EIO),
        Fault::Error(libc_errno::ENOSPC),
        Fault::Error(libc_errno::EROFS),
        Fault::Error(libc_errno::EINVAL),
        Fault::Error(libc_errno::EFAULT),
        Fault::Short,
        Fault::Cancelled,
        Fault::Late(Duration::from_millis(20)),
    ];
    let run = |nth: u64, fault: Fault| {
        let (temp, place) = in_memory();
        let seen = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&seen);
        let rig = Rig::with(
            place,
            |settings| settings.queue_depth = 2,
            move |limits| {
                let faulty = Faulty::new(engine(limits)?, nth, fault);
                *keep.lock().unwrap() = Some(faulty.seen());
                Ok::<Box<dyn Driver>, EngineError>(Box::new(faulty))
            },
        );
        let outcomes = copy_all(&rig);
        let case = format!("{fault:?} at {nth}");
        assert_whole(&rig, &outcomes, &case);
        assert_eq!(rig.left(), 0, "{case}");
        let operations = || seen.lock().unwrap().as_ref().map_or(0, |seen| seen.load(Ordering::Relaxed));
        let first = operations();
        // Files that end together share the sync of their directory: a run may have fewer operations than the
        // one that was counted, and meets its fault in the next one then.
        if nth != u64::MAX && first <= nth {
            copy_all(&rig);
            assert!(operations() > nth, "{case}: the fault never came");
        }
        // The fault is over: what was not stored is stored now.
        assert!(copy_all(&rig).iter().all(|outcome| *outcome == CopyOutcome::Stored), "{case}");
        drop(temp);
        (outcomes, first)
    };
    let (outcomes, operations) = run(u64::MAX, Fault::Short);
    assert!(operations > 8 && outcomes.iter().all(|outcome| *outcome == CopyOutcome::Stored));
    for fault in faults {
        let mut stored = 0;
        for nth in 0..operations {
            let (outcomes, _) = run(nth, fault);
            let not: Vec<_> = outcomes.iter().filter(|outcome| **outcome != CopyOutcome::Stored).collect();
            let expected = match fault {
                Fault::Error(libc_errno::ENOSPC) => not.iter().all(|o| matches!(o, CopyOutcome::Full(_))),
                Fault::Error(libc_errno::EROFS) => {
                    not.iter().all(|o| matches!(o, CopyOutcome::Unavailable(_)))
                }
                // Only the sync of a directory, which several files may share, is not made good by itself.
                Fault::Short | Fault::Late(_) => not.is_empty(),
                _ => not
                    .iter()
                    .all(|o| matches!(o, CopyOutcome::DiskError(text) if text.contains("directory"))),
            };
            assert!(expected, "{fault:?} at {nth}: {not:?}");
            stored += outcomes.len() - not.len();
        }
        assert!(stored > 0);
    }
}

/// errno values, by the name that the faults are known by.
mod libc_errno {
    pub(super) const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
    pub(super) const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
    pub(super) const EROFS: i32 = rustix::io::Errno::ROFS.raw_os_error();
    pub(super) const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
    pub(super) const EFAULT: i32 = rustix::io::Errno::FAULT.raw_os_error();
}

/// Calls `before` each operation with its number, and `after` each.
struct Watched<B, A> {
    inner: Box<dyn Driver>,
    submitted: u64,
    reaped: u64,
    before: B,
    after: A,
}

impl<B: FnMut(u64, &Op), A: FnMut(u64, &mut Done)> Driver for Watched<B, A> {
    fn submit(&mut self, chain: Vec<Entry>) -> Result<(), Refused> {
        for entry in &chain {
            (self.before)(self.submitted, &entry.op);
            self.submitted += 1;
        }
        self.inner.submit(chain)
    }
    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        self.inner.wait(at_most)
    }
    fn wait_all(&mut self) -> io::Result<()> {
        self.inner.wait_all()
    }
    fn reap(&mut self) -> Option<Done> {
        let mut done = self.inner.reap()?;
        (self.after)(self.reaped, &mut done);
        self.reaped += 1;
        Some(done)
    }
    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }
    fn room(&self) -> usize {
        self.inner.room()
    }
    fn waker(&mut self) -> io::Result<Waker> {
        self.inner.waker()
    }
    fn engine(&self) -> Engine {
        self.inner.engine()
    }
}

/// FAULTS 30.
#[test]
fn a_failed_sync_is_answered_by_a_new_file_once() {
    for (failures, stored) in [(1, true), (2, false)] {
        let (_temp, place) = in_memory();
        // tmpfs gives every new file a new inode number.
        let synced = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&synced);
        let rig = Rig::with(
            place,
            |_| {},
            move |limits| {
                let after = move |_, done: &mut Done| {
                    let Op::Sync(sync) = &done.op else { return };
                    let stat = FileStat::of(&sync.file).unwrap();
                    if stat.kind() != rustix::fs::FileType::RegularFile {
                        return;
                    }
                    let mut seen = seen.lock().unwrap();
                    seen.push(stat.ino);
                    if seen.len() <= failures {
                        done.result = Err(io::Error::from_raw_os_error(libc_errno::EIO));
                    }
                };
                let before = |_, _: &Op| {};
                let inner = engine(limits)?;
                let watched = Watched { inner, submitted: 0, reaped: 0, before, after };
                Ok::<Box<dyn Driver>, EngineError>(Box::new(watched))
            },
        );
        let outcome = rig.store("d/a", &content(50_000));
        match outcome {
            CopyOutcome::Stored => assert!(stored),
            CopyOutcome::DiskError(reason) => {
                assert!(!stored && reason.contains("sync") && reason.contains("/data/d/a"), "{reason}");
                assert!(!rig.stored("d/a").exists());
            }
            other => panic!("{other:?}"),
        }
        let synced = synced.lock().unwrap().clone();
        assert!(synced.len() == 2 && synced[0] != synced[1], "{synced:?}");
        assert_eq!(rig.left(), 0);
    }
}

/// FAULTS 34: the power goes before or after every single operation; what was called stored is there, whole.
#[test]
fn power_is_cut_at_every_step() {
    let ways = [(Kind::Xfs, true), (Kind::Ext4, true), (Kind::Xfs, false), (Kind::Ext4, false)];
    for (kind, direct) in ways {
        let Some(fs) = LoopFs::new(kind, BYTES) else { return };
        if Command::new("xfs_io").arg("-V").output().is_err() {
            eprintln!("SKIPPED: no xfs_io to cut the power with");
            return;
        }
        let fs = Arc::new(Mutex::new(fs));
        let mut cuts = 0;
        for nth in 0.. {
            let mut reached = false;
            for before in [true, false] {
                let target = format!("{nth}-{before}");
                let place = fs.lock().unwrap().place(&target);
                let cut = Arc::clone(&fs);
                let was_cut = Arc::new(Mutex::new(false));
                let note = Arc::clone(&was_cut);
                let rig = Rig::with(
                    place.clone(),
                    |settings| (settings.queue_depth, settings.direct) = (2, direct),
                    move |limits| {
                        let cut = Arc::new(move |at, now| {
                            if at == nth && now == before {
                                cut.lock().unwrap().cut_power();
                                *note.lock().unwrap() = true;
                            }
                        });
                        let also = Arc::clone(&cut);
                        let before = move |at, _: &Op| cut(at, true);
                        let after = move |at, _: &mut Done| also(at, false);
                        let inner = engine(limits)?;
                        let watched = Watched { inner, submitted: 0, reaped: 0, before, after };
                        Ok::<Box<dyn Driver>, EngineError>(Box::new(watched))
                    },
                );
                let outcomes = copy_all(&rig);
                assert!(rig.writer.stop(Duration::from_secs(20)));
                let was_cut = *was_cut.lock().unwrap();
                reached |= was_cut;
                cuts += usize::from(was_cut);
                fs.lock().unwrap().power_on();

                let when = if before { "before" } else { "after" };
                let case = format!("{kind:?}, direct {direct}: power cut {when} operation {nth}");
                let again = Rig::new(place);
                assert_whole(&again, &outcomes, &case);
                let all_stored = outcomes.iter().all(|o| *o == CopyOutcome::Stored);
                assert!(!(was_cut && before && all_stored), "{case}: nothing can be stored without power");
                assert!(
                    copy_all(&again).iter().all(|o| *o == CopyOutcome::Stored),
                    "{case}: stored after all"
                );
                assert_eq!(again.left(), 0, "{case}");
                assert!(again.writer.stop(Duration::from_secs(20)));
                std::fs::remove_dir_all(fs.lock().unwrap().mountpoint().join(target)).unwrap();
            }
            if !reached {
                break;
            }
        }
        assert!(cuts > 20, "{cuts}");
    }
}

/// FAULTS 32: the writer waits, and only the writer.
#[test]
fn a_hanging_storage_delays_nobody_at_the_end() {
    let Some(fs) = LoopFs::new(Kind::Ext4, BYTES) else { return };
    let rig = Rig::new(fs.place(""));
    assert_eq!(rig.store("a", b"a"), CopyOutcome::Stored);
    let frozen = Frozen::new(&fs);
    rig.copy(&rig.land("b", b"b"));
    assert!(rig.reports.recv_timeout(Duration::from_millis(100)).is_err());
    assert!(!rig.writer.stop(Duration::from_millis(200)), "it hangs");
    drop(frozen);
    // Its thread ends as soon as it can: nothing reports any more.
    while rig.reports.recv_timeout(super::testing::PATIENCE).is_ok() {}
}

/// A file system that takes no writes until this is dropped.
struct Frozen<'a>(&'a LoopFs);

impl<'a> Frozen<'a> {
    fn new(fs: &'a LoopFs) -> Self {
        assert!(Command::new("fsfreeze").arg("-f").arg(fs.mountpoint()).status().unwrap().success());
        Self(fs)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        assert!(Command::new("fsfreeze").arg("-u").arg(self.0.mountpoint()).status().unwrap().success());
    }
}
