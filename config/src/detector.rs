//! `detector.toml`: the schema of the detector's half.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::DETECTOR_PORT;
use crate::problem::Report;
use crate::section::{Field, Section};
use crate::value::{ENGINES, Engine, Log, absolute_path, boolean, list, one_of, ratio, socket_address, text};

/// The detector's half: what it serves, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// Where the PPU connects to.
    pub listen: SocketAddr,
    /// The directory whose files are sent; absolute.
    pub ramdisk: PathBuf,
    /// Holds the pre-shared key; `None`: no authentication.
    pub key_file: Option<PathBuf>,
    /// Take peers from other machines without a key.
    pub insecure: bool,
    /// What must survive a restart; absolute.
    pub state_dir: PathBuf,
    /// When a sent file may leave the ramdisk (SPEC 1.10).
    pub release: Release,
    /// Fill ratio of the ramdisk above which files are released; 0 = as soon as it is safe.
    pub release_above: f64,
    /// Patterns of names never sent; `*` and `?`, on the last name of the path.
    pub ignore: Vec<String>,
    /// Who moves the data.
    pub engine: Engine,
    /// Processors sleep lightly while images flow.
    pub low_latency: bool,
    /// `[log]`.
    pub log: Log,
}

/// When a sent file may leave the detector's ramdisk (SPEC 1.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// The detector's own software removes it.
    #[default]
    Never,
    /// Verified on the PPU's ramdisk: a PPU that reboots before it is stored loses it.
    Landed,
    /// Durable on the internal storage.
    Stored,
}

const RELEASES: &[(&str, Release)] =
    &[("never", Release::Never), ("landed", Release::Landed), ("stored", Release::Stored)];

pub(crate) fn read(s: &mut Section<'_, '_>) -> Detector {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DETECTOR_PORT));
    let listen = s.or("listen", any, socket_address);
    let ramdisk = s.required("ramdisk", "\"/ramdisk\"", absolute_path);
    let key_file = s.optional("key_file", absolute_path);
    let insecure = s.or("insecure", false, boolean);
    let state_dir = s.or("state_dir", "/var/lib/ppu-uringd".into(), absolute_path);
    let release = s.or("release", Release::Never, one_of(RELEASES));
    let release_above = s.or("release_above", 0.0, ratio);
    let ignore = s.or("ignore", Vec::new(), list(name_pattern));
    let engine = s.or("engine", Engine::Auto, one_of(ENGINES));
    let low_latency = s.or("low_latency", true, boolean);
    let log_at = s.at();
    let log = s.table("log", Log::read);

    let report = s.report();
    keyless(report, &listen, &key_file, &insecure);
    outside_ramdisk(report, &ramdisk, &state_dir);
    log_outside_ramdisk(report, log_at, &ramdisk, &log);
    if release.value == Some(Release::Never) && release_above.value.is_some_and(|ratio| ratio > 0.0) {
        let reason = "has no effect while release = \"never\", set release as well";
        report.warning(release_above.at, &release_above.key, reason);
    }
    if release.value == Some(Release::Landed) {
        let reason = "a PPU that reboots before a file is stored loses it, use \"stored\" unless the ramdisk is too small";
        report.warning(release.at, &release.key, reason);
    }

    Detector {
        listen: listen.value.unwrap_or(any),
        ramdisk: ramdisk.take(),
        key_file: key_file.value,
        insecure: insecure.take(),
        state_dir: state_dir.take(),
        release: release.take(),
        release_above: release_above.take(),
        ignore: ignore.take(),
        engine: engine.take(),
        low_latency: low_latency.take(),
        log,
    }
}

/// `state_dir` must survive a reboot, and the detector must not send its own files.
pub(crate) fn outside_ramdisk(report: &Report<'_>, ramdisk: &Field<PathBuf>, dir: &Field<PathBuf>) {
    if let (Some(root), Some(path)) = (&ramdisk.value, &dir.value)
        && path.starts_with(root)
    {
        report.problem(dir.at, &dir.key, inside(root));
    }
}

pub(crate) fn log_outside_ramdisk(report: &Report<'_>, at: usize, ramdisk: &Field<PathBuf>, log: &Log) {
    if let (Some(root), Some(path)) = (&ramdisk.value, &log.file)
        && path.starts_with(root)
    {
        report.problem(at, "log.file", inside(root));
    }
}

fn inside(ramdisk: &Path) -> String {
    format!("is inside the ramdisk {}, put it on a disk", ramdisk.display())
}

fn keyless(
    report: &Report<'_>,
    listen: &Field<SocketAddr>,
    key_file: &Field<PathBuf>,
    insecure: &Field<bool>,
) {
    let (Some(address), Some(false)) = (listen.value, insecure.value) else { return };
    if key_file.absent && !address.ip().is_loopback() {
        let reason = format!(
            "{address} can be reached from other machines and there is no key_file: add one \
             (on both machines), or listen on 127.0.0.1, or set insecure = true"
        );
        report.problem(listen.at, &listen.key, reason);
    }
}

fn name_pattern(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let pattern = text(value)?;
    if pattern.is_empty() || pattern.contains(['/', '\0']) {
        return Err(format!("{pattern:?} is not a pattern of one name, write one such as \"*.tmp\""));
    }
    Ok(pattern)
}
