//! What needs attention, and what to do about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::half::Half;
use super::host::Advice;
use super::message::Code;
use super::status::{Detector, Health, Journal, LinkState, Room, StatusReport, Storage, Trouble};
use super::units::{bytes, count, duration, offset, one_line};

/// Offsets above it are reported (SPEC 2.2).
const CLOCK_OFFSET_MS: f64 = 1000.0;
/// Fill ratio from which a ramdisk is worth a word.
const NEARLY_FULL: f64 = 0.95;
/// Troubles of one detector that are shown one by one.
const TROUBLES_SHOWN: usize = 3;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something does not work, or data is gone.
    Error,
    /// It works, and may not for long.
    Warning,
    /// All is well, and could be faster.
    Advice,
}

/// One thing that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and what to do; one line.
    pub text: String,
}

/// Nothing but advice.
pub fn is_well(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.severity == Severity::Advice)
}

/// The worst first.
pub fn problems(report: &StatusReport) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Journal::Error { reason } = &report.journal {
        found.push(error(format!(
            "journal: {reason}. Files land and are copied, but none is called stored; see to its disk"
        )));
    }
    for half in Half::ALL {
        found.extend(of_half(half, report));
    }
    for storage in &report.storages {
        found.extend(of_storage(storage, report.at_ms));
    }
    for detector in &report.detectors {
        found.extend(of_detector(detector, report.at_ms));
    }
    let (lost, failed) = (report.lost(), report.failed());
    if lost > 0 {
        let files = count(lost, "file");
        found.push(error(format!("{files} vanished from a detector before they had landed: see DATA_LOST")));
    }
    if failed > 0 {
        let copies = count(failed, "copy");
        found.push(error(format!(
            "{copies} failed, given up for now: see COPY_ERROR, then `ppu-uringd retry`; what is not stored stays on the ramdisk"
        )));
    }
    if let Some(fill) = nearly_full(report.ramdisk.room) {
        let free = bytes(report.ramdisk.room.free_bytes);
        found.push(warning(format!(
            "ramdisk {}: {fill} full, {free} free. What has no room waits on its detector",
            report.ramdisk.path
        )));
    }
    if !report.daemon.verify {
        found.push(warning("contents are not verified on landing: verify = \"off\"".to_owned()));
    }
    found.extend(report.advice.iter().map(|Advice { what, cure }| Problem {
        severity: Severity::Advice,
        text: one_line(&format!("{what}. {cure}")),
    }));
    found.sort_by_key(|problem| problem.severity);
    found
}

/// Somebody wanted it so; nothing flows all the same.
fn of_half(half: Half, report: &StatusReport) -> Option<Problem> {
    let since = duration(report.at_ms.saturating_sub(report.paused.since(half)?));
    let effect = half.while_paused();
    Some(error(format!("{half} is paused for {since}: {effect}. To go on: ppu-uringd resume {half}")))
}

fn of_storage(storage: &Storage, now_ms: i64) -> Option<Problem> {
    let Storage { id, pending, .. } = storage;
    let pending = count(*pending, "file");
    let since = storage
        .since_ms
        .map_or(String::new(), |since| format!(" for {}", duration(now_ms.saturating_sub(since))));
    match &storage.health {
        Health::Ok => None,
        Health::Unavailable { reason } => Some(error(format!(
            "storage {id} unavailable{since}: {reason}. {pending} pending: mount or repair it; resumes by itself"
        ))),
        Health::Full { reason } => Some(error(format!(
            "storage {id} full{since}: {reason}. {pending} pending: make room there; resumes by itself"
        ))),
        Health::Quarantined { reason } => Some(error(format!(
            "storage {id} gives disk errors{since}: {reason}. {pending} pending; it is tried now and then: see dmesg, replace the disk"
        ))),
        Health::Hung { reason } => Some(error(format!(
            "storage {id} hangs: {reason}. {pending} pending; resumes by itself when it answers: see dmesg, the disk, the file server"
        ))),
        Health::Slow { reason } => {
            Some(warning(format!("storage {id} does not keep up: {reason}. {pending} pending")))
        }
    }
}

fn of_detector(detector: &Detector, now_ms: i64) -> Vec<Problem> {
    let id = &detector.id;
    let since = duration(now_ms.saturating_sub(detector.link.since_ms));
    let mut found = Vec::new();
    match &detector.link.state {
        LinkState::Refused { reason } => {
            found.push(error(format!("detector {id} not connected for {since}: {reason}")));
        }
        LinkState::Connecting { reason: Some(reason) } => {
            found.push(error(format!("detector {id} not connected for {since}: {reason} (tried on and on)")));
        }
        LinkState::Connecting { reason: None } | LinkState::Connected => {}
    }
    if detector.no_room > 0 {
        let files = count(detector.no_room, "file");
        found.push(warning(format!(
            "detector {id}: no room on the PPU's ramdisk for {files}; they wait there"
        )));
    }
    if detector.held > 0 {
        let files = count(detector.held, "file");
        found.push(error(format!(
            "detector {id}: nobody gets {files}, whose shift cannot be told; to give them to the current shift, close them again there: touch them"
        )));
    }
    if detector.integrity_errors > 0 {
        let files = count(detector.integrity_errors, "file");
        found.push(warning(format!(
            "detector {id}: {files} damaged on the way and sent again: check network cards and cables"
        )));
    }
    if let Some(ms) = detector.clock_offset_ms.filter(|ms| ms.abs() > CLOCK_OFFSET_MS) {
        let by = offset(ms);
        found.push(warning(format!(
            "detector {id}: its clock differs from the PPU's by {by}: check NTP on both"
        )));
    }
    found.extend(of_troubles(detector, now_ms));
    if let Some(fill) = nearly_full(detector.ramdisk) {
        let free = bytes(detector.ramdisk.free_bytes);
        found.push(warning(format!("detector {id}: its ramdisk is {fill} full, {free} free")));
    }
    found
}

/// In its own words. All of them are in its messages; here one must be able to see the rest.
fn of_troubles(detector: &Detector, now_ms: i64) -> Vec<Problem> {
    let shown = detector.troubles.iter().take(TROUBLES_SHOWN).map(|Trouble { message, since_ms }| {
        let text = format!("{} (For {}.)", message.long, duration(now_ms.saturating_sub(*since_ms)));
        match message.code {
            Code::LandError | Code::DataLost => error(text),
            _ => warning(text),
        }
    });
    let mut found: Vec<Problem> = shown.collect();
    let more = detector.troubles.len().saturating_sub(TROUBLES_SHOWN);
    if more > 0 {
        let (id, more) = (&detector.id, count(more as u64, "more trouble"));
        found.push(error(format!("detector {id}: {more} than are shown here: see `ppu-uringd messages`")));
    }
    found
}

fn nearly_full(room: Room) -> Option<String> {
    let used = 1.0 - room.free_bytes as f64 / room.total_bytes as f64;
    (room.total_bytes > 0 && used >= NEARLY_FULL).then(|| format!("{:.0} %", used * 100.0))
}

fn error(text: String) -> Problem {
    Problem { severity: Severity::Error, text: one_line(&text) }
}

fn warning(text: String) -> Problem {
    Problem { severity: Severity::Warning, text: one_line(&text) }
}
