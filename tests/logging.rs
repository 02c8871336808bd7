//! The log (SPEC 5.6) of a real daemon: a file that is rotated, its level, and the journal of systemd.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::daemon::Daemon;
use support::oracle::{check_all_stored, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

fn rig_with(log: &str) -> Rig {
    let rig = Rig::prepare(Options::default());
    let config = fs::read_to_string(rig.ppu_config()).unwrap();
    let log = log.replace("DIR", rig.dir.path().to_str().unwrap());
    fs::write(rig.ppu_config(), format!("{config}\n[log]\n{log}\n")).unwrap();
    rig
}

/// Without the variable that comes before the configured level.
fn start_ppu(config: &Path) -> Daemon {
    Daemon::start_with("ppu", config, |command| {
        command.env_remove("RUST_LOG");
    })
}

#[test]
fn a_file_is_rotated_and_never_too_long() {
    if !is_root("a_file_is_rotated_and_never_too_long") {
        return;
    }
    let mut rig =
        rig_with("file = \"DIR/logs/ppu.log\"\nlevel = \"debug\"\nmax_size = \"10 kB\"\nmax_number = 3");
    rig.start_detector(0);
    let config = rig.ppu_config();
    rig.ppu = Some(start_ppu(&config));
    rig.wait_linked();
    let logs = rig.dir.path().join("logs");
    let names = || -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&logs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let mut written = 0;
    // Every pause is a line, and so is much else at this level.
    wait_until("the log is rotated again and again", || {
        write(rig.source(0), format!("run/{written}"), &content(written, 1000));
        written += 1;
        rig.command(&["pause", "fetch"]);
        rig.command(&["resume", "fetch"]);
        names() == ["ppu.log", "ppu.log.1", "ppu.log.2"]
    });
    assert_eq!(check_all_stored(&rig), written as usize);
    for name in names() {
        let text = fs::read_to_string(logs.join(&name)).unwrap();
        assert!(
            text.len() <= 10_000 && text.ends_with('\n') && !text.contains('\x1b'),
            "{name}: {}",
            text.len()
        );
        assert!(
            text.lines()
                .all(|line| line.contains(" DEBUG ") || line.contains(" INFO ") || line.contains(" WARN ")),
            "{text}"
        );
    }
    assert_eq!(rig.ppu.as_ref().unwrap().log(), "", "standard error stays empty");
}

#[test]
fn debug_names_every_file() {
    if !is_root("debug_names_every_file") {
        return;
    }
    let mut rig = rig_with("level = \"debug\"");
    rig.start_detector(0);
    let config = rig.ppu_config();
    rig.ppu = Some(start_ppu(&config));
    rig.wait_linked();
    write(rig.source(0), "run/image_7.cbf", &content(1, 1000));
    check_all_stored(&rig);
    let log = rig.ppu.as_ref().unwrap().log();
    let line = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["landed", "run/image_7.cbf", "version=1", "bytes=1000"]), "{log}");
    assert!(line(&["stored", "version=1", "storage=\"internal\""]), "{log}");
}

#[test]
fn the_level_is_heeded() {
    if !is_root("the_level_is_heeded") {
        return;
    }
    let mut rig = rig_with("level = \"error\"");
    rig.start_detector(0);
    let config = rig.ppu_config();
    rig.ppu = Some(start_ppu(&config));
    rig.wait_linked();
    write(rig.source(0), "a", &content(1, 1000));
    check_all_stored(&rig);
    let log = rig.ppu.as_ref().unwrap().log();
    assert!(!log.contains("INFO") && !log.contains("WARN"), "{log}");
}

#[test]
fn systemds_journal_gets_priorities() {
    if !is_root("systemds_journal_gets_priorities") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    let config = rig.ppu_config();
    // As systemd does it.
    rig.ppu = Some(Daemon::start_with("ppu", &config, |command| {
        let stderr = fs::metadata(config.with_extension("log")).unwrap();
        command.env("JOURNAL_STREAM", format!("{}:{}", stderr.dev(), stderr.ino()));
    }));
    wait_until("the daemon answers", || rig.status().is_some());
    rig.command(&["pause", "fetch"]);
    let lines = || -> Vec<String> { rig.ppu.as_ref().unwrap().log().lines().map(str::to_owned).collect() };
    let has =
        |start: &str, part: &str| lines().iter().any(|line| line.starts_with(start) && line.contains(part));
    wait_until("both are there", || has("<6> INFO", "is running") && has("<4> WARN", "paused fetch"));
    assert!(lines().iter().all(|line| line.starts_with('<')), "{:?}", lines());
}
