//! What people get wrong: one clear line, exit code 2 for the configuration, nothing started, nothing lost.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use ppu_uringd::model::status::LinkState;
use support::daemon::BINARY;
use support::oracle::{check_all_stored, write};
use support::rig::{Options, Rig};
use support::{is_root, wait_until};

fn start(role: &str, config: &Path) -> Output {
    Command::new("timeout").args(["20", BINARY, role, "--config"]).arg(config).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Replaces `from` by `to` in the PPU's configuration; the daemon must refuse with all of `words` and `code`.
#[track_caller]
fn refused(rig: &Rig, from: &str, to: &str, code: i32, words: &[&str]) {
    let good = std::fs::read_to_string(rig.ppu_config()).unwrap();
    assert!(good.contains(from), "{from} is not in the configuration");
    let bad = rig.dir.path().join("bad.toml");
    std::fs::write(&bad, good.replacen(from, to, 1)).unwrap();
    let output = start("ppu", &bad);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{to}: {error}");
    for word in words {
        assert!(error.contains(word), "{to}: no {word:?} in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
    if code == 2 {
        let output = Command::new(BINARY).args(["config", "check", "--config"]).arg(&bad).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "config check says the same");
    }
}

#[test]
fn configuration_mistakes() {
    if !is_root("configuration_mistakes") {
        return;
    }
    let rig = Rig::prepare(Options { detectors: 2, ..Options::default() });
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    refused(&rig, "uid =", "udi =", 2, &["bad.toml:", "udi"]);
    refused(&rig, "uid = 12345", "uid = -1", 2, &["bad.toml:", "uid"]);
    refused(&rig, "uid = 12345", "uid = 0", 2, &["uid"]);
    refused(&rig, "uid = 12345", "uid = ", 2, &["bad.toml:"]);
    refused(&rig, "streams = 2", "streams = 0", 2, &["streams"]);
    refused(&rig, "kind = \"internal\"", "kind = \"optional\"", 2, &["internal"]);
    refused(&rig, "kind = \"internal\"", "kind = \"spare\"", 2, &["kind", "spare"]);
    refused(&rig, "/./d1\"", "/./d0\"", 2, &["target"]);
    refused(&rig, "/./d1\"", "/./d0/nested\"", 2, &["target"]);
    refused(
        &rig,
        &format!("target = \"{ramdisk}/./d0\""),
        "target = \"/elsewhere\"",
        2,
        &["target", "ramdisk"],
    );
    refused(&rig, "id = \"1\"", "id = \"0\"", 2, &["id"]);
}

#[test]
fn the_machine_is_not_as_configured() {
    if !is_root("the_machine_is_not_as_configured") {
        return;
    }
    let rig = Rig::prepare(Options::default());
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    refused(&rig, &ramdisk, "/no/such/ramdisk", 2, &["ramdisk"]);
    let key = rig.dir.path().join("key").display().to_string();
    refused(&rig, &key, "/no/such/key", 1, &["key_file", "/no/such/key"]);

    let taken = std::net::TcpListener::bind(("127.0.0.1", rig.ports[0])).unwrap();
    let output = start("detector", &rig.detector_config(0));
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&rig.ports[0].to_string()) && error.contains("use"), "{error}");
    drop(taken);

    let good = std::fs::read_to_string(rig.detector_config(0)).unwrap();
    let bad = rig.dir.path().join("bad_detector.toml");
    let source = rig.source(0).display().to_string();
    std::fs::write(&bad, good.replace(&source, "/no/such/ramdisk")).unwrap();
    let output = start("detector", &bad);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("/no/such/ramdisk"), "{}", stderr(&output));
}

#[test]
fn a_wrong_key_is_told_and_cured_without_losing_a_file() {
    if !is_root("a_wrong_key_is_told_and_cured_without_losing_a_file") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let other = rig.dir.path().join("other-key");
    std::fs::write(&other, "another key\n").unwrap();
    let good = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let key = rig.dir.path().join("key").display().to_string();
    std::fs::write(rig.ppu_config(), good.replace(&key, &other.display().to_string())).unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    write(rig.source(0), "a", b"waits");
    wait_until("the refusal is shown", || {
        rig.status().is_some_and(
            |status| matches!(&status.detectors[0].link.state, LinkState::Refused { reason } if reason.contains("key")),
        )
    });
    assert!(rig.ppu.take().unwrap().stop().success());
    std::fs::write(rig.ppu_config(), good).unwrap();
    rig.start_ppu();
    assert_eq!(check_all_stored(&rig), 1);
}

/// What only costs speed is said at start, and by `config check`, and is no fault.
#[test]
fn a_slow_machine_is_told_so() {
    if !is_root("a_slow_machine_is_told_so") {
        return;
    }
    let rig =
        Rig::start(Options { ppu_ramdisk: "size=64m", detector_ramdisk: "size=64m", ..Options::default() });
    let cure = format!("mount -o remount,huge=within_size {}", rig.ppu_ramdisk.path().display());
    let (page, code) = rig.command(&["status"]);
    assert_eq!(code, 0, "{page}");
    assert!(page.lines().any(|line| line.starts_with("ADVICE") && line.ends_with(&cure)), "{page}");
    assert!(page.contains("All well."), "{page}");
    assert!(rig.ppu.as_ref().unwrap().log().contains(&cure));
    let detector = rig.detectors[0].as_ref().unwrap().log();
    assert!(
        detector.contains(&format!("remount,huge=within_size {}", rig.source(0).display())),
        "{detector}"
    );
    let output = Command::new(BINARY).args(["config", "check", "--host"]).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    let output = Command::new(BINARY).args(["config", "check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn no_daemon_no_status() {
    let output =
        Command::new(BINARY).args(["status", "--control", "/no/such/control.sock"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/control.sock"), "{}", stderr(&output));
    assert!(stderr(&output).contains("running"), "{}", stderr(&output));
}

#[test]
fn help_teaches() {
    for (args, words) in [
        (vec!["--help"], vec!["demo", "status", "detector", "ppu"]),
        (vec!["detector", "--help"], vec!["--config", "detector.toml"]),
        (vec!["ppu", "--help"], vec!["--config", "ppu.toml"]),
        (vec!["demo", "--help"], vec!["--replay"]),
        (vec!["status", "--help"], vec!["--json"]),
    ] {
        let output = Command::new(BINARY).args(&args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in words {
            assert!(help.contains(word), "{args:?}: no {word:?} in: {help}");
        }
    }
}
