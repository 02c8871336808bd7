use ppu_uringd::model::attention::problems;
use ppu_uringd::model::half::Paused;
use ppu_uringd::model::host::Advice;
use ppu_uringd::model::message::{Code, Message};
use ppu_uringd::model::shift::ShiftId;
use ppu_uringd::model::status::{
    Counts, Daemon, Journal, Latency, Left, Link, Percentiles, Ramdisk, Rate, Room, STATUS_VERSION,
};

use super::*;

const NOW_MS: i64 = 1_785_542_399_000;

fn report() -> StatusReport {
    StatusReport {
        version: STATUS_VERSION,
        at_ms: NOW_MS,
        daemon: Daemon {
            software: "ppu-uringd 0.1.0".to_owned(),
            pid: 4242,
            uptime_s: 11_100,
            engine: "uring".to_owned(),
            verify: true,
        },
        ramdisk: Ramdisk {
            path: "/ramdisk".to_owned(),
            room: Room { total_bytes: 64_000_000_000, free_bytes: 12_300_000_000 },
            left: Left {
                evicting: true,
                evicted: Amount { files: 321, bytes: 770_400_000 },
                purged: Amount { files: 9, bytes: 21_600_000 },
            },
        },
        journal: Journal::Ok,
        paused: Paused::default(),
        detectors: vec![Detector {
            id: "1MF".to_owned(),
            address: "10.10.10.11:49371".to_owned(),
            link: Link { state: LinkState::Connected, since_ms: NOW_MS - 720_000 },
            backlog: Amount { files: 12, bytes: 28_800_000 },
            in_flight: 4,
            no_room: 0,
            held: 0,
            landed: Amount { files: 12_345, bytes: 29_628_000_000 },
            rate: Rate { files_per_s: 100.0, bytes_per_s: 240e6 },
            clock_offset_ms: Some(0.31),
            integrity_errors: 0,
            skipped: 0,
            released: Amount { files: 12_000, bytes: 28_800_000_000 },
            ramdisk: Room::default(),
            last_error: None,
            troubles: Vec::new(),
        }],
        storages: vec![Storage {
            id: "internal".to_owned(),
            kind: "internal".to_owned(),
            target: "/data".to_owned(),
            health: Health::Ok,
            since_ms: None,
            in_flight: 8,
            pending: 23,
            rate: Rate { files_per_s: 24.6, bytes_per_s: 59.0e6 },
            stored: Amount::default(),
            room: Room { total_bytes: 1_000_000_000_000, free_bytes: 640_000_000_000 },
            left: Left::default(),
        }],
        shifts: vec![Shift {
            start_ms: ShiftId(NOW_MS),
            uid: 500,
            gid: 501,
            storages: vec![Copies {
                storage: "internal".to_owned(),
                counts: Counts { produced: 12_357, pending: 23, copied: 12_334, ..Counts::default() },
            }],
        }],
        latency: Latency {
            visible: Percentiles { files: 9, p50_us: 850, p99_us: 2100, max_us: 9 },
            ..Latency::default()
        },
        fills: vec![],
        problems: vec![],
        advice: vec![],
        messages: vec![],
    }
}

/// As the daemon fills them in.
fn with_problems(report: &StatusReport) -> StatusReport {
    StatusReport { problems: problems(report), ..report.clone() }
}

fn plain(report: &StatusReport) -> String {
    page(&with_problems(report), "ppu-uringd 0.1.0", &TimeZone::UTC, false)
}

#[test]
fn all_well() {
    assert_eq!(
        plain(&report()),
        "\
ppu-uringd 0.1.0, pid 4242, up 3 h 05 min, engine uring; ramdisk /ramdisk: 12.3 GB of 64 GB free; \
close to visible p50 0.85 ms, p99 2.1 ms
All well.

DETECTOR  LINK       ADDRESS                 BACKLOG           LANDED         RELEASED             RATE    CLOCK  DAMAGED
1MF       connected  10.10.10.11:49371  12 (28.8 MB)  12345 (29.6 GB)  12000 (28.8 GB)  100/s, 240 MB/s  +0.3 ms        0

STORAGE   KIND      HEALTH  TARGET           RATE  IN FLIGHT  PENDING
internal  internal  ok      /data   25/s, 59 MB/s          8       23

ROOM ON   AT        FULL     FREE       EVICTED       PURGED
ramdisk   /ramdisk  81 %  12.3 GB  321 (770 MB)  9 (21.6 MB)  evicting
internal  /data     36 %   640 GB             0            0

SHIFT                UID  GID  STORAGE   PENDING  COPIED  FAILED  SUPERSEDED  LOST  PRODUCED
2026-07-31 23:59:59  500  501  internal       23   12334       0           0     0     12357
"
    );
}

#[test]
fn advice_leaves_all_well() {
    let mut report = report();
    let advice = Advice { what: "the time is read from hpet".to_owned(), cure: "echo tsc".to_owned() };
    report.advice.push(advice);
    let text = plain(&report);
    let attention: Vec<&str> = text.lines().skip(1).take(2).collect();
    assert_eq!(attention, ["All well.", "ADVICE  the time is read from hpet. echo tsc"]);
    report.daemon.verify = false;
    let text = plain(&report);
    assert!(text.lines().nth(1).unwrap().starts_with("WARNING") && !text.contains("All well"), "{text}");
}

#[test]
fn everything_wrong_is_said_first_the_worst_on_top() {
    let mut report = report();
    report.daemon.verify = false;
    report.journal = Journal::Error { reason: "write: No space left on device".to_owned() };
    report.paused.fetch_ms = Some(NOW_MS - 7_260_000);
    report.ramdisk.room.free_bytes = 1_000_000_000;
    report.storages[0].health = Health::Unavailable { reason: "/data is not a mount point".to_owned() };
    report.shifts[0].storages[0].counts.failed = 1;
    report.shifts[0].storages[0].counts.lost = 2;
    let detector = &mut report.detectors[0];
    detector.link.state =
        LinkState::Refused { reason: "key differs: compare key_file on both machines".to_owned() };
    detector.no_room = 7;
    detector.held = 2;
    detector.integrity_errors = 3;
    detector.clock_offset_ms = Some(-1500.0);
    let text = plain(&report);
    let attention: Vec<&str> = text.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        attention,
        [
            "ERROR   journal: write: No space left on device. Files land and are copied, but none is called stored; \
             see to its disk",
            "ERROR   fetch is paused for 2 h 01 min: images wait on their detectors; what is on its way still lands. To go on: \
             ppu-uringd resume fetch",
            "ERROR   storage internal unavailable: /data is not a mount point. 23 files pending: mount or repair it; resumes by itself",
            "ERROR   detector 1MF not connected for 12 min: key differs: compare key_file on both machines",
            "ERROR   detector 1MF: nobody gets 2 files, whose shift cannot be told; to give them to the current shift, close them again \
             there: touch them",
            "ERROR   2 files vanished from a detector before they had landed: see DATA_LOST",
            "ERROR   1 copy failed, given up for now: see COPY_ERROR, then `ppu-uringd retry`; what is not stored stays on the ramdisk",
            "WARNING detector 1MF: no room on the PPU's ramdisk for 7 files; they wait there",
            "WARNING detector 1MF: 3 files damaged on the way and sent again: check network cards and cables",
            "WARNING detector 1MF: its clock differs from the PPU's by -1.5 s: check NTP on both",
            "WARNING ramdisk /ramdisk: 98 % full, 1 GB free. What has no room waits on its detector",
            "WARNING contents are not verified on landing: verify = \"off\"",
        ]
    );
}

#[test]
fn the_last_messages_and_no_power_over_the_terminal() {
    let mut report = report();
    for n in 0..7 {
        let message = Message::new(Code::CopyError, format!("a_{n}:b\n"), "why\x1b[2J");
        report.messages.push(Told { number: n, count: 1, at_ms: NOW_MS, message });
    }
    report.detectors[0].id = "\x1b]0;title".to_owned();
    let text = plain(&report);
    assert!(!text.contains('\x1b'));
    let (_, messages) = text.split_once("\nLAST MESSAGES (and 2 messages before: --json)\n").unwrap();
    assert_eq!(messages.lines().count(), 5);
    assert_eq!(messages.lines().next(), Some("2026-07-31 23:59:59  COPY_ERROR  a_2:b%0A  why%1B[2J"));
}

#[test]
fn colours_take_no_room() {
    let strip = |text: String| {
        ["\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"].iter().fold(text, |text, c| text.replace(c, ""))
    };
    let mut report = report();
    report.shifts[0].storages[0].counts.failed = 3;
    let coloured = page(&with_problems(&report), "ppu-uringd 0.1.0", &TimeZone::UTC, true);
    assert!(coloured.contains("\x1b[32mconnected\x1b[0m"));
    assert_eq!(strip(coloured), plain(&report));
}

#[test]
fn another_release_is_mentioned_and_nothing_is_shown_of_nothing() {
    let mut report = report();
    report.detectors.clear();
    report.shifts.clear();
    let text = page(&report, "ppu-uringd 9.9.9", &TimeZone::UTC, false);
    assert!(text.starts_with("ppu-uringd 0.1.0 (this command is ppu-uringd 9.9.9), pid"));
    assert!(!text.contains("DETECTOR ") && !text.contains("SHIFT "));
}
