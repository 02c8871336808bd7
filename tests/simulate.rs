//! `ppu-uringd simulate` and `ppu-uringd config check`: the real program, as a user starts it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ppu_uringd::model::file_version::Hash;
use ppu_uringd::simulate::{Record, cbf};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppu-uringd"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn records(manifest: &Path) -> Vec<Record> {
    fs::read_to_string(manifest).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn writes_what_its_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let (target, manifest) = (dir.path().join("ramdisk"), dir.path().join("m.jsonl"));
    let args =
        ["simulate", "--rate=0", "--count=6", "--size=100kB", "--per-run=4", "--finish=mixed", "--shift=A"];
    let places = ["--target", text(&target), "--manifest", text(&manifest)];
    let output = run(&[&args[..], &places[..]].concat());
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("6 files, 0.00"), "{output:?}");

    let records = records(&manifest);
    assert_eq!(records.len(), 6);
    assert_eq!(records[4].path, "run_002/frame_002_00001.cbf");
    for record in records {
        let content = fs::read(target.join(record.rel_path().unwrap().as_path())).unwrap();
        assert_eq!(Hash::of(&content).to_string(), record.hash, "{}", record.path);
        assert_eq!(cbf::check(&content), Ok(cbf::Integrity::Proven), "{}", record.path);
    }

    let refused = run(&[&args[..], &["--target", text(&target), "--manifest", "/nowhere/m"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not empty"), "{refused:?}");
}

#[test]
fn an_interrupt_ends_it_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let (target, manifest) = (dir.path().join("ramdisk"), dir.path().join("m.jsonl"));
    let mut child = program()
        .args([
            "simulate",
            "--rate=200",
            "--size=20kB",
            "--target",
            text(&target),
            "--manifest",
            text(&manifest),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(&manifest).map_or(0, |text| text.lines().count());
    wait_for("three files", || lines() >= 3);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    wait_for("its end", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(summary.starts_with(&format!("{} files", records(&manifest).len())), "{summary}");
}

#[test]
fn a_full_target_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = run(&["simulate", "--count=1", "--size=20kB", "--target", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(text(&file)), "{output:?}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["simulate"][..],
        &["simulate", "--target=x", "--size=huge"],
        &["simulate", "--target=x", "--rate=-1"],
        &["simulate", "--target=x", "--replay=y", "--size=1MB"],
        &["simulate", "--target=x", "--shift=A"],
        &["nonsense"],
        &["config", "check"],
    ] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn help_teaches() {
    for (args, words) in [
        (&["--help"][..], &["Exit codes", "ppu-uringd demo"][..]),
        (&["simulate", "--help"], &["Examples", "Exit codes", "--finish", "run_001"]),
        (&["config", "check", "--help"], &["Example", "FILE:LINE", "Exit codes"]),
    ] {
        let output = run(args);
        assert!(output.status.success(), "{output:?}");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in words {
            assert!(help.contains(word), "{args:?}: {word} is not in\n{help}");
        }
    }
}

#[test]
fn config_check_lists_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("detector.toml");
    fs::write(&file, "listen = \"127.0.0.1:0\"\nramdisk = \"relative\"\nrelese = \"never\"\n").unwrap();
    let output = run(&["config", "check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("detector.toml:2: ramdisk: "), "{said}");
    assert!(said.contains("detector.toml:3: relese: unknown key, did you mean `release`?"), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn config_check_looks_at_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["ramdisk", "data"] {
        fs::create_dir(at(name)).unwrap();
    }
    let file = at("ppu.toml");
    let write = |storage: &str| {
        let text = format!(
            "state_dir = {0:?}\nramdisk = {1:?}\nuid = 500\ngid = 500\n\
             [interfaces]\nstatus = \"off\"\nmessages = \"off\"\nhttp = \"off\"\n\
             [[detector]]\nid = \"a\"\naddress = \"127.0.0.1\"\ntarget = {1:?}\n\
             [[storage]]\nid = \"internal\"\nkind = \"internal\"\ntarget = {2:?}\n{storage}\n",
            at("state"),
            at("ramdisk"),
            at("data")
        );
        fs::write(&file, text).unwrap();
    };
    write("allow_root_fs = true");
    let output = run(&["config", "check", "--config", text(&file)]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("fit to start a PPU"), "{output:?}");
    assert!(!at("state").exists(), "a check makes nothing");

    write(&format!("mountpoint = {:?}", at("data")));
    let output = run(&["config", "check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing is mounted at"), "{output:?}");
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "waited 20 s for {what}");
        std::thread::yield_now();
    }
}
