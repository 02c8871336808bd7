//! Against a real file system in memory. The oracle is always the same: what the watch has told is what is there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::TempDir;

use super::*;
use crate::model::file_version::Identity;
use crate::model::path::RelPath;
use crate::model::trouble::{Trouble, What};
use crate::rooted::FileStat;

const PATIENCE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_millis(50);
/// Directories at the top that hold no images.
const OURS: [&str; 2] = [".ppu-uringd", ".ppu-uringd-tune-x"];

/// A watched directory, and what is known of it.
struct Rig {
    dir: TempDir,
    watch: Option<Watch>,
    batches: Option<Receiver<Vec<Event>>>,
    known: BTreeMap<Vec<u8>, Known>,
    scan: u32,
    scans_ended: u32,
    closes: Vec<Vec<u8>>,
    /// With how many closes before each.
    marks: Vec<(u64, usize)>,
    troubles: Vec<Trouble>,
}

struct Known {
    identity: Identity,
    scan: u32,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// `before` sees the directory before it is watched.
    fn with(before: impl FnOnce(&Path)) -> Self {
        Self::with_settings(before, |_| {})
    }

    fn with_settings(before: impl FnOnce(&Path), set: impl FnOnce(&mut Settings)) -> Self {
        let dir = in_memory();
        before(dir.path());
        let mut settings = Settings::new(dir.path().to_owned(), vec!["*.part".to_owned()]);
        settings.quiet = QUIET;
        set(&mut settings);
        let (batches, known) = (None, BTreeMap::new());
        let mut rig = Self {
            dir,
            watch: None,
            batches,
            known,
            scan: 0,
            scans_ended: 0,
            closes: Vec::new(),
            marks: Vec::new(),
            troubles: Vec::new(),
        };
        rig.start(settings);
        rig
    }

    fn start(&mut self, settings: Settings) {
        let (told, batches) = sync_channel(1);
        let watch = start(settings, move |batch| match told.send(batch) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        self.watch = Some(watch.unwrap());
        self.batches = Some(batches);
        self.until("the first scan", |rig| rig.scans_ended == 1);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes events until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            match self.batches.as_ref().unwrap().recv_timeout(left) {
                Ok(batch) => batch.into_iter().for_each(|event| self.take(event)),
                Err(_) => panic!("{what}: known are {:?}", self.names()),
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Closed { path, identity, at } => {
                assert!(at <= Instant::now());
                self.closes.push(path.as_bytes().to_vec());
                self.known.insert(path.into(), Known { identity, scan: self.scan });
            }
            Event::Found { path, identity, .. } => {
                self.known.insert(path.into(), Known { identity, scan: self.scan });
            }
            Event::Gone { path } => {
                self.known.remove(path.as_bytes());
            }
            Event::GoneBelow { directory } => {
                let below = |path: &Vec<u8>| RelPath::new(path).unwrap().below(&directory).is_some();
                self.known.retain(|path, _| !below(path));
            }
            Event::Missed | Event::ClosedUnseen { .. } | Event::Taken { .. } => {}
            Event::ScanBegins => self.scan += 1,
            Event::Mark(number) => self.marks.push((number, self.closes.len())),
            Event::MarksLost | Event::Over(_) => {}
            Event::Met(trouble) => self.troubles.push(trouble),
            Event::ScanEnds => {
                self.known.retain(|_, known| known.scan == self.scan);
                self.scans_ended += 1;
            }
        }
    }

    /// Until what is known is what is there: every name, as it is now.
    fn until_right(&mut self) {
        let there = listing(self.dir.path());
        self.until("all files as they are", |rig| {
            rig.known.len() == there.len()
                && rig
                    .known
                    .iter()
                    .zip(&there)
                    .all(|((path, known), (is, identity))| path == is && known.identity == *identity)
        });
    }

    fn names(&self) -> Vec<String> {
        self.known.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    fn skipped(&self) -> u64 {
        self.watch.as_ref().unwrap().skipped()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.batches = None;
    }
}

fn in_memory() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

/// Regular files below `root` whose names are not ignored.
fn listing(root: &Path) -> BTreeMap<Vec<u8>, Identity> {
    let mut files = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() && !OURS.map(|name| root.join(name)).contains(&path) {
                ahead.push(path);
            } else if kind.is_file() && !path.to_str().is_some_and(|path| path.ends_with(".part")) {
                let stat = FileStat::of(File::open(&path).unwrap()).unwrap();
                let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                let FileStat { size, mtime_ns, ino, ctime_ns, .. } = stat;
                files.insert(name, Identity { size, mtime_ns, ino, ctime_ns });
            }
        }
    }
    files
}

#[test]
fn tells_what_is_there_and_what_is_closed() {
    let mut rig = Rig::with(|dir| {
        fs::create_dir_all(dir.join("old/deep")).unwrap();
        fs::write(dir.join("old/deep/a"), b"1").unwrap();
        fs::write(dir.join("b"), b"22").unwrap();
    });
    rig.until_right();
    assert_eq!(rig.closes.len(), 0, "a scan sees no closes");
    fs::write(rig.path("old/deep/a"), b"333").unwrap();
    fs::write(rig.path("new"), b"4").unwrap();
    rig.until_right();
    assert_eq!(rig.closes, [&b"old/deep/a"[..], b"new"]);
}

#[test]
fn a_file_that_is_being_written_is_not_told() {
    let mut rig = Rig::new();
    let mut open = File::create(rig.path("open")).unwrap();
    open.write_all(b"half").unwrap();
    // The other file's quiet time begins later and ends: the open one's has passed by then.
    fs::write(rig.path("x"), b"").unwrap();
    fs::hard_link(rig.path("x"), rig.path("y")).unwrap();
    nameless(&rig.path("linked"), b"x");
    rig.until("the linked file", |rig| rig.known.contains_key(&b"linked"[..]));
    assert!(!rig.known.contains_key(&b"open"[..]));
    drop(open);
    rig.until("the closed file", |rig| rig.known.contains_key(&b"open"[..]));
}

#[test]
fn directories_that_appear_with_their_files() {
    let mut rig = Rig::new();
    for i in 0..50 {
        let deep = rig.path(&format!("d{i}/x/y/z"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("instant"), b"1").unwrap();
        fs::write(rig.path(&format!("d{i}/x/instant")), b"2").unwrap();
    }
    rig.until_right();
    assert_eq!(rig.known.len(), 100);
    fs::write(rig.path("d49/x/y/z/later"), b"3").unwrap();
    rig.until_right();
}

#[test]
fn full_directories_move_in_around_and_out() {
    let elsewhere = in_memory();
    let mut rig = Rig::new();
    let outside = elsewhere.path().join("run");
    fs::create_dir_all(outside.join("a/b")).unwrap();
    for name in ["f", "a/f", "a/b/f"] {
        fs::write(outside.join(name), name).unwrap();
    }
    fs::rename(&outside, rig.path("in")).unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["in/a/b/f", "in/a/f", "in/f"]);

    fs::rename(rig.path("in/a"), rig.path("moved")).unwrap();
    fs::write(rig.path("moved/b/late"), b"1").unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["in/f", "moved/b/f", "moved/b/late", "moved/f"]);
    fs::write(rig.path("moved/b/f"), b"again").unwrap();
    rig.until_right();

    fs::rename(rig.path("moved"), elsewhere.path().join("out")).unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["in/f"]);
    fs::write(elsewhere.path().join("out/b/not ours"), b"1").unwrap();
    fs::remove_dir_all(rig.path("in")).unwrap();
    rig.until_right();
}

#[test]
fn a_directory_is_exchanged_for_another() {
    let mut rig = Rig::with(|dir| {
        for name in ["a/1", "b/2"] {
            fs::create_dir(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), b"").unwrap();
        }
    });
    let (a, b) = (rig.path("a"), rig.path("b"));
    rustix::fs::renameat_with(CWD, &a, CWD, &b, rustix::fs::RenameFlags::EXCHANGE).unwrap();
    rig.until_right();
    fs::write(rig.path("a/3"), b"").unwrap();
    fs::write(rig.path("b/4"), b"").unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["a/2", "a/3", "b/1", "b/4"]);
}

#[test]
fn finish_by_rename() {
    let mut rig = Rig::new();
    fs::write(rig.path("a.part"), b"ignored").unwrap();
    fs::rename(rig.path("a.part"), rig.path("a")).unwrap();
    fs::write(rig.path("b.tmp"), b"1").unwrap();
    fs::rename(rig.path("b.tmp"), rig.path("b")).unwrap();
    fs::write(rig.path("b.tmp"), b"2").unwrap();
    fs::rename(rig.path("b.tmp"), rig.path("b")).unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["a", "b"]);
    fs::rename(rig.path("b"), rig.path("b.part")).unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["a"]);
}

#[test]
fn finish_by_link() {
    let mut rig = Rig::new();
    fs::write(rig.path("a.part"), b"hard").unwrap();
    fs::hard_link(rig.path("a.part"), rig.path("a")).unwrap();
    fs::remove_file(rig.path("a.part")).unwrap();
    nameless(&rig.path("b"), b"O_TMPFILE");
    rig.until("both", |rig| rig.known.len() == 2);
    assert_eq!(rig.names(), ["a", "b"]);
}

#[test]
fn a_linked_file_is_told_when_its_writer_is_done() {
    let mut rig = Rig::new();
    let mut writer = open_nameless(rig.dir.path());
    link(&writer, &rig.path("late"));
    // Longer than the quiet time; another file's is over meanwhile.
    nameless(&rig.path("first"), b"1");
    rig.until("the first", |rig| rig.known.contains_key(&b"first"[..]));
    assert!(!rig.known.contains_key(&b"late"[..]));
    writer.write_all(b"complete").unwrap();
    drop(writer);
    rig.until("the late one", |rig| {
        rig.known.get(&b"late"[..]).is_some_and(|known| known.identity.size == 8)
    });
}

fn nameless(path: &Path, content: &[u8]) {
    let mut file = open_nameless(path.parent().unwrap());
    file.write_all(content).unwrap();
    link(&file, path);
}

fn open_nameless(directory: &Path) -> File {
    rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap().into()
}

fn link(file: &File, path: &Path) {
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, proc, CWD, path, AtFlags::SYMLINK_FOLLOW).unwrap();
}

#[test]
fn odd_names() {
    let mut rig = Rig::new();
    let long = [b'x'; 255];
    let names: [&[u8]; 7] = [b" ", b"new\nline", b"\xff\xfe", b"colon:", b"-rf", b"%00", &long];
    for directory in names {
        let directory = rig.dir.path().join(OsStr::from_bytes(directory));
        fs::create_dir(&directory).unwrap();
        for name in names {
            fs::write(directory.join(OsStr::from_bytes(name)), name).unwrap();
        }
    }
    rig.until_right();
    assert_eq!(rig.known.len(), 49);
}

#[test]
fn links_and_devices_are_counted_and_not_followed() {
    let outside = in_memory();
    fs::write(outside.path().join("secret"), b"1").unwrap();
    let mut rig = Rig::with(|dir| {
        std::os::unix::fs::symlink(outside.path(), dir.join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, dir.join("fifo"), Mode::RUSR).unwrap();
    });
    assert_eq!(rig.skipped(), 2);
    std::os::unix::fs::symlink(outside.path().join("secret"), rig.path("another")).unwrap();
    std::os::unix::net::UnixListener::bind(rig.path("socket")).unwrap();
    fs::write(rig.path("a"), b"1").unwrap();
    rig.until_right();
    assert_eq!(rig.names(), ["a"]);
    assert_eq!(rig.skipped(), 4);
}

#[test]
fn our_own_staging_is_none_of_our_business() {
    let mut rig = Rig::with(|dir| fs::create_dir(dir.join(".ppu-uringd")).unwrap());
    fs::write(rig.path(".ppu-uringd/new-1"), b"1").unwrap();
    fs::create_dir(rig.path(".ppu-uringd-tune-x")).unwrap();
    fs::write(rig.path(".ppu-uringd-tune-x/1"), b"1").unwrap();
    for below in ["sub/.ppu-uringd", "sub/.ppu-uringd-tune-x"] {
        fs::create_dir_all(rig.path(below)).unwrap();
        fs::write(rig.path(&format!("{below}/a")), b"1").unwrap();
    }
    rig.until_right();
    assert_eq!(rig.names(), ["sub/.ppu-uringd-tune-x/a", "sub/.ppu-uringd/a"]);
}

/// FAULTS 19: nobody takes events while 20,000 files are closed, deleted, and directories moved.
#[test]
fn an_overflow_of_the_kernels_queue_loses_nothing() {
    let mut rig = Rig::with(|dir| {
        for name in ["kept/f", "deleted/f", "renamed/f"] {
            fs::create_dir(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), name).unwrap();
        }
    });
    let scans = rig.scans_ended;
    for i in 0..20_000 {
        fs::write(rig.path(&format!("kept/{i}")), b"x").unwrap();
    }
    fs::write(rig.path("kept/f"), b"rewritten").unwrap();
    fs::remove_dir_all(rig.path("deleted")).unwrap();
    fs::rename(rig.path("renamed"), rig.path("kept/renamed")).unwrap();
    rig.until("a scan", |rig| rig.scans_ended > scans);
    rig.until_right();
    fs::write(rig.path("kept/renamed/g"), b"watched").unwrap();
    rig.until_right();
}

#[test]
fn a_reconcile_catches_what_slipped() {
    let mut rig = Rig::with_settings(|_| {}, |settings| settings.reconcile = Duration::from_millis(20));
    fs::write(rig.path("a"), b"1").unwrap();
    rig.until_right();
    // truncate(2) changes a file that nobody opens, so that nobody closes it.
    nix::unistd::truncate(&rig.path("a"), 0).unwrap();
    rig.until_right();
    assert_eq!(rig.closes.len(), 1);
}

/// FAULTS 23.
#[test]
fn a_ramdisk_that_is_unmounted_and_mounted_again() {
    let place = tempfile::tempdir().unwrap();
    let Some(first) = Mount::tmpfs(place.path()) else { return };
    fs::write(place.path().join("first"), b"1").unwrap();
    let mut rig = Rig::with_settings(|_| {}, |settings| settings.ramdisk = place.path().to_owned());
    assert_eq!(rig.names(), ["first"]);
    drop(first);
    let ramdisk = rig.watch.as_ref().unwrap().ramdisk();
    assert!(matches!(ramdisk.presence(), ramdisk::Presence::Lost(_)));
    fs::write(place.path().join("below the mount point"), b"1").unwrap();
    let second = Mount::tmpfs(place.path()).unwrap();
    fs::create_dir(place.path().join("d")).unwrap();
    fs::write(place.path().join("d/second"), b"2").unwrap();
    rig.until("the second", |rig| rig.scans_ended == 2 && rig.names() == ["d/second"]);
    assert_eq!(rig.troubles.last().map(|trouble| trouble.what), Some(What::RamdiskAnew));
    fs::write(place.path().join("d/third"), b"3").unwrap();
    rig.until("the third", |rig| rig.known.contains_key(&b"d/third"[..]));
    assert!(ramdisk.root().stat(&RelPath::new(b"d/third").unwrap()).is_ok());
    drop(rig);
    drop(second);
}

/// A tmpfs that is lazily unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    /// `None` without the right to mount.
    fn tmpfs(at: &Path) -> Option<Self> {
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", at, "tmpfs", flags, c"size=16m") {
            Ok(()) => Some(Self(at.to_owned())),
            Err(rustix::io::Errno::PERM) => None,
            Err(errno) => panic!("mount: {errno}"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// FAULTS 22: in a process of its own, whose user namespace grants three watches; the second half of this test is [`too_few_watches`].
#[test]
fn without_enough_watches_everything_is_listed_again_and_again() {
    let script =
        "echo 3 > /proc/sys/user/max_inotify_watches && exec \"$0\" --exact watch::tests::too_few_watches";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
    let Ok(output) = unshare.env(TOO_FEW, "yes").output() else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.contains("unshare:") && !errors.contains("max_inotify_watches") {
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }
}

const TOO_FEW: &str = "PPU_URINGD_TEST_TOO_FEW_WATCHES";

#[test]
fn too_few_watches() {
    if std::env::var_os(TOO_FEW).is_none() {
        return;
    }
    let before = |dir: &Path| {
        for i in 0..6 {
            fs::create_dir_all(dir.join(format!("{i}/x"))).unwrap();
        }
    };
    let mut rig = Rig::with_settings(before, |settings| settings.reconcile = Duration::from_millis(50));
    for i in 0..6 {
        fs::write(rig.path(&format!("{i}/x/f")), b"1").unwrap();
    }
    rig.until_right();
    assert!(rig.closes.len() < 3, "{} closes were seen with 3 watches", rig.closes.len());
    assert!(rig.troubles.iter().all(|trouble| trouble.what == What::TooFewWatches), "{:?}", rig.troubles);
    assert!(!rig.troubles.is_empty());
    for i in 1..6 {
        fs::remove_dir_all(rig.path(&i.to_string())).unwrap();
    }
    rig.until_right();
    // Now there are enough, and the next listing takes them.
    let scans = rig.scans_ended;
    rig.until("two scans", |rig| rig.scans_ended > scans + 1);
    rig.closes.clear();
    fs::write(rig.path("0/x/f"), b"2").unwrap();
    rig.until_right();
    assert_eq!(rig.closes.len(), 1);
}

#[test]
fn a_ramdisk_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: PathBuf| {
        start(Settings::new(path, Vec::new()), |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    assert!(error(dir.path().join("missing")).contains("missing"));
    fs::write(dir.path().join("file"), b"").unwrap();
    assert!(error(dir.path().join("file")).contains("Not a directory"));
}

#[test]
fn ends_with_its_consumer_and_when_dropped() {
    let mut rig = Rig::new();
    rig.batches = None;
    fs::write(rig.path("nobody listens"), b"").unwrap();
    rig.watch = None;
    let rig = Rig::new();
    drop(rig);
}

/// A mark comes in the queue where it was made: every close is on its side, however late the watch reads. A process of its own writes: a program
/// that another test of this one starts would hold what is open at that moment, and its close would come later indeed.
#[test]
fn marks_are_in_the_order_of_closes() {
    let marks = tempfile::tempdir().unwrap();
    let mut rig = Rig::with_settings(|_| {}, |settings| settings.marks = Some(marks.path().to_owned()));
    let script = r#"r=0; while [ $r -lt 50 ]; do
        n=0; while [ $n -lt 40 ]; do echo x > "$1/$r-$n"; n=$((n+1)); done
        : > "$2/$r"; r=$((r+1))
    done"#;
    let mut writer = Command::new("sh");
    writer.args(["-c", script, "writer"]).arg(rig.dir.path()).arg(marks.path());
    assert!(writer.status().unwrap().success());
    fs::write(marks.path().join("no mark"), b"").unwrap();
    rig.until("all marks", |rig| rig.marks.len() == 50);
    let expected: Vec<(u64, usize)> = (0..50).map(|round| (round, 40 * (round as usize + 1))).collect();
    assert_eq!(rig.marks, expected);
}
