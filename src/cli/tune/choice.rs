//! What to set, by what was measured.

use ppu_config::{Direct, Engine, Ppu, Storage};
use serde::Serialize;

use super::link;
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
        let now = link::now(config.engine, links);
        if let Some(best) = link::best_engine(links, now) {
            let word = match best {
                ppu_uring::Engine::Uring => "uring",
                ppu_uring::Engine::Syscall => "syscall",
            };
            let configured = match config.engine {
                Engine::Auto => "auto",
                Engine::Uring => "uring",
                Engine::Syscall => "syscall",
            };
            // `auto` takes io_uring where it can.
            let set = if Some(best) == now { configured } else { word };
            choice.engine = Some(Set { now: configured, set });
            let rows: Vec<_> = links.iter().filter(|row| row.way.engine == best).cloned().collect();
            for detector in &config.detectors {
                let is_now = |way: &link::Way| way.streams == detector.streams;
                if let Some(best) = table::best(&rows, |way| usize::from(way.streams), is_now) {
                    let streams = Set { now: detector.streams, set: best.streams };
                    choice.detectors.push(ForDetector { id: detector.id.clone(), streams });
                }
            }
        }
        choice.storages = storages.iter().filter_map(for_storage).collect();
        choice
    }

    /// The lines of ppu.toml.
    pub(super) fn toml(&self) -> String {
        let mut lines = String::new();
        if let Some(Set { now, set }) = &self.engine {
            lines += &format!("engine = \"{set}\"  # {}\n", word(now == set));
        }
        for ForDetector { id, streams: Set { now, set } } in &self.detectors {
            lines += &format!("\n[[detector]]  # {id}\nstreams = {set}  # {}\n", word(now == set));
        }
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

fn word(as_now: bool) -> &'static str {
    if as_now { "as now" } else { "was otherwise" }
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
