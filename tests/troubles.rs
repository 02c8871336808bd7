//! SPEC 4.2: what goes wrong on a detector is a message of its PPU, once, also where the link was broken when it began and breaks again.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::{LinkState, Told};
use support::mount::run;
use support::oracle::write;
use support::proxy::Proxy;
use support::rig::{Options, Rig, free_port};
use support::{content, is_root, wait_until};

/// `chattr +i` until this is dropped: not even root can remove the file.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Self {
        run(Command::new("chattr").arg("+i").arg(&path));
        Self(path)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        run(Command::new("chattr").arg("-i").arg(&self.0));
    }
}

/// A tmpfs in a directory of a detector's ramdisk, until this is dropped.
struct Inside(PathBuf);

impl Inside {
    fn new(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at));
        Self(at)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

fn told(rig: &Rig, short: &Path) -> Vec<Told> {
    let messages = rig.status().expect("the daemon answers").messages;
    messages.into_iter().filter(|told| told.message.short == short.to_str().unwrap()).collect()
}

fn shown(rig: &Rig, short: &Path) -> bool {
    let status = rig.status().expect("the daemon answers");
    let is_it = |trouble: &ppu_uringd::model::status::Trouble| trouble.message.short == short.to_str().unwrap();
    status.detectors[0].troubles.iter().any(is_it)
}

fn is_connected(rig: &Rig) -> bool {
    rig.status().is_some_and(|status| status.detectors[0].link.state == LinkState::Connected)
}

/// The link breaks, and no new one is made until [`mend`].
fn cut(rig: &Rig, proxy: &Proxy) {
    proxy.mischief.stalled.store(true, Ordering::SeqCst);
    wait_until("the link is down", || !is_connected(rig));
}

fn mend(rig: &Rig, proxy: &Proxy) {
    proxy.mischief.stalled.store(false, Ordering::SeqCst);
    wait_until("the link is up", || is_connected(rig));
}

#[test]
fn what_began_while_the_link_was_broken_is_told_once() {
    if !is_root("what_began_while_the_link_was_broken_is_told_once") {
        return;
    }
    let via = free_port();
    let detector_extra = "release = \"stored\"".to_owned();
    let mut rig = Rig::prepare(Options { via: Some(via), detector_extra, storage: "tmpfs", storage_megabytes: 64, ..Options::default() });
    let proxy = Proxy::start_at(via, rig.ports[0]);
    // Both are there before a PPU is: the mount is met by the first listing.
    let other = rig.source(0).join("run 1/o:ther");
    let mounted = Inside::new(other.clone());
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    let short = PathBuf::from(other.to_str().unwrap().replace("o:ther", "o%3Ather"));
    wait_until("the other file system is told", || told(&rig, &short).len() == 1);
    let message = told(&rig, &short).remove(0).message;
    assert_eq!(message.code, Code::LandError);
    assert!(message.long.starts_with("Detector 0, /") && message.long.contains("Unmount it"), "{message:?}");
    let (text, code) = rig.command(&["messages"]);
    assert!(code == 0 && text.contains("LAND_ERROR") && text.contains("run 1/o%3Ather"), "{text}");
    let (text, _) = rig.command(&["status"]);
    assert!(text.contains("another file system is mounted there"), "status names it while it lasts: {text}");

    // It is stored, and while the link is away it turns out that it cannot be removed.
    let file = rig.source(0).join("run 1/a.cbf");
    rig.storage.unmount();
    write(rig.source(0), "run 1/a.cbf", &content(1, 10_000));
    wait_until("it has landed", || rig.landing(0).join("run 1/a.cbf").exists());
    let kept = Immutable::new(file.clone());
    rig.storage.mount_tmpfs("size=64m");
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("it is stored", || rig.stored(0).join("run 1/a.cbf").exists());
    let log = |rig: &Rig| rig.detectors[0].as_ref().unwrap().log();
    wait_until("the detector has met it", || log(&rig).contains("cannot be removed"));
    cut(&rig, &proxy);
    mend(&rig, &proxy);
    wait_until("the file is told", || told(&rig, &file).len() == 1);
    let message = told(&rig, &file).remove(0).message;
    assert_eq!(message.code, Code::DelError);
    assert!(message.long.starts_with("Detector 0, ") && message.long.contains("lsattr"), "{message:?}");
    assert!(file.exists());

    // Broken once more: nothing is told twice, and all that lasts is shown again.
    cut(&rig, &proxy);
    mend(&rig, &proxy);
    wait_until("both are shown again", || shown(&rig, &file) && shown(&rig, &short));
    drop(kept);
    wait_until("it is removed after all", || !file.exists());
    wait_until("and no trouble any more", || !shown(&rig, &file));
    assert!(shown(&rig, &short));
    assert_eq!((told(&rig, &file).len(), told(&rig, &short).len()), (1, 1));
    assert_eq!(told(&rig, &file)[0].count, 1);
    // It is in the journal: a new process of the PPU knows it.
    let number = told(&rig, &file)[0].number;
    rig.ppu.take().unwrap().stop();
    rig.start_ppu();
    rig.wait_linked();
    assert_eq!(told(&rig, &file).iter().map(|told| told.number).collect::<Vec<_>>(), [number]);
    drop(mounted);
    let _ = File::open(rig.source(0)).unwrap();
}
