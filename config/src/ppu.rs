//! `ppu.toml`: the schema of the PPU's half. What its values must have to do with each other: `rules`.

mod hook;
mod rules;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

pub use self::hook::{Hook, HookOn};
use crate::DETECTOR_PORT;
use crate::paths::split_target;
use crate::section::{Field, Section};
use crate::value::{
    ENGINES, Engine, HostPort, Log, absolute_path, boolean, host_port, id, integer, list, marked_path,
    one_of, or_off, ratio, socket_address, text,
};

/// Largest user or group number: the one above it means "leave as it is" to chown(2).
const ID_MAX: i64 = u32::MAX as i64 - 1;
/// Longest pause, in milliseconds: one hour.
const PAUSE_MAX_MS: i64 = 3_600_000;
/// Longest path of a Unix socket in bytes: `sockaddr_un` with its terminating NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The PPU's half: where images come from, whose they are, where they go.
#[derive(Debug, Clone, PartialEq)]
pub struct Ppu {
    /// Journal and lock; absolute.
    pub state_dir: PathBuf,
    /// Where images land; absolute.
    pub ramdisk: PathBuf,
    /// Owner of landed files in the first shift; never 0.
    pub uid: u32,
    /// Group of landed files in the first shift.
    pub gid: u32,
    /// Directory below each target; `$UID`, `$GID` and `$SHIFT` not yet filled in; may be empty.
    pub user_dir: String,
    /// Evicted files leave a symlink to their stored copy.
    pub create_links: bool,
    /// Stored files keep the owner that they have on the ramdisk.
    pub preserve_uid: bool,
    /// Stored files keep the group that they have on the ramdisk.
    pub preserve_gid: bool,
    /// Fill ratio at which eviction begins.
    pub fillstate_limit: f64,
    /// Fill ratio at which eviction ends.
    pub fillstate_low: f64,
    /// Fill ratio that is reported as ALMOST_OVERFLOW.
    pub almost_overflow: f64,
    /// Shifts remembered in the status.
    pub history_max_entries: u32,
    /// Another shift's file on a storage is overwritten instead of renamed (SPEC 2.5).
    pub replace_other_shift: bool,
    /// When contents are compared with their hash.
    pub verify: Verify,
    /// Who moves the data.
    pub engine: Engine,
    /// Processors sleep lightly while images flow.
    pub low_latency: bool,
    /// Holds the pre-shared key; `None`: no authentication.
    pub key_file: Option<PathBuf>,
    /// Connect to other machines without a key.
    pub insecure: bool,
    /// `[interfaces]`.
    pub interfaces: Interfaces,
    /// `[hook]`.
    pub hook: Hook,
    /// `[log]`.
    pub log: Log,
    /// `[[detector]]`: at least one.
    pub detectors: Vec<DetectorLink>,
    /// `[[storage]]`: exactly one internal, at most one external.
    pub storages: Vec<Storage>,
}

/// When a landed file's content is compared with its hash (SPEC 1.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Before it becomes visible.
    #[default]
    Publish,
    /// Never: for benchmarks and trusted links.
    Off,
}

/// `[interfaces]`: how others reach the daemon. `None` is `"off"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// Status queries (SPEC 5.1).
    pub status: Option<SocketAddr>,
    /// Messages (SPEC 5.2).
    pub messages: Option<SocketAddr>,
    /// Status page and metrics.
    pub http: Option<SocketAddr>,
    /// Named pipe that takes paths of extra files (SPEC 3.9).
    pub file_pipe: Option<PathBuf>,
    /// The same under the predecessor's name, for old scripts.
    pub old_file_pipe: Option<PathBuf>,
    /// Group that may write to the pipes.
    pub file_pipe_group: Option<String>,
    /// Files named through the pipe must lie below one of these.
    pub intake_roots: Vec<PathBuf>,
    /// Unix socket of the command line.
    pub control: PathBuf,
}

/// `[[detector]]`: one detector server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectorLink {
    /// Its name in status, messages and `-d ID:SOURCE:TARGET`.
    pub id: String,
    /// Where it listens.
    pub address: HostPort,
    /// Below the detector's ramdisk, without a leading slash; empty = all of it.
    pub source: PathBuf,
    /// Absolute, below the ramdisk, with its `/./` if it has one (SPEC 1.4).
    pub target: PathBuf,
    /// Shortest time between two rounds of transfers.
    pub min_pause: Duration,
    /// Quiet time left to the detector when its backlog is empty.
    pub interrun_pause: Duration,
    /// Data connections.
    pub streams: u16,
}

/// `[[storage]]`: one place that keeps copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its name in status and messages.
    pub id: String,
    /// What it means to the other copies.
    pub kind: StorageKind,
    /// The directory that copies go below; absolute.
    pub target: PathBuf,
    /// Must be a mount point, or the storage is unavailable; absolute.
    pub mountpoint: Option<PathBuf>,
    /// Without `mountpoint`: accept a target on the root file system.
    pub allow_root_fs: bool,
    /// Files in flight; of small ones more are.
    pub queue_depth: u16,
    /// Whether the page cache is bypassed.
    pub direct: Direct,
    /// Further tries of a failed copy before it counts as failed.
    pub retries: u32,
    /// Pause before the first further try; doubled for each one after it.
    pub retry_pause: Duration,
    /// The pause grows no longer than this.
    pub retry_pause_max: Duration,
    /// Silence, with work to do, after which it counts as hung.
    pub hung_after: Duration,
    /// Time in which it never caught up, after which it counts as slow.
    pub slow_after: Duration,
}

/// What a storage means to the other copies (SPEC 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageKind {
    /// Exactly one: a copy here makes a file *stored* for release, eviction and purge of the ramdisk.
    #[default]
    Internal,
    /// At most one: a copy here allows eviction from the internal storage.
    External,
    /// Any number: further copies.
    Optional,
}

/// Whether copies bypass the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direct {
    /// O_DIRECT where the file system takes it.
    #[default]
    Auto,
    /// Through the page cache.
    Off,
}

const VERIFIES: &[(&str, Verify)] = &[("publish", Verify::Publish), ("off", Verify::Off)];
const KINDS: &[(&str, StorageKind)] = &[
    ("internal", StorageKind::Internal),
    ("external", StorageKind::External),
    ("optional", StorageKind::Optional),
];
const DIRECTS: &[(&str, Direct)] = &[("auto", Direct::Auto), ("off", Direct::Off)];

pub(crate) fn read(s: &mut Section<'_, '_>) -> Ppu {
    let fields = rules::Fields {
        state_dir: s.or("state_dir", "/var/lib/ppu-uringd".into(), absolute_path),
        ramdisk: s.required("ramdisk", "\"/ramdisk\"", absolute_path),
        gid: s.required("gid", "500", integer(0..=ID_MAX)),
        fillstate_limit: s.or("fillstate_limit", 0.80, ratio),
        fillstate_low: s.or("fillstate_low", 0.70, ratio),
        almost_overflow: s.or("almost_overflow", 0.95, ratio),
        key_file: s.optional("key_file", absolute_path),
        insecure: s.or("insecure", false, boolean),
        detectors: s.tables("detector", read_detector),
        storages: s.tables("storage", read_storage),
    };
    let uid = s.required("uid", "500", uid);
    let user_dir = s.or("user_dir", String::new(), user_dir);
    let create_links = s.or("create_links", true, boolean);
    let preserve_uid = s.or("preserve_uid", true, boolean);
    let preserve_gid = s.or("preserve_gid", true, boolean);
    let history_max_entries = s.or("history_max_entries", 100, integer(1..=1_000_000));
    let replace_other_shift = s.or("replace_other_shift", false, boolean);
    let verify = s.or("verify", Verify::default(), one_of(VERIFIES));
    let engine = s.or("engine", Engine::default(), one_of(ENGINES));
    let low_latency = s.or("low_latency", true, boolean);
    let interfaces = s.table("interfaces", |s| read_interfaces(s, fields.ramdisk.value.as_ref()));
    let hook = s.table("hook", hook::read);
    let log = s.table("log", Log::read);
    rules::check(s.report(), &fields, &log);

    let ramdisk = fields.ramdisk.take();
    Ppu {
        detectors: fields.detectors.into_iter().map(|link| link.build(&ramdisk)).collect(),
        storages: fields.storages.into_iter().map(StorageFields::build).collect(),
        state_dir: fields.state_dir.take(),
        ramdisk,
        uid: uid.take(),
        gid: fields.gid.take(),
        user_dir: user_dir.take(),
        create_links: create_links.take(),
        preserve_uid: preserve_uid.take(),
        preserve_gid: preserve_gid.take(),
        fillstate_limit: fields.fillstate_limit.take(),
        fillstate_low: fields.fillstate_low.take(),
        almost_overflow: fields.almost_overflow.take(),
        history_max_entries: history_max_entries.take(),
        replace_other_shift: replace_other_shift.take(),
        verify: verify.take(),
        engine: engine.take(),
        low_latency: low_latency.take(),
        key_file: fields.key_file.value,
        insecure: fields.insecure.take(),
        interfaces,
        hook,
        log,
    }
}

fn read_interfaces(s: &mut Section<'_, '_>, ramdisk: Option<&PathBuf>) -> Interfaces {
    let loopback = |port| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let file_pipe = s.or("file_pipe", Some("/run/ppu-uringd/files".into()), or_off(absolute_path)).take();
    // Who wants no pipe wants no old one either.
    let old_file_pipe = file_pipe.as_ref().map(|_| "/var/run/grimsel_dectris_files".into());
    Interfaces {
        status: s.or("status", loopback(47199), or_off(socket_address)).take(),
        messages: s.or("messages", loopback(47198), or_off(socket_address)).take(),
        http: s.or("http", loopback(47197), or_off(socket_address)).take(),
        file_pipe,
        old_file_pipe: s.or("old_file_pipe", old_file_pipe, or_off(absolute_path)).take(),
        file_pipe_group: s.optional("file_pipe_group", group_name).value,
        intake_roots: s
            .or("intake_roots", ramdisk.cloned().into_iter().collect(), list(absolute_path))
            .take(),
        control: s.or("control", "/run/ppu-uringd/control.sock".into(), socket_path).take(),
    }
}

/// A `[[detector]]` while it is still being checked.
struct LinkFields {
    id: Field<String>,
    address: Field<HostPort>,
    source: Field<PathBuf>,
    target: Field<PathBuf>,
    min_pause: Field<Duration>,
    interrun_pause: Field<Duration>,
    streams: Field<u16>,
}

fn read_detector(s: &mut Section<'_, '_>) -> LinkFields {
    LinkFields {
        id: s.required("id", "\"1MF\"", id),
        address: s.required("address", "\"10.10.10.11:49371\"", host_port(DETECTOR_PORT)),
        source: s.or("source", PathBuf::new(), source),
        target: s.required("target", "\"/ramdisk/./1mf\"", marked_path),
        min_pause: s.or("min_pause_ms", Duration::ZERO, milliseconds(0..=PAUSE_MAX_MS)),
        interrun_pause: s.or("interrun_pause_ms", Duration::ZERO, milliseconds(0..=PAUSE_MAX_MS)),
        streams: s.or("streams", 2, integer(1..=16)),
    }
}

impl LinkFields {
    fn build(self, ramdisk: &Path) -> DetectorLink {
        let written = self.target.take();
        // Without doubled and trailing slashes, so that the daemon's own, stricter reading takes it.
        let target = match split_target(ramdisk, &written) {
            Ok((directory, replicated)) if replicated.as_os_str().is_empty() => directory,
            Ok((directory, replicated)) => {
                let private: PathBuf = directory
                    .components()
                    .take(directory.components().count() - replicated.components().count())
                    .collect();
                private.join("./").join(replicated)
            }
            Err(_) => written,
        };
        DetectorLink {
            id: self.id.take(),
            address: self.address.take(),
            source: self.source.take(),
            target,
            min_pause: self.min_pause.take(),
            interrun_pause: self.interrun_pause.take(),
            streams: self.streams.take(),
        }
    }
}

/// A `[[storage]]` while it is still being checked.
struct StorageFields {
    /// Byte offset of the header.
    at: usize,
    id: Field<String>,
    kind: Field<StorageKind>,
    target: Field<PathBuf>,
    mountpoint: Field<PathBuf>,
    allow_root_fs: Field<bool>,
    queue_depth: Field<u16>,
    direct: Field<Direct>,
    retries: Field<u32>,
    retry_pause: Field<Duration>,
    retry_pause_max: Field<Duration>,
    hung_after: Field<Duration>,
    slow_after: Field<Duration>,
}

fn read_storage(s: &mut Section<'_, '_>) -> StorageFields {
    StorageFields {
        at: s.at(),
        id: s.required("id", "\"internal\"", id),
        kind: s.required("kind", "\"internal\"", one_of(KINDS)),
        target: s.required("target", "\"/data\"", absolute_path),
        mountpoint: s.optional("mountpoint", absolute_path),
        allow_root_fs: s.or("allow_root_fs", false, boolean),
        queue_depth: s.or("queue_depth", 8, integer(1..=256)),
        direct: s.or("direct", Direct::default(), one_of(DIRECTS)),
        retries: s.or("retries", 5, integer(0..=1000)),
        retry_pause: s.or("retry_pause_ms", Duration::from_secs(1), milliseconds(1..=PAUSE_MAX_MS)),
        retry_pause_max: s.or("retry_pause_max_ms", Duration::from_secs(60), milliseconds(1..=PAUSE_MAX_MS)),
        hung_after: s.or("hung_after_ms", Duration::from_secs(10), milliseconds(100..=PAUSE_MAX_MS)),
        slow_after: s.or("slow_after_ms", Duration::from_secs(30), milliseconds(100..=PAUSE_MAX_MS)),
    }
}

impl StorageFields {
    fn build(self) -> Storage {
        Storage {
            id: self.id.take(),
            kind: self.kind.take(),
            target: self.target.take(),
            mountpoint: self.mountpoint.value,
            allow_root_fs: self.allow_root_fs.take(),
            queue_depth: self.queue_depth.take(),
            direct: self.direct.take(),
            retries: self.retries.take(),
            retry_pause: self.retry_pause.take(),
            retry_pause_max: self.retry_pause_max.take(),
            hung_after: self.hung_after.take(),
            slow_after: self.slow_after.take(),
        }
    }
}

fn uid(value: &DeValue<'_>) -> Result<u32, String> {
    match integer(0..=ID_MAX)(value)? {
        0 => Err("is root: images of a user shift never belong to root, write the user's number".into()),
        uid => Ok(uid),
    }
}

fn milliseconds(range: std::ops::RangeInclusive<i64>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| integer::<u64>(range.clone())(value).map(Duration::from_millis)
}

/// `source`: below the detector's ramdisk, with or without a leading slash.
fn source(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let written = text(value)?;
    if written.is_empty() {
        return Err("is empty, write \"/\" for all of the detector's ramdisk".into());
    }
    let names: Vec<&str> = written.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| matches!(*name, "." | "..")) || written.contains('\0') {
        return Err(format!(
            "{written:?} has '.', '..' or NUL in it, write the plain path below the detector's ramdisk"
        ));
    }
    Ok(names.iter().collect())
}

fn user_dir(value: &DeValue<'_>) -> Result<String, String> {
    let pattern = text(value)?;
    let filled = pattern.replace("$UID", "0").replace("$GID", "0").replace("$SHIFT", "0");
    if filled.contains('$') {
        return Err(format!("{pattern:?} has an unknown '$' in it, known are $UID, $GID and $SHIFT"));
    }
    let clean = filled.trim_matches('/');
    let names_ok = clean.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'));
    if !clean.is_empty() && !names_ok {
        return Err(format!(
            "{pattern:?} has '.', '..', '//' or NUL in it, write a plain path such as \"$UID_$GID\""
        ));
    }
    Ok(pattern)
}

fn group_name(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':') {
        return Err(format!("{name:?} is not the name of a group, see /etc/group"));
    }
    Ok(name)
}

fn socket_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = absolute_path(value)?;
    if path.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
        return Err(format!(
            "is longer than {SOCKET_PATH_MAX_BYTES} bytes, which Unix sockets forbid; use a shorter path"
        ));
    }
    Ok(path)
}
