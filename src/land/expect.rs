//! What a session's data connections may bring: what was wanted or granted, each once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::file_version::TransferId;
use crate::model::job::LandJob;

/// Transfers of one session that have not ended. Shared by the ledger's thread, which adds, and the landing threads, which take.
#[derive(Default)]
pub struct Expect {
    transfers: Mutex<Transfers>,
    /// What came ahead of its offer is known now, or the session is over.
    told: Condvar,
    /// Grows with everything that arrives, so that a peer that owes files and sends nothing is noticed.
    progress: AtomicU64,
}

#[derive(Default)]
struct Transfers {
    states: HashMap<TransferId, State>,
    closed: bool,
}

/// How far a transfer is that no landing thread has the job of.
enum State {
    /// Is to come; `None`: it was granted, and is to be discarded.
    Due(Option<LandJob>),
    /// May come unasked.
    Granted { max_bytes: u64 },
    /// Comes unasked, ahead of the ledger's word on it.
    Ahead,
    /// That word, to be fetched.
    Told(Option<LandJob>),
    /// Will not come after all, and the ledger has not said its word yet.
    Declined,
}

/// What an arriving transfer is.
#[derive(Debug)]
pub enum Arriving {
    /// It was asked for, or is taken as it comes.
    Wanted(LandJob),
    /// It comes unasked, with at most so many bytes: [`Expect::job`] will tell what it is.
    Ahead {
        /// Bytes.
        max_bytes: u64,
    },
    /// It comes unasked, and is not taken.
    Unwanted,
}

impl Expect {
    /// Before the want is sent.
    pub fn add(&self, transfer: TransferId, job: LandJob) {
        self.lock().states.insert(transfer, State::Due(Some(job)));
    }

    /// Before the grant is sent.
    pub fn grant(&self, transfers: &[TransferId], max_bytes: u64) {
        let states = transfers.iter().map(|transfer| (*transfer, State::Granted { max_bytes }));
        self.lock().states.extend(states);
    }

    /// A granted transfer is used for this; `None`: it is not taken.
    pub fn tell(&self, transfer: TransferId, job: Option<LandJob>) {
        let states = &mut self.lock().states;
        match states.remove(&transfer) {
            Some(State::Granted { .. }) => _ = states.insert(transfer, State::Due(job)),
            Some(State::Ahead) => {
                states.insert(transfer, State::Told(job));
                self.told.notify_all();
            }
            // Declined; the rest does not happen.
            _ => {}
        }
    }

    /// A transfer arrives. `None`: it was never wanted or granted, or came already.
    pub fn take(&self, transfer: TransferId) -> Option<Arriving> {
        self.note_progress();
        let states = &mut self.lock().states;
        match states.remove(&transfer)? {
            State::Due(Some(job)) => Some(Arriving::Wanted(job)),
            State::Due(None) => Some(Arriving::Unwanted),
            State::Granted { max_bytes } => {
                states.insert(transfer, State::Ahead);
                Some(Arriving::Ahead { max_bytes })
            }
            other => {
                states.insert(transfer, other);
                None
            }
        }
    }

    /// Waits for the ledger's word on a transfer that came ahead of it. `None`: it is not taken, or the session is over.
    pub fn job(&self, transfer: TransferId) -> Option<LandJob> {
        let mut transfers = self.lock();
        loop {
            match transfers.states.remove(&transfer) {
                Some(State::Told(job)) => return job,
                Some(other) if !transfers.closed => _ = transfers.states.insert(transfer, other),
                _ => return None,
            }
            transfers = self.told.wait(transfers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A transfer will not come. False: nor could it.
    pub fn decline(&self, transfer: TransferId) -> bool {
        self.note_progress();
        let states = &mut self.lock().states;
        match states.remove(&transfer) {
            Some(State::Due(_)) => true,
            Some(State::Granted { .. }) => {
                states.insert(transfer, State::Declined);
                true
            }
            Some(other) => {
                states.insert(transfer, other);
                false
            }
            None => false,
        }
    }

    /// The session is over: nobody waits any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.told.notify_all();
    }

    /// Something came.
    pub fn note_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Files that are owed, and how much has come so far.
    pub(super) fn owed(&self) -> (usize, u64) {
        let is_owed = |state: &&State| matches!(state, State::Due(_) | State::Ahead);
        let owed = self.lock().states.values().filter(is_owed).count();
        (owed, self.progress.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Transfers> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file_version::{DetectorIndex, Identity};
    use crate::model::path::RelPath;
    use crate::model::shift::{Shift, ShiftId};

    const TRANSFER: TransferId = TransferId(7);

    fn job(size: u64) -> LandJob {
        let path = RelPath::new(b"x").unwrap();
        LandJob {
            detector: DetectorIndex(0),
            detector_id: "d".into(),
            shift: Shift::new(ShiftId(1), 1, 1, "$UID", Vec::new()).unwrap().into(),
            path: path.clone(),
            at: path,
            to: None,
            offered: Identity { size, mtime_ns: 0, ino: 0, ctime_ns: 0 },
            replace_past: false,
            compare_only: false,
        }
    }

    fn granted() -> Expect {
        let expect = Expect::default();
        expect.grant(&[TRANSFER], 1000);
        expect
    }

    #[test]
    fn what_is_wanted_comes_once() {
        let expect = Expect::default();
        assert!(expect.take(TRANSFER).is_none() && !expect.decline(TRANSFER), "never wanted");
        expect.add(TRANSFER, job(5));
        assert_eq!(expect.owed().0, 1);
        assert!(matches!(expect.take(TRANSFER), Some(Arriving::Wanted(job)) if job.offered.size == 5));
        assert!(expect.take(TRANSFER).is_none());
        assert_eq!(expect.owed().0, 0);
    }

    #[test]
    fn what_is_known_before_it_comes_is_like_what_was_wanted() {
        let expect = granted();
        assert_eq!(expect.owed().0, 0, "it may come, and need not");
        expect.tell(TRANSFER, Some(job(5)));
        assert!(matches!(expect.take(TRANSFER), Some(Arriving::Wanted(_))));
        let expect = granted();
        expect.tell(TRANSFER, None);
        assert!(matches!(expect.take(TRANSFER), Some(Arriving::Unwanted)));
        assert!(expect.take(TRANSFER).is_none());
    }

    #[test]
    fn what_comes_ahead_waits_until_it_is_known() {
        for told in [Some(job(5)), None] {
            let expect = granted();
            assert!(matches!(expect.take(TRANSFER), Some(Arriving::Ahead { max_bytes: 1000 })));
            assert!(expect.take(TRANSFER).is_none() && !expect.decline(TRANSFER), "it has begun to come");
            let taken = told.is_some();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| expect.job(TRANSFER));
                expect.tell(TRANSFER, told);
                assert_eq!(waits.join().unwrap().is_some(), taken);
            });
            assert_eq!(expect.owed().0, 0);
        }
    }

    #[test]
    fn nobody_waits_beyond_the_sessions_end() {
        let expect = granted();
        expect.take(TRANSFER);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| expect.job(TRANSFER));
            expect.close();
            assert!(waits.join().unwrap().is_none());
        });
        assert!(expect.job(TransferId(8)).is_none());
    }

    #[test]
    fn what_is_declined_before_it_is_known_leaves_nothing() {
        let expect = granted();
        assert!(expect.decline(TRANSFER));
        expect.tell(TRANSFER, Some(job(5)));
        assert_eq!(expect.owed().0, 0);
        assert!(expect.take(TRANSFER).is_none());
    }
}
