//! A link to one detector: sessions, one after the other, without end (SPEC 1.12).

use std::sync::Arc;
use std::time::Duration;

use ppu_config::HostPort;
use tokio::sync::{mpsc, watch};

use super::connect::ConnectError;
use super::expect::Expect;
use super::session::{self, SessionEnd};
use crate::model::file_version::DetectorIndex;
use crate::model::ledger::{Fact, Session};
use crate::wire::control::FromPpu;
use crate::wire::handshake::{Key, PpuId};

/// Pause before the first new try; doubles from try to try.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: how long a detector that is back may stay unnoticed.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a link needs to know.
pub struct Link {
    /// Its place in the configuration.
    pub detector: DetectorIndex,
    /// Where the detector listens.
    pub address: HostPort,
    /// Data connections.
    pub streams: u16,
    /// Shared with the detector.
    pub key: Key,
    /// Who we are.
    pub ppu: PpuId,
}

/// What a link tells the ledger's thread.
pub enum Notice {
    /// A session is up: messages for the detector go to `outlet`, wanted files into `expect`, before its
    /// [`Fact::LinkUp`].
    Up {
        /// Which detector.
        detector: DetectorIndex,
        /// The session's number.
        session: Session,
        /// To the detector.
        outlet: mpsc::UnboundedSender<FromPpu>,
        /// Where landing threads find what they land.
        expect: Arc<Expect>,
    },
    /// Anything else.
    Fact(Fact),
}

/// Starts a landing thread on an authenticated data connection. The thread ends when the connection does, after
/// reporting every transfer that it took up; it drops the sender last.
pub type StartLanding =
    Arc<dyn Fn(std::net::TcpStream, Arc<Expect>, mpsc::Sender<String>) -> std::io::Result<()> + Send + Sync>;

/// Keeps the link up until `stop` turns true.
pub async fn run(
    link: Link,
    notify: impl Fn(Notice) + Clone,
    start_landing: StartLanding,
    mut stop: watch::Receiver<bool>,
) {
    let mut pause = PAUSE;
    let mut number = 0;
    while !*stop.borrow() {
        number += 1;
        let session = Session(number);
        let began = tokio::time::Instant::now();
        let end = session::run(&link, session, &notify, &start_landing, stop.clone()).await;
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        if *stop.borrow() {
            return;
        }
        let refused = matches!(&end, SessionEnd::NotConnected(error) if ConnectError::is_refusal(error));
        let reason = end.to_string();
        tracing::info!(detector = link.detector.0, "{reason}");
        notify(Notice::Fact(Fact::LinkDown { detector: link.detector, session, reason, refused }));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
