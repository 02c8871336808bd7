//! `config import`, the real binary: what goes where, what is never overwritten, and that the result is fit for `config check`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn old(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tests/import").join(name)
}

fn import(arguments: &[&str], furka: &str, grimsel: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ppu-uringd"));
    command.args(["config", "import", "--furka"]).arg(old(furka)).arg("--grimsel").arg(old(grimsel));
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_result_on_standard_output_and_the_report_beside_it() {
    let output = import(&[], "furka.conf", "grimsel.conf");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), std::fs::read_to_string(old("usual.toml")).unwrap());
    let report = text(&output.stderr);
    let line =
        |start: &str, part: &str| report.lines().any(|line| line.starts_with(start) && line.contains(part));
    assert!(line("taken ", "uid = 500"), "{report}");
    assert!(line("ignored", "there is no licence"), "{report}");
    assert!(line("DECIDE", "storageID usb: mountpoint"), "{report}");
    assert!(report.trim_end().ends_with("ppu-uringd config check --config ppu.toml"), "{report}");
}

#[test]
fn a_file_is_written_once_and_is_fit_for_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ppu.toml");
    let to = path.to_str().unwrap();
    let output = import(&["--output", to], "furka.conf", "grimsel.conf");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let written = std::fs::read_to_string(&path).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_ppu-uringd"))
        .args(["config", "check", "--config", to])
        .output()
        .unwrap();
    // The machine that it is meant for is another one; the file itself is right.
    assert_ne!(check.status.code(), Some(2), "{check:?}");

    let again = import(&["--output", to], "messy-furka.conf", "messy-grimsel.conf");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "not over a file");
    let forced = import(&["--force", "--output", to], "messy-furka.conf", "messy-grimsel.conf");
    assert_eq!(forced.status.code(), Some(1), "written, and incomplete");
    assert!(text(&forced.stderr).contains("ppu.toml:1: uid: is missing"), "{forced:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(old("messy.toml")).unwrap());
}

#[test]
fn what_cannot_be_read_is_named() {
    let output = import(&[], "nowhere.conf", "grimsel.conf");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && text(&output.stderr).contains("nowhere.conf"), "{output:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_ppu-uringd"))
        .args(["config", "import", "--force"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
