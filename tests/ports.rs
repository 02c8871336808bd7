//! SPEC 5.1 to 5.3: the status port and the message port of the real daemon.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::daemon::BINARY;
use support::oracle::write;
use support::rig::{Options, Rig, free_port};
use support::{content, is_root, wait_until};

const SUBSCRIBERS: usize = 1000;

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Some(Self(BufReader::new(stream)))
    }

    fn ask(port: u16, request: &Value) -> Self {
        let mut client = None;
        wait_until("the port is open", || {
            client = Self::connect(port);
            client.is_some()
        });
        let mut client = client.unwrap();
        client.say(request);
        client
    }

    fn say(&mut self, request: &Value) {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    /// `Null` at the end.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        if line.is_empty() { Value::Null } else { serde_json::from_str(&line).unwrap() }
    }
}

fn options() -> Options {
    Options {
        storage: "tmpfs",
        storage_megabytes: 64,
        status_port: Some(free_port()),
        message_port: Some(free_port()),
        ..Options::default()
    }
}

#[test]
fn status_per_shift_and_storage() {
    if !is_root("status_per_shift_and_storage") {
        return;
    }
    let rig = Rig::start(options());
    write(rig.source(0), "a.cbf", &content(1, 1000));
    wait_until("it is stored", || rig.counts().copied == 1);
    let mut start = Command::new(BINARY);
    start.args(["shift", "start", "-u", "700:800", "--control"]).arg(rig.dir.path().join("control.sock"));
    assert!(start.output().unwrap().status.success());
    let status = rig.status().unwrap();
    let mut client = Client::ask(rig.options.status_port.unwrap(), &json!({"v": 1}));
    let mut rows = Value::Null;
    wait_until("the port shows the new shift, a moment later", || {
        rows = client.hear()["status"].clone();
        client.say(&json!({"v": 1}));
        rows.as_array().unwrap().len() == 2
    });
    assert_eq!(client.hear()["status"], rows);
    let (first, second) = (&rows[0], &rows[1]);
    assert_eq!(first["start_ms"], json!(status.shifts[0].start_ms.0));
    assert_eq!((&first["uid"], &first["gid"]), (&json!(support::rig::UID), &json!(support::rig::GID)));
    assert_eq!(
        (&first["storage"], &first["copied"], &first["pending"]),
        (&json!("internal"), &json!(1), &json!(0))
    );
    assert_eq!((&second["uid"], &second["gid"], &second["copied"]), (&json!(700), &json!(800), &json!(0)));
    let local = jiff::Timestamp::from_millisecond(status.shifts[1].start_ms.0).unwrap();
    let local = local.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    assert_eq!(second["usertime"], json!(local));
    client.say(&json!({"v": 1, "nusers": 1}));
    assert_eq!(client.hear(), json!({"v": 1, "status": [second]}));
}

#[test]
fn a_thousand_subscribers_hear_everything_also_over_a_restart() {
    if !is_root("a_thousand_subscribers_hear_everything_also_over_a_restart") {
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut rig = Rig::prepare(options());
    let port = rig.options.message_port.unwrap();
    rig.start_ppu();
    let request = json!({"v": 1, "since": 0});
    let mut clients: Vec<Client> = (0..SUBSCRIBERS).map(|_| Client::ask(port, &request)).collect();
    // No detector runs: that is the first message.
    let first = {
        let mut first = Vec::new();
        for client in &mut clients {
            assert_eq!(
                client.hear()["subscribed"]["software"].as_str().unwrap().split(' ').next(),
                Some("ppu-uringd")
            );
            first.push(client.hear()["message"].clone());
        }
        assert!(first.iter().all(|message| *message == first[0]), "all hear the same");
        first[0].clone()
    };
    assert_eq!((&first["code"], &first["short"]), (&json!("DETECTOR_LINK"), &json!("0")));

    // A file that cannot land: told to all of them while one of them takes nothing at all.
    write(rig.source(0), "b.cbf", &content(2, 1000));
    write(&rig.landing(0), "b.cbf", b"a user's");
    let mut old = Client::ask(port, &json!({"v": 1, "codes": "old"}));
    assert!(old.hear()["subscribed"]["last"].as_u64() >= first["number"].as_u64());
    rig.start_detector(0);
    for client in &mut clients[1..] {
        let message = client.hear()["message"].clone();
        assert_eq!(message["code"], json!("LAND_ERROR"));
        assert!(message["number"].as_u64() > first["number"].as_u64());
    }
    let message = old.hear()["message"].clone();
    assert_eq!(message["code"], json!("COPY_ERROR"), "what the predecessor's six can say of it");
    assert!(message["short"].as_str().unwrap().ends_with("b.cbf:ramdisk"), "{message}");

    let last = message["number"].clone();
    rig.ppu.take().unwrap().stop();
    for client in &mut clients[1..] {
        while let message = client.hear()
            && !message.is_null()
        {
            // What was counted is told at the end.
            assert!(message["message"]["number"].as_u64() > last.as_u64(), "{message}");
        }
    }
    rig.start_ppu();
    let mut again = Client::ask(port, &json!({"v": 1, "since": last}));
    assert!(again.hear()["subscribed"].is_object());
    let message = again.hear()["message"].clone();
    assert!(message["number"].as_u64() > last.as_u64(), "the next one, and not the same again: {message}");
    let mut lost = Client::ask(port, &json!({"v": 1, "since": 1u64 << 40}));
    assert!(lost.hear()["subscribed"].is_object());
    assert_eq!(lost.hear()["gap"]["after"], json!(1u64 << 40), "such a number was never given");
}

#[test]
fn a_taken_port_is_said_at_start() {
    if !is_root("a_taken_port_is_said_at_start") {
        return;
    }
    let mut rig = Rig::prepare(options());
    let port = rig.options.message_port.unwrap();
    let _holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    rig.start_ppu();
    let mut daemon = rig.ppu.take().unwrap();
    assert!(!daemon.wait().success());
    let log = daemon.log();
    let expected = format!("interfaces.messages = \"127.0.0.1:{port}\": Address already in use");
    assert!(log.contains(&expected), "{log}");
}
