//! One process, from its start to its end.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, getegid, geteuid, kill_process_group, pidfd_open};

use crate::model::event::FileEvent;
use crate::serve::events::Item;
use crate::serve::ports::append_item;

/// How often it is looked whether the daemon ends.
const LOOK_UP: Duration = Duration::from_millis(100);
/// At the daemon's end: from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// Of standard error, so much is logged; the rest is read and dropped.
const LOGGED_MAX_BYTES: usize = 16 << 10;
/// Read of it after the end, a page each.
const LAST_PIECES: usize = 16;
/// In one line of the log.
const LINE_MAX_BYTES: usize = 1000;

/// What one process gets.
pub(super) struct Batch {
    pub(super) run: Arc<str>,
    /// All of one shift; at least one.
    pub(super) events: Vec<Arc<FileEvent>>,
    pub(super) timeout: Duration,
    /// The daemon ends.
    pub(super) ending: Arc<AtomicBool>,
}

impl Batch {
    /// Until it has ended, or was killed; else for people.
    pub(super) fn run(&self) -> Result<(), String> {
        let Some(first) = self.events.first() else { return Ok(()) };
        let whose = format!("{:?} as {}:{}", self.run, first.uid, first.gid);
        let mut child = self.spawn(first).map_err(|error| format!("start {whose}: {error}"))?;
        let mut log = Log::default();
        let why = self.supervise(&mut child, &mut log);
        // Before it is reaped: its number is not given to another group until then. Nothing of it is left behind.
        kill(&child, Signal::KILL);
        let status = child.wait();
        log.rest();
        match (why, status) {
            (Err(error), _) | (_, Err(error)) => Err(format!("wait for {whose}: {error}")),
            (Ok(Some(why)), _) => Err(format!("{whose} was killed: {why}")),
            (Ok(None), Ok(status)) if !status.success() => Err(failed(&whose, status)),
            (Ok(None), Ok(_)) => Ok(()),
        }
    }

    fn spawn(&self, first: &FileEvent) -> io::Result<Child> {
        let mut command = Command::new("/bin/sh");
        // The daemon's own limit of open files is for the daemon: there are programs that close as many as they may open.
        command.arg("-c").arg(format!("ulimit -S -n 1024 2>/dev/null; {}", self.run));
        command.current_dir("/").process_group(0);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("PPU_URINGD_SHIFT", first.shift.stamp());
        command.env("PPU_URINGD_FILES", self.events.len().to_string());
        command.stdin(self.input()?).stdout(Stdio::null()).stderr(Stdio::piped());
        if (first.uid, first.gid) != (geteuid().as_raw(), getegid().as_raw()) {
            // With a user, the standard library also drops all further groups, before anything else of it.
            command.gid(first.gid).uid(first.uid);
        }
        command.spawn()
    }

    /// In memory, not a pipe: nobody need write while it reads.
    fn input(&self) -> io::Result<File> {
        let mut lines = Vec::new();
        self.events.iter().for_each(|event| append_item(&Item::Event(Arc::clone(event)), &mut lines));
        let mut file = File::from(memfd_create("events", MemfdFlags::CLOEXEC)?);
        file.write_all(&lines)?;
        file.rewind()?;
        Ok(file)
    }

    /// Until it has ended, not yet reaped; or why it was killed.
    fn supervise(&self, child: &mut Child, log: &mut Log) -> io::Result<Option<String>> {
        let ended = pidfd_open(pid(child), PidfdFlags::empty())?;
        let mut errors = child.stderr.take();
        let mut deadline = Instant::now() + self.timeout;
        let mut terminated = false;
        let mut last_pieces = LAST_PIECES;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (has_ended, speaks) = look(&ended, errors.as_ref(), left.min(LOOK_UP))?;
            if speaks && !log.take(errors.as_mut())? {
                errors = None;
            }
            if has_ended {
                // Somebody else that it started may go on talking.
                last_pieces -= 1;
                if !speaks || last_pieces == 0 {
                    return Ok(None);
                }
            }
            if Instant::now() >= deadline {
                let why = match terminated {
                    true => "this daemon ends".to_owned(),
                    false => format!("it took longer than {} s", self.timeout.as_secs_f32()),
                };
                return Ok(Some(why));
            }
            if self.ending.load(Ordering::Relaxed) && !std::mem::replace(&mut terminated, true) {
                kill(child, Signal::TERM);
                deadline = deadline.min(Instant::now() + GRACE);
            }
        }
    }
}

fn failed(whose: &str, status: ExitStatus) -> String {
    format!("{whose} failed: {status}; what it said is above")
}

/// Whether the process has ended, and whether there is something on its standard error, at once or within `at_most`.
fn look(ended: &impl AsFd, errors: Option<&ChildStderr>, at_most: Duration) -> io::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
    fds.extend(errors.map(|errors| PollFd::new(errors, PollFlags::IN)));
    let at_most = rustix::time::Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    match poll(&mut fds, Some(&at_most)) {
        Ok(_) => {
            let has = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
            Ok((has(fds.first()), has(fds.get(1))))
        }
        Err(rustix::io::Errno::INTR) => Ok((false, false)),
        Err(error) => Err(error.into()),
    }
}

fn pid(child: &Child) -> Pid {
    // A child has a number above 0.
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap_or(Pid::INIT)
}

/// The whole group, which it leads. It may have ended.
fn kill(child: &Child, signal: Signal) {
    let _ = kill_process_group(pid(child), signal);
}

/// What comes on standard error, line by line.
#[derive(Default)]
struct Log {
    line: Vec<u8>,
    bytes: usize,
}

impl Log {
    /// Takes what there is; `false`: nothing more will come.
    fn take(&mut self, errors: Option<&mut ChildStderr>) -> io::Result<bool> {
        let Some(errors) = errors else { return Ok(false) };
        let mut piece = [0; 4096];
        let count = errors.read(&mut piece)?;
        for &byte in &piece[..count] {
            if byte == b'\n' || self.line.len() == LINE_MAX_BYTES {
                self.rest();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        Ok(count > 0)
    }

    /// What is left without a newline.
    fn rest(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() || self.bytes >= LOGGED_MAX_BYTES {
            return;
        }
        self.bytes += line.len();
        tracing::info!("hook says: {}", String::from_utf8_lossy(&line).replace(char::is_control, "\u{fffd}"));
        if self.bytes >= LOGGED_MAX_BYTES {
            tracing::info!("hook says much more, which is not logged");
        }
    }
}
