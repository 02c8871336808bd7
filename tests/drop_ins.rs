//! The predecessors' commands (SPEC 5.7), as macros call them, against the real daemons: what they do, and their exit codes.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use ppu_uringd::model::shift_report::ShiftReport;
use support::daemon::BINARY;
use support::oracle::{check_all_stored, names, write};
use support::rig::{GID, Options, Rig, UID};
use support::{content, is_root, wait_until};

/// A script, speaking to the rig's daemons, never to a service of this machine.
fn script(rig: &Rig, name: &str, arguments: &[&str]) -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let mut command = Command::new("sh");
    command.arg(path).args(arguments).env("PPU_URINGD", BINARY);
    command.env("PPU_URINGD_CONTROL", rig.dir.path().join("control.sock"));
    command.env("PPU_URINGD_UNIT", "no-such-unit.service");
    command.env("PPU_URINGD_DETECTOR_UNIT", "no-such-unit.service");
    command.env("PPU_URINGD_DETECTOR_CONFIG", rig.detector_config(0));
    command.env("PPU_URINGD_DETECTOR_PID", rig.dir.path().join("detector.pid"));
    command.env("PPU_URINGD_DETECTOR_LOG", rig.dir.path().join("detector0.log"));
    command
}

/// What it says on both outputs; it must end with `code`.
#[track_caller]
fn ends(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    text
}

#[track_caller]
fn run(rig: &Rig, name: &str, arguments: &[&str], code: i32) -> String {
    ends(script(rig, name, arguments), code)
}

fn shifts(rig: &Rig) -> Vec<ShiftReport> {
    let mut command = Command::new(BINARY);
    command.args(["shift", "list", "--json", "--config"]).arg(rig.ppu_config());
    let answer: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    serde_json::from_value(answer["shifts"].clone()).unwrap()
}

#[test]
fn furka_begins_shifts_and_pauses_fetching() {
    if !is_root("furka_begins_shifts_and_pauses_fetching") {
        return;
    }
    let mut rig = Rig::start(Options { detectors: 2, ..Options::default() });
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    write(rig.source(0), "first", &content(1, 5000));
    check_all_stored(&rig);
    run(&rig, "furka", &["start", "-u", "500:501"], 0);
    // Long options, either order, a place for every detector, a place with a space.
    let (a, b) = (format!("0:/run 7:{ramdisk}/./a a"), format!("--detector=1:/:{ramdisk}/./b"));
    run(&rig, "furka", &["--user", "502", "restart", "--detector", &a, &b], 0);
    let told = shifts(&rig);
    let owners: Vec<_> = told.iter().map(|shift| (shift.uid, shift.gid)).collect();
    assert_eq!(owners, [(UID, GID), (500, 501), (502, 502)]);
    let places: Vec<_> = told[2].detectors.iter().map(|place| (&*place.source, &*place.target)).collect();
    assert_eq!(places, [("/run 7", &*format!("{ramdisk}/./a a")), ("/", &*format!("{ramdisk}/./b"))]);

    run(&rig, "furka", &["status"], 0);
    assert!(run(&rig, "furka", &["stop"], 0).contains("fetch is paused"));
    assert!(run(&rig, "furka", &["status"], 3).contains("ERROR   fetch is paused"));
    write(rig.source(1), "while paused", &content(2, 5000));
    wait_until("it is on offer", || rig.status().unwrap().detectors[1].backlog.files == 1);
    assert_eq!(shifts(&rig).len(), 3, "a pause is no shift");
    run(&rig, "furka", &["start", "-u", "600"], 0);
    // It is a past shift's, which leave the ramdisk.
    wait_until("fetching goes on", || rig.storage.path().join("data/b/502_502/while paused").exists());
    run(&rig, "furka", &["status"], 0);
    assert!(run(&rig, "furka", &["force-reload"], 0).contains("goes on"));
    assert_eq!(shifts(&rig).len(), 4);

    // Mistakes change nothing.
    for wrong in [
        &[][..],
        &["begin"],
        &["start", "stop"],
        &["start", "-u"],
        &["start", "-x"],
        &["stop", "-u", "500"],
        &["start", "-u", "users"],
        &["start", "-u", "0:0"],
        &["start", "-d", "1MF"],
    ] {
        let text = run(&rig, "furka", wrong, 2);
        assert!(text.to_lowercase().contains("usage") || text.contains("error"), "{wrong:?}: {text}");
    }
    run(&rig, "furka", &["start", "-d", &format!("nobody:/:{ramdisk}/x")], 1);
    assert_eq!(shifts(&rig).len(), 4);
    rig.ppu.take().unwrap().stop();
    for (action, code) in [("start", 7), ("stop", 7), ("status", 3)] {
        assert!(run(&rig, "furka", &[action], code).contains("no daemon answers"));
    }
    let mut command = script(&rig, "furka", &["start"]);
    command.env("PPU_URINGD", "no-such-program");
    assert!(ends(command, 5).contains("no-such-program is not installed"));
}

#[test]
fn grimsel_pauses_storing_and_keeps_the_shift() {
    if !is_root("grimsel_pauses_storing_and_keeps_the_shift") {
        return;
    }
    let rig = Rig::start(Options::default());
    assert!(run(&rig, "grimsel", &["stop"], 0).contains("store is paused"));
    assert!(run(&rig, "grimsel", &["status"], 3).contains("ERROR   store is paused"));
    write(rig.source(0), "a", &content(1, 5000));
    wait_until("it has landed", || names(&rig.landing(0)).len() == 1);
    assert_eq!(rig.counts().copied, 0);
    assert!(run(&rig, "grimsel", &["restart"], 0).contains("the user shift goes on"));
    assert_eq!(check_all_stored(&rig), 1);
    run(&rig, "grimsel", &["start"], 0);
    run(&rig, "grimsel", &["status"], 0);
    assert_eq!(shifts(&rig).len(), 1);
    assert!(run(&rig, "grimsel", &["start", "-u"], 2).contains("Usage"));
    // When the machine goes down, init scripts are told to stop: a pause would outlast the reboot.
    let down = rig.dir.path().join("down");
    std::fs::create_dir(&down).unwrap();
    std::fs::write(down.join("systemctl"), "#!/bin/sh\necho stopping\n").unwrap();
    std::fs::set_permissions(down.join("systemctl"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    for name in ["grimsel", "furka"] {
        let mut stop = script(&rig, name, &["stop"]);
        stop.env("PATH", format!("{}:{}", down.display(), std::env::var("PATH").unwrap()));
        assert!(ends(stop, 0).contains("the machine goes down, nothing is paused"));
        run(&rig, name, &["status"], 0);
    }
    // Who may not is told so, with the code that says it.
    std::fs::set_permissions(rig.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (name, arguments) in [("grimsel", &["stop"][..]), ("furka", &["start", "-u", "500"])] {
        let mut nobody = script(&rig, name, arguments);
        nobody.uid(65_534).gid(65_534);
        assert!(ends(nobody, 4).contains("only root"));
    }
    run(&rig, "grimsel", &["status"], 0);
}

#[test]
fn the_detectors_half_is_started_and_stopped() {
    if !is_root("the_detectors_half_is_started_and_stopped") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    run(&rig, "rsyncd_dectris", &["status"], 3);
    run(&rig, "rsyncd_dectris", &["stop"], 0);
    run(&rig, "rsyncd_dectris", &["start"], 0);
    let stop = StopsDetector(script(&rig, "rsyncd_dectris", &["stop"]));
    let first = run(&rig, "rsyncd_dectris", &["status"], 0);
    run(&rig, "rsyncd_dectris", &["start"], 0);
    assert_eq!(run(&rig, "rsyncd_dectris", &["status"], 0), first, "it ran already");
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "a", &content(1, 5000));
    check_all_stored(&rig);
    run(&rig, "rsyncd_dectris", &["restart"], 0);
    assert_ne!(run(&rig, "rsyncd_dectris", &["status"], 0), first);
    write(rig.source(0), "b", &content(2, 5000));
    assert_eq!(check_all_stored(&rig), 2, "nothing is to be restarted on the PPU");
    run(&rig, "rsyncd_dectris", &["stop"], 0);
    run(&rig, "rsyncd_dectris", &["status"], 3);

    std::fs::write(rig.detector_config(0), "ramdisk = 5").unwrap();
    assert!(run(&rig, "rsyncd_dectris", &["start"], 1).contains("ramdisk"), "its last words are shown");
    std::fs::remove_file(rig.detector_config(0)).unwrap();
    run(&rig, "rsyncd_dectris", &["start"], 6);
    run(&rig, "rsyncd_dectris", &[], 2);
    drop(stop);
}

/// Leaves no daemon behind, however the test ends.
struct StopsDetector(Command);

impl Drop for StopsDetector {
    fn drop(&mut self) {
        let _ = self.0.output();
    }
}
