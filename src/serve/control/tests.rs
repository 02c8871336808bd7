use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::model::half::Paused;
use crate::model::status::{Daemon, Journal, Latency, Left, Ramdisk, Room, STATUS_VERSION};

/// A served socket; everything ends when it is dropped.
struct Served {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Served {
    fn new(handle: impl Fn(Request, Answer) + Send + Sync + 'static) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("run/control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = socket.serve(handle) => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { path, stop: Some(stop), thread: Some(thread), _directory: directory }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.path.exists(), "the name goes with the daemon");
    }
}

fn report() -> StatusReport {
    StatusReport {
        version: STATUS_VERSION,
        at_ms: 1_785_542_399_000,
        daemon: Daemon {
            software: "ppu-uringd 0.1.0".to_owned(),
            pid: 77,
            uptime_s: 3600,
            engine: "uring".to_owned(),
            verify: true,
        },
        ramdisk: Ramdisk {
            path: "/ramdisk".to_owned(),
            room: Room { total_bytes: 9, free_bytes: 4 },
            left: Left::default(),
        },
        journal: Journal::Ok,
        paused: Paused::default(),
        detectors: vec![],
        storages: vec![],
        shifts: vec![],
        latency: Latency::default(),
        advice: vec![],
        messages: vec![],
    }
}

fn answering() -> Served {
    Served::new(|request, answer| {
        assert_eq!(request, Request::Status);
        // From another thread, as the ledger's is.
        thread::spawn(move || answer.send(Response::Status(Box::new(report()))));
    })
}

fn told(client: &mut BufReader<UnixStream>, request: &[u8]) -> String {
    client.get_mut().write_all(request).unwrap();
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

const STATUS: &[u8] = b"{\"v\":1,\"do\":\"status\"}\n";

#[test]
fn status_is_answered() {
    let served = answering();
    assert_eq!(query(&served.path, &Request::Status).unwrap(), Response::Status(Box::new(report())));
    let mode = fs::symlink_metadata(&served.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o666, "everybody may connect");
    let mut client = served.connect();
    for _ in 0..3 {
        assert!(told(&mut client, STATUS).starts_with(r#"{"v":1,"status":{"version":1,"#));
    }
}

#[test]
fn mistakes_are_told_and_forgiven() {
    let served = answering();
    let mut client = served.connect();
    for (request, answer) in [
        (&b"GET / HTTP/1.1\n"[..], "cannot read what the client says: expected value at line 1 column 1"),
        (b"\n", "cannot read what the client says: EOF"),
        (b"{\"do\":\"status\"}\n", "missing field `v`"),
        (
            b"{\"v\":2,\"do\":\"status\"}\n",
            "the client speaks version 2 of the control protocol, not 1: use the same release",
        ),
        (b"{\"v\":1,\"do\":\"dance\"}\n", "unknown variant `dance`, expected "),
        (b"\xff\xfe\n", "expected value"),
    ] {
        let line = told(&mut client, request);
        assert!(line.starts_with(r#"{"v":1,"error":""#) && line.contains(answer), "{line}");
    }
    assert!(told(&mut client, STATUS).contains("uptime_s"), "and still served");

    let line = told(&mut client, &[b' '; MAX_REQUEST_BYTES]);
    assert!(line.contains("at most 65536 bytes"), "{line}");
    let mut rest = String::new();
    assert_eq!(client.read_line(&mut rest).unwrap(), 0, "disconnected");
    assert!(query(&served.path, &Request::Status).is_ok());
}

#[test]
fn clients_are_bounded() {
    let served = answering();
    let mut clients = Vec::new();
    let refused = loop {
        let mut client = served.connect();
        let line = told_or_gone(&mut client);
        if !line.contains("uptime_s") {
            break line;
        }
        clients.push(client);
        assert!(clients.len() <= 64);
    };
    assert!(refused.contains("64 clients are connected already"), "{refused}");
    assert_eq!(clients.len(), 64);
    let error = query(&served.path, &Request::Status).unwrap_err().to_string();
    assert!(error.contains("64 clients are connected already"), "{error}");
    clients.clear();
    while query(&served.path, &Request::Status).is_err() {
        thread::yield_now();
    }
}

/// The refusal is there before the request, which then may find nobody.
fn told_or_gone(client: &mut BufReader<UnixStream>) -> String {
    _ = client.get_mut().write_all(STATUS);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

#[test]
fn an_answer_that_never_comes_is_no_riddle() {
    let served = Served::new(|_, answer| drop(answer));
    let error = query(&served.path, &Request::Status).unwrap_err();
    assert_eq!(error.to_string(), "the daemon is stopping");
}

#[test]
fn without_a_daemon_the_error_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    let expected = format!("no daemon answers at {}: is `ppu-uringd ppu` running?", path.display());
    let error = query(&path, &Request::Status).unwrap_err().to_string();
    assert!(error.starts_with(&expected), "{error}");
    drop(UnixListener::bind(&path).unwrap());
    let error = query(&path, &Request::Status).unwrap_err().to_string();
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_daemon_that_dies_over_a_question_is_reported() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let mut client = BufReader::new(listener.accept().unwrap().0);
        client.read_line(&mut String::new()).unwrap();
        client.get_mut().write_all(br#"{"v":1,"#).unwrap();
    });
    let error = query(&path, &Request::Status).unwrap_err().to_string();
    assert!(error.starts_with("cannot hear the daemon at"), "{error}");
    daemon.join().unwrap();
}

#[test]
fn a_running_daemon_keeps_its_socket() {
    let served = answering();
    let error = ControlSocket::bind(&served.path).unwrap_err().to_string();
    let expected = format!("another daemon is running: it answers at {}", served.path.display());
    assert_eq!(error, expected);
    assert!(query(&served.path, &Request::Status).is_ok());
}

#[test]
fn only_a_stale_socket_is_removed() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    drop(UnixListener::bind(at("stale")).unwrap());
    let socket = ControlSocket::bind(&at("stale")).unwrap();
    drop(socket);
    assert!(!at("stale").exists());

    fs::write(at("file"), "precious").unwrap();
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    for name in ["file", "link"] {
        assert!(matches!(ControlSocket::bind(&at(name)), Err(ControlError::NotASocket(_))));
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"precious");

    let socket = ControlSocket::bind(&at("moved")).unwrap();
    fs::rename(at("moved"), at("elsewhere")).unwrap();
    fs::write(at("moved"), "somebody else's").unwrap();
    drop(socket);
    assert!(at("moved").exists());

    let error = ControlSocket::bind(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(error.starts_with("cannot make the directory of the control socket /nowhere/at/all: No such"));
}

/// A handler that answers with `count` lines before the last one, from a thread of its own.
fn counting(count: usize, say: fn(&Answer, Response) -> bool) -> Served {
    Served::new(move |_, answer| {
        thread::spawn(move || {
            let line = || Response::Status(Box::new(report()));
            if (0..count).all(|_| say(&answer, line())) {
                _ = answer.send(line());
            }
        });
    })
}

#[test]
fn an_answer_may_be_several_lines() {
    let served = counting(1000, Answer::wait_and_say);
    let mut client = Client::connect(&served.path).unwrap();
    for _ in 0..2 {
        client.ask(&Request::Status).unwrap();
        let lines = (1..).find(|_| !client.hear().unwrap().more).unwrap();
        assert_eq!(lines, 1001);
    }
    let mut raw = served.connect();
    let first = told(&mut raw, STATUS);
    assert!(first.starts_with(r#"{"v":1,"more":true,"status":{"#), "{first}");
}

#[test]
fn a_client_that_does_not_listen_is_cut_off() {
    let served = counting(usize::MAX, Answer::say);
    let mut client = served.connect();
    client.get_mut().write_all(STATUS).unwrap();
    // The daemon's thread never waits, so sooner or later its lines come faster than they are taken.
    let mut last = String::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).unwrap() == 0 {
            break;
        }
        last = line;
    }
    assert_eq!(last, "{\"v\":1,\"error\":\"this client is too slow: ask again\"}\n");
}

#[test]
fn who_hangs_up_ends_the_answer() {
    let (ended, end) = std::sync::mpsc::channel();
    let served = Served::new(move |_, answer| {
        let ended = ended.clone();
        thread::spawn(move || {
            assert!(answer.say(Response::Status(Box::new(report()))));
            // Nothing more is ever said: only the hang-up itself can be noticed.
            while !answer.is_abandoned() {
                thread::yield_now();
            }
            ended.send(()).unwrap();
        });
    });
    let mut client = Client::connect(&served.path).unwrap();
    client.ask(&Request::Status).unwrap();
    assert!(client.hear().unwrap().more);
    drop(client);
    end.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_descriptor_comes_with_its_request() {
    let served = Served::new(|_, mut answer| {
        let text = answer.take_file().map(|file| std::io::read_to_string(fs::File::from(file)).unwrap());
        let uid = answer.peer().uid;
        _ = answer.send(Response::Error(format!("{uid} {text:?}")));
    });
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "handed over").unwrap();
    let file = fs::File::open(&path).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let mut client = Client::connect(&served.path).unwrap();
    for _ in 0..3 {
        use std::os::fd::AsFd;
        std::io::Seek::rewind(&mut &file).unwrap();
        client.hand_over(&Request::Status, file.as_fd()).unwrap();
        let error = client.hear().unwrap_err().to_string();
        assert_eq!(error, format!("{uid} Some(\"handed over\")"));
        client.ask(&Request::Status).unwrap();
        assert_eq!(client.hear().unwrap_err().to_string(), format!("{uid} None"));
    }
}
