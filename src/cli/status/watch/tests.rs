use std::process::Command;

use ppu_uringd::model::attention::{Problem, Severity};
use ppu_uringd::model::history::{Arrivals, Copied, Sample};
use ppu_uringd::model::ledger::{DetectorSettings, Ledger, Now, Settings};
use ppu_uringd::model::message::{Code, Message};
use ppu_uringd::model::pacing::Pauses;
use ppu_uringd::model::shift::{Shift, ShiftId};
use ppu_uringd::model::status::{Fill, FillOf, Percentiles, Rate, Room, StatusReport, Told};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::source::View;
use super::*;

const MEGABYTE: f64 = 1e6;

fn report() -> StatusReport {
    let detector = DetectorSettings {
        id: "1MF".into(),
        address: "10.10.10.11:49371".to_owned(),
        pauses: Pauses::default(),
    };
    let shift = Shift { id: ShiftId(1000), uid: 500, gid: 500, user_dir: None, places: vec![] };
    let ledger = Ledger::new(
        Settings { detectors: vec![detector], storages: vec![], ramdisk: "/ramdisk".to_owned() },
        Arc::new(shift),
    );
    let mut report = ledger.report(Now { at: std::time::Instant::now(), wall_ms: 2000 });
    report.daemon.software = "ppu-uringd 0.1.0".to_owned();
    let room = Room { total_bytes: 1_000_000_000, free_bytes: 100_000_000 };
    report.fills = vec![Fill { of: FillOf::Ramdisk, name: String::new(), room, full_in_s: Some(41) }];
    let message = Message::new(Code::DataLost, "run7/a_001.cbf", "It vanished.");
    report.messages = vec![Told { number: 1000, count: 1, at_ms: 0, message }];
    report
}

fn sample(at_ms: i64, megabytes: f64) -> Sample {
    let landed = Rate { files_per_s: 100.0, bytes_per_s: megabytes * MEGABYTE };
    Sample {
        at_ms,
        over_ms: 1000,
        detectors: vec![Arrivals { landed, backlog: 0 }],
        storages: vec![Copied { stored: landed, pending: 0, times: Percentiles::default() }],
        visible: Percentiles::default(),
        rooms: vec![],
    }
}

fn screen(view: &View, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(frame, view, colour, &jiff::tz::TimeZone::UTC)).unwrap();
    terminal
}

fn text(view: &View, width: u16, height: u16) -> String {
    screen(view, width, height, true).backend().to_string()
}

#[test]
fn the_most_important_first() {
    let mut view = View { report: Some(report()), ..View::default() };
    view.samples = (0..60).map(|n| sample(n * 1000, 240.0)).collect();
    let shown = text(&view, 120, 30);
    assert!(shown.contains("ppu-uringd 0.1.0, pid") && shown.contains("q: quit"), "{shown}");
    assert!(shown.contains("All well."), "{shown}");
    assert!(shown.contains("1MF") && shown.contains("10.10.10.11:49371"), "{shown}");
    assert!(shown.contains(" 90 %, 100 MB of 1 GB free, full in 41 s at this rate"), "{shown}");
    assert!(shown.contains("landed 240 MB/s, 100/s"), "{shown}");
    assert!(shown.contains("1970-01-01 00:00:00 DATA_LOST run7/a_001.cbf  It vanished."), "{shown}");
    let narrow = text(&view, 52, 60);
    assert!(narrow.contains("1970-01-01 00:00:00 DATA_LOST run7/a_001.cbf"), "{narrow}");
    assert!(narrow.contains("\"                    vanished. "), "it is told to its end: {narrow}");

    let report = view.report.as_mut().unwrap();
    report.problems =
        (0..50).map(|n| Problem { severity: Severity::Error, text: format!("number {n} \x1b[2J") }).collect();
    let shown = text(&view, 120, 30);
    assert!(shown.contains("ERROR   number 0") && !shown.contains("All well."), "{shown}");
    assert!(shown.contains("10.10.10.11:49371"), "not pushed off the screen: {shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn silence_is_told_and_what_was_known_stays() {
    let mut view = View { silence: Some("no daemon answers at /run/x".to_owned()), ..View::default() };
    assert!(text(&view, 80, 24).contains("no daemon answers at /run/x"));
    view.report = Some(report());
    let shown = text(&view, 120, 24);
    assert!(shown.contains("NO NEWS no daemon answers at /run/x") && shown.contains("1MF"), "{shown}");
}

#[test]
fn without_colours_there_are_none_and_no_size_is_too_small() {
    let mut view = View { report: Some(report()), ..View::default() };
    view.samples = (0..700).map(|n| sample(n * 1000, n as f64)).collect();
    let is_plain = |colour| {
        let terminal = screen(&view, 100, 30, colour);
        terminal
            .backend()
            .buffer()
            .content()
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    };
    assert!(is_plain(false) && !is_plain(true));
    for (width, height) in [(1, 1), (1, 50), (200, 1), (10, 5), (35, 12), (500, 200)] {
        text(&view, width, height);
    }
}

/// Runs below a pseudo-terminal, as a process of its own; on its own it does nothing.
#[test]
fn a_panic_behind_the_screen() {
    if std::env::var_os("PPU_URINGD_TEST_PANIC").is_some() {
        with_terminal(|_| -> io::Result<()> { panic!("on purpose") }).unwrap();
    }
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("typescript");
    let itself = std::env::current_exe().unwrap();
    let test = format!(
        "{} --exact cli::status::watch::tests::a_panic_behind_the_screen --nocapture; stty -a",
        itself.display()
    );
    let status = Command::new("script")
        .args(["-q", "-e", "-c", &test])
        .arg(&log)
        .env("PPU_URINGD_TEST_PANIC", "1")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    let shown = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    assert!(status.success(), "{shown}");
    let (entered, left) = (shown.find("\x1b[?1049h"), shown.rfind("\x1b[?1049l"));
    assert!(entered.is_some() && entered < left, "{shown:?}");
    assert!(shown.contains("on purpose"), "the reason is told: {shown:?}");
    assert!(shown[left.unwrap()..].contains(" icanon ") && shown.contains(" echo "), "{shown:?}");
}
