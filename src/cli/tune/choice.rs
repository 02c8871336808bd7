//! What to set, by what was measured.

use ppu_config::{DetectorLink, Direct, Engine, Ppu, Storage};
use serde::Serialize;

use super::link;
use super::remote;
use super::storage;
use super::table::{self, Row};

/// A storage and what was measured on it.
pub(super) type Measured<'a> = (&'a Storage, Vec<Row<storage::Way>>);

/// Each setting beside what it is now.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    engine: Option<Set<&'static str>>,
    detectors: Vec<ForDetector>,
    storages: Vec<ForStorage>,
}

#[derive(Debug, Serialize)]
struct ForDetector {
    id: String,
    streams: Set<u16>,
}

#[derive(Debug, Serialize)]
struct ForStorage {
    id: String,
    queue_depth: Set<usize>,
    direct: Set<&'static str>,
}

/// A setting.
#[derive(Debug, Serialize)]
struct Set<T> {
    now: T,
    set: T,
}

impl Choice {
    pub(super) fn new(config: &Ppu, links: &[Row<link::Way>], storages: &[Measured<'_>]) -> Self {
        let mut choice = Self { engine: None, detectors: Vec::new(), storages: Vec::new() };
        if let Some((best, engine)) = engine(config, links, |way| way.engine) {
            choice.engine = Some(engine);
            let rows: Vec<_> = links.iter().filter(|row| row.way.engine == best).cloned().collect();
            choice.detectors = config
                .detectors
                .iter()
                .filter_map(|detector| streams(detector, &rows, |way| way.streams))
                .collect();
        }
        choice.storages = storages.iter().filter_map(for_storage).collect();
        choice
    }

    /// The lines of ppu.toml.
    pub(super) fn toml(&self) -> String {
        let mut lines = String::new();
        lines += &engine_and_streams(&self.engine, &self.detectors);
        for ForStorage { id, queue_depth, direct } in &self.storages {
            lines += &format!(
                "\n[[storage]]  # {id}\nqueue_depth = {}  # {}\ndirect = \"{}\"  # {}\n",
                queue_depth.set,
                word(queue_depth.now == queue_depth.set),
                direct.set,
                word(direct.now == direct.set),
            );
        }
        lines
    }
}

/// What a measurement over the network decides.
#[derive(Debug, Serialize)]
pub(super) struct OverNetwork {
    engine: Option<Set<&'static str>>,
    /// In detector.toml, which is not here.
    detector_engine: Option<&'static str>,
    detectors: Vec<ForDetector>,
}

impl OverNetwork {
    pub(super) fn new(config: &Ppu, detector: &DetectorLink, rows: &[Row<remote::Way>]) -> Self {
        let mut choice = Self { engine: None, detector_engine: None, detectors: Vec::new() };
        let Some((best, engine)) = engine(config, rows, |way| way.engine) else { return choice };
        choice.engine = Some(engine);
        let rows: Vec<_> = rows.iter().filter(|row| row.way.engine == best).cloned().collect();
        // As it is without the key, where that can be.
        let usual = link::now(Engine::Auto, &rows, |way| way.detector_engine);
        let there = link::best_engine(&rows, |way| way.detector_engine, usual);
        choice.detector_engine = there.map(|there| if Some(there) == usual { "auto" } else { name(there) });
        let rows: Vec<_> =
            rows.iter().filter(|row| Some(row.way.detector_engine) == there).cloned().collect();
        choice.detectors = streams(detector, &rows, |way| way.streams).into_iter().collect();
        choice
    }

    /// The lines of ppu.toml.
    pub(super) fn toml(&self) -> String {
        engine_and_streams(&self.engine, &self.detectors)
    }

    /// The line of detector.toml.
    pub(super) fn toml_there(&self) -> String {
        self.detector_engine.map(|engine| format!("engine = \"{engine}\"\n")).unwrap_or_default()
    }
}

fn engine_and_streams(engine: &Option<Set<&'static str>>, detectors: &[ForDetector]) -> String {
    let mut lines = String::new();
    if let Some(Set { now, set }) = engine {
        lines += &format!("engine = \"{set}\"  # {}\n", word(now == set));
    }
    for ForDetector { id, streams: Set { now, set } } in detectors {
        lines += &format!("\n[[detector]]  # {id}\nstreams = {set}  # {}\n", word(now == set));
    }
    lines
}

fn word(as_now: bool) -> &'static str {
    if as_now { "as now" } else { "was otherwise" }
}

/// The PPU's.
fn engine<W>(
    config: &Ppu,
    rows: &[Row<W>],
    of: impl Fn(&W) -> ppu_uring::Engine,
) -> Option<(ppu_uring::Engine, Set<&'static str>)> {
    let now = link::now(config.engine, rows, &of);
    let best = link::best_engine(rows, &of, now)?;
    let configured = match config.engine {
        Engine::Auto => "auto",
        Engine::Uring => "uring",
        Engine::Syscall => "syscall",
    };
    // `auto` takes io_uring where it can.
    let set = if Some(best) == now { configured } else { name(best) };
    Some((best, Set { now: configured, set }))
}

fn name(engine: ppu_uring::Engine) -> &'static str {
    match engine {
        ppu_uring::Engine::Uring => "uring",
        ppu_uring::Engine::Syscall => "syscall",
    }
}

fn streams<W: Copy>(detector: &DetectorLink, rows: &[Row<W>], of: impl Fn(&W) -> u16) -> Option<ForDetector> {
    let best = table::best(rows, |way| usize::from(of(way)), |way| of(way) == detector.streams)?;
    let streams = Set { now: detector.streams, set: of(&best) };
    Some(ForDetector { id: detector.id.clone(), streams })
}

fn for_storage((storage, rows): &Measured<'_>) -> Option<ForStorage> {
    let depths: Vec<_> = rows.iter().filter(|row| row.way.direct).cloned().collect();
    let now = usize::from(storage.queue_depth);
    let best = table::best(&depths, |way| way.depth, |way| way.depth == now)?;
    let direct = Set {
        now: match storage.direct {
            Direct::Auto => "auto",
            Direct::Off => "off",
        },
        set: if storage::cache_is_better(rows) { "off" } else { "auto" },
    };
    Some(ForStorage { id: storage.id.clone(), queue_depth: Set { now, set: best.depth }, direct })
}
