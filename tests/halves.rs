//! `pause` and `resume` (SPEC 5.5) against the real daemons: what stands still, through kills and restarts, and what goes on.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use ppu_uringd::model::half::Switched;
use ppu_uringd::model::message::Code;
use ppu_uringd::model::shift_report::Started;
use support::daemon::BINARY;
use support::oracle::{check_all_stored, check_sum, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

#[track_caller]
fn switch(rig: &Rig, command: &str, half: &str) -> Switched {
    let (text, code) = rig.command(&[command, "--json", half]);
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn backlog(rig: &Rig) -> u64 {
    rig.status().unwrap().detectors[0].backlog.files
}

#[test]
fn a_paused_fetch_leaves_files_on_the_detector_through_restarts() {
    if !is_root("a_paused_fetch_leaves_files_on_the_detector_through_restarts") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    write(rig.source(0), "before", &content(1, 10_000));
    check_all_stored(&rig);
    let switched = switch(&rig, "pause", "fetch");
    assert!(switched.changed && switched.kept && switched.since_ms.is_some(), "{switched:?}");
    for n in 0..20 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_until("the backlog is shown", || backlog(&rig) == 20);
    // The operator is first of all told why nothing comes.
    let (page, _) = rig.command(&["status"]);
    let first = page.lines().nth(1).unwrap();
    assert!(
        first.starts_with("ERROR   fetch is paused for ") && first.ends_with("ppu-uringd resume fetch"),
        "{page}"
    );

    rig.ppu.take().unwrap().kill();
    rig.start_ppu();
    rig.wait_linked();
    wait_until("the backlog is known again", || backlog(&rig) == 20);
    assert!(rig.ppu.as_ref().unwrap().log().contains("fetch is paused"));
    assert_eq!(rig.status().unwrap().paused.fetch_ms, switched.since_ms);
    assert!(!switch(&rig, "pause", "fetch").changed);
    // A new shift changes nothing in it, and says so.
    let (text, code) = rig.command(&["status", "--json"]);
    assert!(code == 0 && text.contains("\"fetch_ms\""), "{text}");
    let config = rig.ppu_config();
    let output =
        Command::new(BINARY).args(["shift", "start", "--json", "--config"]).arg(config).output().unwrap();
    let started: Started = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        started.warnings.iter().any(|warning| warning.contains("ppu-uringd resume fetch")),
        "{started:?}"
    );
    assert!(!rig.landing(0).join("run").exists() && rig.counts().pending == 20, "nothing came");

    assert!(switch(&rig, "resume", "fetch").kept);
    // They are a past shift's, which leave the ramdisk.
    wait_until("all are stored", || {
        let counts = rig.counts();
        (counts.copied, counts.pending) == (21, 0)
    });
    check_sum(&rig);
    assert_eq!(names(&rig.stored(0)).len(), 21);
    let codes = rig.messages();
    let about = |code| codes.iter().filter(|told| **told == (code, "fetch".to_owned())).count();
    assert_eq!((about(Code::Paused), about(Code::Resumed)), (1, 1), "{codes:?}");
}

#[test]
fn a_paused_store_lets_files_land_and_copies_none() {
    if !is_root("a_paused_store_lets_files_land_and_copies_none") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    assert!(switch(&rig, "pause", "store").kept);
    for n in 0..20 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_until("all have landed", || names(&rig.landing(0)).len() == 20);
    assert!(rig.ppu.take().unwrap().stop().success());
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(0), "another", &content(99, 10_000));
    wait_until("it has landed, too", || names(&rig.landing(0)).len() == 21);
    let status = rig.status().unwrap();
    assert_eq!((status.storages[0].pending, status.storages[0].in_flight), (21, 0));
    assert!(names(&rig.stored(0)).is_empty());
    assert!(switch(&rig, "resume", "store").changed);
    assert_eq!(check_all_stored(&rig), 21);
}

#[test]
fn only_root_may_pause_and_mistakes_are_told() {
    if !is_root("only_root_may_pause_and_mistakes_are_told") {
        return;
    }
    let rig = Rig::start(Options::default());
    let config = rig.ppu_config();
    let control = rig.dir.path().join("control.sock");
    // Others must be able to reach the socket, to hear that they may not.
    std::fs::set_permissions(rig.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for command in ["pause", "resume"] {
        let mut nobody = Command::new(BINARY);
        nobody.args([command, "fetch", "--control"]).arg(&control).uid(65_534).gid(65_534);
        let output = nobody.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("root"), "{text}");
        let output = Command::new(BINARY).args([command, "both", "--config"]).arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("write fetch (detectors to ramdisk) or store"), "{text}");
    }
    assert_eq!(rig.status().unwrap().paused, ppu_uringd::model::half::Paused::default());
}
