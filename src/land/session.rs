//! One session with a detector: a control connection and its data connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connect::{ConnectError, connect};
use super::expect::Expect;
use super::link::{Link, Notice, StartLanding};
use crate::model::allowance::Allowance;
use crate::model::file_version::DetectorIndex;
use crate::model::ledger::{Fact, Session};
use crate::wire::control::{FromDetector, FromPpu};
use crate::wire::frame::{self, Decoder, FrameError};
use crate::wire::handshake::Role;

/// A peer that says nothing for that long is dead (PROTOCOL.md).
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often we say that we live, and look at the clocks.
const BEAT: Duration = Duration::from_secs(1);
/// A peer that owes files and moves not a byte for that long is as good as dead.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a peer that does not read what we send.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is wrong on a detector is taken up so many times at once in a session, and once more in each of these pauses: more than a detector says.
const TROUBLES_AT_ONCE: u32 = 256;
const TROUBLES_PAUSE: Duration = Duration::from_secs(1);
/// Clock probes whose quickest answer gives the offset.
const PROBES_KEPT: usize = 8;

/// How a session ended; for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("{0}")]
    NotConnected(#[from] ConnectError),
    #[error("the control connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the detector says nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the detector owes {files} files and sends nothing for {} s", STALL_MAX.as_secs())]
    Stalled { files: usize },
    #[error("the detector does not follow the protocol: {0}")]
    Malformed(#[from] FrameError),
    #[error("a data connection ended: {0}")]
    Data(String),
    #[error("the detector says goodbye: {0}")]
    Goodbye(String),
    #[error("this daemon is stopping")]
    Stopping,
}

/// From connecting to the end of the last landing thread.
pub(super) async fn run(
    link: &Link,
    session: Session,
    notify: &(impl Fn(Notice) + Clone),
    start_landing: &StartLanding,
    stop: watch::Receiver<bool>,
) -> SessionEnd {
    // Every landing thread holds a sender and drops it last: the channel's end is the end of them all.
    let (data_ends, mut data_end) = mpsc::channel::<String>(usize::from(link.streams).max(1));
    let mut data = Vec::new();
    let end = match open(link, start_landing, data_ends, &mut data).await {
        Ok((control, decoder, expect)) => {
            let (outlet, messages) = mpsc::unbounded_channel();
            let up = Notice::Up { detector: link.detector, session, outlet, expect: Arc::clone(&expect) };
            notify(up);
            notify(Notice::Fact(Fact::LinkUp { detector: link.detector, session }));
            let end = converse(link, control, decoder, &expect, messages, notify, &mut data_end, stop).await;
            expect.close();
            end
        }
        Err(error) => SessionEnd::NotConnected(error),
    };
    for connection in data {
        // A landing thread blocked in the kernel returns when its socket is shut down; that it is closed already is fine.
        let _ = connection.shutdown(std::net::Shutdown::Both);
    }
    while data_end.recv().await.is_some() {}
    end
}

async fn open(
    link: &Link,
    start_landing: &StartLanding,
    data_ends: mpsc::Sender<String>,
    data: &mut Vec<std::net::TcpStream>,
) -> Result<(TcpStream, Decoder, Arc<Expect>), ConnectError> {
    let (control, established, decoder) =
        connect(&link.address, &link.key, Role::Control { ppu: link.ppu }).await?;
    let expect = Arc::new(Expect::default());
    for stream in 0..link.streams {
        let role = Role::Data { session: established.session, stream };
        let (connection, ..) = connect(&link.address, &link.key, role).await?;
        let connection = connection.into_std().map_err(ConnectError::Tcp)?;
        connection.set_nonblocking(false).map_err(ConnectError::Tcp)?;
        data.push(connection.try_clone().map_err(ConnectError::Tcp)?);
        start_landing(connection, Arc::clone(&expect), data_ends.clone()).map_err(ConnectError::Tcp)?;
    }
    Ok((control, decoder, expect))
}

/// Reading never waits for writing: each has a task of its own, and the first that ends, ends the session.
#[allow(clippy::too_many_arguments)]
async fn converse(
    link: &Link,
    control: TcpStream,
    decoder: Decoder,
    expect: &Expect,
    messages: mpsc::UnboundedReceiver<FromPpu>,
    notify: &(impl Fn(Notice) + Clone),
    data_end: &mut mpsc::Receiver<String>,
    mut stop: watch::Receiver<bool>,
) -> SessionEnd {
    let (reader, writer) = control.into_split();
    let (goodbye, say_goodbye) = watch::channel(false);
    let reading = read(link.detector, reader, decoder, expect, notify);
    let writing = write(writer, messages, say_goodbye);
    let watching = watch_stalls(expect);
    tokio::pin!(writing);
    let end = tokio::select! {
        end = reading => end,
        end = &mut writing => return end,
        end = watching => end,
        Some(reason) = data_end.recv() => SessionEnd::Data(reason),
        _ = stop.wait_for(|stop| *stop) => SessionEnd::Stopping,
    };
    let _ = goodbye.send(true);
    let _ = timeout(Duration::from_millis(200), writing).await;
    end
}

async fn read(
    detector: DetectorIndex,
    mut reader: OwnedReadHalf,
    mut decoder: Decoder,
    expect: &Expect,
    notify: &impl Fn(Notice),
) -> SessionEnd {
    let mut buffer = vec![0; 64 << 10];
    let mut clock = Clock::default();
    let mut troubles = Allowance::new(TROUBLES_AT_ONCE, TROUBLES_PAUSE);
    loop {
        loop {
            match decoder.next_message::<FromDetector>() {
                Ok(Some(FromDetector::Trouble(_) | FromDetector::TroubleOver { .. }))
                    if !troubles.take(std::time::Instant::now()) => {}
                Ok(Some(message)) => {
                    if let Some(end) = hear(detector, message, expect, &mut clock, notify) {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        match timeout(SILENCE_MAX, reader.read(&mut buffer)).await {
            Err(_) => return SessionEnd::Silent,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => return SessionEnd::Broken(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(count)) => decoder.feed(&buffer[..count]),
        }
    }
}

fn hear(
    detector: DetectorIndex,
    message: FromDetector,
    expect: &Expect,
    clock: &mut Clock,
    notify: &impl Fn(Notice),
) -> Option<SessionEnd> {
    let fact = match message {
        FromDetector::Heartbeat(beat) => Fact::Beat { detector, beat },
        FromDetector::ManifestBegin => Fact::ManifestBegin { detector },
        FromDetector::ManifestEnd => Fact::ManifestEnd { detector },
        FromDetector::Offer { files } => Fact::Offered { detector, files },
        FromDetector::Coming { files } => Fact::Coming { detector, files },
        FromDetector::Withdrawn { offer, why } => Fact::Withdrawn { detector, offer, why },
        FromDetector::Declined { transfer, why } => {
            // What was never wanted cannot be declined.
            if !expect.decline(transfer) {
                return None;
            }
            Fact::Declined { transfer, why }
        }
        FromDetector::Gone { offers } => Fact::Gone { detector, offers },
        FromDetector::ShiftWord { shift } => Fact::ShiftWord { detector, shift },
        FromDetector::ClockReply { sent_ns, received_ns, replied_ns } => {
            let offset_ns = clock.reply(sent_ns, received_ns, replied_ns, wall_ns());
            Fact::Clock { detector, offset_ns }
        }
        FromDetector::Goodbye { reason } => {
            return Some(SessionEnd::Goodbye(crate::model::path::printable(reason.as_bytes())));
        }
        FromDetector::Trouble(report) => Fact::Trouble { detector, report: Box::new(report) },
        FromDetector::TroubleOver { number } => Fact::TroubleOver { detector, number },
    };
    notify(Notice::Fact(fact));
    None
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut messages: mpsc::UnboundedReceiver<FromPpu>,
    mut goodbye: watch::Receiver<bool>,
) -> SessionEnd {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut frames = Vec::new();
    // We hear of troubles.
    put(&mut frames, &FromPpu::Noted { number: 0 });
    loop {
        tokio::select! {
            biased;
            message = messages.recv() => {
                let Some(message) = message else { return SessionEnd::Stopping };
                put(&mut frames, &message);
                // What queued up meanwhile goes out in one piece.
                while frames.len() < frame::MAX_FRAME_BYTES && let Ok(message) = messages.try_recv() {
                    put(&mut frames, &message);
                }
            }
            _ = beat.tick() => {
                put(&mut frames, &FromPpu::Heartbeat);
                put(&mut frames, &FromPpu::ClockProbe { sent_ns: wall_ns() });
            }
            _ = goodbye.wait_for(|goodbye| *goodbye) => {
                let reason = "the PPU ends this session".to_owned();
                put(&mut frames, &FromPpu::Goodbye { reason });
                let _ = timeout(WRITE_TIMEOUT, writer.write_all(&frames)).await;
                return SessionEnd::Stopping;
            }
        }
        match timeout(WRITE_TIMEOUT, writer.write_all(&frames)).await {
            Err(_) => return SessionEnd::Broken(std::io::ErrorKind::TimedOut.into()),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => frames.clear(),
        }
    }
}

fn put(frames: &mut Vec<u8>, message: &FromPpu) {
    match frame::encode(message) {
        Ok(frame) => frames.extend(frame),
        Err(error) => tracing::error!("a message to the detector is not sent: {error}"),
    }
}

async fn watch_stalls(expect: &Expect) -> SessionEnd {
    let mut moved = Instant::now();
    let mut before = expect.owed();
    loop {
        tokio::time::sleep(BEAT).await;
        let owed = expect.owed();
        if owed.0 == 0 || owed.1 != before.1 {
            moved = Instant::now();
        }
        if moved.elapsed() > STALL_MAX {
            return SessionEnd::Stalled { files: owed.0 };
        }
        before = owed;
    }
}

/// The detector's clock minus ours, from the quickest of the last answers (as NTP does).
#[derive(Default)]
struct Clock {
    /// Round trip and offset, ns.
    replies: std::collections::VecDeque<(i64, i64)>,
}

impl Clock {
    fn reply(&mut self, sent: i64, received: i64, replied: i64, now: i64) -> i64 {
        let round_trip = now.saturating_sub(sent).saturating_sub(replied.saturating_sub(received));
        let offset = received.saturating_sub(sent) / 2 + replied.saturating_sub(now) / 2;
        if self.replies.len() == PROBES_KEPT {
            self.replies.pop_front();
        }
        self.replies.push_back((round_trip, offset));
        self.replies.iter().min().map_or(offset, |reply| reply.1)
    }
}

/// Nanoseconds since the epoch.
fn wall_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn the_quickest_answer_gives_the_offset() {
        let mut clock = Clock::default();
        // 5 ms ahead, 1 ms each way.
        assert_eq!(clock.reply(0, 6_000_000, 6_000_000, 2_000_000), 5_000_000);
        // A slow way back pretends another offset; the quicker answer stands.
        assert_eq!(clock.reply(0, 6_000_000, 6_000_000, 90_000_000), 5_000_000);
    }
}
