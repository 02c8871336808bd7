//! The status port (SPEC 5.1): what is pending, copied, failed, per shift and storage.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::{Client, Line, Over, Port};
use crate::model::shift::ShiftId;
use crate::model::status::{Copies, Counts, Shift, StatusReport};

const EXAMPLE: &str = r#"{"v":1,"nusers":-1}"#;
/// A report is good for so long, however many ask.
const FRESH: Duration = Duration::from_millis(200);
/// The ledger answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A shift on a storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its start, `YYYY-MM-DD HH:MM:SS`, on this machine.
    pub usertime: String,
    /// The same.
    pub start_ms: ShiftId,
    /// Owner of its files.
    pub uid: u32,
    /// Group of its files.
    pub gid: u32,
    /// The storage's name.
    pub storage: String,
    /// How many are where.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Puts the question how things are to who knows it, and hands it the end that takes the answer.
pub type Ask = dyn Fn(oneshot::Sender<StatusReport>) + Send + Sync;

/// Serves `port` until `stop`.
pub fn serve(port: Port, ask: Box<Ask>, stop: oneshot::Receiver<()>) -> impl Future<Output = ()> {
    let reports = Arc::new(Reports { ask, last: Mutex::new(None) });
    port.serve(reports, converse, stop)
}

async fn converse(mut client: Client, reports: Arc<Reports>) {
    while turn(&mut client, &reports).await.is_ok() {}
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "v")]
    _version: u32,
    #[serde(default = "all")]
    nusers: i64,
}

fn all() -> i64 {
    -1
}

async fn turn(client: &mut Client, reports: &Reports) -> Result<(), Over> {
    let Request { nusers, .. } = client.request(EXAMPLE).await?;
    if nusers < -1 {
        return Err(client.fail("nusers is a number of shifts, or -1 for all".to_owned()).await);
    }
    let count = usize::try_from(nusers).unwrap_or(usize::MAX);
    match reports.report().await {
        Some(report) => client.say_line(&Line::Status(rows(&report, count, &TimeZone::system()))).await,
        None => Err(client.fail("the daemon is busy, or stopping: try again".to_owned()).await),
    }
}

/// The ledger's thread is asked once, for all who ask at about the same time.
struct Reports {
    ask: Box<Ask>,
    last: Mutex<Option<(Instant, Arc<StatusReport>)>>,
}

impl Reports {
    async fn report(&self) -> Option<Arc<StatusReport>> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(report));
        }
        let (reply, answer) = oneshot::channel();
        (self.ask)(reply);
        let report = Arc::new(timeout(ANSWER_WITHIN, answer).await.ok()?.ok()?);
        *last = Some((Instant::now(), Arc::clone(&report)));
        Some(report)
    }
}

/// The newest `count` shifts, oldest first.
fn rows(report: &StatusReport, count: usize, zone: &TimeZone) -> Vec<Row> {
    let newest = report.shifts.iter().skip(report.shifts.len().saturating_sub(count));
    newest.flat_map(|shift| shift.storages.iter().map(|copies| row(shift, copies, zone))).collect()
}

fn row(shift: &Shift, copies: &Copies, zone: &TimeZone) -> Row {
    let start = Timestamp::from_millisecond(shift.start_ms.0).unwrap_or_default();
    Row {
        usertime: start.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        start_ms: shift.start_ms,
        uid: shift.uid,
        gid: shift.gid,
        storage: copies.storage.clone(),
        counts: copies.counts,
    }
}
