//! The journal's thread: groups records into commits, says what is committed, and never gives up.
//!
//! Two threads: one that groups, watches the time and reports, and one that is inside SQLite. So a disk
//! that hangs can be reported, and hangs nothing but the second.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::model::record::Record;

use super::query::Question;
use super::{Journal, JournalError, Queries};

/// The shortest time between the beginnings of two commits, unless more is waiting than goes into one.
const PACE: Duration = Duration::from_millis(10);
/// No more records than this in one commit: bounds its memory and its time.
const BATCH_MAX: usize = 10_000;
/// A commit that takes longer is reported as trouble.
const SLOW: Duration = Duration::from_secs(2);
/// How often the grouping thread looks up while the other one is busy.
const LOOK_UP: Duration = Duration::from_millis(250);
/// First and longest wait before a failed commit is tried again.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// How long the end waits for the disk.
const LAST_WAIT: Duration = Duration::from_secs(4);

/// What the journal reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Every record up to this sequence number would be there again after a crash.
    Committed {
        /// Sequence number.
        up_to: u64,
    },
    /// Nothing can be committed at the moment; for people. Said once, until [`News::Healed`].
    Trouble(String),
    /// Commits work again.
    Healed,
}

/// A running journal.
#[derive(Debug)]
pub struct Running {
    /// Takes records, numbered from 1 without gaps; never blocks.
    pub records: Sender<(u64, Record)>,
    /// Answered between two commits.
    pub queries: Queries,
    /// Ends after the last sender was dropped and the rest is committed; where the disk does not
    /// do, after one more try of about 4 s at most.
    pub thread: JoinHandle<()>,
}

type Batch = Vec<(u64, Record)>;

/// What the thread inside SQLite does, in this order.
pub(super) enum Work {
    Commit(Batch),
    Answer(Question),
    /// Nothing more is to be committed.
    Close,
}

/// Starts the threads; `news` is called on one of them.
///
/// # Errors
/// Where no thread can be started.
pub fn start(journal: Journal, news: impl FnMut(News) + Send + 'static) -> io::Result<Running> {
    let (records, incoming) = channel();
    let (work, to_do) = channel();
    let (results, done) = channel();
    let queries = Queries::new(work.clone());
    thread::Builder::new().name("journal-disk".into()).spawn(move || disk(journal, &to_do, &results))?;
    let grouper =
        Grouper { incoming, work, done, news, waiting: Batch::new(), ending: false, troubled: false };
    let thread = thread::Builder::new().name("journal".into()).spawn(move || grouper.run())?;
    Ok(Running { records, queries, thread })
}

/// Everything that may hang.
fn disk(mut journal: Journal, to_do: &Receiver<Work>, results: &Sender<(Batch, Result<(), JournalError>)>) {
    for work in to_do {
        match work {
            Work::Commit(batch) => {
                let result = journal.commit(&batch);
                if results.send((batch, result)).is_err() {
                    break;
                }
            }
            Work::Answer(question) => question(journal.database()),
            Work::Close => break,
        }
    }
    if let Err(error) = journal.close() {
        tracing::warn!("{error}");
    }
}

struct Grouper<F> {
    incoming: Receiver<(u64, Record)>,
    work: Sender<Work>,
    done: Receiver<(Batch, Result<(), JournalError>)>,
    news: F,
    /// Received and not yet in a commit.
    waiting: Batch,
    /// No further record will come.
    ending: bool,
    /// Trouble was reported.
    troubled: bool,
}

impl<F: FnMut(News)> Grouper<F> {
    fn run(mut self) {
        let mut next_commit = Instant::now();
        while let Some(batch) = self.next_batch(next_commit) {
            next_commit = Instant::now() + PACE;
            if !self.commit(batch) {
                let _ = self.work.send(Work::Close);
                return;
            }
        }
        let _ = self.work.send(Work::Close);
        // Ends when the other thread has closed the database.
        let _ = self.done.recv_timeout(LAST_WAIT);
    }

    /// What is to be committed together, not before `earliest`; `None`: no more will come.
    fn next_batch(&mut self, earliest: Instant) -> Option<Batch> {
        while self.waiting.is_empty() && !self.ending {
            match self.incoming.recv() {
                Ok(record) => self.waiting.push(record),
                Err(_) => self.ending = true,
            }
        }
        if self.waiting.len() < BATCH_MAX && !self.ending {
            // Asleep, not receiving: else every record would wake this thread, and cost its sender more than itself.
            thread::sleep(earliest.saturating_duration_since(Instant::now()));
        }
        self.receive(BATCH_MAX, Instant::now());
        let rest = self.waiting.split_off(self.waiting.len().min(BATCH_MAX));
        let batch = std::mem::replace(&mut self.waiting, rest);
        (!batch.is_empty()).then_some(batch)
    }

    /// Receives until `enough` wait or it is `until`.
    fn receive(&mut self, enough: usize, until: Instant) {
        while self.waiting.len() < enough && !self.ending {
            match self.incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(record) => self.waiting.push(record),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.ending = true,
            }
        }
    }

    /// Tries until `batch` is committed; `false`: the end came first.
    fn commit(&mut self, mut batch: Batch) -> bool {
        let up_to = batch.last().map_or(0, |&(sequence, _)| sequence);
        let mut back_off = BACK_OFF[0];
        loop {
            let last_try = self.ending;
            if self.work.send(Work::Commit(batch)).is_err() {
                return self.abandoned();
            }
            let Some((returned, result)) = self.answer() else { return self.abandoned() };
            batch = returned;
            match result {
                Ok(()) => {
                    if std::mem::take(&mut self.troubled) {
                        (self.news)(News::Healed);
                    }
                    (self.news)(News::Committed { up_to });
                    return true;
                }
                Err(error) => self.trouble(error.to_string()),
            }
            if last_try {
                return self.abandoned();
            }
            self.receive(usize::MAX, Instant::now() + back_off);
            back_off = (2 * back_off).min(BACK_OFF[1]);
        }
    }

    /// Waits for the other thread, however long, until the end is near.
    fn answer(&mut self) -> Option<(Batch, Result<(), JournalError>)> {
        let begun = Instant::now();
        let mut last_moment = None;
        loop {
            match self.done.recv_timeout(LOOK_UP) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if begun.elapsed() >= SLOW {
                self.trouble(format!("journal: the disk has not answered for {} s", SLOW.as_secs()));
            }
            self.receive(usize::MAX, Instant::now());
            if self.ending && Instant::now() >= *last_moment.get_or_insert(Instant::now() + LAST_WAIT) {
                return None;
            }
        }
    }

    fn trouble(&mut self, text: String) {
        if !std::mem::replace(&mut self.troubled, true) {
            (self.news)(News::Trouble(text));
        }
    }

    fn abandoned(&self) -> bool {
        tracing::error!("journal: ended before everything was committed; the next start finds it out again");
        false
    }
}
