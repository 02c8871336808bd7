//! A fake PPU over loopback: good, hostile, dead.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::jobs::{Jobs, Next};
use super::listen::{self, Door};
use super::session::{Desk, Heard, StartStream};
use super::shifts::Shifts;
use crate::model::catalog::{Catalog, Event, KnownSpan, Moment};
use crate::model::file_version::{Identity, OfferId, TransferId};
use crate::model::offer::{Decline, Heartbeat, Wanted, Withdrawal};
use crate::model::path::RelPath;
use crate::model::send::{SendOutcome, SendReport};
use crate::model::shift::{Began, ShiftId};
use crate::wire::control::{FromDetector, FromPpu};
use crate::wire::frame::{self, Decoder};
use crate::wire::handshake::{Client, HandshakeError, Key, MAX_UNFINISHED, PpuId, Role, SessionId};

const PATIENCE: Duration = Duration::from_secs(20);
const PPU: PpuId = PpuId([1; 16]);
const IDENTITY: Identity = Identity { size: 5, mtime_ns: 1, ino: 1, ctime_ns: 1 };

/// Remembers nothing, marks nothing.
struct NoShifts;

impl Shifts for NoShifts {
    fn now(&self) -> Moment {
        Moment { at: Instant::now(), file_ns: 1 }
    }

    fn mark(&self, _: u64) -> Result<(), String> {
        Err("nobody marks here".to_owned())
    }

    fn save(&self, _: u64, _: Vec<KnownSpan>) -> bool {
        true
    }
}

/// A detector whose streams do as the test says.
struct Rig {
    address: SocketAddr,
    desk: Rc<Desk>,
    streams: Rc<RefCell<Vec<Stream>>>,
    _stop: watch::Sender<bool>,
}

struct Stream {
    connection: std::net::TcpStream,
    jobs: Arc<Jobs>,
    outlet: mpsc::UnboundedSender<Heard>,
}

fn with_detector<F: Future<Output = ()>>(test: impl FnOnce(Rig) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let now = Instant::now();
        let mut catalog = Catalog::new(now);
        catalog.event(now, Event::ScanBegins);
        catalog.event(now, Event::ScanEnds);
        let vitals = || Heartbeat { skipped: 3, ..Heartbeat::default() };
        let desk = Rc::new(Desk::new(catalog, Box::new(vitals), Box::new(NoShifts)));
        let streams = Rc::new(RefCell::new(Vec::new()));
        let started = Rc::clone(&streams);
        let start: StartStream = Rc::new(move |_, connection, jobs, outlet| {
            started.borrow_mut().push(Stream { connection, jobs, outlet });
            Ok(())
        });
        let (stop, stopped) = watch::channel(false);
        let door = Door { key: Key::new(b"key"), open_to_others: true };
        tokio::task::spawn_local(listen::serve(listener, door, Rc::clone(&desk), start, stopped));
        timeout(2 * PATIENCE, test(Rig { address, desk, streams, _stop: stop })).await.unwrap();
    });
}

impl Rig {
    async fn ppu(&self) -> Ppu {
        Ppu::connect(self.address, b"key", Role::Control { ppu: PPU }).await.unwrap()
    }

    async fn data(&self, session: SessionId) -> Result<Ppu, HandshakeError> {
        Ppu::connect(self.address, b"key", Role::Data { session, stream: 0 }).await
    }

    /// The stream's end of a data connection that was let in.
    async fn stream(&self) -> Stream {
        loop {
            if let Some(stream) = self.streams.borrow_mut().pop() {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }

    fn event(&self, event: Event) {
        self.desk.notice(Instant::now(), vec![event]);
        self.desk.news.notify_one();
    }

    fn closed(&self, name: &str) {
        let path = RelPath::new(name.as_bytes()).unwrap();
        self.event(Event::Closed { path, identity: IDENTITY, at: Instant::now() });
    }
}

/// One connection of a PPU.
struct Ppu {
    stream: TcpStream,
    decoder: Decoder,
    session: SessionId,
}

impl Ppu {
    async fn connect(address: SocketAddr, key: &[u8], role: Role) -> Result<Self, HandshakeError> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut client = Client::new(&Key::new(key), role, [7; 32])?;
        loop {
            stream.write_all(&client.take_output()).await.unwrap();
            let mut bytes = vec![0; client.missing()?.max(1)];
            let count = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
            assert_ne!(count, 0, "closed in the handshake");
            if let Some(established) = client.feed(&bytes[..count])? {
                return Ok(Self { stream, decoder: client.into_decoder(), session: established.session });
            }
        }
    }

    async fn say(&mut self, message: FromPpu) {
        self.stream.write_all(&frame::encode(&message).unwrap()).await.unwrap();
    }

    /// The next message that is no heartbeat; `None` at the connection's end.
    async fn hear(&mut self) -> Option<FromDetector> {
        loop {
            match self.decoder.next_message().unwrap() {
                Some(FromDetector::Heartbeat(_)) => {}
                Some(message) => return Some(message),
                None => {
                    let mut bytes = [0; 4096];
                    match timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap() {
                        Ok(0) | Err(_) => return None,
                        Ok(count) => self.decoder.feed(&bytes[..count]),
                    }
                }
            }
        }
    }

    /// Begins the shift; answers with the manifest's files.
    async fn manifest(&mut self) -> Vec<OfferId> {
        self.say(FromPpu::ShiftBegan { shift: ShiftId(1), source: None, began: Began::Ever, more: false })
            .await;
        assert_eq!(self.hear().await, Some(FromDetector::ShiftWord { shift: ShiftId(1) }));
        assert_eq!(self.hear().await, Some(FromDetector::ManifestBegin));
        let mut offers = Vec::new();
        loop {
            match self.hear().await {
                Some(FromDetector::Offer { files }) => offers.extend(files.into_iter().map(|f| f.offer)),
                Some(FromDetector::ManifestEnd) => return offers,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn want(&mut self, transfer: u64, offer: OfferId) {
        let transfer = TransferId(transfer);
        self.say(FromPpu::Want { wants: vec![Wanted { transfer, offer, known_hash: None }] }).await;
    }

    async fn is_ended(&mut self) {
        while self.hear().await.is_some() {}
    }
}

async fn next_job(jobs: &Jobs) -> TransferId {
    loop {
        match jobs.next(Duration::ZERO) {
            Next::Job(job) => return job.transfer,
            Next::Closed => panic!("the session has ended"),
            Next::Nothing => tokio::task::yield_now().await,
        }
    }
}

fn sent(transfer: TransferId) -> Heard {
    Heard::Reports(vec![SendReport {
        transfer,
        outcome: SendOutcome::Sent { identity: IDENTITY, settled: true },
    }])
}

#[test]
fn a_file_is_offered_wanted_sent_and_landed() {
    with_detector(|rig| async move {
        rig.closed("before");
        let mut ppu = rig.ppu().await;
        let _data = rig.data(ppu.session).await.unwrap();
        let stream = rig.stream().await;
        let offers = ppu.manifest().await;
        assert_eq!(offers.len(), 1);
        ppu.want(11, offers[0]).await;
        assert_eq!(next_job(&stream.jobs).await, TransferId(11));
        stream.outlet.send(sent(TransferId(11))).unwrap();
        ppu.say(FromPpu::Landed { offers: offers.clone() }).await;
        ppu.say(FromPpu::ClockProbe { sent_ns: 5 }).await;
        assert!(matches!(ppu.hear().await, Some(FromDetector::ClockReply { sent_ns: 5, .. })));
        rig.event(Event::Gone { path: RelPath::new(b"before").unwrap() });
        assert_eq!(ppu.hear().await, Some(FromDetector::Gone { offers }));
        rig.closed("later");
        assert!(matches!(ppu.hear().await, Some(FromDetector::Offer { .. })));
    });
}

#[test]
fn a_file_that_comes_alone_goes_out_with_a_grant() {
    with_detector(|rig| async move {
        let mut ppu = rig.ppu().await;
        let _data = rig.data(ppu.session).await.unwrap();
        let stream = rig.stream().await;
        assert!(ppu.manifest().await.is_empty());
        ppu.say(FromPpu::Grant { transfers: vec![TransferId(5)], max_bytes: 1 << 20 }).await;
        // Answered, so the grant was heard.
        ppu.say(FromPpu::ClockProbe { sent_ns: 5 }).await;
        assert!(matches!(ppu.hear().await, Some(FromDetector::ClockReply { .. })));
        rig.closed("alone");
        let Some(FromDetector::Coming { files }) = ppu.hear().await else { panic!("it comes unasked") };
        assert_eq!((files[0].transfer, files[0].shifts_heard), (TransferId(5), 1));
        assert_eq!(next_job(&stream.jobs).await, TransferId(5));
        stream.outlet.send(sent(TransferId(5))).unwrap();
        // It cannot be taken as it came: then it is an offer like any other.
        ppu.say(FromPpu::NotTaken { transfer: TransferId(5) }).await;
        ppu.want(6, files[0].file.offer).await;
        assert_eq!(next_job(&stream.jobs).await, TransferId(6));
        // No grant is left.
        rig.closed("later");
        assert!(matches!(ppu.hear().await, Some(FromDetector::Offer { .. })));
    });
}

#[test]
fn what_a_stream_declines_is_told_and_withdrawn() {
    with_detector(|rig| async move {
        rig.closed("busy");
        let mut ppu = rig.ppu().await;
        let _data = rig.data(ppu.session).await.unwrap();
        let stream = rig.stream().await;
        let offer = ppu.manifest().await[0];
        ppu.want(1, offer).await;
        let transfer = next_job(&stream.jobs).await;
        let outcome = SendOutcome::Declined { why: Decline::Busy, identity: None };
        stream.outlet.send(Heard::Reports(vec![SendReport { transfer, outcome }])).unwrap();
        assert_eq!(ppu.hear().await, Some(FromDetector::Declined { transfer, why: Decline::Busy }));
        assert_eq!(ppu.hear().await, Some(FromDetector::Withdrawn { offer, why: Withdrawal::Reopened }));
    });
}

#[test]
fn heartbeats_come_first_and_every_second() {
    with_detector(|rig| async move {
        let mut ppu = rig.ppu().await;
        let mut beats = 0;
        while beats < 2 {
            match ppu.decoder.next_message().unwrap() {
                Some(FromDetector::Heartbeat(beat)) => {
                    assert_eq!(beat.skipped, 3);
                    beats += 1;
                }
                Some(other) => panic!("{other:?}"),
                None => {
                    let mut bytes = [0; 4096];
                    let count = timeout(PATIENCE, ppu.stream.read(&mut bytes)).await.unwrap().unwrap();
                    ppu.decoder.feed(&bytes[..count]);
                }
            }
        }
    });
}

#[test]
fn a_new_session_is_offered_what_did_not_land() {
    with_detector(|rig| async move {
        rig.closed("a");
        let mut first = rig.ppu().await;
        assert_eq!(first.manifest().await.len(), 1);
        let mut second = rig.ppu().await;
        first.is_ended().await;
        assert_eq!(second.manifest().await.len(), 1);
    });
}

#[test]
fn another_ppu_is_refused_while_one_is_here() {
    with_detector(|rig| async move {
        let first = rig.ppu().await;
        let other = Role::Control { ppu: PpuId([2; 16]) };
        let Err(error) = Ppu::connect(rig.address, b"key", other).await else { panic!("let in") };
        assert!(error.to_string().contains("busy"), "{error}");
        drop(first);
        let end = Instant::now() + PATIENCE;
        while Ppu::connect(rig.address, b"key", other).await.is_err() {
            assert!(Instant::now() < end);
        }
    });
}

#[test]
fn a_wrong_key_and_an_unknown_session_are_refused() {
    with_detector(|rig| async move {
        let control = Role::Control { ppu: PPU };
        assert!(Ppu::connect(rig.address, b"another", control).await.is_err());
        let Err(error) = rig.data(SessionId([9; 16])).await else { panic!("let in") };
        assert!(error.to_string().contains("unknown session"), "{error}");
        rig.ppu().await;
    });
}

/// The session may have been admitted when its PPU is gone already: the detector must not wait for it for ever.
#[test]
fn a_ppu_that_dies_at_the_door_leaves_it_open() {
    with_detector(|rig| async move {
        // The old session cannot end as long as its stream's thread lives, and the new one waits for that.
        let first = rig.ppu().await;
        let _data = rig.data(first.session).await.unwrap();
        let stream = rig.stream().await;
        let dying = tokio::task::spawn_local({
            let address = rig.address;
            async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut client = Client::new(&Key::new(b"key"), Role::Control { ppu: PPU }, [7; 32]).unwrap();
                let mut bytes = [0; 1024];
                stream.write_all(&client.take_output()).await.unwrap();
                let count = stream.read(&mut bytes).await.unwrap();
                assert!(client.feed(&bytes[..count]).unwrap().is_none());
                stream.write_all(&client.take_output()).await.unwrap();
                stream
            }
        })
        .await
        .unwrap();
        // The proof was read when the first session is told to go.
        let mut first = first;
        first.is_ended().await;
        // RST instead of FIN.
        nix::sys::socket::setsockopt(
            &dying,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
        drop(dying);
        drop(stream);
        rig.ppu().await;
    });
}

#[test]
fn a_broken_data_connection_ends_the_session() {
    with_detector(|rig| async move {
        let mut ppu = rig.ppu().await;
        let _data = rig.data(ppu.session).await.unwrap();
        let Stream { connection, jobs, outlet } = rig.stream().await;
        outlet.send(Heard::Ended("reset".to_owned())).unwrap();
        drop((connection, outlet));
        ppu.is_ended().await;
        assert_eq!(jobs.next(PATIENCE), Next::Closed);
    });
}

#[test]
fn nonsense_ends_the_session() {
    with_detector(|rig| async move {
        for nonsense in [&[0xff; 8][..], &[1, 0, 0, 0, 0x80]] {
            let mut ppu = rig.ppu().await;
            ppu.stream.write_all(nonsense).await.unwrap();
            ppu.is_ended().await;
        }
        let mut ppu = rig.ppu().await;
        ppu.say(FromPpu::Landed { offers: vec![OfferId(0), OfferId(u64::MAX)] }).await;
        ppu.want(1, OfferId(u64::MAX)).await;
        let declined = FromDetector::Declined { transfer: TransferId(1), why: Decline::Changed };
        assert_eq!(ppu.hear().await, Some(declined), "what was never offered is not sent");
    });
}

/// FAULTS 43.
#[test]
fn connections_that_say_nothing_are_few_and_short_lived() {
    with_detector(|rig| async move {
        let mut idle = Vec::new();
        for _ in 0..MAX_UNFINISHED {
            idle.push(TcpStream::connect(rig.address).await.unwrap());
        }
        let mut turned_away = TcpStream::connect(rig.address).await.unwrap();
        assert!(matches!(turned_away.read(&mut [0]).await, Ok(0) | Err(_)), "closed at once");
        // One drips: a byte now and then is no progress either.
        let begin = Instant::now();
        let mut drip = idle.pop().unwrap();
        let (mut reading, mut writing) = drip.split();
        let dripping = async {
            writing.write_all(&1000_u32.to_le_bytes()).await.unwrap();
            let mut pause = tokio::time::interval(Duration::from_millis(500));
            loop {
                pause.tick().await;
                let written: io::Result<()> = writing.write_all(&[0]).await;
                if written.is_err() {
                    return;
                }
            }
        };
        let mut bytes = [0; 1024];
        tokio::select! {
            () = dripping => {}
            _ = reading.read(&mut bytes) => {}
        }
        assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
        rig.ppu().await;
    });
}

#[test]
fn a_silent_ppu_is_dead_after_a_while() {
    with_detector(|rig| async move {
        let mut ppu = rig.ppu().await;
        let begin = Instant::now();
        ppu.is_ended().await;
        assert!((4..10).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    });
}
