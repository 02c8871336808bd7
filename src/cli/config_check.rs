//! `config check`: the file in itself, then the machine that it is meant for.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ppu_config::{AnyRole, Checked, Detector, HostPort, Ppu, Storage};
use ppu_uringd::host;
use ppu_uringd::model::host::{Advice, Role};
use rustix::fs::Access;
use serde::Serialize;

use super::Failure;
use super::check_finding::{CheckFinding, Level};
use super::machine::{Mount, free_bytes, is_mount_point, nearest_existing};
use super::output;

/// A shorter key can be guessed.
const KEY_MIN_BYTES: u64 = 16;

/// Check a configuration file and this machine against it, without starting anything
///
/// Which role the file is for is seen from its keys. First the file itself:
/// unknown keys and impossible values, each as `FILE:LINE: KEY: reason, what to
/// do`. Then the machine: is the ramdisk there and mounted well, are the storages
/// mounted, is the key private, is the port free? And what of this machine would hold
/// the daemon back (kernel settings, limits, processors), each with its cure. Nothing is
/// written, connected to or started.
///
/// Examples:
///   ppu-uringd config check --config /etc/ppu-uringd/ppu.toml
///   ppu-uringd config check --host
///
/// Exit codes: 0 = fit to start (there may be warnings); 1 = this machine does
/// not fit; 2 = the file is wrong.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// detector.toml or ppu.toml
    #[arg(long, value_name = "FILE", required_unless_present = "host")]
    config: Option<PathBuf>,

    /// Only what holds this machine back, of both roles; needs no configuration. Limits (open files, locked memory) are
    /// this shell's: a service has its own, and the daemon says at its start what it found
    #[arg(long, conflicts_with = "config")]
    host: bool,

    /// For scripts: one JSON object, also where the file is wrong
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut findings = Findings { json: args.json, ..Findings::default() };
    let Some(file) = &args.config else {
        host_alone(&mut findings);
        return findings.end(None, None);
    };
    let Checked { config, warnings } = match ppu_config::load_any(file) {
        Ok(checked) => checked,
        Err(error) => {
            findings.all = CheckFinding::of_error(&error);
            if args.json {
                findings.object(Some(file), None)?;
            }
            return Err(error.into());
        }
    };
    for warning in &warnings {
        let shown = format!("warning  {warning}");
        findings.add(CheckFinding::of_problem(Level::Warning, warning), &shown);
    }
    let role = match &config {
        AnyRole::Detector(config) => {
            detector(config, &mut findings);
            Role::Detector
        }
        AnyRole::Ppu(config) => {
            ppu(config, &mut findings);
            Role::Ppu
        }
    };
    findings.end(Some(file), Some(role))
}

/// What is said of this machine by itself, to either role.
fn host_alone(findings: &mut Findings) {
    let host = host::look(0);
    let mut all = host.advice(Role::Ppu);
    all.extend(
        host.advice(Role::Detector).into_iter().filter(|advice| !host.advice(Role::Ppu).contains(advice)),
    );
    for Advice { what, cure } in &all {
        let what = format!("{what}. {cure}");
        let shown = format!("warning  {what}");
        findings.add(CheckFinding::new(Level::Warning, "host", what), &shown);
    }
    if all.is_empty() {
        let what = "nothing here holds a daemon back";
        findings.add(CheckFinding::new(Level::Ok, "host", what), &format!("ok       {what}"));
    }
}

/// What holds the daemon back. The ramdisk was looked at.
fn speed(role: Role, pipes: u64, findings: &mut Findings) {
    for Advice { what, cure } in host::look(pipes).advice(role) {
        findings.warning("host", format!("{what}. {cure}"));
    }
}

/// Prints each finding as it is made, so that a check that hangs is seen; to scripts all of them at the end.
#[derive(Default)]
struct Findings {
    json: bool,
    all: Vec<CheckFinding>,
    /// Of the first one that could not be printed.
    failure: Option<Failure>,
}

/// All of it for scripts.
#[derive(Serialize)]
struct Answer<'a> {
    file: Option<String>,
    /// `detector` or `ppu`, where it could be seen.
    role: Option<&'static str>,
    /// No finding is an error.
    fit: bool,
    findings: &'a [CheckFinding],
}

impl Findings {
    fn ok(&mut self, key: impl Display, what: impl Display) {
        self.found(CheckFinding::new(Level::Ok, key, what));
    }

    fn warning(&mut self, key: impl Display, what: impl Display) {
        self.found(CheckFinding::new(Level::Warning, key, what));
    }

    fn error(&mut self, key: impl Display, what: impl Display) {
        self.found(CheckFinding::new(Level::Error, key, what));
    }

    fn found(&mut self, finding: CheckFinding) {
        let shown = finding.to_string();
        self.add(finding, &shown);
    }

    fn add(&mut self, finding: CheckFinding, shown: &str) {
        if !self.json
            && let Err(failure) = output::line(shown)
        {
            self.failure.get_or_insert(failure);
        }
        self.all.push(finding);
    }

    fn errors(&self) -> usize {
        self.all.iter().filter(|finding| finding.level == Level::Error).count()
    }

    /// Says what it comes to.
    fn end(mut self, file: Option<&Path>, role: Option<Role>) -> Result<(), Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let errors = self.errors();
        match (self.json, file, role) {
            (true, ..) => self.object(file, role)?,
            (false, Some(file), Some(role)) => {
                let role = if role == Role::Ppu { "a PPU" } else { "a detector" };
                let things = if errors == 1 { "thing" } else { "things" };
                let verdict = match errors {
                    0 => format!("fit to start {role}"),
                    errors => format!("{errors} {things} to correct on this machine"),
                };
                output::line(&format!("{}: {verdict}", file.display()))?;
            }
            _ => {}
        }
        if errors == 0 { Ok(()) } else { Err(Failure::Reported) }
    }

    fn object(&self, file: Option<&Path>, role: Option<Role>) -> Result<(), Failure> {
        output::object(&Answer {
            file: file.map(|file| file.display().to_string()),
            role: role.map(|role| if role == Role::Ppu { "ppu" } else { "detector" }),
            fit: self.errors() == 0,
            findings: &self.all,
        })
    }
}

fn detector(config: &Detector, findings: &mut Findings) {
    ramdisk(&config.ramdisk, Access::READ_OK | Access::EXEC_OK, findings);
    key_file(config.key_file.as_deref(), findings);
    state_dir(&config.state_dir, findings);
    listener("listen", config.listen, findings);
    speed(Role::Detector, 0, findings);
}

fn ppu(config: &Ppu, findings: &mut Findings) {
    ramdisk(&config.ramdisk, Access::WRITE_OK | Access::EXEC_OK, findings);
    key_file(config.key_file.as_deref(), findings);
    state_dir(&config.state_dir, findings);
    let interfaces = &config.interfaces;
    let doors = [("status", interfaces.status), ("messages", interfaces.messages), ("http", interfaces.http)];
    for (key, address) in doors {
        if let Some(address) = address {
            listener(&format!("interfaces.{key}"), address, findings);
        }
    }
    for link in &config.detectors {
        address(&format!("detector {}", link.id), &link.address, findings);
    }
    for storage in &config.storages {
        store(storage, findings);
    }
    let pipes = config.detectors.iter().map(|detector| u64::from(detector.streams)).sum();
    speed(Role::Ppu, pipes, findings);
}

fn ramdisk(path: &Path, needed: Access, findings: &mut Findings) {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => {
            let cure = format!("mount it: mount -t tmpfs -o huge=within_size tmpfs {shown}");
            return findings.error("ramdisk", format!("{shown}: {error}; {cure}"));
        }
        Ok(found) if !found.is_dir() => {
            return findings.error("ramdisk", format!("{shown} is not a directory"));
        }
        Ok(_) => {}
    }
    if let Err(error) = rustix::fs::access(path, needed) {
        return findings.error("ramdisk", format!("{shown} cannot be used by this user: {error}"));
    }
    match (is_mount_point(path), Mount::of(path)) {
        (Err(error), _) | (_, Err(error)) => findings.error("ramdisk", format!("{shown}: {error}")),
        (_, Ok(None)) => findings.warning("ramdisk", format!("{shown}: on no mount that is listed")),
        (Ok(own), Ok(Some(mount))) => {
            if mount.file_system != "tmpfs" {
                findings.warning(
                    "ramdisk",
                    format!("{shown} is on {}, not on a tmpfs: slower", mount.file_system),
                );
            } else if !mount.has("huge=within_size") {
                let at = mount.point.display();
                let gain = "makes landing almost three times as fast";
                findings.warning("ramdisk", format!("`mount -o remount,huge=within_size {at}` {gain}"));
            }
            if !own {
                let at = mount.point.display();
                findings.warning(
                    "ramdisk",
                    format!("{shown} is no mount of its own: it shares the room of {at}"),
                );
            }
            findings.ok("ramdisk", format!("{shown}, {}", room(path)));
        }
    }
}

fn key_file(path: Option<&Path>, findings: &mut Findings) {
    let Some(path) = path else {
        return findings.warning("key_file", "none: nobody proves who they are");
    };
    let shown = path.display();
    let make = format!("(umask 077; head -c 32 /dev/urandom | base64 > {shown})");
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => findings.error(
            "key_file",
            format!("{shown} is not there: copy it from the other machine; the first time, make it: {make}"),
        ),
        Err(error) => findings.error("key_file", format!("{shown}: {error}")),
        Ok(found) if !found.is_file() => findings.error("key_file", format!("{shown} is not a file")),
        Ok(found) if found.len() == 0 => findings.error("key_file", format!("{shown} is empty: {make}")),
        Ok(found) => match fs::File::open(path) {
            Err(error) => findings.error("key_file", format!("{shown}: {error}")),
            Ok(_) if found.mode() & 0o077 != 0 => {
                let mode = found.mode() & 0o777;
                findings.warning(
                    "key_file",
                    format!("{shown} has mode {mode:03o}, others can read it: chmod 600 {shown}"),
                );
            }
            Ok(_) if found.len() < KEY_MIN_BYTES => {
                findings
                    .warning("key_file", format!("{shown} is shorter than {KEY_MIN_BYTES} bytes: {make}"));
            }
            Ok(_) => findings.ok("key_file", shown),
        },
    }
}

fn state_dir(path: &Path, findings: &mut Findings) {
    match writable(path) {
        Ok(()) => findings.ok("state_dir", format!("{}, {}", path.display(), room(path))),
        Err(reason) => findings.error("state_dir", reason),
    }
    if let Ok(Some(mount)) = Mount::of(path)
        && matches!(mount.file_system.as_str(), "tmpfs" | "ramfs")
    {
        let kind = mount.file_system;
        findings
            .warning("state_dir", format!("{} is on {kind}: a reboot forgets everything", path.display()));
    }
}

fn listener(key: &str, address: SocketAddr, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.ok(key, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            findings.warning(key, format!("{address} is taken, perhaps by the daemon that runs already"));
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => findings.error(
            key,
            format!("{address} is no address of this machine: `ip address` shows them, 0.0.0.0 means all"),
        ),
        Err(error) => findings.error(key, format!("{address}: {error}")),
    }
}

fn address(key: &str, address: &HostPort, findings: &mut Findings) {
    match (address.host.as_str(), address.port).to_socket_addrs() {
        Err(error) => {
            let cure = "give its address, or name it in /etc/hosts";
            findings.error(key, format!("{address}: {error}: {cure}"));
        }
        Ok(mut found) => match found.next() {
            None => findings.error(key, format!("{address}: the name has no address")),
            Some(found) if found.to_string() == address.to_string() => {
                findings.ok(key, format!("{address} (not connected to)"));
            }
            Some(found) => findings.ok(key, format!("{address} is {found} (not connected to)")),
        },
    }
}

fn store(storage: &Storage, findings: &mut Findings) {
    let key = format!("storage {}", storage.id);
    let target = storage.target.display();
    if let Some(point) = &storage.mountpoint {
        match is_mount_point(point) {
            Ok(true) => {}
            Ok(false) => {
                let cure = "mount it, or correct mountpoint";
                return findings.error(key, format!("nothing is mounted at {}: {cure}", point.display()));
            }
            Err(error) => {
                let cure = "make the directory and mount the disk there, or correct mountpoint";
                return findings.error(key, format!("{}: {error}: {cure}", point.display()));
            }
        }
    } else if !storage.allow_root_fs {
        match Mount::of(&storage.target) {
            Ok(Some(mount)) if mount.point == Path::new("/") => {
                let cure = "give its mountpoint, or set allow_root_fs = true";
                return findings.error(key, format!("{target} is on the root file system: {cure}"));
            }
            Ok(_) => {}
            Err(error) => return findings.error(key, format!("{target}: {error}")),
        }
    }
    match writable(&storage.target) {
        Ok(()) => findings.ok(key, format!("{target}, {}", room(&storage.target))),
        Err(reason) => findings.error(key, reason),
    }
}

/// The directory can be written, or made.
fn writable(path: &Path) -> Result<(), String> {
    let failed = |at: &Path, error: &dyn Display| format!("{}: {error}", at.display());
    let nearest = nearest_existing(path).map_err(|error| failed(path, &error))?;
    if !nearest.is_dir() {
        return Err(format!("{} is not a directory", nearest.display()));
    }
    rustix::fs::access(&nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{}: make it writable for the daemon's user", failed(&nearest, &error)))
}

fn room(path: &Path) -> String {
    match free_bytes(path) {
        Ok(bytes) => format!("{:.1} GB free", bytes as f64 / 1e9),
        Err(error) => format!("room unknown: {error}"),
    }
}
