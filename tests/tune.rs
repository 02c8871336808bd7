//! `tune`, the real binary on real file systems: it says what to set, and leaves nothing behind, also where it is interrupted.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::daemon::BINARY;
use support::documented::has_form;
use support::is_root;
use support::oracle::everything_below;
use support::rig::{Options, Other, Rig};

fn rig() -> Rig {
    let others = vec![Other::ext4("optional", "")];
    Rig::prepare(Options { ppu_ramdisk: "size=256m", storage_megabytes: 256, others, ..Options::default() })
}

fn tune(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("tune").arg("--config").arg(rig.ppu_config()).args(arguments);
    command
}

/// Every name on the ramdisk and the storages.
fn names(rig: &Rig) -> BTreeSet<PathBuf> {
    everything_below(&[rig.ppu_ramdisk.path(), rig.storage.path(), rig.others[0].path()])
}

#[test]
fn it_says_what_to_set_and_leaves_nothing() {
    if !is_root("it_says_what_to_set_and_leaves_nothing") {
        return;
    }
    let rig = rig();
    let (before, config) = (names(&rig), std::fs::read_to_string(rig.ppu_config()).unwrap());
    let output = tune(&rig, &["--seconds", "3", "--size", "100kB"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (tables, lines) = text.split_once("To set in ppu.toml").unwrap();
    let (_, lines) = lines.split_once('\n').unwrap();
    for title in ["ENGINE, CONNECTIONS", "STORAGE internal", "STORAGE optional1"] {
        assert!(tables.contains(title), "{title}: {tables}");
    }
    let set: toml::Table = lines.parse().unwrap();
    let numbers = |table: &str, key: &str| -> Vec<i64> {
        set[table].as_array().unwrap().iter().map(|each| each[key].as_integer().unwrap()).collect()
    };
    assert!(["auto", "uring", "syscall"].contains(&set["engine"].as_str().unwrap()), "{lines}");
    assert!(numbers("detector", "streams").iter().all(|streams| (1..=8).contains(streams)), "{lines}");
    assert!(numbers("storage", "queue_depth").iter().all(|depth| (1..=32).contains(depth)), "{lines}");
    assert_eq!(numbers("storage", "queue_depth").len(), 2);
    // Something was moved in every measurement.
    let rows: Vec<&str> =
        tables.lines().filter(|line| line.contains("streams ") || line.contains("queue_depth ")).collect();
    assert!(rows.len() >= 4 + 2 * 7, "{tables}");
    for row in rows {
        let files: f64 = row.split_whitespace().last().unwrap().parse().unwrap();
        assert!(files > 0.0, "{row}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("[66/66] "), "{progress}");
    assert_eq!(names(&rig), before, "nothing is left");
    assert_eq!(std::fs::read_to_string(rig.ppu_config()).unwrap(), config, "nothing was changed");
}

#[test]
fn interrupted_it_leaves_nothing_either() {
    if !is_root("interrupted_it_leaves_nothing_either") {
        return;
    }
    let rig = rig();
    let before = names(&rig);
    // In the middle of the connections, and in the middle of a storage.
    for until in ["[3/66] ", "[30/66] "] {
        let (mut child, progress) = measuring(&rig, until);
        assert!(names(&rig).len() > before.len(), "it is at work");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let rest: Vec<String> = progress.map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
        assert_eq!(names(&rig), before, "nothing is left");
    }
}

/// A measurement, when it has said that it is so far.
fn measuring(rig: &Rig, until: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = tune(rig, &["--seconds", "10", "--size", "100kB"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|line: &String| line.starts_with(until)) {
        heard.push(progress.next().unwrap_or_else(|| panic!("it ended early: {heard:?}")).unwrap());
    }
    (child, progress)
}

#[test]
fn what_it_leaves_when_it_is_killed_goes_with_the_next_one() {
    if !is_root("what_it_leaves_when_it_is_killed_goes_with_the_next_one") {
        return;
    }
    let rig = rig();
    let before = names(&rig);
    let (mut child, _) = measuring(&rig, "[1/66] ");
    child.kill().unwrap();
    child.wait().unwrap();
    let left = names(&rig);
    assert!(left.len() > before.len(), "nobody could remove it");
    let (mut child, _progress) = measuring(&rig, "[1/66] ");
    assert!(names(&rig).is_disjoint(&left.difference(&before).cloned().collect()), "removed");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    child.wait().unwrap();
    assert_eq!(names(&rig), before, "nothing is left");
}

#[test]
fn what_cannot_be_measured_is_named_and_the_rest_is_measured() {
    if !is_root("what_cannot_be_measured_is_named_and_the_rest_is_measured") {
        return;
    }
    let rig = rig();
    rig.others[0].unmount();
    let output = tune(&rig, &["--json", "--seconds", "2", "--size", "20kB"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("storage optional1: not measured: "), "{progress}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    has_form("tune", &said);
    let list = |value: &Value| value.as_array().unwrap().len();
    assert_eq!((list(&said["storages"]), list(&said["not_measured"])), (1, 1), "{said}");
    assert_eq!((&said["storages"][0]["id"], list(&said["storages"][0]["ways"])), (&json!("internal"), 7));
    assert_eq!(said["not_measured"][0]["storage"], "optional1");
    assert_eq!((list(&said["set"]["storages"]), list(&said["set"]["detectors"])), (1, 1), "{said}");
    let output = tune(&rig, &["--size", "300MB"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("smaller --size"));
}
