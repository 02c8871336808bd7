//! The keepers: who they are, and what the ledger's thread tells them.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ppu_config::{Ppu, Storage, StorageKind};

use super::hub::Input;
use crate::journal::Queries;
use crate::keep::{Ground, Keeper, Leaving, Settings, Shown, Situation, View};
use crate::model::file_version::StorageIndex;
use crate::model::ledger::Ledger;
use crate::model::path::printable;
use crate::model::pressure::Marks;
use crate::model::residents::{Home, Resident};
use crate::model::status::StatusReport;
use crate::rooted::{RootError, Staging};

/// The hub's side of the keepers.
pub struct Keepers {
    situation: Arc<Situation>,
    storages: usize,
    ramdisk: Sender<Resident>,
}

/// The threads.
pub(super) struct Keeping {
    keepers: Vec<Keeper>,
    shown: Everything,
}

/// What keepers let the status know.
#[derive(Clone)]
struct Everything {
    ramdisk: Arc<Shown>,
}

/// Starts the keepers. Nothing leaves before the hub runs.
pub(super) fn start(
    config: &Ppu,
    staging: &Arc<Staging>,
    ledger: &Ledger,
    queries: &Queries,
    inputs: &Sender<Input>,
) -> Result<(Keeping, Keepers), KeepingError> {
    let situation = Arc::new(Situation::new(view(ledger, config.storages.len())));
    let (ramdisk, residents) = channel();
    let shown = Everything { ramdisk: Arc::default() };
    let mut keepers = Vec::new();
    // There is exactly one: the configuration was checked.
    if let Some((internal, storage)) = internal(config) {
        let settings = Settings {
            id: "ramdisk".to_owned(),
            name: shown_path(&config.ramdisk),
            ground: Ground::ramdisk(Arc::clone(staging))?,
            marks: marks(config),
            leaving: Leaving {
                stored_on: vec![internal],
                link_to: storage.target.clone(),
                create_links: config.create_links,
                queries: queries.clone(),
                residents,
            },
            situation: Arc::clone(&situation),
            shown: Arc::clone(&shown.ramdisk),
        };
        let inputs = inputs.clone();
        let tell = Box::new(move |message| drop(inputs.send(Input::Tell(message))));
        keepers.push(Keeper::start(settings, tell)?);
    }
    let hub = Keepers { situation, storages: config.storages.len(), ramdisk };
    Ok((Keeping { keepers, shown }, hub))
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

impl Keepers {
    /// Now and then.
    pub(super) fn look(&self, ledger: &Ledger) {
        self.situation.set(view(ledger, self.storages));
    }

    /// A version may leave.
    pub(super) fn may_leave(&self, home: Home, resident: Resident) {
        match home {
            // It has ended: so does the daemon.
            Home::Ramdisk => drop(self.ramdisk.send(resident)),
            Home::Internal => {}
        }
    }
}

impl Keeping {
    /// Fills in what the keepers know.
    pub(super) fn describe(&self) -> impl Fn(&mut StatusReport) + Send + use<> {
        let shown = self.shown.clone();
        move |report| report.ramdisk.left = shown.ramdisk.get().left
    }

    /// Ends them; who hangs with a storage is left to itself.
    pub(super) fn stop(self, deadline: Instant) {
        for keeper in self.keepers {
            keeper.stop(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        }
    }
}

/// Where links lead that eviction leaves on the ramdisk.
pub(super) fn internal(config: &Ppu) -> Option<(StorageIndex, &Storage)> {
    let found = config.storages.iter().enumerate().find(|(_, storage)| storage.kind == StorageKind::Internal);
    found.map(|(index, storage)| (StorageIndex(index as u16), storage))
}

fn view(ledger: &Ledger, storages: usize) -> View {
    let all = (0..storages).map(|index| StorageIndex(index as u16));
    View {
        current: ledger.shared_current_shift(),
        doubtful: all.filter(|storage| ledger.is_doubtful(*storage)).collect(),
    }
}

fn marks(config: &Ppu) -> Marks {
    Marks { limit: config.fillstate_limit, low: config.fillstate_low, almost: config.almost_overflow }
}

fn shown_path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    printable(path.as_os_str().as_bytes())
}
