//! Events for consumers: the newest from memory, older ones from the journal, without a seam.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::feed::{Gap, Reader};
use crate::journal::{LoggedEvent, LoggedEvents, Queries, Unanswered};
use crate::model::event::{EventKind, FileEvent, Filter, Places, Subject};
use crate::model::shift::ShiftId;

/// Asked of the journal at a time; between two questions it commits.
const PAGE: usize = 500;
/// For the journal's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What has just left the memory is in the journal after its next commit.
const COMMIT_WAIT: Duration = Duration::from_millis(20);

/// Where events are read; each reader has its own.
#[derive(Clone)]
pub struct Events {
    visible: Reader<Arc<FileEvent>>,
    stored: Reader<Arc<FileEvent>>,
    log: Queries,
    places: Arc<Places>,
    /// One question at a time, however many ask.
    turn: Arc<Semaphore>,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// It happened.
    Event(Arc<FileEvent>),
    /// Some that may have happened are forgotten.
    Gap(Gap),
}

/// Why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEvents {
    /// The daemon ends.
    End,
    /// For people.
    Trouble(String),
}

impl Events {
    /// `places` knows the configured names and the former ones.
    pub fn new(
        visible: Reader<Arc<FileEvent>>,
        stored: Reader<Arc<FileEvent>>,
        log: Queries,
        places: Arc<Places>,
    ) -> Self {
        Self { visible, stored, log, places, turn: Arc::new(Semaphore::new(1)) }
    }

    /// See [`Reader::relayed`].
    pub fn relayed(self) -> (Self, impl Future<Output = ()> + Send) {
        let (visible, relay_visible) = self.visible.relayed();
        let (stored, relay_stored) = self.stored.relayed();
        let relay = async {
            tokio::join!(relay_visible, relay_stored);
        };
        (Self { visible, stored, ..self }, relay)
    }

    /// See [`Places::check`].
    ///
    /// # Errors
    /// The same.
    pub fn check(&self, filter: &Filter) -> Result<(), String> {
        self.places.check(filter)
    }

    /// The last number of a kind.
    pub fn last(&self, kind: EventKind) -> u64 {
        self.reader(kind).last()
    }

    /// The oldest with a greater number than `since`, which is moved on; waits until there are some. Cancelled, it loses nothing.
    ///
    /// # Errors
    /// [`NoEvents`].
    pub async fn after(
        &mut self,
        kind: EventKind,
        since: &mut u64,
        most: usize,
    ) -> Result<Vec<Item>, NoEvents> {
        loop {
            if *since > self.last(kind) {
                // No such number was given: the journal it came from is gone, or it is an invention.
                let logged = self.logged(kind, (0, 0)).await?;
                let gap = Gap { after: *since, before: logged.complete_after.saturating_add(1) };
                *since = logged.complete_after;
                return Ok(vec![Item::Gap(gap)]);
            }
            let live = self.reader(kind).after(*since, most);
            let items = if live.gap.is_none() {
                live.items.into_iter().map(|(_, event)| Item::Event(event)).collect()
            } else {
                self.replay(kind, since).await?
            };
            if let Some(last) = items.iter().rev().find_map(number) {
                *since = last.max(*since);
            }
            if !items.is_empty() {
                return Ok(items);
            }
            let reader = match kind {
                EventKind::Visible => &mut self.visible,
                EventKind::Stored => &mut self.stored,
            };
            if *since >= reader.complete_after() && !reader.news(*since).await {
                return Err(NoEvents::End);
            }
        }
    }

    /// From the journal, what is no longer in memory.
    async fn replay(&self, kind: EventKind, since: &mut u64) -> Result<Vec<Item>, NoEvents> {
        let logged = self.logged(kind, (*since, self.reader(kind).complete_after())).await?;
        let mut items = Vec::new();
        if logged.complete_after > *since {
            items.push(Item::Gap(Gap { after: *since, before: logged.complete_after.saturating_add(1) }));
        }
        items.extend(logged.events.into_iter().filter_map(|event| self.item(event)));
        let to = logged.complete_to.max(logged.complete_after);
        if to <= *since && items.is_empty() {
            sleep(COMMIT_WAIT).await;
        }
        *since = to.max(*since);
        Ok(items)
    }

    async fn logged(&self, kind: EventKind, range: (u64, u64)) -> Result<LoggedEvents, NoEvents> {
        let _turn = self.turn.acquire().await.map_err(|_| NoEvents::End)?;
        let log = self.log.clone();
        match spawn_blocking(move || log.events(kind, range, PAGE, ANSWER_WITHIN)).await {
            Ok(Ok(logged)) => Ok(logged),
            Ok(Err(Unanswered::Ended)) | Err(_) => Err(NoEvents::End),
            Ok(Err(error)) => Err(NoEvents::Trouble(error.to_string())),
        }
    }

    /// `None`: it concerns nobody here.
    fn item(&self, logged: LoggedEvent) -> Option<Item> {
        let LoggedEvent { number, at_ms, storage, version } = logged;
        let Some((version, owner)) = version else {
            return Some(Item::Gap(Gap {
                after: number.saturating_sub(1),
                before: number.saturating_add(1),
            }));
        };
        let subject = Subject::new(&version, owner);
        let event = match storage {
            None => self.places.visible(number, subject, &version.at, version.landed_ms),
            Some(storage) => self.places.stored(number, subject, &version.to, storage, at_ms),
        };
        event.map(|event| Item::Event(Arc::new(event)))
    }

    fn reader(&self, kind: EventKind) -> &Reader<Arc<FileEvent>> {
        match kind {
            EventKind::Visible => &self.visible,
            EventKind::Stored => &self.stored,
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// A number that is past when this item is.
fn number(item: &Item) -> Option<u64> {
    match item {
        Item::Event(event) => Some(event.number),
        Item::Gap(_) => None,
    }
}

/// An event as consumers see it.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    number: u64,
    version: u64,
    path: std::borrow::Cow<'a, str>,
    /// The very bytes, where they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    detector: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<&'a str>,
    shift_ms: ShiftId,
    uid: u32,
    gid: u32,
    size: u64,
    hash: String,
    mtime_ns: i64,
    at_ms: i64,
}

impl<'a> From<&'a FileEvent> for Shown<'a> {
    fn from(event: &'a FileEvent) -> Self {
        let path = String::from_utf8_lossy(&event.path);
        let path_base64 = matches!(path, std::borrow::Cow::Owned(_)).then(|| STANDARD.encode(&event.path));
        Self {
            number: event.number,
            version: event.version.0,
            path,
            path_base64,
            detector: &event.detector,
            storage: event.storage.as_deref(),
            shift_ms: event.shift,
            uid: event.uid,
            gid: event.gid,
            size: event.size,
            hash: event.hash.to_string(),
            mtime_ns: event.mtime_ns,
            at_ms: event.at_ms,
        }
    }
}
