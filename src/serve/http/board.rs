//! What all clients see: the newest observation, and what follows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::model::observation::Observation;
use crate::model::status::{StatusReport, Told};

/// Asks for an observation, with the messages after a number.
pub type Observe = dyn Fn(u64, Box<dyn FnOnce(Observation) + Send>) + Send + Sync;

/// Those who watch at a time.
pub(super) const SUBSCRIBERS_MAX: usize = 1000;
/// What is younger need not be looked up anew.
const FRESH: Duration = Duration::from_millis(900);
/// The ledger answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often those who watch hear something.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// As many as the daemon keeps.
const MESSAGES_KEPT: usize = 1000;
/// A new watcher is told so many of the last messages.
pub(super) const MESSAGES_TOLD: usize = 100;
/// A watcher that missed some frames still gets all samples, unless it missed more.
const SAMPLES_TOLD: usize = 10;

/// See the module.
pub(super) struct Board {
    observe: Arc<Observe>,
    seen: Mutex<Look>,
    frames: watch::Sender<Option<Arc<Frame>>>,
    /// Seats of those who watch.
    pub(super) seats: Arc<Semaphore>,
}

/// The last look at the ledger.
enum Look {
    None,
    Seen(Instant, Seen),
    /// It did not answer then; and what was seen before, for its messages.
    Silent(Instant, Option<Seen>),
}

/// What was seen.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) observation: Arc<Observation>,
    /// All messages that are kept, oldest first.
    pub(super) messages: Arc<VecDeque<Told>>,
}

/// The ledger does not answer.
#[derive(Debug)]
pub(super) struct Silent;

/// What those who watch get, made once for all of them.
pub(super) struct Frame {
    pub(super) status: Bytes,
    /// Each with its time, oldest first.
    pub(super) samples: Vec<(i64, Bytes)>,
    /// Each with its number, oldest first.
    pub(super) messages: Vec<(u64, Bytes)>,
}

impl Board {
    pub(super) fn new(observe: Arc<Observe>) -> Self {
        Self {
            observe,
            seen: Mutex::new(Look::None),
            frames: watch::Sender::new(None),
            seats: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
        }
    }

    /// How things are: now, or a moment ago.
    pub(super) async fn look(&self) -> Result<Seen, Silent> {
        // Whoever comes while one looks gets what that one sees.
        let mut look = self.seen.lock().await;
        let before = match &*look {
            Look::Seen(at, seen) if at.elapsed() < FRESH => return Ok(seen.clone()),
            Look::Silent(at, _) if at.elapsed() < FRESH => return Err(Silent),
            Look::Seen(_, seen) | Look::Silent(_, Some(seen)) => Some(seen.clone()),
            Look::None | Look::Silent(_, None) => None,
        };
        let messages = before.as_ref().map(|seen| Arc::clone(&seen.messages)).unwrap_or_default();
        let last = messages.back().map_or(0, |told| told.number);
        let (reply, answer) = oneshot::channel();
        (self.observe)(last, Box::new(move |observation| drop(reply.send(observation))));
        let Ok(Ok(mut observation)) = timeout(ANSWER_WITHIN, answer).await else {
            *look = Look::Silent(Instant::now(), before);
            return Err(Silent);
        };
        let messages = kept(messages, std::mem::take(&mut observation.told));
        let seen = Seen { observation: Arc::new(observation), messages };
        *look = Look::Seen(Instant::now(), seen.clone());
        Ok(seen)
    }

    /// Tells those who watch, as long as there are any.
    pub(super) async fn publish(&self) {
        let mut ticks = interval(PUBLISH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.frames.receiver_count() > 0
                && let Ok(seen) = self.look().await
            {
                self.frames.send_replace(Some(Arc::new(Frame::of(&seen))));
            }
        }
    }

    /// Every further frame; who is slow misses some.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Frame>>> {
        self.frames.subscribe()
    }
}

fn kept(mut messages: Arc<VecDeque<Told>>, told: Vec<Told>) -> Arc<VecDeque<Told>> {
    if !told.is_empty() {
        let kept = Arc::make_mut(&mut messages);
        kept.extend(told);
        kept.drain(..kept.len().saturating_sub(MESSAGES_KEPT));
    }
    messages
}

impl Frame {
    pub(super) fn of(seen: &Seen) -> Self {
        let Seen { observation, messages } = seen;
        // Messages come one by one.
        let report = StatusReport { messages: Vec::new(), ..observation.report.clone() };
        let samples = &observation.samples[observation.samples.len().saturating_sub(SAMPLES_TOLD)..];
        let messages = messages.iter().skip(messages.len().saturating_sub(MESSAGES_TOLD));
        Self {
            status: event("status", None, &report),
            samples: samples.iter().map(|s| (s.at_ms, event("sample", None, &**s))).collect(),
            messages: messages.map(|told| (told.number, event("message", Some(told.number), told))).collect(),
        }
    }
}

/// JSON is one line.
fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
    let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
    match serde_json::to_string(data) {
        Ok(data) => format!("event: {name}\n{id}data: {data}\n\n").into(),
        // No key of ours is anything but a string.
        Err(error) => {
            tracing::error!("HTTP: cannot write {name}: {error}");
            Bytes::new()
        }
    }
}
