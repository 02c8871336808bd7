//! What a session's data connections may bring: only what was wanted, each once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::file_version::TransferId;
use crate::model::job::LandJob;

/// Wants of one session that no data connection has taken up yet. Shared by the ledger's thread, which adds, and the landing
/// threads, which take.
#[derive(Default)]
pub struct Expect {
    jobs: Mutex<HashMap<TransferId, LandJob>>,
    /// Grows with everything that arrives, so that a peer that owes files and sends nothing is noticed.
    progress: AtomicU64,
}

impl Expect {
    /// Before the want is sent.
    pub fn add(&self, transfer: TransferId, job: LandJob) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(transfer, job);
    }

    /// The job of an arriving (or declined) transfer; `None` for one that was never wanted, or came already.
    pub fn take(&self, transfer: TransferId) -> Option<LandJob> {
        self.note_progress();
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&transfer)
    }

    /// Something came.
    pub fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Files that are owed, and how much has come so far.
    pub(super) fn owed(&self) -> (usize, u64) {
        let owed = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).len();
        (owed, self.progress.load(Ordering::Relaxed))
    }
}
