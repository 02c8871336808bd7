//! The real binary as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait_until;

pub const BINARY: &str = env!("CARGO_BIN_EXE_ppu-uringd");

/// One running role. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `role` with `config`; the log goes beside the config.
    pub fn start(role: &str, config: &Path) -> Self {
        Self::start_with(role, config, |_| {})
    }

    pub fn start_with(role: &str, config: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let log = config.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        Self::spawn(Command::new(BINARY), role, config, log, file, prepare)
    }

    /// As a last step of the command `before`, such as one that enters a namespace.
    pub fn start_behind(before: &[String], role: &str, config: &Path) -> Self {
        let log = config.with_extension("log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(&before[0]);
        command.args(&before[1..]).arg(BINARY);
        Self::spawn(command, role, config, log, file, |_| {})
    }

    fn spawn(
        mut command: Command,
        role: &str,
        config: &Path,
        log: PathBuf,
        file: File,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        command.arg(role).arg("--config").arg(config).env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        prepare(&mut command);
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// SIGKILL, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; must end by itself.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its own end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("==== {}\n{}", self.log.display(), tail(&self.log(), 60));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
