//! SPEC 5 over HTTP: metrics, health, JSON; and nobody who misbehaves there does any harm.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use ppu_uringd::model::status::StatusReport;
use serde_json::{Value, json};
use support::daemon::Daemon;
use support::http::{connect, get, say};
use support::oracle::write;
use support::rig::{Options, Other, Rig, free_port};
use support::{content, is_root, wait_until};

/// Watchers at a time.
const SUBSCRIBERS: usize = 1000;

fn rig(options: Options) -> (Rig, u16) {
    let port = free_port();
    let options = Options { http: Some(port), storage: "tmpfs", storage_megabytes: 64, ..options };
    (Rig::start(options), port)
}

fn metrics(port: u16) -> BTreeMap<String, f64> {
    let answer = get(port, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
        })
        .collect()
}

#[test]
fn metrics_count_what_happens_and_each_one_is_documented() {
    if !is_root("metrics_count_what_happens_and_each_one_is_documented") {
        return;
    }
    let (rig, port) = rig(Options {
        others: vec![Other { kind: "external", fs: "tmpfs", megabytes: 64, extra: String::new() }],
        ..Options::default()
    });
    for n in 0..20 {
        write(rig.source(0), format!("a{n}"), &content(n, 1000));
    }
    let stored = "ppu_uringd_storage_stored_files_total{storage=\"external1\",kind=\"external\"}";
    wait_until("all are stored", || metrics(port).get(stored) == Some(&20.0) && rig.counts().copied == 20);
    wait_until("the clock is measured", || {
        metrics(port).contains_key("ppu_uringd_detector_clock_offset_seconds{detector=\"0\"}")
    });
    let now = metrics(port);
    for (name, value) in [
        ("ppu_uringd_detector_connected{detector=\"0\"}", 1.0),
        ("ppu_uringd_detector_landed_files_total{detector=\"0\"}", 20.0),
        ("ppu_uringd_detector_landed_bytes_total{detector=\"0\"}", 20_000.0),
        ("ppu_uringd_detector_backlog_files{detector=\"0\"}", 0.0),
        ("ppu_uringd_storage_stored_bytes_total{storage=\"internal\",kind=\"internal\"}", 20_000.0),
        ("ppu_uringd_storage_health{storage=\"internal\",kind=\"internal\",state=\"ok\"}", 1.0),
        ("ppu_uringd_storage_health{storage=\"internal\",kind=\"internal\",state=\"full\"}", 0.0),
        ("ppu_uringd_shift_files{storage=\"internal\",state=\"copied\"}", 20.0),
        ("ppu_uringd_problems{severity=\"error\"}", 0.0),
        ("ppu_uringd_journal_writable", 1.0),
        ("ppu_uringd_messages_total{code=\"COPY_ERROR\"}", 0.0),
        ("ppu_uringd_close_to_visible_seconds_count", 20.0),
        ("ppu_uringd_close_to_visible_seconds_bucket{le=\"+Inf\"}", 20.0),
        ("ppu_uringd_close_to_stored_seconds_count{storage=\"external1\",kind=\"external\"}", 20.0),
    ] {
        assert_eq!(now.get(name), Some(&value), "{name}");
    }
    assert!(now["ppu_uringd_close_to_visible_seconds_sum"] > 0.0);
    let mut last = 0.0;
    for (name, count) in
        now.iter().filter(|(name, _)| name.starts_with("ppu_uringd_close_to_visible_seconds_bucket"))
    {
        assert!(*count <= 20.0, "{name}");
        last = f64::max(last, *count);
    }
    assert_eq!(last, 20.0);

    let documented = documented();
    let present = described(&get(port, "/metrics").body);
    assert_eq!(present, documented, "docs/metrics.md says what /metrics says");
    let with_samples: BTreeSet<&str> = now
        .keys()
        .map(|name| name.split('{').next().unwrap())
        .map(|name| ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end)))
        .collect();
    let names: BTreeSet<&str> = documented.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(with_samples, names, "each one has samples");
}

/// Name, type and help of every metric in docs/metrics.md.
fn documented() -> BTreeSet<(String, String, String)> {
    let text = include_str!("../docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `ppu_uringd_"));
    rows.map(|row| {
        let mut cells = row.split(" | ");
        let mut next = || cells.next().unwrap().trim_end_matches(" |").to_owned();
        let (name, kind, _labels, help) = (next(), next(), next(), next());
        (format!("ppu_uringd_{}", name.trim_end_matches('`')), kind, help)
    })
    .collect()
}

/// Likewise, as `/metrics` says.
fn described(text: &str) -> BTreeSet<(String, String, String)> {
    let part = |start: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let help = part("# HELP ");
    part("# TYPE ").into_iter().map(|(name, kind)| (name.clone(), kind, help[&name].clone())).collect()
}

#[test]
fn json_is_what_status_says_and_what_the_description_says() {
    if !is_root("json_is_what_status_says_and_what_the_description_says") {
        return;
    }
    let (mut rig, port) = rig(Options::default());
    write(rig.source(0), "a", b"image");
    wait_until("it is stored", || rig.counts().copied == 1);
    let description = get(port, "/api/v1/openapi.json").json();
    let check = |path: &str, answer: &Value| -> Result<(), String> {
        let schema =
            &description["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let mut schema = schema.clone();
        schema["components"] = description["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.validate(answer).map_err(|error| format!("{path}: {error} at {}", error.instance_path()))
    };
    wait_until("there is a history", || {
        get(port, "/api/v1/history").json()["samples"].as_array().unwrap().len() > 2
    });
    // A message, and something wrong.
    rig.detectors[0].take().unwrap().stop();
    wait_until("it is told", || {
        !get(port, "/api/v1/messages").json()["messages"].as_array().unwrap().is_empty()
    });
    for path in ["/api/v1/status", "/api/v1/history", "/api/v1/messages", "/api/v1/openapi.json"] {
        let answer = get(port, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("content-type: application/json"), "{path}: {}", answer.head);
        check(path, &answer.json()).unwrap();
    }
    let mut wrong = get(port, "/api/v1/status").json();
    wrong["storages"][0].as_object_mut().unwrap().remove("pending");
    check("/api/v1/status", &wrong).unwrap_err();

    let same = || {
        let mut by_http: StatusReport = serde_json::from_str(&get(port, "/api/v1/status").body).unwrap();
        let mut by_socket = rig.status().unwrap();
        for report in [&mut by_http, &mut by_socket] {
            // What passes with time alone.
            report.at_ms = 0;
            report.daemon.uptime_s = 0;
            report
                .problems
                .iter_mut()
                .for_each(|problem| problem.text = problem.text.replace(char::is_numeric, ""));
            report.fills.iter_mut().for_each(|fill| fill.full_in_s = None);
            report.detectors[0].rate = Default::default();
            report.storages[0].rate = Default::default();
        }
        by_http == by_socket
    };
    wait_until("both say the same", same);

    let all = get(port, "/api/v1/messages").json();
    let last = all["last"].as_u64().unwrap();
    let none = json!({ "last": last, "messages": [] });
    assert_eq!(get(port, &format!("/api/v1/messages?since={last}")).json(), none);
    assert_eq!(get(port, "/api/v1/messages?code=COPY_ERROR,DATA_LOST").json(), none);
    assert_eq!(get(port, "/api/v1/messages?code=detector_link").json(), all);
    for wrong in ["since=x", "since=-1", "code=OOPS"] {
        let answer = get(port, &format!("/api/v1/messages?{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.json()["error"].is_string(), "{answer:?}");
    }
    let health = get(port, "/healthz");
    assert_eq!(health.status, 503, "{health:?}");
    assert!(health.body.starts_with("ERROR detector 0 not connected"), "{health:?}");
    rig.start_detector(0);
    rig.wait_linked();
    wait_until("all is well", || get(port, "/healthz").body.starts_with("ok\n"));
    assert_eq!(get(port, "/healthz").status, 200);
}

#[test]
fn what_is_no_honest_request_gets_nothing() {
    if !is_root("what_is_no_honest_request_gets_nothing") {
        return;
    }
    let (mut rig, port) = rig(Options::default());
    let ask = |line: &str, headers: &str| say(port, format!("{line}\r\n{headers}Connection: close\r\n\r\n"));
    let host = "Host: localhost\r\n";
    for (line, headers, status) in [
        ("GET /healthz HTTP/1.1", "Host: 127.0.0.1\r\n", 200),
        ("GET /healthz HTTP/1.1", "Host: [::1]:80\r\n", 200),
        ("HEAD /healthz HTTP/1.1", host, 200),
        ("GET http://localhost/healthz HTTP/1.1", host, 200),
        // DNS rebinding.
        ("GET /healthz HTTP/1.1", "Host: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1", "Host: localhost.evil.example:47197\r\n", 421),
        ("GET /healthz HTTP/1.1", "Host: localhost\r\nHost: evil.example\r\n", 421),
        ("GET /healthz HTTP/1.1", "", 421),
        ("GET http://evil.example/healthz HTTP/1.1", host, 421),
        ("GET /api/v1/events HTTP/1.1", "Host: evil.example\r\n", 421),
        // Read-only.
        ("POST /api/v1/status HTTP/1.1", host, 405),
        ("DELETE / HTTP/1.1", host, 405),
        ("OPTIONS * HTTP/1.1", host, 405),
        ("BREW /pot HTTP/1.1", host, 405),
        // Path tricks.
        ("GET /../../etc/passwd HTTP/1.1", host, 404),
        ("GET /..%2f..%2fetc/passwd HTTP/1.1", host, 404),
        ("GET //etc/passwd HTTP/1.1", host, 404),
        ("GET //metrics HTTP/1.1", host, 404),
        ("GET /metrics/ HTTP/1.1", host, 404),
        ("GET /./metrics HTTP/1.1", host, 404),
        ("GET /%6detrics HTTP/1.1", host, 404),
        ("GET /metrics%00 HTTP/1.1", host, 404),
        ("GET /api/v1 HTTP/1.1", host, 404),
        ("GET /api/v1/../../metrics HTTP/1.1", host, 404),
        ("GET /api/v1/STATUS HTTP/1.1", host, 404),
        ("GET /nothing?/metrics HTTP/1.1", host, 404),
    ] {
        let answer = ask(line, headers).unwrap_or_else(|| panic!("{line}: no answer"));
        assert_eq!(answer.status, status, "{line} {headers}: {answer:?}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{line}: {}", answer.head);
        assert!(!answer.head.contains("access-control"), "{line}: {}", answer.head);
    }
    let long = "x".repeat(64 << 10);
    let many: String = (0..1000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let requests: Vec<Vec<u8>> = vec![
        b"\r\n".repeat(1000),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\r\n\r\n".to_vec(),
        b"{\"v\":1,\"do\":\"status\"}\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 100_000],
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").into_bytes(),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes(),
        b"GET /healthz HTTP/1.1\r\nHost: local\x00host\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
        b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\nx".to_vec(),
        b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nffffffffffffffff\r\n"
            .to_vec(),
    ];
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        if let Some(answer) = say(port, &request) {
            assert!((400..600).contains(&answer.status), "{shown:?}: {answer:?}");
        }
    }
    let ppu = rig.ppu.as_mut().unwrap();
    assert!(ppu.is_running());
    assert!(!ppu.log().contains("panicked"), "{}", ppu.log());
    assert_eq!(get(port, "/healthz").status, 200);
}

/// One who watches.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn start(port: u16) -> Self {
        let mut stream = connect(port);
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    fn status(&mut self) -> u16 {
        let line = self.line();
        line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Data of the next event of that name.
    fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}\n");
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the stream has ended");
            if line == wanted {
                break;
            }
        }
        loop {
            if let Some(data) = self.line().strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[test]
fn a_thousand_watch_and_one_more_is_turned_away() {
    if !is_root("a_thousand_watch_and_one_more_is_turned_away") {
        return;
    }
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    if soft < 4096 {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }
    let (rig, port) = rig(Options::default());
    let ppu = rig.ppu.as_ref().unwrap();
    get(port, "/api/v1/status");
    let (memory, descriptors) = (ppu.rss(), ppu.descriptors());
    let mut watchers: Vec<Watcher> = (0..SUBSCRIBERS).map(|_| Watcher::start(port)).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.status(), 200);
        watcher.next("status");
    }
    let mut late = Watcher::start(port);
    assert_eq!(late.status(), 503);
    assert_eq!(get(port, "/metrics").status, 200, "who only asks still finds a place");
    let grown = ppu.rss().saturating_sub(memory);
    assert!(grown < 100 << 20, "{grown} bytes for {SUBSCRIBERS} subscribers");

    write(rig.source(0), "a", b"image");
    for watcher in &mut watchers {
        while watcher.next("status")["detectors"][0]["landed"]["files"] != 1 {}
        assert!(watcher.next("sample")["over_ms"].as_u64().unwrap() > 0);
    }
    drop(watchers);
    wait_until("those who left are forgotten", || ppu.descriptors() < descriptors + 10);
    let mut again = Watcher::start(port);
    assert_eq!(again.status(), 200);
    again.next("status");
}

#[test]
fn who_connects_and_says_nothing_keeps_nobody_out_for_long() {
    if !is_root("who_connects_and_says_nothing_keeps_nobody_out_for_long") {
        return;
    }
    let (mut rig, port) = rig(Options::default());
    // A whole crowd that opens connections and says half a word.
    let mut crowd: Vec<TcpStream> = (0..1500).map(|_| connect(port)).collect();
    for stream in &mut crowd {
        let _ = stream.write_all(b"GET /healthz HTT");
    }
    // Landing and storing do not notice.
    write(rig.source(0), "a", b"image");
    wait_until("it is stored", || rig.counts().copied == 1);
    wait_until("a place is free again", || {
        say(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .is_some_and(|answer| answer.status == 200)
    });
    // Each of them was told, or was cut off.
    for stream in &mut crowd {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 503") || text.starts_with("HTTP/1.1 408"),
            "{text}"
        );
    }
    assert!(rig.ppu.as_mut().unwrap().is_running());
}

#[test]
fn a_message_that_was_missed_comes_when_one_comes_back() {
    if !is_root("a_message_that_was_missed_comes_when_one_comes_back") {
        return;
    }
    let (mut rig, port) = rig(Options::default());
    rig.detectors[0].take().unwrap().stop();
    let mut watcher = Watcher::start(port);
    let first = watcher.next("message");
    assert_eq!(first["code"], "DETECTOR_LINK");
    let number = first["number"].as_u64().unwrap();
    let mut stream = connect(port);
    let head = format!("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {number}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut again = Watcher(BufReader::new(stream));
    rig.start_detector(0);
    rig.wait_linked();
    write(rig.source(0), "a", b"mine");
    let taken = rig.landing(0).join("b");
    wait_until("it has landed", || rig.counts().copied == 1);
    std::fs::write(&taken, b"a user's").unwrap();
    write(rig.source(0), "b", b"mine too");
    let next = again.next("message");
    assert_eq!((&next["code"], &next["short"]), (&json!("LAND_ERROR"), &json!("b")), "{next}");
}

#[test]
fn a_taken_port_is_one_clear_error_at_start() {
    if !is_root("a_taken_port_is_one_clear_error_at_start") {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = Options { http: Some(port), storage: "tmpfs", storage_megabytes: 64, ..Options::default() };
    let rig = Rig::prepare(options);
    let mut ppu = Daemon::start("ppu", &rig.ppu_config());
    assert_eq!(ppu.wait().code(), Some(1));
    let log = ppu.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with(&format!(
            "ppu-uringd: cannot listen on 127.0.0.1:{port} for HTTP: Address already in use"
        )),
        "{log}"
    );
    assert!(last.contains("interfaces.http") && last.contains("\"off\""), "{log}");
}
