//! The journal's disk is full, read-only, hangs, or loses its power (FAULTS 50, 34), on a small ext4 of its own.
//! Needs root and loop devices; without them these tests say so and pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ppu_uringd::journal::{News, Running, open, start};
use ppu_uringd::model::file_version::{StorageIndex, VersionId};
use ppu_uringd::model::record::{LiveVersion, Record};

use crate::model::{Model, history, landed, open_sound, settings};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn full_disk() {
    let Some(disk) = Disk::new(16) else { return };
    let (running, news) = begin(&disk.state());
    let (records, models) = history(11, 4000);
    send(&running, &records[..1000]);
    wait_for(&news, 1000);

    let filler = disk.mount.join("filler");
    fill(&filler);
    send(&running, &records[1000..]);
    let text = wait_for_trouble(&news);
    assert!(text.contains("full") || text.contains("space"), "{text}");
    // What was committed on the last free pages stays; the rest is not called committed.
    let stuck = news.try_iter().filter(|news| matches!(news, News::Committed { up_to: 4000 })).count();
    assert_eq!(stuck, 0);

    fs::remove_file(&filler).unwrap();
    wait_for_healed(&news);
    wait_for(&news, 4000);
    end(running);
    assert_eq!(open_sound(&disk.state()).1, models[4000].known());
}

#[test]
fn read_only_disk() {
    let Some(disk) = Disk::new(16) else { return };
    let (running, news) = begin(&disk.state());
    let (records, models) = history(12, 200);
    send(&running, &records[..100]);
    wait_for(&news, 100);

    // An open file does not allow a remount; a shut down file system refuses every write just so.
    disk.shut_down();
    send(&running, &records[100..]);
    let text = wait_for_trouble(&news);
    assert!(text.contains("journal"), "{text}");
    end(running);
    assert!(!news.try_iter().any(|news| matches!(news, News::Committed { .. })));

    // The file system's own log can only be replayed writable.
    disk.remount("rw");
    disk.remount("ro");
    let refused = open(settings(&disk.state()), Vec::<LiveVersion>::push);
    // It may be readable or not, but it is never set aside for that.
    if let Err(refused) = refused {
        assert!(!refused.is_damage(), "{refused}");
    }
    disk.remount("rw");
    let known = open_sound(&disk.state()).1;
    assert!(models[..=100].iter().any(|model| model.known() == known));
}

#[test]
fn hanging_disk() {
    let Some(disk) = Disk::new(16) else { return };
    let (running, news) = begin(&disk.state());
    let (records, models) = history(13, 3000);
    send(&running, &records[..1000]);
    wait_for(&news, 1000);

    let frozen = disk.freeze();
    let begun = Instant::now();
    send(&running, &records[1000..]);
    assert!(begun.elapsed() < Duration::from_secs(1), "the ledger was held up");
    let text = wait_for_trouble(&news);
    assert!(text.contains("not answered"), "{text}");
    drop(frozen);
    wait_for_healed(&news);
    wait_for(&news, 3000);
    end(running);
    assert_eq!(open_sound(&disk.state()).1, models[3000].known());
}

/// The end does not wait for a disk that hangs.
#[test]
fn the_end_with_a_hanging_disk() {
    let Some(disk) = Disk::new(16) else { return };
    let (running, news) = begin(&disk.state());
    send(&running, &[(1, landed(1, 1, 1))]);
    wait_for(&news, 1);
    let frozen = disk.freeze();
    let stored = Record::Stored { version: VersionId(1), storage: StorageIndex(0), file: None };
    send(&running, &[(2, stored)]);
    let begun = Instant::now();
    end(running);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    drop(frozen);
}

/// Power fails right after *stored* was committed.
#[test]
fn stored_survives_a_power_cut() {
    for journaled in [false, true] {
        let Some(disk) = Disk::new(16) else { return };
        let (running, news) = begin(&disk.state());
        let mut model = Model::default();
        for number in 1..=20 {
            let version = VersionId(number);
            let stored = Record::Stored { version, storage: StorageIndex(0), file: None };
            let batch = [(2 * number - 1, landed(number, number as u16, 0)), (2 * number, stored)];
            batch.iter().for_each(|(_, record)| model.apply(record));
            send(&running, &batch);
            wait_for(&news, 2 * number);
        }
        if journaled {
            disk.shut_down_with_log();
        } else {
            disk.shut_down();
        }
        end(running);
        disk.remount("rw");
        assert_eq!(open_sound(&disk.state()).1, model.known());
    }
}

fn begin(state_dir: &Path) -> (Running, Receiver<News>) {
    let (journal, _) = open_sound(state_dir);
    let (tell, news) = channel();
    // The receiver may be gone before the journal has ended.
    (start(journal, move |news| drop(tell.send(news))).unwrap(), news)
}

fn send(running: &Running, records: &[(u64, Record)]) {
    for record in records {
        running.records.send(record.clone()).unwrap();
    }
}

fn end(running: Running) {
    drop(running.records);
    running.thread.join().unwrap();
}

fn wait_for(news: &Receiver<News>, sequence: u64) {
    let reached = |news| matches!(news, News::Committed { up_to } if up_to >= sequence);
    while !reached(news.recv_timeout(PATIENCE).unwrap()) {}
}

fn wait_for_healed(news: &Receiver<News>) {
    assert_eq!(news.recv_timeout(PATIENCE).unwrap(), News::Healed);
}

fn wait_for_trouble(news: &Receiver<News>) -> String {
    loop {
        if let News::Trouble(text) = news.recv_timeout(PATIENCE).unwrap() {
            return text;
        }
    }
}

/// Takes every free block.
fn fill(filler: &Path) {
    let file = fs::File::create(filler).unwrap();
    for size in [1 << 20, 4096, 1] {
        while (&file).write_all_of(size) {}
    }
}

trait WriteAllOf {
    fn write_all_of(&mut self, size: usize) -> bool;
}

impl WriteAllOf for &fs::File {
    fn write_all_of(&mut self, size: usize) -> bool {
        use std::io::Write;
        self.write_all(&vec![b'x'; size]).is_ok() && self.sync_all().is_ok()
    }
}

/// A small ext4 on a loop device.
struct Disk {
    _dir: tempfile::TempDir,
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new(megabytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self { image: dir.path().join("image"), mount: dir.path().join("mount"), _dir: dir };
        fs::create_dir(&disk.mount).unwrap();
        fs::File::create(&disk.image).unwrap().set_len(megabytes << 20).unwrap();
        if !run(
            "mkfs.ext4",
            &[
                "-q".as_ref(),
                "-O".as_ref(),
                "^resize_inode".as_ref(),
                "-m".as_ref(),
                "0".as_ref(),
                &disk.image,
            ],
        ) || !disk.mount("rw")
        {
            eprintln!("no ext4 on a loop device here (root needed): this test did nothing");
            return None;
        }
        fs::create_dir(disk.state()).unwrap();
        Some(disk)
    }

    fn state(&self) -> PathBuf {
        self.mount.join("state")
    }

    fn mount(&self, mode: &str) -> bool {
        run("mount", &["-o".as_ref(), format!("loop,{mode}").as_ref(), &self.image, &self.mount])
    }

    /// The file system as it is after a power cut: what was not synced is lost.
    fn shut_down(&self) {
        assert!(run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), &self.mount]));
    }

    /// As [`Self::shut_down`], but the file system's own log is written first.
    fn shut_down_with_log(&self) {
        assert!(run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown -f".as_ref(), &self.mount]));
    }

    fn remount(&self, mode: &str) {
        let begun = Instant::now();
        while !run("umount", &[&self.mount]) {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert!(self.mount(mode));
    }

    fn freeze(&self) -> Frozen {
        assert!(run("fsfreeze", &["-f".as_ref(), &self.mount]));
        Frozen(self.mount.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), &self.mount]);
    }
}

/// Thaws when dropped.
struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &["-u".as_ref(), &self.0]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}
