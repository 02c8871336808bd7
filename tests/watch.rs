//! SPEC 5.5: `status --watch`, in a terminal; and what scripts get instead.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use ppu_uringd::model::status::StatusReport;
use support::daemon::BINARY;
use support::oracle::write;
use support::rig::{Options, Rig};
use support::terminal::Terminal;
use support::{content, is_root, wait_until};

fn rig() -> Rig {
    Rig::start(Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() })
}

fn control(rig: &Rig) -> String {
    rig.dir.path().join("control.sock").to_str().unwrap().to_owned()
}

fn watch(rig: &Rig) -> Terminal {
    Terminal::start(&[BINARY, "status", "--watch", "--control", &control(rig)], 40, 130)
}

#[test]
fn the_screen_shows_what_happens_and_ends_with_q() {
    if !is_root("the_screen_shows_what_happens_and_ends_with_q") {
        return;
    }
    let mut rig = rig();
    let mut terminal = watch(&rig);
    terminal.wait_for("All well.");
    terminal.wait_for("connected");
    terminal.wait_for("PPU's ramdisk");
    for n in 0..7 {
        write(rig.source(0), format!("a{n}"), &content(n, 1000));
    }
    terminal.wait_for("7 (7 kB)");
    terminal.wait_for("visible p50");
    // What is wrong comes to the top; a daemon that is away is waited for.
    rig.detectors[0].take().unwrap().stop();
    terminal.wait_for("ERROR   detector 0 not connected");
    terminal.wait_for("DETECTOR_LINK 0");
    rig.ppu.take().unwrap().stop();
    terminal.wait_for("NO NEWS no daemon answers");
    rig.start_detector(0);
    rig.start_ppu();
    terminal.wait_for("All well.");
    assert!(!terminal.shown().contains("NO NEWS"), "{}", terminal.shown());
    // A new size.
    terminal.resize(30, 70);
    wait_until("it fits the new size", || {
        let shown = terminal.shown();
        let lines: Vec<&str> = shown.lines().collect();
        lines.first().is_some_and(|line| line.trim_end().ends_with("q: quit") && line.chars().count() <= 70)
    });
    terminal.press("x");
    terminal.wait_for("All well.");
    terminal.press("q");
    assert!(terminal.wait().success());
    wait_until("the terminal is as it was", || terminal.is_restored());
}

#[test]
fn a_signal_gives_the_terminal_back() {
    if !is_root("a_signal_gives_the_terminal_back") {
        return;
    }
    let rig = rig();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut terminal = watch(&rig);
        terminal.wait_for("All well.");
        assert!(!terminal.is_restored(), "it has the terminal");
        kill(terminal.pid(), signal).unwrap();
        let status = terminal.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32));
        wait_until("the terminal is as it was", || terminal.is_restored());
    }
    let mut terminal = watch(&rig);
    terminal.wait_for("All well.");
    terminal.press("\u{3}");
    assert!(terminal.wait().success(), "Ctrl-C is as good as q");
    wait_until("the terminal is as it was", || terminal.is_restored());
}

#[test]
fn it_ends_with_its_window() {
    if !is_root("it_ends_with_its_window") {
        return;
    }
    let rig = rig();
    let command = format!("stty rows 40 cols 130; exec {BINARY} status --watch --control {}", control(&rig));
    let mut window = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut shown, mut bytes) = (Vec::new(), [0; 65536]);
    let screen = window.stdout.as_mut().unwrap();
    while !shown.windows(9).any(|part| part == b"All well.") {
        let count = screen.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&shown));
        shown.extend(&bytes[..count]);
    }
    let children = format!("/proc/{0}/task/{0}/children", window.id());
    let inside = std::fs::read_to_string(children).unwrap().trim().to_owned();
    window.kill().unwrap();
    window.wait().unwrap();
    wait_until("it has ended, too", || !std::path::Path::new(&format!("/proc/{inside}/exe")).exists());
}

#[test]
fn scripts_get_lines() {
    if !is_root("scripts_get_lines") {
        return;
    }
    let mut rig = rig();
    let arguments = ["status", "--watch", "--control", &control(&rig)];
    let refused = Command::new(BINARY).args(arguments).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--watch needs a terminal"), "{refused:?}");

    let mut stream = Command::new(BINARY)
        .args(arguments)
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<StatusReport>(&lines.next().unwrap().unwrap()).unwrap();
    let (first, second) = (next(), next());
    assert!(second.at_ms > first.at_ms);
    rig.ppu.take().unwrap().stop();
    assert_eq!(stream.wait().unwrap().code(), Some(1));
}

#[test]
fn every_shell_completes() {
    for (shell, sign) in
        [("bash", "complete -F "), ("zsh", "#compdef ppu-uringd"), ("fish", "complete -c ppu-uringd")]
    {
        let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains(sign) && script.contains("--watch") && script.contains("retry"),
            "{shell}: {script}"
        );
    }
    // What bash makes of it.
    let offer = format!(
        "source <({BINARY} completions bash); COMP_WORDS=(ppu-uringd status --w); COMP_CWORD=2; \
         set -- $(complete -p ppu-uringd); while [ \"$1\" != -F ]; do shift; done; \
         \"$2\" ppu-uringd --w status; echo ${{COMPREPLY[@]}}"
    );
    let offered = Command::new("bash").args(["-c", &offer]).output().unwrap();
    assert_eq!(
        String::from_utf8(offered.stdout).unwrap(),
        "--watch\n",
        "{:?}",
        String::from_utf8_lossy(&offered.stderr)
    );
    assert_eq!(Command::new(BINARY).args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}
