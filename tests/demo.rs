//! `ppu-uringd demo`: everything at work, as a newcomer starts it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Much longer than a demo of a few files takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn demo(disk: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppu-uringd"));
    command.arg("demo").arg("--disk").arg(disk).args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

fn passed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn passes_and_leaves_nothing() {
    let disk = tempfile::tempdir().unwrap();
    let said = passed(&demo(disk.path(), &["--files=60", "--rate=100", "--size=100kB"]).output().unwrap());
    assert!(said.contains("PASSED: 60 files"), "{said}");
    assert!(said.contains("60 stored images match their own Content-MD5"), "{said}");
    for word in ["ramdisks ", "storage ", "close to visible   p50", "close to stored    p50"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    assert!(!ramdisks(&said).exists());
}

#[test]
fn replays_odd_files() {
    let (disk, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(source.path().join("a b/c")).unwrap();
    fs::write(source.path().join("a b/c/new\nline"), "x").unwrap();
    fs::write(source.path().join("empty"), "").unwrap();
    fs::write(source.path().join("large"), vec![7; 20_000_000]).unwrap();
    let replay = source.path().to_str().unwrap();
    let said = passed(&demo(disk.path(), &["--replay", replay, "--rate=0"]).output().unwrap());
    assert!(said.contains("PASSED: 3 files"), "{said}");
}

#[test]
fn an_interrupt_ends_the_daemons_and_removes_everything() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let disk = tempfile::tempdir().unwrap();
        let mut command = demo(disk.path(), &["--files=100000", "--rate=50", "--size=20kB"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        lines.find(|line| line.as_ref().unwrap().contains("closed")).unwrap().unwrap();
        let daemons = children(&child);
        assert_eq!(daemons.len(), 2, "{daemons:?}");

        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        wait_for("the demo's end", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(1));
        for daemon in daemons {
            assert!(kill(daemon, None).is_err(), "{daemon} still runs");
        }
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
        assert!(!ramdisks(&first).exists());
    }
}

#[test]
fn the_daemons_do_not_outlive_a_demo_that_is_killed() {
    let disk = tempfile::tempdir().unwrap();
    let mut command = demo(disk.path(), &["--files=100000", "--rate=50", "--size=20kB"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    lines.find(|line| line.as_ref().unwrap().contains("closed")).unwrap().unwrap();
    let daemons = children(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    for daemon in daemons {
        wait_for("a daemon's end", || !runs(daemon));
    }
    fs::remove_dir_all(ramdisks(&first)).unwrap();
}

#[test]
fn a_daemon_that_dies_is_named_with_its_log() {
    let disk = tempfile::tempdir().unwrap();
    let mut command = demo(disk.path(), &["--files=100000", "--rate=50", "--size=20kB"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("closed")).unwrap().unwrap();
    kill(children(&child)[0], Signal::SIGKILL).unwrap();
    // Read on, or the demo waits for room in the pipe.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("daemon ended by itself") && said.contains("last lines of the"), "{said}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}

#[test]
fn keep_leaves_configurations_and_logs() {
    let disk = tempfile::tempdir().unwrap();
    let said = passed(&demo(disk.path(), &["--files=3", "--size=20kB", "--keep"]).output().unwrap());
    let kept = fs::read_dir(disk.path()).unwrap().next().unwrap().unwrap().path();
    for name in ["detector.toml", "ppu.toml", "detector.log", "ppu.log", "manifest.jsonl", "data"] {
        assert!(kept.join(name).exists(), "{name}");
    }
    assert_eq!(fs::metadata(kept.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_dir_all(ramdisks(&said)).unwrap();
}

/// From the demo's first line.
fn ramdisks(said: &str) -> std::path::PathBuf {
    said.split_whitespace().nth(1).unwrap().into()
}

/// Not gone, and not a zombie that nobody has waited for yet.
fn runs(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(')').next().unwrap().split_whitespace().next(), None | Some("Z" | "X"))
}

fn children(child: &Child) -> Vec<Pid> {
    let parent = child.id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        // pid (name) state parent ...
        let after_name = stat.rsplit(')').next().unwrap();
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap()));
        }
    }
    found
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "waited too long for {what}");
        std::thread::yield_now();
    }
}
