//! A program of the beamline's that is started for events, as the shift's user: bounded in number and in time, and nothing waits for it.

mod process;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use self::process::Batch;
use super::events::{Events, Item, NoEvents};
use crate::model::event::{EventKind, FileEvent};

/// What does not work is not tried much more often.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// At the end, programs get so long after SIGTERM, and a little more.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What is run, and when.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For `/bin/sh -c`; `None`: nothing.
    pub run: Option<String>,
    /// For these events.
    pub on: EventKind,
    /// Processes at a time.
    pub processes: usize,
    /// Events that one of them gets, at most.
    pub batch: usize,
    /// Then it is killed.
    pub timeout: Duration,
}

/// Running, or not wanted.
#[derive(Debug)]
pub struct Hook(Option<JoinHandle<()>>);

/// Starts the hook's thread, if there is something to run. It ends when `events` do.
///
/// # Errors
/// Where there is no thread to be had.
pub fn start(settings: Settings, events: Events) -> io::Result<Hook> {
    let Some(run) = settings.run.clone() else { return Ok(Hook(None)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runner = Runner {
        slots: Arc::new(Semaphore::new(settings.processes)),
        ending: Arc::new(AtomicBool::new(false)),
        run: run.into(),
        settings,
    };
    let thread = thread::Builder::new().name("hook".into()).spawn(move || {
        runtime.block_on(runner.serve(events));
        // A question to a journal whose disk hangs is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(Hook(Some(thread)))
}

impl Hook {
    /// After the events' end; takes some seconds at most.
    pub fn stop(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the hook's thread has panicked");
        }
    }
}

struct Runner {
    settings: Settings,
    run: Arc<str>,
    slots: Arc<Semaphore>,
    ending: Arc<AtomicBool>,
}

impl Runner {
    async fn serve(self, mut events: Events) {
        let kind = self.settings.on;
        let mut since = events.last(kind);
        let mut waiting = VecDeque::new();
        while let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await {
            while waiting.is_empty() {
                match events.after(kind, &mut since, self.settings.batch).await {
                    Ok(items) => waiting.extend(items.into_iter().filter_map(event)),
                    Err(NoEvents::End) => {
                        drop(slot);
                        return self.end().await;
                    }
                    Err(NoEvents::Trouble(why)) => {
                        tracing::warn!("hook: {why}");
                        sleep(AFTER_FAILURE).await;
                    }
                }
            }
            self.start(next_batch(&mut waiting, self.settings.batch), slot);
        }
    }

    fn start(&self, events: Vec<Arc<FileEvent>>, slot: OwnedSemaphorePermit) {
        let batch = Batch {
            run: Arc::clone(&self.run),
            events,
            timeout: self.settings.timeout,
            ending: Arc::clone(&self.ending),
        };
        let work = move || {
            if let Err(error) = batch.run() {
                tracing::warn!("hook: {error}");
                if !batch.ending.load(Ordering::Relaxed) {
                    thread::park_timeout(AFTER_FAILURE);
                }
            }
            drop(slot);
        };
        if let Err(error) = thread::Builder::new().name("hook-process".into()).spawn(work) {
            tracing::warn!("hook: no thread for a process: {error}: its files are passed over");
        }
    }

    async fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        let all = u32::try_from(self.settings.processes).unwrap_or(u32::MAX);
        if timeout(LAST_WAIT, self.slots.acquire_many(all)).await.is_err() {
            tracing::warn!("hook: a process does not end; leaving it");
        }
    }
}

fn event(item: Item) -> Option<Arc<FileEvent>> {
    match item {
        Item::Event(event) => Some(event),
        Item::Gap(gap) => {
            let (after, before) = (gap.after, gap.before);
            tracing::warn!(
                "hook: it is slower than files come: events between {after} and {before} may be missed"
            );
            None
        }
    }
}

/// The first ones of one shift.
fn next_batch(waiting: &mut VecDeque<Arc<FileEvent>>, most: usize) -> Vec<Arc<FileEvent>> {
    let whose = |event: &FileEvent| (event.shift, event.uid, event.gid);
    let first = waiting.front().map(|event| whose(event));
    let count = waiting.iter().take(most).take_while(|event| Some(whose(event)) == first).count();
    waiting.drain(..count).collect()
}
