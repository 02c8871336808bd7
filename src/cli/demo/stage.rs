//! The temporary directories of a demo, and the two configurations.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::Failure;
use super::super::machine::Mount;

/// Stands for a user where root starts the demo: images never belong to root.
const NOBODY: u32 = 65534;
/// Below the PPU's ramdisk and below the storage.
pub(super) const IMAGES: &str = "images";

/// Everything lies in two directories, removed when this is dropped.
pub(super) struct Stage {
    /// What the detector's software writes to.
    pub(super) detector_ramdisk: PathBuf,
    /// Where images land.
    pub(super) ppu_ramdisk: PathBuf,
    /// The storage's target.
    pub(super) data: PathBuf,
    pub(super) detector_config: PathBuf,
    pub(super) ppu_config: PathBuf,
    /// The PPU daemon's control socket.
    pub(super) control: PathBuf,
    pub(super) detector_log: PathBuf,
    pub(super) ppu_log: PathBuf,
    pub(super) manifest: PathBuf,
    pub(super) ramdisks_are_memory: bool,
    pub(super) disk_is_memory: bool,
    ramdisks: TempDir,
    disk: TempDir,
}

impl Stage {
    pub(super) fn set_up(disk: Option<&Path>, keep: bool) -> Result<Self, Failure> {
        let (mut ramdisks, ramdisks_are_memory) = ramdisk_place()?;
        let (mut disk, disk_is_memory) = disk_place(disk)?;
        ramdisks.disable_cleanup(keep);
        disk.disable_cleanup(keep);
        let (memory, place) = (ramdisks.path().to_owned(), disk.path().to_owned());
        let stage = Self {
            detector_ramdisk: memory.join("detector"),
            ppu_ramdisk: memory.join("ppu"),
            // Short, because the paths of Unix sockets are limited.
            control: memory.join("control.sock"),
            data: place.join("data"),
            detector_config: place.join("detector.toml"),
            ppu_config: place.join("ppu.toml"),
            detector_log: place.join("detector.log"),
            ppu_log: place.join("ppu.log"),
            manifest: place.join("manifest.jsonl"),
            ramdisks_are_memory,
            disk_is_memory,
            ramdisks,
            disk,
        };
        for directory in [&stage.detector_ramdisk, &stage.ppu_ramdisk, &stage.data] {
            fs::create_dir(directory).map_err(failed("make", directory))?;
        }
        stage.configure()?;
        Ok(stage)
    }

    /// Where the detector's file `path` lands.
    pub(super) fn landed(&self, path: &Path) -> PathBuf {
        self.ppu_ramdisk.join(IMAGES).join(path)
    }

    /// Where it is stored.
    pub(super) fn stored(&self, path: &Path) -> PathBuf {
        self.data.join(IMAGES).join(path)
    }

    fn configure(&self) -> Result<(), Failure> {
        let place = self.disk.path();
        let key = place.join("key");
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Failure::Failed(format!("no random key: {error}")))?;
        let mut options = fs::OpenOptions::new();
        let line: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let file = options.write(true).create_new(true).mode(0o600).open(&key);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(failed("write", &key))?;

        let port = free_port().map_err(|error| Failure::Failed(format!("no free TCP port: {error}")))?;
        let user = |id: u32| if id == 0 { NOBODY } else { id };
        let (uid, gid) = (user(nix::unistd::geteuid().as_raw()), user(nix::unistd::getegid().as_raw()));
        let detector = format!(
            "listen = \"127.0.0.1:{port}\"\nramdisk = {}\nkey_file = {}\nstate_dir = {}\n",
            quoted(&self.detector_ramdisk)?,
            quoted(&key)?,
            quoted(&place.join("detector-state"))?,
        );
        let ppu = format!(
            "state_dir = {state}\nramdisk = {ramdisk}\nuid = {uid}\ngid = {gid}\nkey_file = {key}\n\
             [interfaces]\nstatus = \"off\"\nmessages = \"off\"\nhttp = \"off\"\nfile_pipe = \"off\"\ncontrol = {control}\n\
             [[detector]]\nid = \"demo\"\naddress = \"127.0.0.1:{port}\"\ntarget = {target}\n\
             [[storage]]\nid = \"internal\"\nkind = \"internal\"\ntarget = {data}\nallow_root_fs = true\n",
            state = quoted(&place.join("ppu-state"))?,
            ramdisk = quoted(&self.ppu_ramdisk)?,
            key = quoted(&key)?,
            control = quoted(&self.control)?,
            target = quoted(&self.ppu_ramdisk.join("./").join(IMAGES))?,
            data = quoted(&self.data)?,
        );
        fs::write(&self.detector_config, detector).map_err(failed("write", &self.detector_config))?;
        fs::write(&self.ppu_config, ppu).map_err(failed("write", &self.ppu_config))
    }
}

/// Where everything is.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let huge =
            Mount::of(&self.ppu_ramdisk).ok().flatten().is_some_and(|mount| mount.has("huge=within_size"));
        let kind = |memory| match (memory, huge) {
            (true, true) => "in memory, huge pages",
            (true, false) => {
                "in memory, small pages: a tmpfs with huge=within_size lands up to 3 times faster"
            }
            _ => "NOT in memory, so slower than a real one",
        };
        let place =
            |memory| if memory { "in memory, so \"durable\" means nothing here" } else { "on a disk" };
        writeln!(f, "ramdisks  {} ({})", self.ramdisks.path().display(), kind(self.ramdisks_are_memory))?;
        write!(f, "storage   {} ({})", self.disk.path().display(), place(self.disk_is_memory))
    }
}

fn ramdisk_place() -> Result<(TempDir, bool), Failure> {
    let shared = Path::new("/dev/shm");
    match directory_in(shared) {
        Ok(directory) => {
            let memory = is_memory(directory.path());
            Ok((directory, memory))
        }
        Err(_) => {
            let other = std::env::temp_dir();
            let directory = directory_in(&other).map_err(failed("make a directory in", &other))?;
            let memory = is_memory(directory.path());
            Ok((directory, memory))
        }
    }
}

fn disk_place(wish: Option<&Path>) -> Result<(TempDir, bool), Failure> {
    if let Some(wish) = wish {
        let directory = directory_in(wish).map_err(failed("make a directory in", wish))?;
        let memory = is_memory(directory.path());
        return Ok((directory, memory));
    }
    let mut places = vec![std::env::temp_dir(), "/var/tmp".into(), "/tmp".into()];
    // A place on a disk comes before one in memory; otherwise in this order.
    places.sort_by_key(|place| is_memory(place));
    for place in &places {
        if let Ok(directory) = directory_in(place) {
            return Ok((directory, is_memory(place)));
        }
    }
    Err(Failure::Failed(format!("no directory can be made in any of {places:?}: give one with --disk")))
}

fn directory_in(place: &Path) -> io::Result<TempDir> {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("ppu-uringd-demo-").permissions(private).tempdir_in(place)
}

fn is_memory(path: &Path) -> bool {
    Mount::of(path)
        .ok()
        .flatten()
        .is_some_and(|mount| matches!(mount.file_system.as_str(), "tmpfs" | "ramfs"))
}

/// A port that is free at this moment.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// As a TOML string.
fn quoted(path: &Path) -> Result<String, Failure> {
    match path.to_str() {
        Some(text) => Ok(toml::Value::from(text).to_string()),
        None => Err(Failure::Failed(format!("{path:?} is not UTF-8: choose another TMPDIR or --disk"))),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::Failed(format!("{operation} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_valid_and_nothing_is_left() {
        let stage = Stage::set_up(None, false).ok().unwrap();
        let detector = ppu_config::Detector::load(&stage.detector_config).unwrap();
        assert_eq!(detector.warnings, []);
        assert_eq!(detector.config.ramdisk, stage.detector_ramdisk);
        let ppu = ppu_config::Ppu::load(&stage.ppu_config).unwrap().config;
        assert_eq!(ppu.detectors[0].address.port, detector.config.listen.port());
        assert_eq!(ppu.interfaces.control, stage.control);
        let places = [stage.ramdisks.path().to_owned(), stage.disk.path().to_owned()];
        assert!(places.iter().all(|place| place.is_dir()));
        drop(stage);
        assert!(!places.iter().any(|place| place.exists()));
    }
}
