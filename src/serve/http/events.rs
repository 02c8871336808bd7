//! One who watches: server-sent events, a status every second, samples and messages as they come.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::response::Response;
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::board::{Board, Frame};

/// See the module.
struct Watcher {
    frames: watch::Receiver<Option<Arc<Frame>>>,
    /// For the first time it does not wait.
    first: Option<Frame>,
    /// Its time.
    last_sample: Option<i64>,
    last_message: u64,
    _seat: OwnedSemaphorePermit,
}

/// Why there is no stream.
pub(super) enum Refusal {
    /// The ledger does not answer.
    Silent,
    /// Too many watch already.
    Full,
}

/// `text/event-stream`, until the client leaves. The header `Last-Event-ID`, which browsers send when they come back, says which message they
/// have.
pub(super) async fn stream(board: &Board, headers: &HeaderMap) -> Result<Response, Refusal> {
    let seat = Arc::clone(&board.seats).try_acquire_owned().map_err(|_| Refusal::Full)?;
    let mut frames = board.watch();
    frames.mark_unchanged();
    let seen = board.look().await.map_err(|_| Refusal::Silent)?;
    let heard = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let watcher = Watcher {
        frames,
        first: Some(Frame::of(&seen)),
        last_sample: None,
        last_message: heard.unwrap_or(0),
        _seat: seat,
    };
    let body = Body::from_stream(unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok::<_, Infallible>(piece), watcher))
    }));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(self.news(&first));
        }
        self.frames.changed().await.ok()?;
        let frame = self.frames.borrow_and_update().clone()?;
        Some(self.news(&frame))
    }

    /// What this one has not heard yet.
    fn news(&mut self, frame: &Frame) -> Bytes {
        // Times may go back with the clock, so they are only compared for being the same.
        let heard = frame.samples.iter().position(|(at_ms, _)| Some(*at_ms) == self.last_sample);
        let samples = &frame.samples[heard.map_or(0, |heard| heard + 1)..];
        let messages = frame.messages.iter().filter(|(number, _)| *number > self.last_message);
        let pieces: Vec<&[u8]> = [&frame.status]
            .into_iter()
            .chain(samples.iter().map(|(_, sample)| sample))
            .chain(messages.map(|(_, message)| message))
            .map(|piece| &**piece)
            .collect();
        self.last_sample = frame.samples.last().map(|(at_ms, _)| *at_ms);
        self.last_message = frame.messages.last().map_or(self.last_message, |(number, _)| *number);
        pieces.concat().into()
    }
}
