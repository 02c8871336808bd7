//! What Prometheus gets. docs/metrics.md explains it; a test keeps the two the same.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{self, encode};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::model::attention::Severity;
use crate::model::half::Half;
use crate::model::observation::Observation;
use crate::model::status::{Detector, FillOf, Health, Journal, Left, LinkState, Storage};
use crate::model::times::Times;

pub(super) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The text form.
pub(super) fn render(observation: Arc<Observation>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(observation)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// One metric: `name` without the `_total` of a counter.
struct Metric {
    name: &'static str,
    help: &'static str,
    rows: Rows,
}

/// Where its values are found: on their own, or one for each detector, storage, or file system that files leave.
enum Rows {
    Gauge(fn(&Observation) -> Vec<Row<f64>>),
    Counter(fn(&Observation) -> Vec<Row<u64>>),
    Histogram(fn(&Observation) -> Vec<Row<Times>>),
    DetectorGauge(fn(&Detector) -> f64),
    DetectorCounter(fn(&Detector) -> u64),
    StorageGauge(fn(&Storage) -> f64),
    StorageCounter(fn(&Storage) -> u64),
    LeftGauge(fn(&Left) -> f64),
    LeftCounter(fn(&Left) -> u64),
}

type Row<T> = (Vec<(&'static str, String)>, T);

/// What is there now.
enum Values {
    Gauge(Vec<Row<f64>>),
    Counter(Vec<Row<u64>>),
    Histogram(Vec<Row<Times>>),
}

impl Rows {
    fn values(&self, observation: &Observation) -> Values {
        match self {
            Self::Gauge(rows) => Values::Gauge(rows(observation)),
            Self::Counter(rows) => Values::Counter(rows(observation)),
            Self::Histogram(rows) => Values::Histogram(rows(observation)),
            Self::DetectorGauge(value) => Values::Gauge(detectors(observation, value)),
            Self::DetectorCounter(value) => Values::Counter(detectors(observation, value)),
            Self::StorageGauge(value) => Values::Gauge(storages(observation, value)),
            Self::StorageCounter(value) => Values::Counter(storages(observation, value)),
            Self::LeftGauge(value) => Values::Gauge(leavers(observation, value)),
            Self::LeftCounter(value) => Values::Counter(leavers(observation, value)),
        }
    }
}

const METRICS: &[Metric] = &[
    gauge("ppu_uringd_build_info", "Always 1; release, engine and verification are labels.", |o| {
        let daemon = &o.report.daemon;
        let labels = vec![
            ("release", daemon.software.clone()),
            ("engine", daemon.engine.clone()),
            ("verify", daemon.verify.to_string()),
        ];
        vec![(labels, 1.0)]
    }),
    gauge("ppu_uringd_start_time_seconds", "When the daemon was started, in seconds since the epoch.", |o| {
        one((o.report.at_ms / 1000) as f64 - o.report.daemon.uptime_s as f64)
    }),
    gauge("ppu_uringd_problems", "Lines of each severity that status shows at its top.", |o| {
        [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Advice, "advice")]
            .into_iter()
            .map(|(severity, name)| {
                let same = o.report.problems.iter().filter(|problem| problem.severity == severity);
                (vec![("severity", name.to_owned())], same.count() as f64)
            })
            .collect()
    }),
    gauge(
        "ppu_uringd_journal_writable",
        "1 while the journal can be written; 0: nothing is called stored.",
        |o| one(truth(o.report.journal == Journal::Ok)),
    ),
    gauge("ppu_uringd_paused", "1 while this half of the work is paused by `ppu-uringd pause`.", |o| {
        Half::ALL
            .map(|half| (vec![("half", half.to_string())], truth(o.report.paused.since(half).is_some())))
            .into()
    }),
    counter(
        "ppu_uringd_messages",
        "Messages raised since the daemon's start, by code; also those that were only counted.",
        |o| o.raised.each().map(|(code, count)| (vec![("code", code.name().to_owned())], count)).collect(),
    ),
    gauge(
        "ppu_uringd_filesystem_size_bytes",
        "Size of a file system that may fill up: the PPU's ramdisk, a detector's, a storage.",
        |o| fills(o, |total, _| total),
    ),
    gauge("ppu_uringd_filesystem_free_bytes", "Free room on it.", |o| fills(o, |_, free| free)),
    metric(
        "ppu_uringd_evicting",
        "1 while a file system is too full and the oldest stored files leave it.",
        Rows::LeftGauge(|left| truth(left.evicting)),
    ),
    metric(
        "ppu_uringd_evicted_files",
        "Files that left a file system to make room, since the daemon's start; links may have their places.",
        Rows::LeftCounter(|left| left.evicted.files),
    ),
    metric("ppu_uringd_evicted_bytes", "Their size.", Rows::LeftCounter(|left| left.evicted.bytes)),
    metric(
        "ppu_uringd_purged_files",
        "Files of past shifts that left a file system, since the daemon's start.",
        Rows::LeftCounter(|left| left.purged.files),
    ),
    metric("ppu_uringd_purged_bytes", "Their size.", Rows::LeftCounter(|left| left.purged.bytes)),
    metric(
        "ppu_uringd_detector_connected",
        "1 while files can travel from this detector.",
        Rows::DetectorGauge(|d| truth(d.link.state == LinkState::Connected)),
    ),
    metric(
        "ppu_uringd_detector_backlog_files",
        "Files closed on the detector and not yet landed on the PPU.",
        Rows::DetectorGauge(|d| d.backlog.files as f64),
    ),
    metric(
        "ppu_uringd_detector_backlog_bytes",
        "Their size.",
        Rows::DetectorGauge(|d| d.backlog.bytes as f64),
    ),
    metric(
        "ppu_uringd_detector_in_flight_files",
        "Of the backlog: asked for, and on the way.",
        Rows::DetectorGauge(|d| d.in_flight as f64),
    ),
    metric(
        "ppu_uringd_detector_waiting_for_room_files",
        "Of the backlog: waiting for room on the PPU's ramdisk.",
        Rows::DetectorGauge(|d| d.no_room as f64),
    ),
    metric(
        "ppu_uringd_detector_held_files",
        "Of the backlog: held, because no known shift covers them.",
        Rows::DetectorGauge(|d| d.held as f64),
    ),
    metric(
        "ppu_uringd_detector_troubles",
        "What is wrong on the detector by its own word, and lasts.",
        Rows::DetectorGauge(|d| d.troubles.len() as f64),
    ),
    metric(
        "ppu_uringd_detector_skipped_files",
        "Symlinks, devices and sockets on the detector, which are not transferred.",
        Rows::DetectorGauge(|d| d.skipped as f64),
    ),
    gauge(
        "ppu_uringd_detector_clock_offset_seconds",
        "The detector's clock minus the PPU's; absent until it is measured.",
        |o| {
            let measured = |d: &Detector| Some((of_detector(d), d.clock_offset_ms? / 1e3));
            o.report.detectors.iter().filter_map(measured).collect()
        },
    ),
    metric(
        "ppu_uringd_detector_landed_files",
        "Files that landed, complete and verified, since the daemon's start.",
        Rows::DetectorCounter(|d| d.landed.files),
    ),
    metric("ppu_uringd_detector_landed_bytes", "Their size.", Rows::DetectorCounter(|d| d.landed.bytes)),
    metric(
        "ppu_uringd_detector_released_files",
        "Files removed from the detector's ramdisk when they were safe, since its daemon's start.",
        Rows::DetectorCounter(|d| d.released.files),
    ),
    metric("ppu_uringd_detector_released_bytes", "Their size.", Rows::DetectorCounter(|d| d.released.bytes)),
    metric(
        "ppu_uringd_detector_integrity_errors",
        "Files damaged on the way and sent again, since the daemon's start.",
        Rows::DetectorCounter(|d| d.integrity_errors),
    ),
    gauge("ppu_uringd_storage_health", "1 for the state that the storage is in, 0 for the others.", |o| {
        let states = |storage: &Storage| {
            let of_state = |state: &'static str| {
                let mut labels = of_storage(storage);
                labels.push(("state", state.to_owned()));
                (labels, truth(state == state_name(&storage.health)))
            };
            STATES.map(of_state)
        };
        o.report.storages.iter().flat_map(states).collect()
    }),
    metric(
        "ppu_uringd_storage_pending_files",
        "Landed files that are not yet stored there, over all shifts.",
        Rows::StorageGauge(|s| s.pending as f64),
    ),
    metric(
        "ppu_uringd_storage_in_flight_files",
        "Copies that run now.",
        Rows::StorageGauge(|s| s.in_flight as f64),
    ),
    gauge(
        "ppu_uringd_storage_failed_files",
        "Copies given up for now, over all remembered shifts; `ppu-uringd retry` takes them up again.",
        |o| {
            storages(o, |s| {
                let of_shift = |shift: &crate::model::status::Shift| {
                    shift
                        .storages
                        .iter()
                        .filter(|copies| copies.storage == s.id)
                        .map(|copies| copies.counts.failed)
                        .sum::<u64>()
                };
                o.report.shifts.iter().map(of_shift).sum::<u64>() as f64
            })
        },
    ),
    metric(
        "ppu_uringd_storage_stored_files",
        "Files written there and synced, since the daemon's start.",
        Rows::StorageCounter(|s| s.stored.files),
    ),
    metric("ppu_uringd_storage_stored_bytes", "Their size.", Rows::StorageCounter(|s| s.stored.bytes)),
    gauge(
        "ppu_uringd_shift_start_time_seconds",
        "When the current shift began, in seconds since the epoch.",
        |o| o.report.shifts.last().map_or_else(Vec::new, |shift| one(shift.start_ms.0 as f64 / 1e3)),
    ),
    gauge(
        "ppu_uringd_shift_files",
        "Files of the current shift on each storage, by state; their sum is what its detectors produced.",
        |o| {
            let copies = o.report.shifts.last().map(|shift| shift.storages.iter());
            copies
                .into_iter()
                .flatten()
                .flat_map(|copies| {
                    let counts = &copies.counts;
                    [
                        ("pending", counts.pending),
                        ("copied", counts.copied),
                        ("failed", counts.failed),
                        ("superseded", counts.superseded),
                        ("lost", counts.lost),
                    ]
                    .map(|(state, count)| {
                        (vec![("storage", copies.storage.clone()), ("state", state.to_owned())], count as f64)
                    })
                })
                .collect()
        },
    ),
    gauge(
        "ppu_uringd_lost_files",
        "Files that vanished from a detector before they had landed, over all remembered shifts.",
        |o| one(o.report.lost() as f64),
    ),
    histogram(
        "ppu_uringd_close_to_visible_seconds",
        "From the close on the detector until the file is visible on the PPU's ramdisk.",
        |o| one(o.visible),
    ),
    histogram(
        "ppu_uringd_close_to_stored_seconds",
        "From the close on the detector until the file is durable on the storage.",
        |o| {
            o.report
                .storages
                .iter()
                .zip(&o.stored)
                .map(|(storage, times)| (of_storage(storage), *times))
                .collect()
        },
    ),
];

const fn metric(name: &'static str, help: &'static str, rows: Rows) -> Metric {
    Metric { name, help, rows }
}

const fn gauge(name: &'static str, help: &'static str, rows: fn(&Observation) -> Vec<Row<f64>>) -> Metric {
    Metric { name, help, rows: Rows::Gauge(rows) }
}

const fn counter(name: &'static str, help: &'static str, rows: fn(&Observation) -> Vec<Row<u64>>) -> Metric {
    Metric { name, help, rows: Rows::Counter(rows) }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    rows: fn(&Observation) -> Vec<Row<Times>>,
) -> Metric {
    Metric { name, help, rows: Rows::Histogram(rows) }
}

fn one<T>(value: T) -> Vec<Row<T>> {
    vec![(Vec::new(), value)]
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn fills(observation: &Observation, bytes: fn(u64, u64) -> u64) -> Vec<Row<f64>> {
    let known = observation.report.fills.iter().filter(|fill| fill.room.total_bytes > 0);
    let row = |fill: &crate::model::status::Fill| {
        let role = match fill.of {
            FillOf::Ramdisk => "ramdisk",
            FillOf::Detector => "detector",
            FillOf::Storage => "storage",
        };
        let labels = vec![("role", role.to_owned()), ("name", fill.name.clone())];
        (labels, bytes(fill.room.total_bytes, fill.room.free_bytes) as f64)
    };
    known.map(row).collect()
}

fn leavers<T>(observation: &Observation, value: impl Fn(&Left) -> T) -> Vec<Row<T>> {
    let report = &observation.report;
    let of = |role: &str, name: &str| vec![("role", role.to_owned()), ("name", name.to_owned())];
    let storages = report.storages.iter().map(|storage| (of("storage", &storage.id), value(&storage.left)));
    [(of("ramdisk", ""), value(&report.ramdisk.left))].into_iter().chain(storages).collect()
}

fn detectors<T>(observation: &Observation, value: impl Fn(&Detector) -> T) -> Vec<Row<T>> {
    observation.report.detectors.iter().map(|detector| (of_detector(detector), value(detector))).collect()
}

fn of_detector(detector: &Detector) -> Vec<(&'static str, String)> {
    vec![("detector", detector.id.clone())]
}

fn storages<T>(observation: &Observation, value: impl Fn(&Storage) -> T) -> Vec<Row<T>> {
    observation.report.storages.iter().map(|storage| (of_storage(storage), value(storage))).collect()
}

fn of_storage(storage: &Storage) -> Vec<(&'static str, String)> {
    vec![("storage", storage.id.clone()), ("kind", storage.kind.clone())]
}

const STATES: [&str; 6] = ["ok", "slow", "full", "unavailable", "quarantined", "hung"];

fn state_name(health: &Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Slow { .. } => "slow",
        Health::Full { .. } => "full",
        Health::Unavailable { .. } => "unavailable",
        Health::Quarantined { .. } => "quarantined",
        Health::Hung { .. } => "hung",
    }
}

/// What one scrape sees.
#[derive(Debug)]
struct Scrape(Arc<Observation>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, help, rows } in METRICS {
            let values = rows.values(&self.0);
            let kind = match values {
                Values::Gauge(_) => MetricType::Gauge,
                Values::Counter(_) => MetricType::Counter,
                Values::Histogram(_) => MetricType::Histogram,
            };
            let metric = encoder.encode_descriptor(name, help, None, kind)?;
            match values {
                Values::Gauge(rows) => write_rows(metric, rows, |m, value| m.encode_gauge(value))?,
                Values::Counter(rows) => {
                    write_rows(metric, rows, |m, value| m.encode_counter::<NoLabelSet, _, u64>(value, None))?;
                }
                Values::Histogram(rows) => write_rows(metric, rows, |m, times| {
                    let classes: Vec<(f64, u64)> =
                        times.classes().map(|(bound, count)| (bound.as_secs_f64(), count)).collect();
                    m.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &classes, None)
                })?,
            }
        }
        Ok(())
    }
}

fn write_rows<T>(
    mut metric: MetricEncoder<'_>,
    rows: Vec<Row<T>>,
    write: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in rows {
        match labels.is_empty() {
            true => write(&mut metric, &value)?,
            false => write(&mut metric.encode_family(&labels)?, &value)?,
        }
    }
    Ok(())
}
