//! Where the screen's content comes from: a thread that asks the daemon again and again, over its restarts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ppu_uringd::model::history::{SAMPLES, Sample};
use ppu_uringd::model::status::StatusReport;
use ppu_uringd::serve::control::{Client, QueryError, Request, Response};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Source {
    view: Arc<Mutex<View>>,
    news: Arc<AtomicBool>,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) report: Option<StatusReport>,
    /// Oldest first.
    pub(super) samples: Vec<Sample>,
    /// Why the daemon does not answer; what else there is here is old then.
    pub(super) silence: Option<String>,
}

impl Source {
    pub(super) fn start(socket: PathBuf) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let news = Arc::new(AtomicBool::new(true));
        let source = Self { view: Arc::clone(&view), news: Arc::clone(&news) };
        // It ends with the process.
        thread::spawn(move || {
            loop {
                let silence = follow(&socket, &view, &news);
                lock(&view).silence = Some(silence.to_string());
                news.store(true, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        source
    }

    /// Something has changed since the last call.
    pub(super) fn has_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    pub(super) fn view(&self) -> View {
        lock(&self.view).clone()
    }
}

/// Until the daemon does not answer.
fn follow(socket: &Path, view: &Mutex<View>, news: &AtomicBool) -> QueryError {
    let ask = || -> Result<(), QueryError> {
        let mut client = Client::connect(socket)?;
        loop {
            let report = status(&mut client)?;
            let after_ms = lock(view).samples.last().map(|sample| sample.at_ms);
            let samples = history(&mut client, after_ms)?;
            let mut view = lock(view);
            // All anew where the daemon no longer knows the last one.
            if samples.len() >= view.samples.len() {
                view.samples.clear();
            }
            view.samples.extend(samples);
            let older = view.samples.len().saturating_sub(SAMPLES);
            view.samples.drain(..older);
            view.report = Some(report);
            view.silence = None;
            drop(view);
            news.store(true, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    };
    match ask() {
        Err(error) => error,
        Ok(()) => QueryError::Answer("the daemon has nothing more to say".to_owned()),
    }
}

fn status(client: &mut Client) -> Result<StatusReport, QueryError> {
    client.ask(&Request::Status)?;
    match client.hear()?.response {
        Response::Status(report) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

fn history(client: &mut Client, after_ms: Option<i64>) -> Result<Vec<Sample>, QueryError> {
    client.ask(&Request::History { after_ms })?;
    match client.hear()?.response {
        Response::History { samples } => Ok(samples),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(response: &Response) -> QueryError {
    QueryError::Answer(format!("the daemon answered something else: {response:?}"))
}

fn lock(view: &Mutex<View>) -> std::sync::MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
