//! Real file systems for tests: images mounted over loop devices, which can be filled, taken away and cut off.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ppu_uring::{Choice, Driver, Limits, open_engine};
use tempfile::TempDir;

use super::writer::{Settings, Writer};
use crate::model::file_version::{Hash, Identity, StorageIndex, VersionId};
use crate::model::job::{Brand, CopyJob, CopyOutcome, CopyReport, Local, Source};
use crate::model::path::RelPath;
use crate::model::shift::ShiftId;
use crate::rooted::mount::Place;
use crate::rooted::{Root, STAGING_NAME};

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Smallest: 1 MB.
    Ext4,
    /// Smallest: 300 MB.
    Xfs,
}

/// A file system in a sparse file, mounted; unmounted and gone when dropped.
pub(crate) struct LoopFs {
    kind: Kind,
    /// Holds `image` and the mount point `mount`.
    temp: TempDir,
    mountpoint: PathBuf,
    /// Mounts that still have a name, one on top of the other.
    mounts: usize,
}

impl LoopFs {
    /// `None`, and a line that says so, where we may not mount or cannot make such a file system.
    pub(crate) fn new(kind: Kind, bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: loop mounts take root");
            return None;
        }
        // In memory where possible: tests that sync every file are not for the disk's patience.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let image = std::fs::File::create(temp.path().join("image")).unwrap();
        image.set_len(bytes).unwrap();
        let mkfs = match kind {
            Kind::Ext4 => "mkfs.ext4",
            Kind::Xfs => "mkfs.xfs",
        };
        match Command::new(mkfs).arg("-q").arg(temp.path().join("image")).status() {
            Ok(status) => assert!(status.success(), "{mkfs}: {status}"),
            Err(error) => {
                eprintln!("SKIPPED: {mkfs}: {error}");
                return None;
            }
        }
        let mountpoint = temp.path().join("mount");
        std::fs::create_dir(&mountpoint).unwrap();
        let mut fs = Self { kind, temp, mountpoint, mounts: 0 };
        fs.mount();
        Some(fs)
    }

    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// `below` the mount point, guarded by it.
    pub(crate) fn place(&self, below: &str) -> Place {
        let mountpoint = Some(self.mountpoint.clone());
        Place { target: self.mountpoint.join(below), mountpoint, allow_root_fs: false }
    }

    pub(crate) fn mount(&mut self) {
        self.mount_image(&self.temp.path().join("image"));
    }

    /// Another file system takes the name, and this one is under it.
    pub(crate) fn cover_by(&mut self, other: &LoopFs) {
        run(Command::new("mount").arg("--bind").arg(&other.mountpoint).arg(&self.mountpoint));
        self.mounts += 1;
    }

    pub(crate) fn remount_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.mountpoint));
    }

    /// Others may hold it for a moment more: processes just forked by other tests, the kernel's own threads.
    pub(crate) fn unmount(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_unmount() {
            assert!(Instant::now() < deadline, "{} stays in use", self.mountpoint.display());
            std::thread::yield_now();
        }
        self.mounts -= 1;
    }

    /// False: it is in use.
    pub(crate) fn try_unmount(&self) -> bool {
        use rustix::mount::{UnmountFlags, unmount};
        unmount(&self.mountpoint, UnmountFlags::empty()).is_ok()
    }

    pub(crate) fn unmount_lazily(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.mountpoint));
        self.mounts -= 1;
    }

    /// What a power cut does: nothing that is not on the disk yet gets there, and every later call fails.
    pub(crate) fn cut_power(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mountpoint));
    }

    /// Mounts again what a power cut left. Nobody may hold anything on it any more. A test beside this one may have a mount namespace with a copy of
    /// the mount, made in between; until that ends, the file system comes back as dead as it was.
    pub(crate) fn power_on(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.unmount();
            self.mount();
            let probe = self.mountpoint.join("is it alive");
            match std::fs::write(&probe, "yes") {
                Ok(()) => return std::fs::remove_file(&probe).unwrap(),
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.mountpoint.display()),
            }
            std::thread::yield_now();
        }
    }

    fn mount_image(&mut self, image: &Path) {
        let kind = match self.kind {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        };
        run(Command::new("mount").args(["-o", "loop", "-t", kind]).arg(image).arg(&self.mountpoint));
        self.mounts += 1;
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        for _ in 0..self.mounts {
            // A failed test may still hold something open.
            let _ = Command::new("umount").arg("-l").arg(&self.mountpoint).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A ramdisk, a storage and its writer.
pub(crate) struct Rig {
    pub(crate) settings: Settings,
    pub(crate) writer: Writer,
    pub(crate) reports: Receiver<CopyReport>,
    ramdisk: TempDir,
    landed: AtomicU64,
}

/// What a test lets pass before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Rig {
    pub(crate) fn new(place: Place) -> Self {
        Self::with(place, |_| {}, |limits| open_engine(Choice::Auto, limits).map(|opened| opened.driver))
    }

    pub(crate) fn with<E: std::error::Error + Send + Sync + 'static>(
        place: Place,
        change: impl FnOnce(&mut Settings),
        open_driver: impl FnOnce(Limits) -> Result<Box<dyn Driver>, E> + Send + 'static,
    ) -> Self {
        let ramdisk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut settings = Settings {
            links_to: None,
            index: StorageIndex(3),
            id: "internal".into(),
            place,
            queue_depth: 8,
            direct: true,
            preserve_uid: true,
            preserve_gid: true,
            replace_other_shift: false,
            ramdisk: Arc::new(Root::open(ramdisk.path()).unwrap()),
            places: Arc::default(),
            handed: Arc::default(),
        };
        change(&mut settings);
        let (report, reports) = channel();
        let send = move |r| drop(report.send(r));
        let writer = Writer::start(settings.clone(), open_driver, send).unwrap();
        Self { settings, writer, reports, ramdisk, landed: AtomicU64::new(0) }
    }

    /// Below the ramdisk.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.ramdisk.path().join(path)
    }

    /// On the storage.
    pub(crate) fn stored(&self, path: &str) -> PathBuf {
        self.settings.place.target.join(path)
    }

    /// A file at `private/<to>` on the ramdisk, and its copy to `to`.
    pub(crate) fn land(&self, to: &str, content: &[u8]) -> CopyJob {
        let at = self.at("private").join(to);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        let new = self.at("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, &at).unwrap();
        let meta = at.metadata().unwrap();
        let path = RelPath::new(to.as_bytes()).unwrap();
        let local = Local { ino: meta.ino(), ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec() };
        CopyJob {
            version: VersionId(self.landed.fetch_add(1, Ordering::Relaxed)),
            storage: self.settings.index,
            from: RelPath::new(format!("private/{to}").as_bytes()).unwrap(),
            sources: vec![Source::Ramdisk(local)],
            to: path.clone(),
            brand: Arc::new(Brand {
                detector: "1MF".into(),
                shift: ShiftId(1_785_542_399_000),
                path,
                identity: Identity { size: content.len() as u64, mtime_ns: 1, ino: 2, ctime_ns: 3 },
                settled: true,
                hash: Hash::of(content),
            }),
            uid: meta.uid(),
            gid: meta.gid(),
            mode: 0o640,
            superseded: Arc::default(),
        }
    }

    pub(crate) fn copy(&self, job: &CopyJob) {
        assert!(self.writer.inlet().copy(job.clone()));
    }

    pub(crate) fn report(&self) -> CopyReport {
        self.reports.recv_timeout(PATIENCE).expect("a report")
    }

    /// Lands, copies, and says how that ended.
    pub(crate) fn store(&self, to: &str, content: &[u8]) -> CopyOutcome {
        self.outcome(&self.land(to, content))
    }

    pub(crate) fn outcome(&self, job: &CopyJob) -> CopyOutcome {
        self.copy(job);
        let report = self.report();
        assert_eq!((report.version, report.storage), (job.version, self.settings.index));
        report.outcome
    }

    /// What is left in the storage's staging directory.
    pub(crate) fn left(&self) -> usize {
        self.stored(STAGING_NAME).read_dir().unwrap().count()
    }
}

/// `len` bytes that look like no others of another length.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut state = len as u64 | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
