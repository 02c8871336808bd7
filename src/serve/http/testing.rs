//! Boards for tests.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::board::Observe;
use crate::model::history::History;
use crate::model::ledger::{DetectorSettings, Ledger, Now, Settings};
use crate::model::message::{Code, Message};
use crate::model::observation::{Observation, Raised};
use crate::model::pacing::Pauses;
use crate::model::shift::{Shift, ShiftId};
use crate::model::status::Told;

/// Of a PPU with one detector, on which nothing has happened but one message.
pub(super) fn observation(after: u64) -> Observation {
    let detector = DetectorSettings {
        id: "1MF".into(),
        address: "10.10.10.11:49371".to_owned(),
        pauses: Pauses::default(),
    };
    let settings = Settings { detectors: vec![detector], storages: vec![], ramdisk: "/ramdisk".to_owned() };
    let shift = Shift { id: ShiftId(1000), uid: 500, gid: 500, user_dir: None, places: vec![] };
    let mut ledger = Ledger::new(settings, Arc::new(shift));
    let now = Now { at: Instant::now(), wall_ms: 2000 };
    let mut history = History::default();
    history.push(now.at, ledger.sample(now));
    let (visible, stored) = ledger.times();
    let message = Message::new(Code::DetectorLink, "1MF", "Detector 1MF: <b>look</b> at its cable.");
    let told = Told { number: 1000, count: 1, at_ms: 1500, message };
    let mut raised = Raised::default();
    raised.count(Code::DetectorLink);
    Observation {
        report: ledger.report(now),
        samples: history.samples(),
        visible,
        stored,
        raised,
        told: [told].into_iter().filter(|told| told.number > after).collect(),
    }
}

/// Answers before it returns.
pub(super) fn at_once() -> Arc<Observe> {
    Arc::new(|after, reply| reply(observation(after)))
}

/// Never answers; how often it was asked.
pub(super) fn never() -> (Arc<Observe>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let kept = Mutex::new(Vec::new());
    let observe = move |_, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        kept.lock().unwrap().push(reply);
    };
    (Arc::new(observe), asked)
}
