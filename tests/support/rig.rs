//! A detector and a PPU on this machine: mounts, configuration, both daemons.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::{Counts, StatusReport};

use super::daemon::{BINARY, Daemon};
use super::mount::Mount;
use super::netns::Net;
use super::wait_until;

/// Owner of landed files: nobody that the tests run as.
pub const UID: u32 = 12_345;
pub const GID: u32 = 54_321;

/// Everything of one test. Fields are dropped in order: daemons before mounts.
pub struct Rig {
    pub detectors: Vec<Option<Daemon>>,
    pub ppu: Option<Daemon>,
    pub detector_ramdisks: Vec<Mount>,
    pub ppu_ramdisk: Mount,
    pub storage: Mount,
    /// Beside the internal one, in the order of the options.
    pub others: Vec<Mount>,
    pub dir: tempfile::TempDir,
    pub ports: Vec<u16>,
    pub options: Options,
}

/// What tests vary.
#[derive(Clone)]
pub struct Options {
    pub detectors: usize,
    pub detector_ramdisk: &'static str,
    pub ppu_ramdisk: &'static str,
    /// `ext4`, `xfs` or `tmpfs`.
    pub storage: &'static str,
    pub storage_megabytes: u64,
    pub engine: &'static str,
    pub streams: u16,
    /// Lines for the top of ppu.toml.
    pub ppu_extra: String,
    /// Lines for detector.toml.
    pub detector_extra: String,
    /// Lines for `[[storage]]`.
    pub storage_extra: String,
    /// Further storages.
    pub others: Vec<Other>,
    /// The dashboard's port; else there is none.
    pub http: Option<u16>,
    /// Where the PPU finds detector N, if not at its own port (a proxy).
    pub via: Option<u16>,
    /// Where the PPU tells its status; else nowhere.
    pub status_port: Option<u16>,
    /// Where it tells messages; else nowhere.
    pub message_port: Option<u16>,
    /// Where the daemons run; else on loopback.
    pub net: Option<Arc<Net>>,
}

/// A storage beside the internal one; its name is its kind and its place: `external1`, `optional2`.
#[derive(Clone)]
pub struct Other {
    /// `external` or `optional`.
    pub kind: &'static str,
    /// `ext4`, `xfs`, `btrfs` or `tmpfs`.
    pub fs: &'static str,
    pub megabytes: u64,
    /// Lines for `[[storage]]`.
    pub extra: String,
}

impl Other {
    pub fn ext4(kind: &'static str, extra: &str) -> Self {
        Self { kind, fs: "ext4", megabytes: 512, extra: extra.to_owned() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            detectors: 1,
            detector_ramdisk: "size=2g,huge=within_size",
            ppu_ramdisk: "size=2g,huge=within_size",
            storage: "ext4",
            storage_megabytes: 2048,
            engine: "auto",
            streams: 2,
            ppu_extra: String::new(),
            detector_extra: String::new(),
            storage_extra: String::new(),
            others: Vec::new(),
            http: None,
            via: None,
            status_port: None,
            message_port: None,
            net: None,
        }
    }
}

impl Rig {
    /// Mounts and configuration; no daemon yet.
    pub fn prepare(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "a key for tests\n").unwrap();
        let mount = |fs, megabytes| match fs {
            "tmpfs" => Mount::tmpfs(&format!("size={megabytes}m")),
            fs => Mount::image(fs, megabytes),
        };
        let storage = mount(options.storage, options.storage_megabytes);
        let others = options.others.iter().map(|other| mount(other.fs, other.megabytes)).collect();
        let rig = Self {
            detectors: (0..options.detectors).map(|_| None).collect(),
            ppu: None,
            detector_ramdisks: (0..options.detectors)
                .map(|_| Mount::tmpfs(options.detector_ramdisk))
                .collect(),
            ppu_ramdisk: Mount::tmpfs(options.ppu_ramdisk),
            storage,
            others,
            dir,
            ports: (0..options.detectors).map(|_| free_port()).collect(),
            options,
        };
        for detector in 0..rig.options.detectors {
            rig.write_detector_config(detector);
        }
        rig.write_ppu_config();
        rig
    }

    /// Everything runs, and every link is up.
    pub fn start(options: Options) -> Self {
        let mut rig = Self::prepare(options);
        for detector in 0..rig.options.detectors {
            rig.start_detector(detector);
        }
        rig.start_ppu();
        rig.wait_linked();
        rig
    }

    pub fn start_detector(&mut self, detector: usize) {
        let config = self.detector_config(detector);
        self.detectors[detector] = Some(match &self.options.net {
            Some(net) => Daemon::start_behind(&net.at_detector(detector), "detector", &config),
            None => Daemon::start("detector", &config),
        });
    }

    pub fn start_ppu(&mut self) {
        let config = self.ppu_config();
        self.ppu = Some(match &self.options.net {
            Some(net) => Daemon::start_behind(&net.at_ppu(), "ppu", &config),
            None => Daemon::start("ppu", &config),
        });
    }

    pub fn wait_linked(&self) {
        wait_until("every detector is connected", || {
            let Some(status) = self.status() else { return false };
            let up = |d: &ppu_uringd::model::status::Detector| {
                d.link.state == ppu_uringd::model::status::LinkState::Connected
            };
            status.detectors.iter().all(up)
        });
    }

    pub fn detector_config(&self, detector: usize) -> PathBuf {
        self.dir.path().join(format!("detector{detector}.toml"))
    }

    pub fn ppu_config(&self) -> PathBuf {
        self.dir.path().join("ppu.toml")
    }

    pub fn write_detector_config(&self, detector: usize) {
        let text = format!(
            "listen = \"{}:{}\"\nramdisk = {:?}\nkey_file = {:?}\nstate_dir = {:?}\nengine = {:?}\n{}\n",
            self.host(detector),
            self.ports[detector],
            self.detector_ramdisks[detector].path(),
            self.dir.path().join("key"),
            self.dir.path().join(format!("detector{detector}.state")),
            self.options.engine,
            self.options.detector_extra,
        );
        std::fs::create_dir_all(self.dir.path().join(format!("detector{detector}.state"))).unwrap();
        std::fs::write(self.detector_config(detector), text).unwrap();
    }

    fn host(&self, detector: usize) -> String {
        self.options.net.as_ref().map_or("127.0.0.1".to_owned(), |net| net.address(detector))
    }

    pub fn write_ppu_config(&self) {
        let dir = self.dir.path();
        std::fs::create_dir_all(dir.join("ppu.state")).unwrap();
        let ramdisk = self.ppu_ramdisk.path();
        let http = self.options.http.map_or("off".to_owned(), |port| format!("127.0.0.1:{port}"));
        let mut text = format!(
            "state_dir = {:?}\nramdisk = {ramdisk:?}\nuid = {UID}\ngid = {GID}\nuser_dir = \"$UID_$GID\"\nkey_file = {:?}\n\
             engine = {:?}\n{}\n[interfaces]\nstatus = {:?}\nmessages = {:?}\nhttp = \"{http}\"\nfile_pipe = \"off\"\n\
             control = {:?}\n",
            dir.join("ppu.state"),
            dir.join("key"),
            self.options.engine,
            self.options.ppu_extra,
            door(self.options.status_port),
            door(self.options.message_port),
            self.control(),
        );
        for (detector, port) in self.ports.iter().enumerate() {
            let port = self.options.via.unwrap_or(*port);
            text += &format!(
                "[[detector]]\nid = \"{detector}\"\naddress = \"{}:{port}\"\ntarget = \"{}/./d{detector}\"\nstreams = {}\n",
                self.host(detector),
                ramdisk.display(),
                self.options.streams,
            );
        }
        let storage = self.storage.path();
        text += &format!(
            "[[storage]]\nid = \"internal\"\nkind = \"internal\"\ntarget = \"{}/data\"\nmountpoint = {storage:?}\n{}\n",
            storage.display(),
            self.options.storage_extra,
        );
        if nix::sys::statfs::statfs(storage).is_ok() {
            std::fs::create_dir_all(storage.join("data")).unwrap();
        }
        for (n, (other, mount)) in self.options.others.iter().zip(&self.others).enumerate() {
            let (kind, at) = (other.kind, mount.path());
            text += &format!(
                "[[storage]]\nid = \"{kind}{}\"\nkind = \"{kind}\"\ntarget = \"{}/data\"\nmountpoint = {at:?}\n{}\n",
                n + 1,
                at.display(),
                other.extra,
            );
        }
        std::fs::write(self.ppu_config(), text).unwrap();
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// What `status --json` says; `None` while no daemon answers.
    pub fn status(&self) -> Option<StatusReport> {
        let output = Command::new(BINARY)
            .args(["status", "--json", "--control"])
            .arg(self.control())
            .output()
            .unwrap();
        // Trouble is an exit code of its own; the report is there all the same.
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Of the internal storage, over all shifts.
    pub fn counts(&self) -> Counts {
        self.counts_on(0)
    }

    /// Of a storage (0 is the internal one), over all shifts.
    pub fn counts_on(&self, storage: usize) -> Counts {
        let mut sum = Counts::default();
        for shift in self.status().map(|status| status.shifts).unwrap_or_default() {
            let counts = &shift.storages[storage].counts;
            sum.produced += counts.produced;
            sum.pending += counts.pending;
            sum.copied += counts.copied;
            sum.failed += counts.failed;
            sum.superseded += counts.superseded;
            sum.lost += counts.lost;
        }
        sum
    }

    /// Where detector N writes.
    pub fn source(&self, detector: usize) -> &Path {
        self.detector_ramdisks[detector].path()
    }

    /// Where its files land.
    pub fn landing(&self, detector: usize) -> PathBuf {
        self.ppu_ramdisk.path().join(format!("d{detector}/{UID}_{GID}"))
    }

    /// What a command of the client says on standard output, and its exit code.
    pub fn command(&self, arguments: &[&str]) -> (String, i32) {
        let (command, rest) = arguments.split_first().unwrap();
        let output = Command::new(BINARY)
            .args([command, "--control"])
            .arg(self.control())
            .args(rest)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code().unwrap())
    }

    /// What a storage is, in one word of the status.
    pub fn health(&self, storage: usize) -> String {
        let status = self.status().expect("the daemon answers");
        serde_json::to_value(&status.storages[storage].health).unwrap()["state"].as_str().unwrap().to_owned()
    }

    /// Codes and short texts of the messages so far.
    pub fn messages(&self) -> Vec<(Code, String)> {
        let told = self.status().expect("the daemon answers").messages;
        told.into_iter().map(|told| (told.message.code, told.message.short)).collect()
    }

    /// Where a detector's files are stored on a storage; 0 is the internal one.
    pub fn stored_on(&self, storage: usize, detector: usize) -> PathBuf {
        let mount = if storage == 0 { &self.storage } else { &self.others[storage - 1] };
        mount.path().join(format!("data/d{detector}/{UID}_{GID}"))
    }

    /// Where its files are stored.
    pub fn stored(&self, detector: usize) -> PathBuf {
        self.storage.path().join(format!("data/d{detector}/{UID}_{GID}"))
    }
}

/// As in the configuration.
fn door(port: Option<u16>) -> String {
    port.map_or("off".to_owned(), |port| format!("127.0.0.1:{port}"))
}

/// A port that nobody listens on now, that this process was not given before, and that no connection is given meanwhile: those begin
/// at 32768 (`ip_local_port_range`).
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + (next % 20_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
