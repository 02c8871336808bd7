//! Taking away against everything that users, crashes and full disks do meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::model::file_version::{Hash, Identity};
use crate::model::job::Local;
use crate::model::path::RelPath;

/// How long an attacker is given to win a race.
const ATTACK: Duration = Duration::from_millis(1500);

/// A root beside a canary that must never change, both on tmpfs.
struct Fixture {
    temp: TempDir,
    taker: Taker,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir_all(temp.path().join("root/d")).unwrap();
        fs::create_dir(temp.path().join("canary")).unwrap();
        fs::write(temp.path().join("canary/a"), "do not touch").unwrap();
        fs::write(temp.path().join("stored"), "image").unwrap();
        let taker = Taker::new(staging(&temp).into()).unwrap();
        Self { temp, taker }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join("root").join(path)
    }

    fn stored(&self) -> PathBuf {
        self.temp.path().join("stored")
    }

    fn write(&self, path: &str, content: &str) -> Local {
        fs::write(self.at(path), content).unwrap();
        local(&self.at(path))
    }

    fn take(&mut self, path: &str, expected: Expected<'_>, instead: Instead<'_>) -> Result<Taken, TakeError> {
        self.taker.take(&Taking { at: &RelPath::new(path.as_bytes()).unwrap(), expected, instead })
    }

    /// Takes away what was written as "image".
    fn evict(&mut self, path: &str, local: Local) -> Result<Taken, TakeError> {
        let stored = self.stored();
        self.take(path, image(local), Instead::Link(link(&stored)))
    }

    /// Names in staging, but for what a taker always has there.
    fn left(&self) -> Vec<String> {
        let entries = self.at(STAGING_NAME).read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("note-")).collect()
    }
}

fn staging(temp: &TempDir) -> Staging {
    Staging::open(Root::open(&temp.path().join("root")).unwrap().into()).unwrap()
}

fn local(path: &Path) -> Local {
    let meta = path.symlink_metadata().unwrap();
    Local { ino: meta.ino(), ctime_ns: meta.ctime() * 1_000_000_000 + meta.ctime_nsec() }
}

fn image(local: Local) -> Expected<'static> {
    Expected::Content { local: Some(local), size: 5, hash: Hash::of(b"image") }
}

fn link(text: &Path) -> Link<'_> {
    Link { text, mtime_ns: 1_700_000_000_123_456_789 }
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().unwrap().is_symlink()
}

#[test]
fn removed_or_replaced_by_a_link() {
    let mut fixture = Fixture::new();
    let a = fixture.write("d/a", "image");
    let b = fixture.write("d/b", "image");
    let mut reader = File::open(fixture.at("d/b")).unwrap();
    assert_eq!(fixture.take("d/a", image(a), Instead::Nothing).unwrap().bytes, 5);
    assert!(!fixture.at("d/a").exists());
    let taken = fixture.evict("d/b", b).unwrap();
    assert!(taken.bytes == 5 && taken.held.as_ref().is_some_and(StillOpen::is_held));
    assert_eq!(fs::read_link(fixture.at("d/b")).unwrap(), fixture.stored());
    assert_eq!(fs::read(fixture.at("d/b")).unwrap(), b"image", "through the link");
    assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "image", "by who had it open");
    drop(reader);
    assert!(!taken.held.unwrap().is_held());

    let stored = fixture.stored();
    assert!(matches!(fixture.evict("d/b", b), Err(TakeError::Changed)), "a link is no file");
    let elsewhere = Expected::Link(link(Path::new("/elsewhere")));
    assert!(matches!(fixture.take("d/b", elsewhere, Instead::Nothing), Err(TakeError::Changed)));
    let other_version = Expected::Link(Link { mtime_ns: 1, ..link(&stored) });
    assert!(matches!(fixture.take("d/b", other_version, Instead::Nothing), Err(TakeError::Changed)));
    let taken = fixture.take("d/b", Expected::Link(link(&stored)), Instead::Nothing).unwrap();
    assert_eq!((taken.bytes, fixture.at("d").read_dir().unwrap().count()), (0, 0));
    assert!(matches!(fixture.evict("d/b", b), Err(TakeError::Missing)));
    assert!(matches!(fixture.evict("x/b", b), Err(TakeError::Missing)));
    assert!(fixture.left().is_empty());
}

#[test]
fn only_the_file_that_is_meant() {
    let mut fixture = Fixture::new();
    let a = fixture.write("d/a", "image");
    let meta = fixture.at("d/a").metadata().unwrap();
    let identity = Identity {
        size: 5,
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        ino: a.ino,
        ctime_ns: a.ctime_ns,
    };
    for other in [
        Identity { size: 6, ..identity },
        Identity { mtime_ns: 1, ..identity },
        Identity { ino: 1, ..identity },
        Identity { ctime_ns: 1, ..identity },
    ] {
        let refused = fixture.take("d/a", Expected::Identity(other), Instead::Nothing);
        assert!(matches!(refused, Err(TakeError::Changed)), "{other:?}");
    }
    // A chmod moves the ctime, and is no change of content.
    fs::set_permissions(fixture.at("d/a"), fs::Permissions::from_mode(0o600)).unwrap();
    let refused = fixture.take("d/a", Expected::Identity(identity), Instead::Nothing);
    assert!(matches!(refused, Err(TakeError::Changed)));
    let wrong = Expected::Content { local: Some(a), size: 5, hash: Hash::of(b"other") };
    assert!(matches!(fixture.take("d/a", wrong, Instead::Nothing), Err(TakeError::Changed)));
    fixture.evict("d/a", a).unwrap();

    // The same content in another file is not what we brought; where nothing else is known it is.
    let b = fixture.write("d/b", "image");
    fixture.write("d/c", "image");
    fs::rename(fixture.at("d/c"), fixture.at("d/b")).unwrap();
    assert!(matches!(fixture.evict("d/b", b), Err(TakeError::Changed)));
    let unknown = Expected::Content { local: None, size: 5, hash: Hash::of(b"image") };
    fixture.take("d/b", unknown, Instead::Nothing).unwrap();

    for (path, make) in [("d/dir", true), ("d/link", false)] {
        match make {
            true => fs::create_dir(fixture.at(path)).unwrap(),
            false => symlink(fixture.temp.path().join("canary/a"), fixture.at(path)).unwrap(),
        }
        assert!(matches!(fixture.evict(path, local(&fixture.at(path))), Err(TakeError::Changed)), "{path}");
    }
    assert!(fixture.left().is_empty());
}

/// FAULTS 18.
#[test]
fn writers_defer_it_and_readers_do_not() {
    let mut fixture = Fixture::new();
    let a = fixture.write("d/a", "image");
    let writer = File::options().append(true).open(fixture.at("d/a")).unwrap();
    assert!(matches!(fixture.evict("d/a", a), Err(TakeError::Busy)));
    drop(writer);
    fixture.evict("d/a", a).unwrap();
    assert!(fixture.left().is_empty());
}

/// A writer opens, extends and closes the file as fast as he can: what he wrote is never lost.
#[test]
fn what_is_written_meanwhile_is_kept() {
    let mut fixture = Fixture::new();
    let (mut taken, mut refused) = (0, 0);
    let start = Instant::now();
    for round in 0_u64.. {
        if start.elapsed() > ATTACK && taken > 0 && refused > 0 || start.elapsed() > 10 * ATTACK {
            break;
        }
        let a = fixture.write("d/a", "image");
        let path = fixture.at("d/a");
        let writer = std::thread::spawn(move || {
            for _ in 0..round % 64 {
                std::hint::spin_loop();
            }
            let Ok(mut file) = File::options().append(true).open(&path) else { return false };
            file.write_all(b"+").is_ok()
        });
        let outcome = fixture.take("d/a", image(a), Instead::Nothing);
        let wrote = writer.join().unwrap();
        match &outcome {
            Ok(_) => taken += 1,
            Err(TakeError::Busy | TakeError::Changed | TakeError::Missing) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if wrote {
            assert_eq!(fs::read(fixture.at("d/a")).unwrap(), b"image+", "{outcome:?} in round {round}");
        }
        fs::remove_file(fixture.at("d/a")).ok();
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused: no race");
    assert!(fixture.left().is_empty());
}

/// A user puts other files under the name, by rename: none of them is ever lost, whatever the taker had in hand.
#[test]
fn what_takes_the_name_meanwhile_is_kept() {
    for with_link in [false, true] {
        let mut fixture = Fixture::new();
        let stored = fixture.stored();
        let stop = AtomicBool::new(false);
        let (at, mine) = (fixture.at("d/a"), fixture.at("d/mine"));
        let directory = fixture.at("d");
        std::thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return n;
                    }
                    let content = format!("user's {n}");
                    fs::write(&mine, &content).unwrap();
                    fs::rename(&mine, &at).unwrap();
                    // It may be in the taker's hands for a moment, on its way back.
                    let deadline = Instant::now() + Duration::from_secs(5);
                    while !holds(&directory, content.as_bytes()) {
                        assert!(Instant::now() < deadline, "{content} is lost");
                    }
                    for entry in directory.read_dir().unwrap().flatten() {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                0
            });
            let start = Instant::now();
            while start.elapsed() < ATTACK {
                // "image" comes under the name behind the attacker's back, as a landing would.
                fs::write(fixture.at("image"), "image").unwrap();
                // Takes no name that is taken.
                let _ = fs::hard_link(fixture.at("image"), fixture.at("d/a"));
                fs::remove_file(fixture.at("image")).unwrap();
                let expected = Expected::Content { local: None, size: 5, hash: Hash::of(b"image") };
                let instead = if with_link { Instead::Link(link(&stored)) } else { Instead::Nothing };
                let taken = fixture.take("d/a", expected, instead);
                assert!(!matches!(taken, Err(TakeError::Failed(_))), "{taken:?}");
            }
            stop.store(true, Ordering::Relaxed);
            assert!(attacker.join().unwrap() > 0);
        });
        assert!(fixture.left().is_empty(), "{:?}", fixture.left());
        assert_eq!(fs::read(&stored).unwrap(), b"image");
    }
}

/// True where a file in `directory` has this content.
fn holds(directory: &Path, content: &[u8]) -> bool {
    let mut files = directory.read_dir().unwrap().flatten().map(|entry| entry.path());
    files.any(|path| fs::read(path).is_ok_and(|found| found == content))
}

/// FAULTS 41: the parent is swapped for a link to a directory that holds a file of the same name.
#[test]
fn parents_swapped_for_links_lead_nowhere() {
    let mut fixture = Fixture::new();
    let stop = AtomicBool::new(false);
    let (d, away, canary) = (fixture.at("d"), fixture.at("away"), fixture.temp.path().join("canary"));
    let content = b"do not touch";
    let anything = Expected::Content { local: None, size: content.len() as u64, hash: Hash::of(content) };
    let stored = fixture.stored();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&d, &away).unwrap();
                symlink(&canary, &d).unwrap();
                fs::remove_file(&d).unwrap();
                fs::rename(&away, &d).unwrap();
            }
        });
        let (mut missing, mut refused) = (0, 0);
        let start = Instant::now();
        while start.elapsed() < ATTACK {
            for instead in [Instead::Nothing, Instead::Link(link(&stored))] {
                match fixture.take("d/a", anything, instead) {
                    Err(TakeError::Missing) => missing += 1,
                    Err(TakeError::Changed) => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(missing > 0 && refused > 0, "{missing} missing, {refused} refused: no race");
    });
    assert_eq!(fs::read(canary.join("a")).unwrap(), content);
}

/// What a process left that was killed in the middle, as the next one finds it.
#[test]
fn a_start_puts_back_what_was_being_taken() {
    let fixture = Fixture::new();
    let mut dead = staging(&fixture.temp);
    dead.be_another_process("dead");
    let dead = Arc::new(dead);
    let at = |name: &str| fixture.at(STAGING_NAME).join(name);
    let stored = fixture.stored();
    let note = |file: &str, ino: u64, link: bool| {
        let (note, suffix) = note::NoteFile::new(&dead).unwrap();
        let link = link.then(|| stored.to_str().unwrap().as_bytes().to_vec());
        note.write(&note::Note { at: RelPath::new(file.as_bytes()).unwrap(), ino, link }).unwrap();
        note.leave();
        at(&format!("take-{suffix}"))
    };
    // Before the move.
    let a = fixture.write("d/before", "image");
    note("d/before", a.ino, false);
    // After it.
    let b = fixture.write("d/after", "image");
    fs::rename(fixture.at("d/after"), note("d/after", b.ino, false)).unwrap();
    // Before and after an exchange.
    let c = fixture.write("d/link", "image");
    symlink(&stored, note("d/link", c.ino, true)).unwrap();
    let d = fixture.write("d/linked", "image");
    fs::rename(fixture.at("d/linked"), note("d/linked", d.ino, true)).unwrap();
    symlink(&stored, fixture.at("d/linked")).unwrap();
    // Something newer has the name.
    let e = fixture.write("d/newer", "image");
    fs::rename(fixture.at("d/newer"), note("d/newer", e.ino, true)).unwrap();
    fixture.write("d/newer", "newer");
    // Not what the note speaks of (it is older than a power cut); and no note at all.
    fs::write(note("d/stale", 1, false), "stale").unwrap();
    fs::write(at("take-dead-77"), "unknown").unwrap();

    let swept = staging(&fixture.temp).sweep().unwrap();
    assert_eq!(swept, Swept { removed: 2, put_back: 3, kept: 2 });
    for (name, content) in
        [("before", "image"), ("after", "image"), ("link", "image"), ("linked", "image"), ("newer", "newer")]
    {
        assert!(!is_link(&fixture.at("d").join(name)));
        assert_eq!(fs::read_to_string(fixture.at("d").join(name)).unwrap(), content);
    }
    let aside = fixture.at("d").read_dir().unwrap().flatten().map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.to_str().unwrap().contains("newer.~")).collect();
    assert_eq!(fs::read(&aside[0]).unwrap(), b"image");
    assert!(!fixture.at("d/stale").exists());
    assert_eq!(fs::read(at("take-dead-77")).unwrap(), b"unknown");
    // Again: nothing more happens to them, and what a living taker has in hand is left alone.
    assert_eq!(staging(&fixture.temp).sweep().unwrap(), Swept { removed: 0, put_back: 0, kept: 2 });
}

/// A daemon that was killed between the two would leave a link in staging that no note speaks of, for ever.
#[test]
fn the_note_is_written_before_the_link_is_made() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.write("d/first", "image"), fixture.write("d/second", "image"));
    fixture.evict("d/first", first).unwrap();
    // No link may be so long, so none is made.
    let text = PathBuf::from("x".repeat(5000));
    fixture.take("d/second", image(second), Instead::Link(link(&text))).unwrap_err();
    let staging = fixture.at(STAGING_NAME);
    let names = staging.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let notes: Vec<_> = names.map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].windows(8).any(|bytes| bytes == b"d/second"), "it speaks of another file");
    assert_eq!(fs::read(fixture.at("d/second")).unwrap(), b"image");
}

/// Neither a byte nor an inode is free: the first link is made from what was kept for it.
#[test]
fn a_full_file_system_can_be_relieved() {
    let Some(tmpfs) = tests::Tmpfs::new("size=1m,nr_inodes=64") else { return };
    let root = Arc::new(Root::open(tmpfs.path()).unwrap());
    let mut taker = Taker::new(Arc::new(Staging::open(root.clone()).unwrap())).unwrap();
    // Longer than what fits into an inode.
    let stored = PathBuf::from(format!("/{}", "s".repeat(200)));
    let mut files = Vec::new();
    for n in 0_u32.. {
        let path = tmpfs.path().join(n.to_string());
        let Ok(mut file) = File::create(&path) else { break };
        file.write_all(b"image").ok();
        let mut whole = file.metadata().unwrap().len() == 5;
        while n % 16 == 0 && file.write_all(&[0; 4096]).is_ok() && file.metadata().unwrap().len() < 40_000 {
            whole = false;
        }
        if whole {
            files.push((RelPath::new(n.to_string().as_bytes()).unwrap(), local(&path)));
        }
    }
    let filler = File::create(tmpfs.path().join("0"));
    if let Ok(mut filler) = filler {
        while filler.write_all(&[0; 4096]).is_ok() {}
    }
    assert_eq!((root.space().unwrap().inodes_free, root.space().unwrap().bytes_free), (0, 0));
    assert!(files.len() > 10);
    for (at, local) in &files {
        taker.take(&Taking { at, expected: image(*local), instead: Instead::Link(link(&stored)) }).unwrap();
        assert!(is_link(&tmpfs.path().join(at.as_path())));
    }
}

#[test]
fn without_rename_flags() {
    let fixture = Fixture::new();
    let mut degraded = staging(&fixture.temp);
    degraded.degrade();
    let mut taker = Taker::new(degraded.into()).unwrap();
    let a = fixture.write("d/a", "image");
    let at = RelPath::new(b"d/a").unwrap();
    let stored = fixture.stored();
    let linked = taker.take(&Taking { at: &at, expected: image(a), instead: Instead::Link(link(&stored)) });
    assert!(matches!(linked, Err(TakeError::Failed(_))), "{linked:?}");
    assert!(!is_link(&fixture.at("d/a")));
    taker.take(&Taking { at: &at, expected: image(a), instead: Instead::Nothing }).unwrap();
    assert!(!fixture.at("d/a").exists());
}
