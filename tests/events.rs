//! The event stream of the message port, and the hook: every image that becomes visible or is stored, once, in order, also over restarts.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ppu_uringd::model::file_version::Hash;
use serde_json::{Value, json};
use support::daemon::BINARY;
use support::oracle::write;
use support::rig::{GID, Options, Other, Rig, UID, free_port};
use support::{content, is_root, wait_until};

struct Consumer(BufReader<TcpStream>);

impl Consumer {
    fn subscribe(rig: &Rig, want: &str, since: Option<u64>) -> Self {
        let request = match since {
            Some(since) => json!({"v": 1, "want": want, "since": since}),
            None => json!({"v": 1, "want": want}),
        };
        let mut consumer = Self::ask(rig, &request);
        assert!(consumer.line()["subscribed"]["last"].is_u64());
        consumer
    }

    fn ask(rig: &Rig, request: &Value) -> Self {
        let port = rig.options.message_port.unwrap();
        let mut stream = None;
        wait_until("the port is open", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The next event, which must be of this kind.
    fn next(&mut self, kind: &str) -> Value {
        let line = self.line();
        assert!(line[kind].is_object(), "{line}");
        line[kind].clone()
    }
}

fn number(event: &Value) -> u64 {
    event["number"].as_u64().unwrap()
}

fn options() -> Options {
    Options {
        storage: "tmpfs",
        storage_megabytes: 512,
        message_port: Some(free_port()),
        ..Options::default()
    }
}

#[test]
fn an_image_is_told_when_it_is_visible_and_when_it_is_stored() {
    if !is_root("an_image_is_told_when_it_is_visible_and_when_it_is_stored") {
        return;
    }
    let rig = Rig::start(options());
    let mut visible = Consumer::subscribe(&rig, "visible", None);
    let mut stored = Consumer::subscribe(&rig, "stored", None);
    let bytes = content(7, 4321);
    write(rig.source(0), "run 1/a_1.cbf", &bytes);
    let event = visible.next("visible");
    let landed = rig.landing(0).join("run 1/a_1.cbf");
    assert_eq!(std::fs::read(&landed).unwrap(), bytes, "it is there when it is told");
    let shift = rig.status().unwrap().shifts[0].start_ms.0;
    let meta = std::fs::metadata(&landed).unwrap();
    let expected = json!({
        "number": event["number"], "version": event["version"], "at_ms": event["at_ms"],
        "path": landed, "detector": "0", "shift_ms": shift, "uid": UID, "gid": GID, "size": 4321,
        "hash": Hash::of(&bytes).to_string(), "mtime_ns": meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    });
    assert_eq!(event, expected);

    let event = stored.next("stored");
    let place = rig.stored(0).join("run 1/a_1.cbf");
    assert_eq!(std::fs::read(&place).unwrap(), bytes, "it is there when it is told");
    assert_eq!(event["path"], json!(place));
    assert_eq!((&event["storage"], &event["version"]), (&json!("internal"), &expected["version"]));
    assert_eq!((&event["hash"], &event["shift_ms"]), (&expected["hash"], &json!(shift)));

    // A name that is no text travels exactly.
    write(rig.source(0), OsStr::from_bytes(b"b\xff.cbf"), &bytes);
    let event = visible.next("visible");
    let exact = STANDARD.decode(event["path_base64"].as_str().unwrap()).unwrap();
    assert_eq!(exact, rig.landing(0).join(OsStr::from_bytes(b"b\xff.cbf")).as_os_str().as_bytes());
    assert!(event["path"].as_str().unwrap().ends_with("b\u{fffd}.cbf"));
    assert!(stored.next("stored")["path_base64"].is_string());

    // What users store is theirs; the next image is the next event.
    let extra = rig.ppu_ramdisk.path().join("notes");
    std::fs::write(&extra, "of a user").unwrap();
    let mut add = std::process::Command::new(BINARY);
    add.args(["add", "--wait", "--control"]).arg(rig.dir.path().join("control.sock")).arg(&extra);
    let added = add.output().unwrap();
    assert!(added.status.success(), "{added:?}");
    write(rig.source(0), "c.cbf", &bytes);
    assert!(visible.next("visible")["path"].as_str().unwrap().ends_with("c.cbf"));
    assert!(stored.next("stored")["path"].as_str().unwrap().ends_with("c.cbf"));
}

/// More images than the memory of either side holds, a consumer that stops and comes back, and a daemon that is killed.
#[test]
fn nothing_is_missed_over_restarts_and_pauses() {
    if !is_root("nothing_is_missed_over_restarts_and_pauses") {
        return;
    }
    let mut rig = Rig::start(options());
    let name = |n: usize| format!("d{}/f{n}.cbf", n % 7);
    let mut early = Consumer::subscribe(&rig, "visible", None);
    let mut stored = Consumer::subscribe(&rig, "stored", None);
    for n in 0..300 {
        write(rig.source(0), name(n), &content(n as u64, 100));
    }
    let mut seen = BTreeMap::new();
    let mut last = 0;
    for _ in 0..300 {
        let event = early.next("visible");
        assert!(number(&event) > last, "they grow");
        last = number(&event);
        seen.insert(last, event);
    }
    let mut on_storage = BTreeSet::new();
    let mut last_stored = 0;
    for _ in 0..300 {
        let event = stored.next("stored");
        assert!(number(&event) > last_stored);
        last_stored = number(&event);
        on_storage.insert(event["path"].as_str().unwrap().to_owned());
    }
    assert_eq!(on_storage.len(), 300);

    // From the memory, by a consumer that comes late: the very same.
    let (first, half) = (*seen.keys().next().unwrap(), *seen.keys().nth(149).unwrap());
    let mut late = Consumer::subscribe(&rig, "visible", Some(half));
    for (number, event) in seen.range(half + 1..) {
        assert_eq!((&late.next("visible"), *number), (event, event["number"].as_u64().unwrap()));
    }

    rig.ppu.take().unwrap().kill();
    for n in 300..600 {
        write(rig.source(0), name(n), &content(n as u64, 100));
    }
    rig.start_ppu();
    // From the journal: the very same. Then what came while the daemon was away.
    let mut again = Consumer::subscribe(&rig, "visible", Some(first - 1));
    for event in seen.values() {
        assert_eq!(again.next("visible"), *event);
    }
    let mut paths = BTreeSet::new();
    while paths.len() < 300 {
        let event = again.next("visible");
        assert!(number(&event) > last);
        last = number(&event);
        paths.insert(event["path"].as_str().unwrap().to_owned());
    }
    let expected: BTreeSet<String> =
        (300..600).map(|n| rig.landing(0).join(name(n)).display().to_string()).collect();
    assert_eq!(paths, expected);
    let mut stored = Consumer::subscribe(&rig, "stored", Some(last_stored));
    for _ in 0..300 {
        on_storage.insert(stored.next("stored")["path"].as_str().unwrap().to_owned());
    }
    assert_eq!(on_storage.len(), 600);

    // What cannot be told any more is a gap, not silence.
    let mut old = Consumer::subscribe(&rig, "visible", Some(5));
    let gap = old.line()["gap"].clone();
    assert_eq!(gap["after"], json!(5));
    assert!(gap["before"].as_u64().unwrap() <= first);
    assert_eq!(number(&old.next("visible")), first);
    let mut future = Consumer::subscribe(&rig, "visible", Some(last + (1 << 50)));
    assert_eq!(future.line()["gap"]["after"], json!(last + (1 << 50)));
    assert_eq!(number(&future.next("visible")), first, "whoever has such a number is told all");
}

#[test]
fn more_than_the_memory_holds_comes_from_the_journal_without_a_seam() {
    if !is_root("more_than_the_memory_holds_comes_from_the_journal_without_a_seam") {
        return;
    }
    const FILES: usize = 12_000;
    let rig = Rig::start(options());
    let mut consumer = Consumer::subscribe(&rig, "visible", None);
    for n in 0..FILES {
        write(rig.source(0), format!("d{}/f{n}", n % 50), &[n as u8]);
    }
    wait_until("all have landed", || {
        rig.status().is_some_and(|status| status.detectors[0].landed.files == FILES as u64)
    });
    // Only now it listens: what its connection did not hold has left the memory meanwhile.
    let mut paths = BTreeSet::new();
    let mut last = 0;
    let mut first = 0;
    for _ in 0..FILES {
        let event = consumer.next("visible");
        assert!(number(&event) > last);
        last = number(&event);
        first = if first == 0 { last } else { first };
        paths.insert(event["path"].as_str().unwrap().to_owned());
    }
    assert_eq!(paths.len(), FILES);
    let mut again = Consumer::subscribe(&rig, "visible", Some(first - 1));
    for _ in 0..FILES {
        assert!(paths.remove(again.next("visible")["path"].as_str().unwrap()));
    }
    // Who has selected what does not happen hears how far that is.
    let request = json!({"v": 1, "want": "visible", "since": first - 1, "shift_ms": 1});
    let mut nothing = Consumer::ask(&rig, &request);
    assert!(nothing.line()["subscribed"].is_object());
    let mut passed = first;
    for _ in 0..FILES / 2000 {
        let number = nothing.line()["passed"]["number"].as_u64().unwrap();
        assert!(number > passed && number <= last, "{passed} {number} {last}");
        passed = number;
    }
}

#[test]
fn only_what_was_selected() {
    if !is_root("only_what_was_selected") {
        return;
    }
    let other = Other { kind: "external", fs: "tmpfs", megabytes: 64, extra: String::new() };
    let rig = Rig::start(Options { detectors: 2, others: vec![other], ..options() });
    let shift = rig.status().unwrap().shifts[0].start_ms.0;
    let subscribe = |request: Value| {
        let mut consumer = Consumer::ask(&rig, &request);
        assert!(consumer.line()["subscribed"].is_object());
        consumer
    };
    let mut of_one = subscribe(json!({"v": 1, "want": "visible", "detector": "1"}));
    let mut on_one = subscribe(json!({"v": 1, "want": "stored", "storage": "external1"}));
    let mut of_both = subscribe(
        json!({"v": 1, "want": "stored", "storage": "internal", "detector": "1", "shift_ms": shift}),
    );
    for n in 0..4 {
        write(rig.source(n % 2), format!("f{n}"), &content(n as u64, 100));
    }
    let names = |consumer: &mut Consumer, kind: &str, count: usize| -> BTreeSet<String> {
        let path = |_| PathBuf::from(consumer.next(kind)["path"].as_str().unwrap());
        (0..count).map(path).map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&mut of_one, "visible", 2), set(&["f1", "f3"]));
    assert_eq!(names(&mut on_one, "stored", 4), set(&["f0", "f1", "f2", "f3"]));
    assert_eq!(names(&mut of_both, "stored", 2), set(&["f1", "f3"]));
    for (request, error) in [
        (json!({"v": 1, "want": "stored", "storage": "nas"}), "there are: internal, external1"),
        (json!({"v": 1, "want": "visible", "detector": "extra files"}), "there are: 0, 1"),
        (json!({"v": 1, "want": "visible", "storage": "internal"}), "storage selects what is stored"),
        (json!({"v": 1, "detector": "1"}), "messages have none"),
        (json!({"v": 1, "want": "visible", "codes": "all"}), "events have none"),
        (json!({"v": 1, "want": "visible", "shift_ms": "now"}), "invalid type"),
    ] {
        let line = Consumer::ask(&rig, &request).line();
        assert!(line["error"].as_str().unwrap().contains(error), "{request}: {line}");
    }
}

#[test]
fn the_hook_runs_as_the_shifts_user() {
    if !is_root("the_hook_runs_as_the_shifts_user") {
        return;
    }
    let mut rig = Rig::prepare(options());
    std::fs::set_permissions(rig.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let out = rig.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = rig.dir.path().join("hook");
    let text = format!(
        "#!/bin/sh\ncd '{}'\n(id -u; id -g; id -G; cat) > $$.part\necho said by the hook >&2\nmv $$.part $$\n",
        out.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let hook = format!("[hook]\nrun = \"{}\"\nprocesses = 2\nbatch = 50\n", script.display());
    std::fs::write(rig.ppu_config(), format!("{config}{hook}")).unwrap();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..500 {
        write(rig.source(0), format!("f{n}"), &content(n, 50));
    }
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let done = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_none()).collect()
    };
    wait_until("the hook has seen all", || {
        seen.clear();
        for file in done() {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut lines = text.lines();
            let ids: Vec<&str> = lines.by_ref().take(3).collect();
            assert_eq!(ids, [UID.to_string(), GID.to_string(), GID.to_string()], "no further groups");
            let events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(events.len() <= 50, "{}", events.len());
            seen.extend(events.iter().map(|event| PathBuf::from(event["visible"]["path"].as_str().unwrap())));
        }
        seen.len() == 500
    });
    assert!(seen.iter().all(|path| path.exists()));
    assert!(rig.ppu.as_ref().unwrap().log().contains("hook says: said by the hook"));
    assert!(rig.ppu.take().unwrap().stop().success());
}
