//! SPEC 4.2: what goes wrong on a detector is a message of its PPU, once, also where the link was broken when it began and breaks again.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::{LinkState, Told};
use ppu_uringd::model::trouble::{About, Matter, Text};
use ppu_uringd::wire::control::{FromDetector, Heartbeat, Report};
use ppu_uringd::wire::frame::encode;
use support::impostor::let_in;
use support::mount::run;
use support::oracle::write;
use support::proxy::Proxy;
use support::rig::{Options, Rig, free_port};
use support::{content, is_root, wait_until};

/// `chattr +i` of a directory, until this is dropped: not even root can remove a file from it.
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

/// What was told of a file, or of the detector.
fn told(rig: &Rig, short: &str) -> Vec<Told> {
    let messages = rig.status().expect("the daemon answers").messages;
    let wanted = |told: &Told| told.message.short == short && told.message.code != Code::DetectorLink;
    messages.into_iter().filter(wanted).collect()
}

/// Status says that it lasts.
fn shown(rig: &Rig, short: &str) -> bool {
    let status = rig.status().expect("the daemon answers");
    status.detectors[0].troubles.iter().any(|trouble| trouble.message.short == short)
}

fn is_connected(rig: &Rig) -> bool {
    rig.status().is_some_and(|status| status.detectors[0].link.state == LinkState::Connected)
}

/// The link breaks, and no new one is made until [`mend`].
fn cut(rig: &Rig, proxy: &Proxy) {
    proxy.mischief.stalled.store(true, Ordering::SeqCst);
    run(Command::new("ss").args(["-K", "dport", "=", &proxy.port.to_string()]));
    wait_until("the link is down", || !is_connected(rig));
}

fn mend(rig: &Rig, proxy: &Proxy) {
    proxy.mischief.stalled.store(false, Ordering::SeqCst);
    wait_until("the link is up", || is_connected(rig));
}

#[test]
fn what_goes_wrong_on_a_detector_while_the_link_is_broken_is_told_once() {
    if !is_root("what_goes_wrong_on_a_detector_while_the_link_is_broken_is_told_once") {
        return;
    }
    let via = free_port();
    let mut rig = Rig::prepare(Options {
        via: Some(via),
        detector_extra: "release = \"stored\"".to_owned(),
        storage: "tmpfs",
        storage_megabytes: 64,
        ..Options::default()
    });
    let proxy = Proxy::start_at(via, rig.ports[0]);
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    let log = |rig: &Rig| rig.detectors[0].as_ref().unwrap().log();

    // Something that has happened.
    cut(&rig, &proxy);
    rig.detector_ramdisks[0].mount_tmpfs("size=64m");
    wait_until("the detector has noticed", || log(&rig).contains("its ramdisk was mounted anew"));
    assert_eq!(told(&rig, "0"), []);
    mend(&rig, &proxy);
    wait_until("it is told", || !told(&rig, "0").is_empty());
    let first = told(&rig, "0").remove(0);
    assert_eq!((first.message.code, first.count), (Code::LandError, 1));
    assert!(first.message.long.starts_with("Detector 0: its ramdisk was mounted anew: /"), "{first:?}");

    // Something that lasts: a file is stored and cannot be removed.
    let name = "run 1/a:b.cbf";
    let path = rig.source(0).join(name);
    let short = path.to_str().unwrap().replace("a:b", "a%3Ab");
    rig.storage.unmount();
    write(rig.source(0), name, &content(1, 10_000));
    wait_until("it has landed", || rig.landing(0).join(name).exists());
    let kept = Immutable::new(path.parent().unwrap().to_owned());
    rig.storage.mount_tmpfs("size=64m");
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("it is stored", || rig.stored(0).join(name).exists());
    wait_until("the detector has met it", || log(&rig).contains("cannot be removed"));
    cut(&rig, &proxy);
    mend(&rig, &proxy);
    wait_until("it is told", || !told(&rig, &short).is_empty());
    let second = told(&rig, &short).remove(0);
    assert_eq!((second.message.code, second.count), (Code::DelError, 1));
    assert!(
        second.message.long.starts_with(&format!("Detector 0, {short}: it is safe on the PPU")),
        "{second:?}"
    );
    assert!(
        second.message.long.contains("Operation not permitted") && second.message.long.contains("lsattr")
    );
    let (text, _) = rig.command(&["messages"]);
    assert!(text.contains(&format!("DEL_ERROR {short}\n")), "{text}");
    let (text, _) = rig.command(&["status"]);
    assert!(text.contains("cannot be removed from the detector's ramdisk"), "{text}");
    assert!(path.exists());

    // Broken once more: what lasts is shown again.
    cut(&rig, &proxy);
    assert!(!shown(&rig, &short), "nobody knows now");
    mend(&rig, &proxy);
    wait_until("it is shown again", || shown(&rig, &short));
    drop(kept);
    wait_until("it is removed after all", || !path.exists());
    wait_until("and is no trouble any more", || !shown(&rig, &short));

    // A PPU that ends tells whatever it has only counted until then: nothing came twice.
    rig.ppu.take().unwrap().stop();
    rig.start_ppu();
    rig.wait_linked();
    assert_eq!(told(&rig, "0"), [first]);
    assert_eq!(told(&rig, &short), [second]);
}

#[test]
fn a_detector_that_complains_without_end_fills_neither_journal_nor_status() {
    if !is_root("a_detector_that_complains_without_end_fills_neither_journal_nor_status") {
        return;
    }
    let options = Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() };
    let mut rig = Rig::prepare(options);
    let listener = TcpListener::bind(("127.0.0.1", rig.ports[0])).unwrap();
    rig.start_ppu();
    let mut control = let_in(&listener);
    let _data = [let_in(&listener), let_in(&listener)];
    let mut frames = Vec::new();
    for number in 1..=5_000_u64 {
        let about = About::try_from(format!("/ramdisk/{number}\x1b[2J").into_bytes()).unwrap();
        let text = Text::cut(&"\u{202e}it is wrong\n".repeat(100));
        let report = Report {
            life: number / 1000,
            number,
            us_ago: u64::MAX,
            matter: Matter::CannotLand,
            about,
            text,
            lasts: true,
        };
        frames.extend(encode(&FromDetector::Trouble(report)).unwrap());
    }
    let beat = Heartbeat { skipped: 77, ..Heartbeat::default() };
    frames.extend(encode(&FromDetector::Heartbeat(beat)).unwrap());
    control.write_all(&frames).unwrap();
    wait_until("all was heard", || rig.status().is_some_and(|status| status.detectors[0].skipped == 77));
    let status = rig.status().unwrap();
    assert_eq!(status.detectors[0].link.state, LinkState::Connected, "its images go on");
    assert!(status.detectors[0].troubles.len() <= 101, "{}", status.detectors[0].troubles.len());
    assert!(status.problems.len() < 10, "{:?}", status.problems);
    let (text, code) = rig.command(&["messages"]);
    assert_eq!(code, 0);
    assert!(text.contains("LAND_ERROR /ramdisk/1%1B[2J\n"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    // What was only counted so far is told at the end.
    rig.ppu.take().unwrap().stop();
    rig.start_ppu();
    wait_until("it answers", || rig.status().is_some());
    let messages = rig.status().unwrap().messages;
    let told = messages.iter().filter(|told| told.message.code == Code::LandError);
    let (lines, sum) = told.fold((0, 0), |(lines, sum), told| (lines + 1, sum + told.count));
    assert!(lines < 30 && (90..=101).contains(&sum), "{lines} lines for {sum} messages: {messages:?}");
}
