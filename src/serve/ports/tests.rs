use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::*;
use crate::model::message::{Code, Message};
use crate::model::shift::ShiftId;
use crate::model::status::{
    Copies, Counts, Daemon, Journal, Latency, Ramdisk, Room, STATUS_VERSION, Shift, StatusReport,
};
use crate::serve::events::Events;
use crate::serve::feed::Feed;

const PATIENCE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits {
        clients: 16,
        first_request: PATIENCE,
        idle: PATIENCE,
        write: PATIENCE,
        farewell: Duration::from_secs(5),
    }
}

/// A port that is served; it ends when this is dropped.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new<F>(limits: Limits, serve: impl FnOnce(Port, oneshot::Receiver<()>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()>,
    {
        let port = Port::bind("status", "127.0.0.1:0".parse().unwrap(), limits).unwrap();
        let address = port.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { serve(port, stopped).await });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn status(limits: Limits) -> Self {
        Self::new(limits, |port, stop| {
            status::serve(port, Box::new(|reply| drop(reply.send(report()))), stop)
        })
    }

    fn messages(limits: Limits, feed: &Feed<Told>) -> Self {
        let files = Feed::new(1, 0, vec![], 0);
        let log = crate::journal::Queries::nobody();
        let events = Events::new(files.reader(), files.reader(), log, Arc::default());
        let subjects = messages::Subjects { messages: feed.reader(), events, software: "test" };
        Self::new(limits, |port, stop| messages::serve(port, subjects, stop))
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    fn ask(&self, request: &str) -> BufReader<TcpStream> {
        let mut client = self.connect();
        client.get_mut().write_all(request.as_bytes()).unwrap();
        client
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn report() -> StatusReport {
    let shift = |n: u32| Shift {
        start_ms: ShiftId(1_785_542_399_000 + i64::from(n)),
        uid: 500 + n,
        gid: 600,
        storages: ["internal", "nas"]
            .map(|storage| Copies {
                storage: storage.to_owned(),
                counts: Counts { produced: 10, pending: 1, copied: 2, failed: 3, superseded: 2, lost: 2 },
            })
            .into(),
    };
    StatusReport {
        fills: vec![],
        problems: vec![],
        version: STATUS_VERSION,
        at_ms: 0,
        daemon: Daemon { software: String::new(), pid: 1, uptime_s: 1, engine: String::new(), verify: true },
        ramdisk: Ramdisk {
            path: String::new(),
            room: Room::default(),
            left: crate::model::status::Left::default(),
        },
        journal: Journal::Ok,
        paused: crate::model::half::Paused::default(),
        detectors: vec![],
        storages: vec![],
        shifts: (0..3).map(shift).collect(),
        latency: Latency::default(),
        advice: vec![],
        messages: vec![],
    }
}

fn told(number: u64, code: Code, short: &str) -> (u64, Told) {
    (number, Told { number, count: 1, at_ms: 7, message: Message::new(code, short, "Do this.") })
}

fn raw(client: &mut impl BufRead) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

/// The next line; `None` at the end.
fn hear(client: &mut impl BufRead) -> Option<Line> {
    let line = raw(client);
    (!line.is_empty()).then(|| {
        let Envelope { v, content } = serde_json::from_str(&line).unwrap();
        assert_eq!(v, PORTS_VERSION);
        content
    })
}

#[test]
fn status_in_rows() {
    let served = Served::status(limits());
    let mut client =
        served.ask("{\"v\":1,\"nusers\":1}\n{\"v\":1,\"nusers\":2}\n{\"v\":1}\n{\"v\":1,\"nusers\":0}\n");
    let first = raw(&mut client);
    assert!(first.starts_with(r#"{"v":1,"status":[{"usertime":""#), "{first}");
    let rest = r#""start_ms":1785542399002,"uid":502,"gid":600,"storage":"internal","produced":10,"pending":1,"copied":2,"failed":3,"superseded":2,"lost":2},{"#;
    assert!(first.contains(rest), "{first}");
    for shifts in [2, 3, 0] {
        let Some(Line::Status(rows)) = hear(&mut client) else { panic!() };
        assert_eq!(rows.len(), 2 * shifts, "two storages");
        let uids: Vec<u32> = rows.iter().step_by(2).map(|row| row.uid).collect();
        assert_eq!(uids, [500, 501, 502][3 - shifts..]);
    }
}

#[test]
fn mistakes_are_told_and_end_the_connection() {
    let served = Served::status(limits());
    let long = "x".repeat(1 << 20);
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "it is no object"),
        ("\n", "it is no object"),
        ("{}\n", "missing field `v`"),
        ("[1]\n", "it is no object"),
        ("{\n", "EOF while parsing"),
        ("{\"v\":2}\n", "version 2 is asked for; this daemon speaks version 1"),
        ("{\"v\":1,\"nuser\":1}\n", "unknown field `nuser`, expected"),
        ("{\"v\":1,\"nusers\":-2}\n", "-1 for all"),
        ("{\"v\":1,\"nusers\":\"1\"}\n", "invalid type: string"),
        ("{\"v\":1,\"nusers\":99999999999999999999}\n", "invalid"),
        (&format!("{}1{}\n", "{\"v\":".repeat(500), "}".repeat(500)), "invalid type: map"),
        ("\u{0}\u{1}{\"v\":1}\n", "it is no object"),
        (&long, "a request has at most 4096 bytes"),
        (&format!("{long}\n"), "a request has at most 4096 bytes"),
    ] {
        let mut client = served.ask(request);
        let Some(Line::Error(error)) = hear(&mut client) else { panic!("{request:.40}") };
        assert!(error.contains(answer), "{request:.40}: {error}");
        assert_eq!(hear(&mut client), None);
    }
    let mut client = served.connect();
    client.get_mut().write_all(b"{\"v\":1,\"\xff\xfe\":1}\n").unwrap();
    assert!(matches!(hear(&mut client), Some(Line::Error(_))));
    assert!(matches!(hear(&mut served.ask("{\"v\":1}\n")), Some(Line::Status(_))), "and others are served");
}

#[test]
fn half_a_request_is_not_waited_for() {
    let served = Served::status(Limits { first_request: Duration::from_millis(50), ..limits() });
    for half in ["", "{\"v\":1"] {
        let mut client = served.ask(half);
        let Some(Line::Error(error)) = hear(&mut client) else { panic!() };
        assert!(error.contains(r#"no request came within 0.05 s: it is a line such as {"v":1,"#), "{error}");
        assert_eq!(hear(&mut client), None);
    }
    let served = Served::status(Limits { idle: Duration::from_millis(50), ..limits() });
    let mut client = served.ask("{\"v\":1}\n");
    assert!(matches!(hear(&mut client), Some(Line::Status(_))));
    assert_eq!(hear(&mut client), None, "nothing more was asked");
}

#[test]
fn too_many_are_turned_away() {
    let served = Served::status(limits());
    let mut clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = served.ask("{\"v\":1}\n");
            assert!(matches!(hear(&mut client), Some(Line::Status(_))));
            client
        })
        .collect();
    let expected = Line::Error("16 clients are connected already: try again".to_owned());
    assert_eq!(hear(&mut served.connect()), Some(expected));
    clients.pop();
    let start = Instant::now();
    while !matches!(hear_or_reset(&mut served.ask("{\"v\":1}\n")), Some(Line::Status(_))) {
        assert!(start.elapsed() < PATIENCE);
    }
}

/// Who is turned away with a request under way may find the connection reset.
fn hear_or_reset(client: &mut BufReader<TcpStream>) -> Option<Line> {
    let mut line = String::new();
    client.read_line(&mut line).ok()?;
    serde_json::from_str::<Envelope<Line>>(&line).ok().map(|line| line.content)
}

#[test]
fn a_taken_port_is_one_clear_error() {
    let served = Served::status(limits());
    let error = Port::bind("status", served.address, limits()).unwrap_err().to_string();
    let address = served.address;
    let expected =
        format!("interfaces.status = \"{address}\": Address already in use (os error 98): another program");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("or change interfaces.status; \"off\" closes this door"), "{error}");
}

#[test]
fn a_busy_ledger_is_no_riddle() {
    let served = Served::new(limits(), |port, stop| status::serve(port, Box::new(drop), stop));
    let expected = Line::Error("the daemon is busy, or stopping: try again".to_owned());
    assert_eq!(hear(&mut served.ask("{\"v\":1}\n")), Some(expected));
}

#[test]
fn messages_since_a_number_and_as_they_come() {
    let kept =
        vec![told(5, Code::CopyError, "a:b"), told(7, Code::LandError, "c"), told(8, Code::DataLost, "d")];
    let feed = Feed::new(3, 4, kept, 8);
    let served = Served::messages(limits(), &feed);
    let subscribed = |last| Some(Line::Subscribed { last, software: "test".to_owned() });
    let mut all = served.ask("{\"v\":1,\"since\":5}\n");
    let mut old = served.ask("{\"v\":1,\"want\":\"messages\",\"codes\":\"old\",\"since\":4}\n");
    let mut new = served.ask("{\"v\":1,\"codes\":\"all\"}\n");
    let mut late = served.ask("{\"v\":1,\"since\":3}\n");
    let mut lost = served.ask("{\"v\":1,\"since\":99}\n");
    for client in [&mut all, &mut old, &mut new, &mut late, &mut lost] {
        assert_eq!(hear(client), subscribed(8));
    }
    assert_eq!(hear(&mut late), Some(Line::Gap(Gap { after: 3, before: 5 })));
    assert_eq!(hear(&mut lost), Some(Line::Gap(Gap { after: 99, before: 5 })));
    let message = |number, code, short| Some(Line::Message(told(number, code, short).1));
    for client in [&mut late, &mut lost] {
        assert_eq!(hear(client), message(5, Code::CopyError, "a:b"));
    }
    for client in [&mut all, &mut late, &mut lost] {
        assert_eq!(hear(client), message(7, Code::LandError, "c"));
        assert_eq!(hear(client), message(8, Code::DataLost, "d"));
    }
    assert_eq!(hear(&mut old), message(5, Code::CopyError, "a:b"));
    assert_eq!(hear(&mut old), message(7, Code::CopyError, "c:ramdisk"));
    feed.publish([told(10, Code::DelError, "e")]);
    for client in [&mut all, &mut old, &mut new, &mut late] {
        assert_eq!(hear(client), message(10, Code::DelError, "e"));
    }
    drop(feed);
    for client in [&mut all, &mut old, &mut new, &mut late] {
        assert_eq!(hear(client), None, "the daemon ends");
    }
}

#[test]
fn a_subscriber_that_speaks_again_is_at_its_end() {
    let feed = Feed::new(3, 0, vec![], 0);
    let served = Served::messages(limits(), &feed);
    let mut client = served.ask("{\"v\":1}\n");
    assert!(matches!(hear(&mut client), Some(Line::Subscribed { .. })));
    client.get_mut().write_all(b"{\"v\":1}\n").unwrap();
    let mut rest = Vec::new();
    // It may be reset, for what was said in vain.
    let _ = client.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_slow_subscriber_is_dropped_and_nobody_waits_for_it() {
    let feed = Feed::new(100, 0, vec![], 0);
    let served = Served::messages(Limits { write: Duration::from_millis(300), ..limits() }, &feed);
    let mut slow = served.ask("{\"v\":1}\n");
    let mut quick = served.ask("{\"v\":1}\n");
    for client in [&mut slow, &mut quick] {
        assert!(matches!(hear(client), Some(Line::Subscribed { .. })));
    }
    let short = "x".repeat(10_000);
    // 60 MB: more than the kernel keeps for anybody.
    for number in 1..=6000 {
        let begun = Instant::now();
        feed.publish([told(number, Code::CopyError, &short)]);
        assert!(begun.elapsed() < PATIENCE);
        let Some(Line::Message(told)) = hear(&mut quick) else { panic!("{number}") };
        assert_eq!(told.number, number);
    }
    let mut got = Vec::new();
    // What the kernel had taken for it, then the end, or a reset.
    let _ = slow.read_to_end(&mut got);
    let lines = got.iter().filter(|&&byte| byte == b'\n').count();
    assert!((1..6000).contains(&lines), "{lines}");
}
