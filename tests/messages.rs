//! SPEC 4.2 and 5.5: messages are told once, numbered, kept over a crash, followed over restarts, and everybody may hear them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::Told;
use support::daemon::BINARY;
use support::oracle::write;
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

fn client(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--control").arg(rig.dir.path().join("control.sock"));
    command
}

fn told(output: &Output) -> Vec<Told> {
    assert!(output.status.success(), "{output:?}");
    output
        .stdout
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn messages(rig: &Rig, arguments: &[&str]) -> Vec<Told> {
    told(&client(rig, &[&["messages", "--json"], arguments].concat()).output().unwrap())
}

/// `messages --follow`, killed when dropped.
struct Follower {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Follower {
    fn start(rig: &Rig) -> Self {
        let log = std::fs::File::create(rig.dir.path().join("follow.log")).unwrap();
        let mut command = client(rig, &["messages", "--follow", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Told {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kept_over_a_crash_and_followed_over_a_restart() {
    if !is_root("kept_over_a_crash_and_followed_over_a_restart") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() });
    // No detector runs: that is the first message.
    rig.start_ppu();
    wait_until("the missing detector is told", || {
        rig.status().is_some_and(|status| !status.messages.is_empty())
    });
    let mut follower = Follower::start(&rig);
    let first = follower.next();
    assert_eq!((first.message.code, &*first.message.short, first.count), (Code::DetectorLink, "0", 1));
    // What the journal has not committed goes with a crash.
    let path = rig.dir.path().join("ppu.state/journal.db");
    let kept = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let copy = tempfile::tempdir().unwrap();
        for name in ["journal.db", "journal.db-wal"] {
            let _ = std::fs::copy(path.with_file_name(name), copy.path().join(name));
        }
        let connection = rusqlite::Connection::open_with_flags(copy.path().join("journal.db"), flags).ok()?;
        connection.query_row("SELECT num FROM message", [], |row| row.get::<_, i64>(0)).ok()
    };
    wait_until("the journal has it", || kept() == Some(first.number as i64));
    rig.ppu.take().unwrap().kill();
    let log = rig.dir.path().join("follow.log");
    let said = |what: &str| wait_until(what, || std::fs::read_to_string(&log).unwrap().contains(what));
    said("Waiting for it.");
    rig.start_ppu();
    let second = follower.next();
    assert!(second.number > first.number, "{second:?}");
    assert_eq!(second.message.code, Code::DetectorLink, "raised anew by the new process");
    said("the daemon answers again.");

    let all = messages(&rig, &[]);
    assert_eq!(all[..2], [first.clone(), second], "both are kept");
    assert_eq!(messages(&rig, &["--since", &first.number.to_string()]), all[1..]);
    assert_eq!(messages(&rig, &["--code", "COPY_ERROR"]), []);
    assert_eq!(messages(&rig, &["--code", "COPY_ERROR", "--code", "detector_link"]), all);
    let wrong = client(&rig, &["messages", "--code", "OOPS"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there are FILLSTATE_LIMIT, ALMOST_OVERFLOW"));
    let text = client(&rig, &["messages"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains(&format!("#{} DETECTOR_LINK 0\n    Detector 0 at 127.0.0.1:", first.number)),
        "{text}"
    );
    rig.ppu.take().unwrap().stop();
    assert_eq!(client(&rig, &["messages"]).output().unwrap().status.code(), Some(1));
}

#[test]
fn names_are_escaped_and_a_storm_is_summed_up() {
    if !is_root("names_are_escaped_and_a_storm_is_summed_up") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() });
    let name =
        |n: usize| OsStr::from_bytes(&[b"a:b\n\xff" as &[u8], n.to_string().as_bytes()].concat()).to_owned();
    for n in 0..100 {
        write(rig.source(0), name(n), &content(n as u64, 100));
        // Not ours, so never replaced: the image waits, and that is told.
        write(&rig.landing(0), name(n), b"a user's");
    }
    rig.start_detector(0);
    rig.start_ppu();
    let lands = |rig: &Rig| messages(rig, &["--code", "LAND_ERROR"]);
    wait_until("some are told at once", || rig.status().is_some() && lands(&rig).len() >= 20);
    wait_until("the rest is summed up", || lands(&rig).iter().map(|told| told.count).sum::<u64>() >= 100);
    let all = lands(&rig);
    assert!(all.len() < 30, "{}", all.len());
    for told in &all {
        assert!(told.message.short.starts_with("a%3Ab%0A%FF"), "{told:?}");
        assert!(told.message.long.contains("Move or rename what stands at its place"), "{told:?}");
    }
    assert!(all.iter().any(|told| told.message.long.contains("… and")), "{all:?}");
}

#[test]
fn everybody_may_listen_and_nobody_else_may_steer() {
    if !is_root("everybody_may_listen_and_nobody_else_may_steer") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage: "tmpfs", storage_megabytes: 64, ..Options::default() });
    std::fs::set_permissions(rig.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.start_ppu();
    wait_until("it answers", || rig.status().is_some());
    // Where the build directory is root's alone, the binary is handed out beside the socket.
    let binary = rig.dir.path().join("ppu-uringd");
    std::fs::copy(BINARY, &binary).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(arguments);
        command.arg("--control").arg(rig.dir.path().join("control.sock")).output().unwrap()
    };
    assert!(as_nobody(&["status"]).status.success());
    assert!(as_nobody(&["messages"]).status.success());
    for command in [&["retry"][..], &["verify"]] {
        let refused = as_nobody(command);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains("only root and the daemon's user may ask for that"), "{error}");
    }
    assert!(client(&rig, &["retry"]).output().unwrap().status.success());
}
