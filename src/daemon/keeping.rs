//! The keepers: who they are, and what the ledger's thread tells them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, channel};
use std::time::{Duration, Instant};

use ppu_config::{Ppu, Storage, StorageKind};

use super::hub::Input;
use super::ppu::place;
use crate::host::inbox::Sender;
use crate::journal::Queries;
use crate::keep::{Ground, Keeper, Leaving, Settings, Shown, Situation, View};
use crate::model::file_version::StorageIndex;
use crate::model::ledger::{Fact, Ledger};
use crate::model::path::printable;
use crate::model::pressure::Marks;
use crate::model::residents::{Home, Resident};
use crate::model::status::StatusReport;
use crate::rooted::{RootError, Staging};

/// The hub's side of the keepers.
pub struct Keepers {
    situation: Arc<Situation>,
    storages: usize,
    ramdisk: mpsc::Sender<Resident>,
    internal: Option<mpsc::Sender<Resident>>,
}

/// The threads.
pub(super) struct Keeping {
    keepers: Vec<Keeper>,
    ramdisk: Arc<Shown>,
    /// In the order of their indices.
    storages: Vec<Arc<Shown>>,
}

/// Why there are no keepers.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// No place in staging.
    #[error("ramdisk: {0}")]
    Ramdisk(#[from] RootError),
    /// No thread.
    #[error("start a keeper's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts a keeper for the ramdisk and one for each storage. Nothing leaves before the hub runs.
pub(super) fn start(
    config: &Ppu,
    staging: &Arc<Staging>,
    ledger: &Ledger,
    queries: &Queries,
    inputs: &Sender<Input>,
) -> Result<(Keeping, Keepers), KeepingError> {
    let situation = Arc::new(Situation::new(view(ledger, config.storages.len(), false)));
    let leaving = |stored_on: Vec<StorageIndex>, to: &Storage| {
        let (sender, residents) = channel();
        let leaving = Leaving {
            stored_on,
            link_to: to.target.clone(),
            create_links: config.create_links,
            queries: queries.clone(),
            residents,
            situation: Arc::clone(&situation),
        };
        (sender, leaving)
    };
    let (internal, external) =
        (of_kind(config, StorageKind::Internal), of_kind(config, StorageKind::External));
    // There is exactly one internal storage: the configuration was checked. Without, nothing would leave.
    let (ramdisk, from_ramdisk) = match internal {
        Some((index, storage)) => {
            let (sender, leaving) = leaving(vec![index], storage);
            (sender, Some(leaving))
        }
        None => (channel().0, None),
    };
    let (to_internal, mut from_internal) = match (internal, external) {
        (Some((internal, _)), Some((external, storage))) => {
            let (sender, leaving) = leaving(vec![internal, external], storage);
            (Some(sender), Some((internal, leaving)))
        }
        _ => (None, None),
    };
    let shown = || Arc::new(Shown::default());
    let mut keeping = Keeping {
        keepers: Vec::new(),
        ramdisk: shown(),
        storages: config.storages.iter().map(|_| shown()).collect(),
    };
    let marks =
        Marks { limit: config.fillstate_limit, low: config.fillstate_low, almost: config.almost_overflow };
    keeping.keepers.push(Keeper::start(Settings {
        id: "ramdisk".to_owned(),
        name: shown_path(&config.ramdisk),
        ground: Ground::ramdisk(Arc::clone(staging))?,
        marks,
        leaving: from_ramdisk,
        shown: Arc::clone(&keeping.ramdisk),
        tell: tell(inputs),
        seen: Box::new(|gone| {
            if let Some(reason) = gone {
                tracing::error!("ramdisk: {reason}");
            }
        }),
    })?);
    for (index, storage) in config.storages.iter().enumerate() {
        let at = StorageIndex(index as u16);
        let seen = inputs.clone();
        let looked = move |gone| drop(seen.send(Input::Fact(Fact::Looked { storage: at, gone })));
        keeping.keepers.push(Keeper::start(Settings {
            id: storage.id.clone(),
            name: mount_point(storage),
            ground: Ground::storage(at, place(storage)),
            marks,
            leaving: from_internal.take_if(|(internal, _)| *internal == at).map(|(_, leaving)| leaving),
            shown: Arc::clone(&keeping.storages[index]),
            tell: tell(inputs),
            seen: Box::new(looked),
        })?);
    }
    let hub = Keepers { situation, storages: config.storages.len(), ramdisk, internal: to_internal };
    Ok((keeping, hub))
}

impl Keepers {
    /// Now and then. `landing`: images have come a moment ago.
    pub(super) fn look(&self, ledger: &Ledger, landing: bool) {
        self.situation.set(view(ledger, self.storages, landing));
    }

    /// A version may leave.
    pub(super) fn may_leave(&self, home: Home, resident: Resident) {
        let keeper = match home {
            Home::Ramdisk => Some(&self.ramdisk),
            Home::Internal => self.internal.as_ref(),
        };
        if let Some(keeper) = keeper {
            // One that has ended lets nothing go.
            let _ = keeper.send(resident);
        }
    }
}

impl Keeping {
    /// Fills in what the keepers know.
    pub(super) fn describe(&self) -> impl Fn(&mut StatusReport) + Send + use<> {
        let (ramdisk, storages) = (Arc::clone(&self.ramdisk), self.storages.clone());
        move |report| {
            report.ramdisk.left = ramdisk.get().left;
            for (storage, shown) in report.storages.iter_mut().zip(&storages) {
                let kept = shown.get();
                (storage.room, storage.left) = (kept.room, kept.left);
            }
        }
    }

    /// They are to end.
    pub(super) fn ask_to_stop(&self) {
        self.keepers.iter().for_each(Keeper::ask_to_stop);
    }

    /// Ends them; who hangs with a storage is left to itself.
    pub(super) fn stop(self, deadline: Instant) {
        for keeper in self.keepers {
            keeper.stop(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        }
    }
}

/// Where links lead that eviction leaves on the ramdisk.
pub(super) fn links_from_ramdisk(config: &Ppu) -> Option<PathBuf> {
    of_kind(config, StorageKind::Internal).map(|(_, internal)| internal.target.clone())
}

/// Where links lead that eviction leaves on a storage.
pub(super) fn links_from(config: &Ppu, storage: &Storage) -> Option<PathBuf> {
    let external = of_kind(config, StorageKind::External).filter(|_| storage.kind == StorageKind::Internal);
    external.map(|(_, external)| external.target.clone())
}

/// Links that eviction leaves lead to it.
pub(super) fn links_lead_to(storage: &Storage) -> bool {
    matches!(storage.kind, StorageKind::Internal | StorageKind::External)
}

/// As messages name it.
pub(super) fn mount_point(storage: &Storage) -> String {
    shown_path(storage.mountpoint.as_ref().unwrap_or(&storage.target))
}

/// On one line.
pub(super) fn shown_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// There is one at most.
fn of_kind(config: &Ppu, kind: StorageKind) -> Option<(StorageIndex, &Storage)> {
    let found = config.storages.iter().enumerate().find(|(_, storage)| storage.kind == kind);
    found.map(|(index, storage)| (StorageIndex(index as u16), storage))
}

fn view(ledger: &Ledger, storages: usize, landing: bool) -> View {
    let all = (0..storages).map(|index| StorageIndex(index as u16));
    View {
        current: ledger.shared_current_shift(),
        doubtful: all.filter(|storage| ledger.is_doubtful(*storage)).collect(),
        room_needed: ledger.room_needed(),
        landing,
    }
}

fn tell(inputs: &Sender<Input>) -> crate::keep::Told {
    let inputs = inputs.clone();
    Box::new(move |message| drop(inputs.send(Input::Tell(message))))
}
