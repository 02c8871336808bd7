//! Clients that wait to hear what becomes of their extra files. Owned by the hub.

use std::sync::Arc;

use super::intake::TakenIn;
use crate::model::extra::ExtraFile;
use crate::model::ledger::{Ledger, Progress};
use crate::model::path::RelPath;
use crate::rooted::Handed;
use crate::serve::control::{Answer, Response};

/// See the module.
pub(super) struct Waiting {
    handed: Arc<Handed>,
    /// Until the journal has committed that record.
    taken: Vec<(u64, RelPath, Answer)>,
    /// Until it is stored everywhere, or given up.
    ended: Vec<(RelPath, Answer)>,
}

impl Waiting {
    pub(super) fn new(handed: Arc<Handed>) -> Self {
        Self { handed, taken: Vec::new(), ended: Vec::new() }
    }

    /// Holds a file open before the ledger hears of it, and remembers who wants to know that it did: to be told when what follows
    /// is committed.
    pub(super) fn hold(&self, taken_in: TakenIn) -> (ExtraFile, Option<Answer>) {
        let TakenIn { file, descriptor, answer } = taken_in;
        self.handed.hold(file.path.clone(), file.local, descriptor);
        (file, answer)
    }

    pub(super) fn for_commit(&mut self, sequence: u64, path: RelPath, answer: Answer) {
        self.taken.push((sequence, path, answer));
    }

    pub(super) fn for_end(&mut self, ledger: &Ledger, path: RelPath, answer: Answer) {
        // Lets it wait as long as it takes.
        if answer.say(Response::Reading {}) {
            self.ended.push((path, answer));
            self.end(ledger);
        }
    }

    pub(super) fn handed(&self) -> &Handed {
        &self.handed
    }

    /// Tells who waits for the journal.
    pub(super) fn committed(&mut self, ledger: &Ledger) {
        if self.taken.is_empty() {
            return;
        }
        for (sequence, path, answer) in std::mem::take(&mut self.taken) {
            if ledger.has_committed(sequence) {
                // The client may have left; the file is stored all the same.
                let _ = answer.send(Response::Added { file: path });
            } else {
                self.taken.push((sequence, path, answer));
            }
        }
    }

    /// Time has passed: what has ended is no longer held open, and those who wait are told.
    pub(super) fn pass(&mut self, ledger: &Ledger) {
        self.handed.release(|path| ledger.progress(path) == Progress::Pending);
        self.end(ledger);
    }

    fn end(&mut self, ledger: &Ledger) {
        for (path, answer) in std::mem::take(&mut self.ended) {
            match ledger.progress(&path) {
                Progress::Pending if answer.is_abandoned() => {}
                Progress::Pending => self.ended.push((path, answer)),
                end => drop(answer.send(Response::Ended { stored: end == Progress::Done })),
            }
        }
    }
}
