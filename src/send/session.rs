//! One PPU at a time: its control connection, and the catalog's answers to it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::jobs::Jobs;
use super::listen::short;
use super::shifts::{Saved, Shifts};
use crate::model::catalog::{Announced, Catalog, Event, Word};
use crate::model::offer::{Heartbeat, OFFER_PAGE_FILES, OFFER_WINDOW};
use crate::model::send::SendReport;
use crate::model::trouble::{Trouble, What};
use crate::wire::control::{FromDetector, FromPpu};
use crate::wire::frame::{self, Decoder, FrameError};
use crate::wire::handshake::{PpuId, SessionId};

/// A peer that says nothing for that long is dead (PROTOCOL.md).
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often we say that we live.
const BEAT: Duration = Duration::from_secs(1);
/// Sooner, that a backlog has come or is gone; but not for every single image.
const BEAT_SOONER: Duration = Duration::from_millis(100);
/// Longest wait for a peer that does not read what we send.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes put together before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// Most answers that wait to be written. A window of offers may end all at once, with as many wants declined; beyond that the PPU asks
/// and does not listen.
const UNSAID_MAX: usize = 4 * OFFER_WINDOW;
/// Pause before a mark that could not be made is tried again.
const MARK_AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for the last words of a session.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Starts a stream's thread on a data connection. It ends when the connection or the queue does, saying why; it drops its sender
/// last. Which PPU it is for matters to a measurement alone.
pub type StartStream =
    Rc<dyn Fn(PpuId, std::net::TcpStream, Arc<Jobs>, mpsc::UnboundedSender<Heard>) -> io::Result<()>>;

/// What a stream's thread says.
#[derive(Debug)]
pub enum Heard {
    /// Sends have ended.
    Reports(Vec<SendReport>),
    /// The connection, and with it the thread, has ended; for people.
    Ended(String),
}

/// Who is being served. Lives on the control thread.
pub struct Desk {
    /// What the detector has.
    pub catalog: RefCell<Catalog>,
    /// The catalog may have something to say.
    pub news: Notify,
    /// The catalog's next tick is sooner than it was.
    pub sooner: Notify,
    /// Files may have become safe, or a release may go on.
    pub safer: Notify,
    /// Looks up the rest of a heartbeat: skipped files and room on the ramdisk.
    pub vitals: Box<dyn Fn() -> Heartbeat>,
    /// Clock, marks and log of shifts.
    shifts: Box<dyn Shifts>,
    /// A mark could not be made: when it is tried again.
    mark_again: Cell<Option<Instant>>,
    active: RefCell<Option<Rc<RefCell<Active>>>>,
    /// A session has ended.
    ended: Notify,
}

/// A session that is being served.
pub struct Active {
    id: SessionId,
    ppu: PpuId,
    peer: SocketAddr,
    queue: Arc<Jobs>,
    streams: Vec<std::net::TcpStream>,
    /// Dropped at the session's end; each stream's thread has its own.
    outlet: Option<mpsc::UnboundedSender<Heard>>,
    incoming: Option<mpsc::UnboundedReceiver<Heard>>,
    dismissed: Rc<Dismissal>,
}

/// Set from outside to end a session.
#[derive(Default)]
struct Dismissal {
    reason: Cell<Option<&'static str>>,
    notify: Notify,
}

impl Desk {
    /// Nobody is here.
    pub fn new(catalog: Catalog, vitals: Box<dyn Fn() -> Heartbeat>, shifts: Box<dyn Shifts>) -> Self {
        Self {
            catalog: RefCell::new(catalog),
            news: Notify::new(),
            sooner: Notify::new(),
            safer: Notify::new(),
            vitals,
            shifts,
            mark_again: Cell::new(None),
            active: RefCell::new(None),
            ended: Notify::new(),
        }
    }

    /// What the watch saw, and time.
    pub fn notice(&self, now: Instant, events: Vec<Event>) {
        let mut catalog = self.catalog.borrow_mut();
        for event in events {
            catalog.event(now, event);
        }
        catalog.tick(now);
        self.tend_shifts(&mut catalog);
    }

    /// To be called every second or so.
    pub fn look_at_clock(&self) {
        let mut catalog = self.catalog.borrow_mut();
        catalog.look_at_clock(self.shifts.now());
        self.tend_shifts(&mut catalog);
    }

    /// What was to be remembered of shifts, is; or it could not be written.
    pub fn shifts_saved(&self, saved: Saved) {
        let mut catalog = self.catalog.borrow_mut();
        catalog.shifts_saved(saved.revision);
        match saved.trouble {
            None => catalog.over(What::ShiftsUnsaved),
            Some(why) => catalog.met(Instant::now(), Trouble::new(What::ShiftsUnsaved, why)),
        }
        self.news.notify_one();
    }

    /// Makes the marks and writes the log that the catalog asks for.
    fn tend_shifts(&self, catalog: &mut Catalog) {
        let too_early = || self.mark_again.get().is_some_and(|again| Instant::now() < again);
        if let Some(number) = catalog.mark_due()
            && !too_early()
        {
            let before = self.shifts.now();
            let made = self.shifts.mark(number);
            let now = self.shifts.now();
            catalog.marked(number, before, now, made.is_ok());
            self.mark_again.set(made.is_err().then(|| Instant::now() + MARK_AGAIN));
            match made {
                Ok(()) => catalog.over(What::NoMark),
                Err(why) => catalog.met(now.at, Trouble::new(What::NoMark, why)),
            }
        }
        if let Some((revision, spans)) = catalog.unsaved_shifts()
            && self.shifts.save(revision, spans)
        {
            catalog.shifts_saved(revision);
        }
    }

    /// Ends the present session and waits for its end.
    pub async fn dismiss(&self, reason: &'static str) {
        loop {
            let ended = self.ended.notified();
            let Some(active) = self.active.borrow().clone() else { return };
            let dismissed = Rc::clone(&active.borrow().dismissed);
            drop(active);
            dismissed.reason.set(Some(reason));
            dismissed.notify.notify_one();
            ended.await;
        }
    }

    /// Takes a new session in. One of the same PPU, which may be half dead, makes room for it; `None`: another PPU is here.
    pub(super) async fn admit(
        &self,
        id: SessionId,
        ppu: PpuId,
        peer: SocketAddr,
    ) -> Option<Rc<RefCell<Active>>> {
        loop {
            let ended = self.ended.notified();
            let present = self.active.borrow().as_ref().map(|active| {
                let active = active.borrow();
                (active.ppu, active.outlet.is_none())
            });
            match present {
                None => break,
                Some((present, _)) if present == ppu => self.dismiss("its PPU has connected anew").await,
                // It has left; its streams are ending.
                Some((_, true)) => ended.await,
                Some(_) => return None,
            }
        }
        let (outlet, incoming) = mpsc::unbounded_channel();
        let active = Rc::new(RefCell::new(Active {
            id,
            ppu,
            peer,
            queue: Arc::default(),
            streams: Vec::new(),
            outlet: Some(outlet),
            incoming: Some(incoming),
            dismissed: Rc::default(),
        }));
        *self.active.borrow_mut() = Some(Rc::clone(&active));
        Some(active)
    }

    /// A PPU is here.
    pub fn is_serving(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// The session that a data connection names.
    pub(super) fn session(&self, id: SessionId) -> Option<Rc<RefCell<Active>>> {
        self.active.borrow().clone().filter(|active| active.borrow().id == id)
    }

    /// The session is over, or never began.
    pub(super) fn leave(&self, active: &Rc<RefCell<Active>>) {
        let mut present = self.active.borrow_mut();
        if present.as_ref().is_some_and(|present| Rc::ptr_eq(present, active)) {
            *present = None;
        }
        self.ended.notify_waiters();
    }
}

impl Active {
    /// One more data connection.
    pub(super) fn attach(
        &mut self,
        stream: std::net::TcpStream,
        start_stream: &StartStream,
    ) -> io::Result<()> {
        let Some(outlet) = &self.outlet else { return Err(io::ErrorKind::NotConnected.into()) };
        self.streams.push(stream.try_clone()?);
        start_stream(self.ppu, stream, Arc::clone(&self.queue), outlet.clone())
    }
}

/// A control connection after its handshake.
pub(super) struct Control {
    pub(super) stream: TcpStream,
    pub(super) decoder: Decoder,
    pub(super) active: Rc<RefCell<Active>>,
}

/// How a session ended; for people.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the control connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the PPU says nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the PPU does not follow the protocol: {0}")]
    Malformed(#[from] FrameError),
    #[error("the PPU asks and does not listen")]
    Deaf,
    #[error("a data connection ended: {0}")]
    Data(String),
    #[error("the PPU says goodbye: {0}")]
    Goodbye(String),
    #[error("{0}")]
    Dismissed(&'static str),
}

impl Control {
    /// Until either side ends it; everything of the session has ended when this returns.
    pub(super) async fn run(self, desk: &Desk) {
        let Self { stream, decoder, active } = self;
        let (peer, ppu) = (active.borrow().peer, short(active.borrow().ppu));
        desk.catalog.borrow_mut().session_begins(Instant::now());
        let incoming = active.borrow_mut().incoming.take();
        if let Some(mut incoming) = incoming {
            let end = serve(desk, stream, decoder, &active, &mut incoming).await;
            tracing::info!(%peer, ppu, "session ended: {end}");
            wind_up(&active);
            // Ends when the last stream's thread has dropped its sender. What it says now, the next session finds out itself.
            while incoming.recv().await.is_some() {}
        }
        desk.catalog.borrow_mut().session_ends(Instant::now());
        desk.leave(&active);
    }
}

/// Makes the streams end.
fn wind_up(active: &RefCell<Active>) {
    let mut active = active.borrow_mut();
    active.queue.close();
    active.outlet = None;
    for stream in active.streams.drain(..) {
        // That it is closed already is fine.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Reading never waits for writing: each goes on by itself, and the first that ends, ends the session.
async fn serve(
    desk: &Desk,
    stream: TcpStream,
    decoder: Decoder,
    active: &RefCell<Active>,
    incoming: &mut mpsc::UnboundedReceiver<Heard>,
) -> SessionEnd {
    let queue = Arc::clone(&active.borrow().queue);
    let dismissed = Rc::clone(&active.borrow().dismissed);
    let (reader, writer) = stream.into_split();
    let replies = RefCell::new(Vec::new());
    let reading = read(desk, reader, decoder, &queue, &replies);
    let writing = write(desk, writer, &queue, &replies, &dismissed);
    let hearing = hear_streams(desk, incoming);
    tokio::pin!(writing);
    let end = tokio::select! {
        end = reading => end,
        end = &mut writing => return end,
        end = hearing => end,
    };
    dismissed.notify.notify_one();
    let _ = timeout(LAST_WORDS, writing).await;
    end
}

async fn hear_streams(desk: &Desk, incoming: &mut mpsc::UnboundedReceiver<Heard>) -> SessionEnd {
    loop {
        match incoming.recv().await {
            Some(Heard::Reports(reports)) => {
                let mut catalog = desk.catalog.borrow_mut();
                let before = catalog.next_tick();
                reports.into_iter().for_each(|report| catalog.sent(Instant::now(), report));
                let after = catalog.next_tick();
                if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
                    desk.sooner.notify_one();
                }
                desk.news.notify_one();
            }
            Some(Heard::Ended(reason)) => return SessionEnd::Data(reason),
            None => return SessionEnd::Data("no stream is left".to_owned()),
        }
    }
}

async fn read(
    desk: &Desk,
    mut reader: OwnedReadHalf,
    mut decoder: Decoder,
    queue: &Jobs,
    replies: &RefCell<Vec<FromDetector>>,
) -> SessionEnd {
    let mut buffer = vec![0; 64 << 10];
    loop {
        loop {
            match decoder.next_message::<FromPpu>() {
                Ok(Some(message)) => {
                    if let Some(end) = hear(desk, message, queue, replies) {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        desk.news.notify_one();
        match timeout(SILENCE_MAX, reader.read(&mut buffer)).await {
            Err(_) => return SessionEnd::Silent,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => return SessionEnd::Broken(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(count)) => decoder.feed(&buffer[..count]),
        }
    }
}

fn hear(
    desk: &Desk,
    message: FromPpu,
    queue: &Jobs,
    replies: &RefCell<Vec<FromDetector>>,
) -> Option<SessionEnd> {
    let mut catalog = desk.catalog.borrow_mut();
    match message {
        FromPpu::Heartbeat => {}
        FromPpu::ShiftBegan { shift, source, began, more } => {
            catalog.shift_began(desk.shifts.now(), Announced { shift, source, began, more });
            desk.tend_shifts(&mut catalog);
        }
        FromPpu::Want { wants } => {
            let now = Instant::now();
            for job in wants.into_iter().filter_map(|wanted| catalog.want(now, wanted)) {
                queue.push(job);
            }
        }
        FromPpu::Have { offers } | FromPpu::Landed { offers } => {
            catalog.landed(Instant::now(), &offers);
            desk.safer.notify_one();
        }
        FromPpu::Stored { offers } => {
            catalog.stored(&offers);
            desk.safer.notify_one();
        }
        FromPpu::Fell { offers } => catalog.fell(&offers),
        FromPpu::Noted { number } => catalog.noted(number),
        FromPpu::Grant { transfers, max_bytes } => catalog.granted(transfers, max_bytes),
        FromPpu::NotTaken { transfer } => catalog.not_taken(Instant::now(), transfer),
        FromPpu::ClockProbe { sent_ns } => {
            let received_ns = wall_ns();
            let replied_ns = received_ns;
            replies.borrow_mut().push(FromDetector::ClockReply { sent_ns, received_ns, replied_ns });
        }
        FromPpu::Goodbye { reason } => {
            return Some(SessionEnd::Goodbye(crate::model::path::printable(reason.as_bytes())));
        }
    }
    (catalog.unsaid() + replies.borrow().len() > UNSAID_MAX).then_some(SessionEnd::Deaf)
}

async fn write(
    desk: &Desk,
    mut writer: OwnedWriteHalf,
    queue: &Jobs,
    replies: &RefCell<Vec<FromDetector>>,
    dismissed: &Dismissal,
) -> SessionEnd {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_empty = true;
    let mut due = true; // a heartbeat first of all
    let mut last_beat = tokio::time::Instant::now();
    let mut frames = Vec::new();
    loop {
        let (counts, released) = {
            let catalog = desk.catalog.borrow();
            (catalog.counts(), catalog.released())
        };
        let is_empty = counts.backlog_files == 0;
        if is_empty != was_empty {
            beat.reset_at(last_beat + BEAT_SOONER);
        }
        if due {
            (due, was_empty, last_beat) = (false, is_empty, tokio::time::Instant::now());
            let (backlog_files, backlog_bytes) = (counts.backlog_files, counts.backlog_bytes);
            let (released_files, released_bytes) = released;
            let vitals = (desk.vitals)();
            let beat = Heartbeat { backlog_files, backlog_bytes, released_files, released_bytes, ..vitals };
            put(&mut frames, FromDetector::Heartbeat(beat));
        }
        for reply in replies.borrow_mut().drain(..) {
            put(&mut frames, reply);
        }
        while frames.len() < WRITE_BYTES
            && let Some(word) = desk.catalog.borrow_mut().next_word(Instant::now())
        {
            say(&mut frames, queue, word);
        }
        if frames.is_empty() {
            tokio::select! {
                () = desk.news.notified() => {}
                _ = beat.tick() => due = true,
                () = dismissed.notify.notified() => {
                    let reason = dismissed.reason.get().unwrap_or("the session ends");
                    put(&mut frames, FromDetector::Goodbye { reason: reason.to_owned() });
                    let _ = timeout(LAST_WORDS, writer.write_all(&frames)).await;
                    return SessionEnd::Dismissed(reason);
                }
            }
            continue;
        }
        match timeout(WRITE_TIMEOUT, writer.write_all(&frames)).await {
            Err(_) => return SessionEnd::Broken(io::ErrorKind::TimedOut.into()),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => frames.clear(),
        }
    }
}

fn say(frames: &mut Vec<u8>, queue: &Jobs, word: Word) {
    let message = match word {
        Word::Offer(files) => {
            for files in frame::pages(files, OFFER_PAGE_FILES) {
                put(frames, FromDetector::Offer { files });
            }
            return;
        }
        Word::Coming(coming) => {
            let mut files = Vec::with_capacity(coming.len());
            for (file, job) in coming {
                queue.push(job);
                files.push(file);
            }
            for files in frame::pages(files, OFFER_PAGE_FILES) {
                put(frames, FromDetector::Coming { files });
            }
            return;
        }
        Word::ShiftWord(shift) => FromDetector::ShiftWord { shift },
        Word::ManifestBegin => FromDetector::ManifestBegin,
        Word::ManifestEnd => FromDetector::ManifestEnd,
        Word::Withdrawn(offer, why) => FromDetector::Withdrawn { offer, why },
        Word::Declined(transfer, why) => FromDetector::Declined { transfer, why },
        Word::Gone(offers) => FromDetector::Gone { offers },
        Word::Trouble(report) => FromDetector::Trouble(report),
        Word::TroubleOver(number) => FromDetector::TroubleOver { number },
    };
    put(frames, message);
}

fn put(frames: &mut Vec<u8>, message: FromDetector) {
    match frame::encode(&message) {
        Ok(frame) => frames.extend(frame),
        Err(error) => tracing::error!("a message to the PPU is not sent: {error}"),
    }
}

/// Nanoseconds since the epoch.
fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
