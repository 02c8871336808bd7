//! `tune` over a network of its own: `--serve` beside the detector, `--from` beside the PPU, the real binary at both ends. It says what
//! to set, lets nobody else in, and leaves nothing behind.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::daemon::BINARY;
use support::documented::has_form;
use support::netns::Net;
use support::oracle::everything_below;
use support::rig::{Options, Rig};
use support::{is_root, wait_until};

/// A detector and a PPU, in a namespace each; no daemon runs.
fn rig() -> Rig {
    let net = Some(Arc::new(Net::new(1)));
    let (ppu_ramdisk, detector_ramdisk) = ("size=512m", "size=256m");
    Rig::prepare(Options { net, ppu_ramdisk, detector_ramdisk, storage: "tmpfs", ..Options::default() })
}

/// `tune`, in the namespace of one of the two.
fn tune(at: Vec<String>) -> Command {
    let mut command = Command::new(&at[0]);
    command.args(&at[1..]).arg(BINARY).arg("tune").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn from(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = tune(rig.options.net.as_ref().unwrap().at_ppu());
    command.arg("--config").arg(rig.ppu_config()).args(["--from", "0"]).args(arguments);
    command
}

/// The detector's end, once it listens. Killed when dropped.
struct Serving {
    child: Child,
    said: std::io::Lines<BufReader<ChildStderr>>,
    heard: Vec<String>,
}

impl Serving {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = tune(rig.options.net.as_ref().unwrap().at_detector(0));
        command.arg("--serve").arg("--config").arg(rig.detector_config(0)).args(arguments);
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut serving = Self { child, said, heard: Vec::new() };
        serving.until("This ends with");
        serving
    }

    fn until(&mut self, word: &str) {
        while !self.heard.last().is_some_and(|line| line.contains(word)) {
            let next = self.said.next();
            self.heard.push(next.unwrap_or_else(|| panic!("it ended early: {:?}", self.heard)).unwrap());
        }
    }

    /// Its end, which came by itself or was asked for.
    fn ended(mut self) -> (Option<i32>, String) {
        self.heard.extend(self.said.by_ref().map_while(Result::ok));
        (self.child.wait().unwrap().code(), self.heard.join("\n"))
    }

    fn interrupt(self) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.ended()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every name on both ramdisks.
fn names(rig: &Rig) -> BTreeSet<PathBuf> {
    everything_below(&[rig.ppu_ramdisk.path(), rig.source(0)])
}

fn texts(output: Output) -> (String, String) {
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn over_the_network_it_says_what_to_set_and_leaves_nothing() {
    if !is_root("over_the_network_it_says_what_to_set_and_leaves_nothing") {
        return;
    }
    let rig = rig();
    std::fs::write(rig.source(0).join("image"), b"an image of the detector's").unwrap();
    let before = names(&rig);
    let configs = || [rig.ppu_config(), rig.detector_config(0)].map(|path| std::fs::read(path).unwrap());
    let config = configs();
    let mut serving = Serving::start(&rig, &["--size", "100kB"]);
    let output = from(&rig, &["--seconds", "3"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (text, progress) = texts(output);
    serving.until("10.77.0.1 measures");
    assert!(names(&rig).len() > before.len(), "it serves");
    let (tables, lines) = text.split_once("To set in ppu.toml").unwrap();
    let (here, there) =
        lines.split_once('\n').unwrap().1.split_once("To set in detector.toml there:").unwrap();
    let (here, there): (toml::Table, toml::Table) = (here.parse().unwrap(), there.parse().unwrap());
    for engine in [&here["engine"], &there["engine"]] {
        assert!(["auto", "uring", "syscall"].contains(&engine.as_str().unwrap()), "{text}");
    }
    let streams = here["detector"].as_array().unwrap()[0]["streams"].as_integer().unwrap();
    assert!([1, 2, 4, 8].contains(&streams), "{text}");
    let rows: Vec<&str> = tables.lines().filter(|line| line.contains("streams ")).collect();
    for row in &rows {
        let files: f64 = row.split_whitespace().last().unwrap().parse().unwrap();
        assert!(files > 0.0, "{row}");
    }
    // Where io_uring is forbidden, a quarter.
    assert!([4, 16].contains(&rows.len()), "{tables}");
    assert!(progress.contains(&format!("[{0}/{0}] ", 3 * rows.len())), "{progress}");
    assert!(progress.contains("files of 100000 bytes from 10.77.0.2:"), "{progress}");

    // It goes on serving. A PPU that is interrupted leaves nothing; the detector's end neither.
    let mut measuring = from(&rig, &["--json", "--seconds", "30"]).spawn().unwrap();
    let mut said = BufReader::new(measuring.stderr.take().unwrap()).lines();
    assert!(said.by_ref().map_while(Result::ok).any(|line| line.starts_with("[1/")), "it is at work");
    kill(Pid::from_raw(measuring.id() as i32), Signal::SIGINT).unwrap();
    let rest: Vec<String> = said.map_while(Result::ok).collect();
    assert_eq!(measuring.wait().unwrap().code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
    let (code, said) = serving.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the files are removed"), "{said}");
    assert_eq!(names(&rig), before, "nothing is left");
    assert_eq!(configs(), config, "nothing was changed");
}

#[test]
fn for_scripts_and_until_nobody_measures_any_more() {
    if !is_root("for_scripts_and_until_nobody_measures_any_more") {
        return;
    }
    let rig = rig();
    let before = names(&rig);
    let serving = Serving::start(&rig, &["--size", "300kB", "--idle", "2"]);
    let output = from(&rig, &["--json", "--seconds", "1"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    has_form("tune-from", &said);
    assert_eq!((&said["image_bytes"], &said["detector"]), (&Value::from(300_000), &Value::from("0")));
    let (code, said) = serving.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nobody measures any more"), "{said}");
    assert_eq!(names(&rig), before, "nothing is left");
}

#[test]
fn neither_end_lets_a_stranger_or_a_daemon_in() {
    if !is_root("neither_end_lets_a_stranger_or_a_daemon_in") {
        return;
    }
    let mut rig = rig();
    // Nobody is there.
    let output = from(&rig, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (_, said) = texts(output);
    assert!(said.contains("cannot connect") && said.contains("tune --serve"), "{said}");
    // The daemon.
    rig.start_detector(0);
    let daemon = rig.ports[0];
    let to_daemon = |rig: &Rig| {
        let mut command = tune(rig.options.net.as_ref().unwrap().at_ppu());
        command.arg("--config").arg(rig.ppu_config()).args(["--from", &format!("0:{daemon}")]);
        command.output().unwrap()
    };
    let log = |rig: &Rig| rig.detectors[0].as_ref().unwrap().log();
    wait_until("the daemon runs", || log(&rig).contains("is running"));
    let output = to_daemon(&rig);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (_, said) = texts(output);
    assert!(said.contains("key differs") && said.contains("tune --serve"), "{said}");
    wait_until("the daemon has refused it", || log(&rig).contains("connection refused"));
    assert!(!log(&rig).contains("a PPU is here"), "{}", log(&rig));
    // Another key; and beside a daemon, whose detector does not take these files for images.
    let mut serving = Serving::start(&rig, &["--size", "100kB"]);
    assert!(
        serving.heard.iter().any(|line| line.contains("the detector's daemon runs")),
        "{:?}",
        serving.heard
    );
    let key = rig.dir.path().join("key");
    std::fs::write(&key, "another key\n").unwrap();
    let output = from(&rig, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(texts(output).1.contains("key differs"));
    serving.until("connection refused: ");
    std::fs::write(&key, "a key for tests\n").unwrap();
    rig.start_ppu();
    rig.wait_linked();
    std::fs::write(rig.source(0).join("image"), b"an image").unwrap();
    wait_until("the image is stored", || rig.counts().copied == 1);
    assert_eq!(rig.counts().produced, 1, "and nothing of the measurement's");
    assert_eq!(serving.interrupt().0, Some(0));
}

#[test]
fn ports_that_are_wrong_are_refused() {
    if !is_root("ports_that_are_wrong_are_refused") {
        return;
    }
    let rig = rig();
    let mut command = tune(rig.options.net.as_ref().unwrap().at_detector(0));
    let listen = format!("10.77.0.2:{}", rig.ports[0]);
    command.arg("--serve").arg("--config").arg(rig.detector_config(0)).args(["--listen", &listen]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let (_, said) = texts(output);
    assert!(said.contains("the daemon's own port"), "{said}");
    let mut command = tune(rig.options.net.as_ref().unwrap().at_ppu());
    let output = command.arg("--config").arg(rig.ppu_config()).args(["--from", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(texts(output).1.contains("0 (10.77.0.2:"));
}
