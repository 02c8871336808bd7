//! Files from a detector over the operator's own network: `tune --serve` sends them there, and the daemon's own link fetches them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ppu_config::{DetectorLink, HostPort, Ppu, Verify};
use ppu_uring::Engine;
use ppu_uringd::daemon::measured::caller;
use ppu_uringd::land::connect::{ConnectError, connect};
use ppu_uringd::land::expect::Expect;
use ppu_uringd::land::link::{self, Link, Notice, StartLanding};
use ppu_uringd::model::file_version::{DetectorIndex, Identity, OfferId, TransferId};
use ppu_uringd::model::ledger::Fact;
use ppu_uringd::model::offer::{OFFER_WINDOW, Offered, Wanted};
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::{Began, ShiftId};
use ppu_uringd::wire::control::FromPpu;
use ppu_uringd::wire::handshake::{HandshakeError, Key, Role};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::super::Failure;
use super::super::output::note;
use super::super::size::IMAGE_MAX_BYTES;
use super::arrivals::{Arrivals, News, Supply, in_flight_max};
use super::link::{choice, engines, word};
use super::place;
use super::table::{self, ROUNDS, Row};
use super::{Pace, STREAMS};

/// Longest wait for a session and its offers. The one before may still be ending at the other end.
const OPENING_MAX: Duration = Duration::from_secs(10);

/// How files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Way {
    /// Of the PPU.
    #[serde(serialize_with = "word")]
    pub(super) engine: Engine,
    #[serde(serialize_with = "word")]
    pub(super) detector_engine: Engine,
    pub(super) streams: u16,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, from {}, streams {}", self.engine, self.detector_engine, self.streams)
    }
}

/// The detector, as it is measured.
pub(super) struct Detector {
    pub(super) address: HostPort,
    pub(super) key: Key,
    /// Where files land; a directory of its own.
    pub(super) target: PathBuf,
    pub(super) verify: Verify,
}

/// What a detector sent, and how fast.
pub(super) struct Measured {
    pub(super) file_bytes: u64,
    pub(super) rows: Vec<Row<Way>>,
}

/// Each engine that this host and the detector's allow, with each number of connections.
pub(super) fn measure(detector: &Detector, pace: &mut Pace, seconds: u64) -> Result<Measured, Failure> {
    greet(detector)?;
    let (mut there, mut file_bytes) = (Vec::new(), 0);
    let here = engines();
    let Some(&first) = here.first() else { return Err(Failure::Failed("there is no engine".to_owned())) };
    for detector_engine in [Engine::Uring, Engine::Syscall] {
        let way = Way { engine: first, detector_engine, streams: 1 };
        match one(detector, pace, way, Duration::ZERO) {
            Ok(row) => {
                file_bytes = row.bytes / row.files.max(1);
                there.push(detector_engine);
            }
            Err(reason) if pace.is_stopped() => return Err(Failure::Failed(reason)),
            Err(reason) => note(&format!("the detector's engine {detector_engine}: {reason}")),
        }
    }
    if there.is_empty() {
        return Err(Failure::Failed(format!("{}: nothing comes from there", detector.address)));
    }
    let mut ways = Vec::new();
    for engine in here {
        for &detector_engine in &there {
            ways.extend(STREAMS.map(|streams| Way { engine, detector_engine, streams }));
        }
    }
    pace.all = ways.len() * ROUNDS;
    pace.time = Duration::from_secs(seconds) / pace.all as u32;
    note(&format!("files of {file_bytes} bytes from {}", detector.address));
    let rows = table::rounds(&ways, |way| {
        let row = one(detector, pace, way, pace.time)
            .map_err(|error| Failure::Failed(format!("{way}: {error}")))?;
        pace.progress(&format!("{way}: {:.0} MB/s", row.rate() / 1e6));
        Ok::<_, Failure>(row)
    })?;
    Ok(Measured { file_bytes, rows })
}

/// Whether somebody is there, and the right one.
fn greet(detector: &Detector) -> Result<(), Failure> {
    let Detector { address, key, .. } = detector;
    let todo = "On the detector run: ppu-uringd tune --serve --config /etc/ppu-uringd/detector.toml";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let role = Role::Control { ppu: caller(Engine::Uring) };
    let connected = runtime.map_err(Failure::failed)?.block_on(connect(address, key, role));
    let why = match connected {
        Ok(_) => return Ok(()),
        Err(ConnectError::Tcp(error)) => {
            format!("cannot connect: {error}. {todo}; is TCP port {} open in its firewall?", address.port)
        }
        Err(ConnectError::NoAnswer) => {
            format!(
                "no answer: is the machine up, and TCP port {} open in its firewall? {todo}",
                address.port
            )
        }
        Err(ConnectError::Handshake(HandshakeError::KeyDiffers)) => format!(
            "key differs: compare key_file on both machines; and `tune --serve` must answer there, not the daemon. {todo}"
        ),
        Err(error) => error.to_string(),
    };
    Err(Failure::Failed(format!("{address}: {why}")))
}

fn one(detector: &Detector, pace: &Pace, way: Way, time: Duration) -> Result<Row<Way>, String> {
    let arrivals = Arrivals::new(&detector.target, detector.verify, choice(way.engine))
        .map_err(|error| error.to_string())?;
    let session = Session::start(detector, &arrivals, way)?;
    let counted = session.open(&arrivals, pace).and_then(|mut opened| {
        check_room(&detector.target, &opened.files)?;
        let expect = Arc::clone(&opened.expect);
        arrivals.count(&mut opened, &expect, pace, time)
    });
    session.stop();
    arrivals.clear()?;
    let (files, bytes, took) = counted?;
    Ok(Row { way, files, bytes, took })
}

/// The detector says how large its files are.
fn check_room(target: &Path, files: &[(RelPath, Identity)]) -> Result<(), String> {
    let largest = files.iter().map(|(_, identity)| identity.size).max().unwrap_or(0);
    if largest > IMAGE_MAX_BYTES {
        return Err(format!("the detector offers a file of {largest} bytes"));
    }
    let room = place::room(target).map_err(|error| format!("{}: {error}", target.display()))?;
    let needed = largest * in_flight_max(largest);
    match needed <= room {
        true => Ok(()),
        false => Err(format!(
            "{}: {needed} bytes must fit into a quarter of what is free: make room, or use a smaller --size there",
            target.display()
        )),
    }
}

/// The daemon's own link, in a thread of its own.
struct Session {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What the detector has.
struct Opened {
    expect: Arc<Expect>,
    outlet: mpsc::UnboundedSender<FromPpu>,
    files: Vec<(RelPath, Identity)>,
    /// In the same order.
    offers: Vec<OfferId>,
}

impl Session {
    fn start(detector: &Detector, arrivals: &Arrivals, way: Way) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let link = Link {
            detector: DetectorIndex(0),
            address: detector.address.clone(),
            streams: way.streams,
            key: detector.key.clone(),
            ppu: caller(way.detector_engine),
        };
        // Nobody listens where the measurement has ended already.
        let tell = arrivals.tell.clone();
        let notify = move |notice| drop(tell.send(News::Notice(notice)));
        let (landing, tell) = (arrivals.landing.clone(), arrivals.tell.clone());
        let start_landing: StartLanding = Arc::new(move |connection, expect, ended| {
            let tell = tell.clone();
            let report = move |landed| drop(tell.send(News::Landed(landed)));
            landing.start(connection, expect, report, ended)
        });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let run = move || runtime.block_on(link::run(link, notify, start_landing, stopped));
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(run).map_err(text)?;
        Ok(Self { stop, thread })
    }

    /// Waits for all that the detector has on offer.
    fn open(&self, arrivals: &Arrivals, pace: &Pace) -> Result<Opened, String> {
        let deadline = Instant::now() + OPENING_MAX;
        let mut opened: Option<Opened> = None;
        loop {
            let news = arrivals.next(pace)?;
            match (news, &mut opened) {
                (News::Notice(Notice::Up { outlet, expect, .. }), _) => {
                    let (source, began) = (None, Began::Ever);
                    let shift = FromPpu::ShiftBegan { shift: ShiftId(1), source, began, more: false };
                    // If the session is over, that is news, too.
                    let _ = outlet.send(shift);
                    opened = Some(Opened { expect, outlet, files: Vec::new(), offers: Vec::new() });
                }
                (News::Notice(Notice::Fact(Fact::Offered { files, .. })), Some(opened)) => {
                    opened.take_note(files)?;
                }
                (News::Notice(Notice::Fact(Fact::ManifestEnd { .. })), Some(_)) => {
                    return opened.ok_or_else(|| "no session".to_owned());
                }
                // Busy with the session before.
                (News::Notice(Notice::Fact(Fact::LinkDown { refused: true, .. })), None)
                    if Instant::now() < deadline => {}
                (News::Notice(Notice::Fact(Fact::LinkDown { reason, .. })) | News::Broken(reason), _) => {
                    return Err(reason);
                }
                _ if Instant::now() > deadline => return Err("it does not say what it has".to_owned()),
                _ => {}
            }
        }
    }

    /// Everything of it has ended when this returns.
    fn stop(self) {
        let _ = self.stop.send(true);
        // It says nothing more.
        let _ = self.thread.join();
    }
}

impl Opened {
    fn take_note(&mut self, offered: Vec<Offered>) -> Result<(), String> {
        for Offered { offer, path, identity, .. } in offered {
            self.files.push((path, identity));
            self.offers.push(offer);
        }
        match self.offers.len() {
            0..=OFFER_WINDOW => Ok(()),
            more => Err(format!("the detector offers {more} files")),
        }
    }
}

impl Supply for Opened {
    fn files(&self) -> &[(RelPath, Identity)] {
        &self.files
    }

    /// It never hears that they have landed, so each may be wanted as often as one likes.
    fn ask(&mut self, wanted: &[(TransferId, usize)]) -> Result<(), String> {
        let want = |&(transfer, at): &(TransferId, usize)| Wanted {
            transfer,
            offer: self.offers[at],
            known_hash: None,
        };
        let wants = wanted.iter().map(want).collect();
        self.outlet.send(FromPpu::Want { wants }).map_err(|_| "the session has ended".to_owned())
    }
}

/// The detector of ppu.toml that `--from` names, by its id or its host, and where its end of the measurement listens.
pub(super) fn whom<'a>(config: &'a Ppu, from: &str) -> Result<(&'a DetectorLink, HostPort), Failure> {
    let named = |name: &str| -> Vec<&DetectorLink> {
        let host = name.trim_start_matches('[').trim_end_matches(']');
        let by_id = config.detectors.iter().filter(|detector| detector.id == name).collect::<Vec<_>>();
        match by_id.is_empty() {
            false => by_id,
            true => config.detectors.iter().filter(|detector| detector.address.host == host).collect(),
        }
    };
    let (mut detectors, mut port) = (named(from), None);
    if detectors.is_empty()
        && let Some((name, number)) = from.rsplit_once(':')
        && let Ok(number) = number.parse::<u16>()
    {
        (detectors, port) = (named(name), Some(number));
    }
    let [detector] = detectors[..] else {
        let known: Vec<_> = config.detectors.iter().map(|d| format!("{} ({})", d.id, d.address)).collect();
        return Err(Failure::Usage(format!(
            "--from {from}: not one detector of ppu.toml, which has {}; write its id, or id:PORT",
            known.join(", ")
        )));
    };
    let HostPort { host, port: daemon } = detector.address.clone();
    match port.or(daemon.checked_add(1)) {
        Some(port) => Ok((detector, HostPort { host, port })),
        None => Err(Failure::Usage(format!("--from {from}: write {from}:PORT, as `tune --serve` says"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detector_by_id_or_host_and_the_port_after_its_daemons() {
        let detector = |id: &str, address: &str| {
            format!("[[detector]]\nid = {id:?}\naddress = {address:?}\ntarget = \"/ramdisk/./{id}\"\n")
        };
        let text = "ramdisk = \"/ramdisk\"\nuid = 1\ngid = 1\nkey_file = \"/k\"\n".to_owned()
            + &detector("a", "10.0.0.1:49371")
            + &detector("b", "[fe80::1]:65535")
            + &detector("c", "two.example:5000")
            + &detector("d", "two.example:6000")
            + "[[storage]]\nid = \"i\"\nkind = \"internal\"\ntarget = \"/data\"\nallow_root_fs = true\n";
        let config = Ppu::parse(&text, Path::new("ppu.toml")).unwrap().config;
        let whom = |from: &str| {
            whom(&config, from).map(|(detector, at)| format!("{} {at}", detector.id)).map_err(|_| ())
        };
        assert_eq!(whom("a"), Ok("a 10.0.0.1:49372".to_owned()));
        assert_eq!(whom("a:7"), Ok("a 10.0.0.1:7".to_owned()));
        assert_eq!(whom("10.0.0.1"), Ok("a 10.0.0.1:49372".to_owned()));
        assert_eq!(whom("10.0.0.1:7"), Ok("a 10.0.0.1:7".to_owned()));
        assert_eq!(whom("b"), Err(()), "there is no port after its");
        assert_eq!(whom("[fe80::1]:7"), Ok("b [fe80::1]:7".to_owned()));
        assert_eq!(whom("d"), Ok("d two.example:6001".to_owned()));
        assert_eq!(whom("two.example"), Err(()), "which of the two?");
        assert_eq!(whom("three.example"), Err(()));
        assert_eq!(whom("a:b"), Err(()));
    }
}
