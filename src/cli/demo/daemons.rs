//! The two daemons as children: started, asked, ended; nobody else's process is ever touched.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ppu_uringd::model::status::{LinkState, StatusReport};
use ppu_uringd::serve::control::{Request, Response, query};

use super::super::Failure;
use super::stage::Stage;

/// From the start of both to their first handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// A daemon that was asked to end is killed after this.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a child or at the status.
const POLL: Duration = Duration::from_millis(20);
/// Lines shown of the log of a daemon that failed.
const LOG_TAIL_LINES: usize = 12;

/// Killed and waited for when this is dropped.
pub(super) struct Daemons {
    /// The PPU first: it ends before the detector that it fetches from.
    children: [Daemon; 2],
    control: PathBuf,
}

struct Daemon {
    role: &'static str,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Daemons {
    pub(super) fn start(stage: &Stage) -> Result<Self, Failure> {
        let detector = Daemon::start("detector", &stage.detector_config, &stage.detector_log)?;
        let ppu = Daemon::start("ppu", &stage.ppu_config, &stage.ppu_log)?;
        Ok(Self { children: [ppu, detector], control: stage.control.clone() })
    }

    /// Gives back what moves the data.
    pub(super) fn wait_until_connected(&mut self, stop: &AtomicBool) -> Result<String, Failure> {
        let limit = Instant::now() + CONNECT_LIMIT;
        let mut last = String::from("the PPU's daemon does not answer");
        loop {
            self.check_alive()?;
            match self.status() {
                Ok(status) => match status.detectors.first().map(|detector| &detector.link.state) {
                    Some(LinkState::Connected) => return Ok(status.daemon.engine),
                    Some(LinkState::Refused { reason }) => {
                        return Err(self.failure(&format!("the detector refuses the PPU: {reason}")));
                    }
                    Some(LinkState::Connecting { reason: Some(reason) }) => last = reason.clone(),
                    _ => {}
                },
                Err(reason) => last = reason,
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Failed("interrupted".into()));
            }
            if Instant::now() > limit {
                return Err(
                    self.failure(&format!("no connection within {} s: {last}", CONNECT_LIMIT.as_secs()))
                );
            }
            std::thread::sleep(POLL);
        }
    }

    pub(super) fn status(&self) -> Result<StatusReport, String> {
        match query(&self.control, &Request::Status) {
            Ok(Response::Status(status)) => Ok(*status),
            Ok(other) => Err(format!("{other:?} is no status")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// An error where one of them has ended, with the end of its log.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        for at in 0..self.children.len() {
            if let Some(status) = self.children[at].has_ended()? {
                let role = self.children[at].role;
                return Err(self.failure(&format!("the {role} daemon ended by itself ({status})")));
            }
        }
        Ok(())
    }

    /// `reason`, and what both daemons logged last.
    pub(super) fn failure(&self, reason: &str) -> Failure {
        let mut text = reason.to_owned();
        for daemon in &self.children {
            text.push_str(&format!("\nlast lines of the {}'s log:\n{}", daemon.role, tail(&daemon.log)));
        }
        Failure::Failed(text)
    }

    /// Asks both to end in good order, one after the other.
    pub(super) fn stop(&mut self) -> Result<(), Failure> {
        for at in 0..self.children.len() {
            let status = self.children[at].end()?;
            if !status.success() {
                let role = self.children[at].role;
                return Err(self.failure(&format!("the {role} daemon ended with {status}")));
            }
        }
        Ok(())
    }
}

impl Daemon {
    fn start(role: &'static str, config: &Path, log: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::Failed(format!("start the {role} daemon: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let output = File::create(log).map_err(failed)?;
        let child = Command::new(program)
            .args([role, "--exit-with-parent", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            // A group of its own: Ctrl-C reaches the demo, and the demo ends the daemons.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { role, log: log.to_owned(), child, ended: None })
    }

    fn has_ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .map_err(|error| Failure::Failed(format!("wait for the {} daemon: {error}", self.role)))?;
        }
        Ok(self.ended)
    }

    fn end(&mut self) -> Result<ExitStatus, Failure> {
        let limit = Instant::now() + END_LIMIT;
        let mut asked = false;
        loop {
            if let Some(status) = self.has_ended()? {
                return Ok(status);
            }
            if !asked && let Ok(pid) = i32::try_from(self.child.id()) {
                // It is our child and not waited for yet, so the number is surely still its own.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                asked = true;
            }
            if Instant::now() > limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let seconds = END_LIMIT.as_secs();
                return Err(Failure::Failed(format!(
                    "the {} daemon did not end within {seconds} s and was killed",
                    self.role
                )));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What went wrong has been said by whoever gave up; here nothing may be left running.
        let _ = self.end();
    }
}

fn tail(log: &Path) -> String {
    let Ok(file) = File::open(log) else { return "  (none)".into() };
    let mut lines = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if lines.len() == LOG_TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(format!("  {}", String::from_utf8_lossy(&line)));
    }
    if lines.is_empty() { "  (none)".into() } else { Vec::from(lines).join("\n") }
}
