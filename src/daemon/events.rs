//! What becomes visible and what is stored, for consumers: taken from the records that the ledger writes anyway. Owned by the hub.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ppu_config::{HookOn, Ppu};

use crate::journal::Queries;
use crate::model::event::{EventKind, FileEvent, Places, Subject};
use crate::model::extra::EXTRA;
use crate::model::ledger::Ledger;
use crate::model::record::{Loaded, Record};
use crate::serve::events::Events;
use crate::serve::feed::Feed;
use crate::serve::hook::Settings;

/// Events of a kind that are kept in memory: more than what is usually not yet committed. Older ones are in the journal.
const KEPT: usize = 8192;

/// See the module.
pub struct EventFeed {
    /// See [`crate::journal::Journal::event_base`].
    base: u64,
    places: Arc<Places>,
    visible: Feed<Arc<FileEvent>>,
    stored: Feed<Arc<FileEvent>>,
    /// Of the present batch.
    seen: Vec<(u64, Arc<FileEvent>)>,
    /// Stored, and the journal has not said so yet; oldest record first.
    written: VecDeque<(u64, FileEvent)>,
}

impl EventFeed {
    pub(super) fn new(base: u64, places: Places) -> Self {
        // What came before is in the journal.
        let feed = || Feed::new(KEPT, base, Vec::new(), base);
        let (visible, stored) = (feed(), feed());
        Self { base, places: Arc::new(places), visible, stored, seen: Vec::new(), written: VecDeque::new() }
    }

    /// For consumers.
    pub(super) fn events(&self, log: Queries) -> Events {
        Events::new(self.visible.reader(), self.stored.reader(), log, Arc::clone(&self.places))
    }

    /// A record is on its way to the journal.
    pub(super) fn recorded(&mut self, ledger: &Ledger, sequence: u64, record: &Record) {
        let number = self.base.saturating_add(sequence);
        match record {
            Record::Landed(version) => {
                let subject = ledger.owner(version.shift).map(|owner| Subject::new(version, owner));
                let event = subject
                    .and_then(|subject| self.places.visible(number, subject, &version.at, version.landed_ms));
                self.seen.extend(event.map(|event| (number, Arc::new(event))));
            }
            Record::Stored { version, storage } => {
                let event = ledger
                    .subject(*version)
                    .and_then(|(subject, to)| self.places.stored(number, subject, &to, *storage, 0));
                self.written.extend(event.map(|event| (sequence, event)));
            }
            _ => {}
        }
    }

    /// The journal has everything up to that record: now, and only now, it is *stored*.
    pub(super) fn committed(&mut self, up_to: u64, now_ms: i64) {
        let count = self.written.partition_point(|(sequence, _)| *sequence <= up_to);
        self.stored.publish(
            self.written
                .drain(..count)
                .map(|(_, event)| (event.number, Arc::new(FileEvent { at_ms: now_ms, ..event }))),
        );
    }

    /// What became visible in the present batch is told.
    pub(super) fn publish(&mut self) {
        if !self.seen.is_empty() {
            self.visible.publish(self.seen.drain(..));
        }
    }
}

/// The configured names and places, then the former names, as the journal numbers them.
pub(super) fn places(config: &Ppu, loaded: &Loaded) -> Places {
    let detectors = config.detectors.iter().map(|detector| detector.id.as_str());
    let detectors = detectors.chain([EXTRA]).chain(loaded.former_detectors.iter().map(String::as_str));
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let storages = config.storages.iter().map(|storage| (storage.id.as_str(), bytes(&storage.target)));
    let storages = storages.chain(loaded.former_storages.iter().map(|id| (id.as_str(), Vec::new())));
    Places {
        ramdisk: bytes(&config.ramdisk),
        detectors: detectors.map(Into::into).collect(),
        storages: storages.map(|(id, target)| (id.into(), target)).collect(),
    }
}

/// As the hook's thread takes it.
pub(super) fn hook(config: &ppu_config::Hook) -> Settings {
    Settings {
        run: config.run.clone(),
        on: match config.on {
            HookOn::Visible => EventKind::Visible,
            HookOn::Stored => EventKind::Stored,
        },
        processes: usize::from(config.processes),
        batch: config.batch as usize,
        timeout: config.timeout,
    }
}
