//! The table.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ppu_uringd::model::status::{
    Amount, Copies, Detector, Health, Left, LinkState, Room, Shift, StatusReport, Storage, Told,
};

use super::health::{Severity, problems};
use super::units::{bytes, bytes_per_s, count, duration, latency, offset, one_line};

/// The last messages that are shown; `--json` has them all.
const MESSAGES_SHOWN: usize = 5;

/// The whole text. `software` is what the client is, times are shown in `zone`.
pub(super) fn page(report: &StatusReport, software: &str, zone: &TimeZone, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = head(report, software);
    text += &attention(report, paint);
    text += &table(DETECTOR_HEAD, report.detectors.iter().map(|detector| detector_row(detector, paint)));
    text += &table(STORAGE_HEAD, report.storages.iter().map(|storage| storage_row(storage, paint)));
    text += &table(ROOM_HEAD, room_rows(report, paint).into_iter());
    text += &table(SHIFT_HEAD, report.shifts.iter().flat_map(|shift| shift_rows(shift, zone, paint)));
    text += &messages(report, zone);
    text
}

fn head(report: &StatusReport, software: &str) -> String {
    let daemon = &report.daemon;
    let room = report.ramdisk.room;
    let release = match daemon.software == software {
        true => String::new(),
        false => format!(" (this command is {software})"),
    };
    let visible = match report.latency.visible {
        times if times.files == 0 => String::new(),
        times => {
            format!("; close to visible p50 {}, p99 {}", latency(times.p50_us), latency(times.p99_us))
        }
    };
    one_line(&format!(
        "{}{release}, pid {}, up {}, engine {}; ramdisk {}: {} of {} free{visible}",
        daemon.software,
        daemon.pid,
        duration(daemon.uptime_s.saturating_mul(1000) as i64),
        daemon.engine,
        report.ramdisk.path,
        bytes(room.free_bytes),
        bytes(room.total_bytes),
    )) + "\n"
}

fn attention(report: &StatusReport, paint: Paint) -> String {
    let problems = problems(report);
    let lines = problems.iter().map(|problem| match problem.severity {
        Severity::Error => format!("{} {}\n", paint.red("ERROR  "), problem.text),
        Severity::Warning => format!("{} {}\n", paint.yellow("WARNING"), problem.text),
        Severity::Advice => format!("ADVICE  {}\n", problem.text),
    });
    let is_well = problems.iter().all(|problem| problem.severity == Severity::Advice);
    let well = if is_well { format!("{}\n", paint.green("All well.")) } else { String::new() };
    lines.fold(well, |text, line| text + &line)
}

const DETECTOR_HEAD: &[&str] =
    &["DETECTOR", "LINK", "ADDRESS", ">BACKLOG", ">LANDED", ">RELEASED", ">RATE", ">CLOCK", ">DAMAGED"];

fn detector_row(detector: &Detector, paint: Paint) -> Vec<Cell> {
    let link = match &detector.link.state {
        LinkState::Connected => paint.green("connected"),
        LinkState::Connecting { .. } => paint.yellow("connecting"),
        LinkState::Refused { .. } => paint.red("refused"),
    };
    let clock = detector.clock_offset_ms.map_or("?".to_owned(), offset);
    vec![
        detector.id.as_str().into(),
        link,
        detector.address.as_str().into(),
        amount(detector.backlog).into(),
        amount(detector.landed).into(),
        amount(detector.released).into(),
        format!("{:.0}/s, {}", detector.rate.files_per_s, bytes_per_s(detector.rate.bytes_per_s)).into(),
        clock.into(),
        detector.integrity_errors.into(),
    ]
}

fn amount(amount: Amount) -> String {
    match amount.files {
        0 => "0".to_owned(),
        files => format!("{files} ({})", bytes(amount.bytes)),
    }
}

const STORAGE_HEAD: &[&str] = &["STORAGE", "KIND", "HEALTH", "TARGET", ">RATE", ">IN FLIGHT", ">PENDING"];

fn storage_row(storage: &Storage, paint: Paint) -> Vec<Cell> {
    let health = match &storage.health {
        Health::Ok => paint.green("ok"),
        Health::Unavailable { .. } => paint.red("unavailable"),
        Health::Full { .. } => paint.red("full"),
        Health::Slow { .. } => paint.yellow("slow"),
        Health::Quarantined { .. } => paint.red("quarantined"),
        Health::Hung { .. } => paint.red("hung"),
    };
    vec![
        storage.id.as_str().into(),
        storage.kind.as_str().into(),
        health,
        storage.target.as_str().into(),
        format!("{:.0}/s, {}", storage.rate.files_per_s, bytes_per_s(storage.rate.bytes_per_s)).into(),
        storage.in_flight.into(),
        storage.pending.into(),
    ]
}

const ROOM_HEAD: &[&str] = &["ROOM ON", "AT", ">FULL", ">FREE", ">EVICTED", ">PURGED", ""];

/// The ramdisk and every storage whose room is known.
fn room_rows(report: &StatusReport, paint: Paint) -> Vec<Vec<Cell>> {
    let row = |id: &str, at: &str, room: Room, left: &Left| {
        let used = room.total_bytes.saturating_sub(room.free_bytes);
        vec![
            id.into(),
            at.into(),
            format!("{:.0} %", used as f64 * 100.0 / room.total_bytes as f64).into(),
            bytes(room.free_bytes).into(),
            amount(left.evicted).into(),
            amount(left.purged).into(),
            if left.evicting { paint.yellow("evicting") } else { "".into() },
        ]
    };
    let ramdisk = &report.ramdisk;
    let first =
        (ramdisk.room.total_bytes > 0).then(|| row("ramdisk", &ramdisk.path, ramdisk.room, &ramdisk.left));
    let known = report.storages.iter().filter(|storage| storage.room.total_bytes > 0);
    let storages = known.map(|storage| row(&storage.id, &storage.target, storage.room, &storage.left));
    first.into_iter().chain(storages).collect()
}

const SHIFT_HEAD: &[&str] = &[
    "SHIFT",
    ">UID",
    ">GID",
    "STORAGE",
    ">PENDING",
    ">COPIED",
    ">FAILED",
    ">SUPERSEDED",
    ">LOST",
    ">PRODUCED",
];

fn shift_rows(shift: &Shift, zone: &TimeZone, paint: Paint) -> Vec<Vec<Cell>> {
    let alarming = |number: u64| match number {
        0 => number.into(),
        _ => paint.red(&number.to_string()),
    };
    let row = |copies: &Copies| {
        let counts = &copies.counts;
        vec![
            local_time(shift.start_ms.0, zone).into(),
            u64::from(shift.uid).into(),
            u64::from(shift.gid).into(),
            copies.storage.as_str().into(),
            counts.pending.into(),
            counts.copied.into(),
            alarming(counts.failed),
            counts.superseded.into(),
            alarming(counts.lost),
            counts.produced.into(),
        ]
    };
    shift.storages.iter().map(row).collect()
}

fn messages(report: &StatusReport, zone: &TimeZone) -> String {
    let older = report.messages.len().saturating_sub(MESSAGES_SHOWN);
    if report.messages.is_empty() {
        return String::new();
    }
    let title = match older {
        0 => "\nLAST MESSAGES\n".to_owned(),
        _ => format!("\nLAST MESSAGES (and {} before: --json)\n", count(older as u64, "message")),
    };
    let line = |told: &Told| {
        let code = match serde_json::to_value(told.message.code) {
            Ok(serde_json::Value::String(name)) => name,
            _ => String::new(),
        };
        let at = local_time(told.at_ms, zone);
        one_line(&format!("{at}  {code}  {}  {}", told.message.short, told.message.long)) + "\n"
    };
    title + &report.messages[older..].iter().map(line).collect::<String>()
}

/// `2026-07-31 23:59:59` (SPEC 5.4, usertime).
fn local_time(milliseconds: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(milliseconds).unwrap_or_default();
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A blank line, the head, and the rows in columns; nothing without rows. `>` before a title: right-aligned.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let titles = head.iter().map(|title| title.trim_start_matches('>').into()).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(titles).chain(rows).collect();
    if rows.len() == 1 {
        return String::new();
    }
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::from("\n");
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), title) in row.iter().zip(&widths).zip(head) {
            let padding = " ".repeat(width - cell.width());
            match title.starts_with('>') {
                true => line += &format!("{padding}{}  ", cell.painted()),
                false => line += &format!("{}{padding}  ", cell.painted()),
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A text and its colour, which takes no room.
struct Cell {
    text: String,
    colour: &'static str,
}

impl Cell {
    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn painted(&self) -> String {
        match self.colour {
            "" => self.text.clone(),
            colour => format!("\x1b[{colour}m{}\x1b[0m", self.text),
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.painted())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { text: one_line(text), colour: "" }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

/// Colours, where there are any.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn red(self, text: &str) -> Cell {
        self.paint(text, "1;31")
    }

    fn yellow(self, text: &str) -> Cell {
        self.paint(text, "33")
    }

    fn green(self, text: &str) -> Cell {
        self.paint(text, "32")
    }

    fn paint(self, text: &str, colour: &'static str) -> Cell {
        Cell { colour: if self.0 { colour } else { "" }, ..text.into() }
    }
}

#[cfg(test)]
mod tests;
