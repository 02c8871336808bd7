//! Reads what `model::host` has rules on, from /proc and /sys. What cannot be read is left out: it is only about speed.

pub mod inbox;
pub mod priority;
pub mod wakeup;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::model::host::Host;

/// A longer file is none of those that are read here.
const FILE_MAX_BYTES: u64 = 65_536;
/// Bits of the effective capabilities.
const CAP_NET_ADMIN: u32 = 12;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RESOURCE: u32 = 24;
/// Of a balloon's features (linux/virtio_balloon.h).
const VIRTIO_BALLOON_F_REPORTING: usize = 5;
/// Free memory hardly comes in blocks of that order, 4 MiB (MAX_PAGE_ORDER).
const LARGEST_BLOCK_ORDER: u32 = 10;

/// This machine, for a daemon with that many pipes. Its ramdisk is left to the caller.
pub fn look(pipes: u64) -> Host {
    let limit = |resource| getrlimit(resource).ok();
    let memlock = limit(Resource::RLIMIT_MEMLOCK).map(|(soft, _)| soft);
    let nofile = limit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard);
    let finite = |limit: Option<u64>| limit.filter(|limit| *limit != RLIM_INFINITY);
    Host {
        nofile: finite(nofile),
        wakes_quickly: wakeup::allowed(),
        ..look_below(Path::new("/"), pipes, finite(memlock))
    }
}

/// As [`look`], where `root` holds `proc` and `sys`.
fn look_below(root: &Path, pipes: u64, memlock: Option<u64>) -> Host {
    let sysctl = |name: &str| read(&root.join("proc/sys").join(name));
    let number = |name: &str| sysctl(name)?.split_whitespace().last()?.parse::<u64>().ok();
    let may = capabilities(root);
    Host {
        ramdisk: None,
        congestion: sysctl("net/ipv4/tcp_congestion_control"),
        congestions: match may(CAP_NET_ADMIN) {
            true => sysctl("net/ipv4/tcp_available_congestion_control"),
            false => sysctl("net/ipv4/tcp_allowed_congestion_control"),
        },
        tcp_send_max: number("net/ipv4/tcp_wmem"),
        tcp_receive_max: number("net/ipv4/tcp_rmem"),
        kernel: sysctl("kernel/osrelease").and_then(|release| kernel(&release)),
        memlock: memlock.filter(|_| !may(CAP_IPC_LOCK)),
        nofile: None,
        watches: number("fs/inotify/max_user_watches"),
        queued_events: number("fs/inotify/max_queued_events"),
        // 0 is no limit.
        pipe_pages: number("fs/pipe-user-pages-soft").filter(|pages| !may(CAP_SYS_RESOURCE) && *pages > 0),
        pipe_bytes: number("fs/pipe-max-size").filter(|_| !may(CAP_SYS_RESOURCE)),
        pipes,
        clock_source: read(&root.join("sys/devices/system/clocksource/clocksource0/current_clocksource")),
        governors: governors(&root.join("sys/devices/system/cpu")),
        gives_memory_back: gives_memory_back(&root.join("sys")),
        wakes_quickly: None,
    }
}

fn capabilities(root: &Path) -> impl Fn(u32) -> bool + use<> {
    let status = read(&root.join("proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    move |bit| set & (1 << bit) != 0
}

/// `6.1.0-13-amd64`.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Of all processors that have one.
fn governors(cpus: &Path) -> Vec<String> {
    let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
    let mut found: Vec<String> =
        entries.filter_map(|entry| read(&entry.path().join("cpufreq/scaling_governor"))).collect();
    found.sort();
    found.dedup();
    found
}

/// A memory balloon through which the kernel hands free memory to the hypervisor.
fn gives_memory_back(sys: &Path) -> bool {
    let order = read(&sys.join("module/page_reporting/parameters/page_reporting_order"));
    let order = order.and_then(|order| order.parse::<u32>().ok());
    let balloons =
        fs::read_dir(sys.join("bus/virtio/drivers/virtio_balloon")).into_iter().flatten().flatten();
    let features = balloons.filter_map(|balloon| read(&balloon.path().join("features")));
    let reports = |features: String| features.as_bytes().get(VIRTIO_BALLOON_F_REPORTING) == Some(&b'1');
    order.is_some_and(|order| order < LARGEST_BLOCK_ORDER) && features.into_iter().any(reports)
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_where_they_are_looked_for() {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
            ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic bbr\n"),
            ("proc/sys/net/ipv4/tcp_allowed_congestion_control", "reno bbr\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n"),
            ("proc/sys/fs/inotify/max_user_watches", "8192\n"),
            ("proc/sys/fs/inotify/max_queued_events", "16384\n"),
            ("proc/sys/fs/pipe-user-pages-soft", "16384\n"),
            ("proc/sys/fs/pipe-max-size", "1048576\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/online", "0-2\n"),
            ("sys/module/page_reporting/parameters/page_reporting_order", "9\n"),
            ("sys/bus/virtio/drivers/virtio_balloon/uevent", ""),
            ("sys/bus/virtio/drivers/virtio_balloon/virtio0/features", "0110010100\n"),
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let unprivileged = look_below(root.path(), 4, Some(65_536));
        let expected = Host {
            ramdisk: None,
            congestion: Some("bbr".into()),
            congestions: Some("reno bbr".into()),
            tcp_send_max: Some(4_194_304),
            tcp_receive_max: Some(6_291_456),
            kernel: Some((6, 1)),
            memlock: Some(65_536),
            nofile: None,
            watches: Some(8192),
            queued_events: Some(16_384),
            pipe_pages: Some(16_384),
            pipe_bytes: Some(1_048_576),
            pipes: 4,
            clock_source: Some("tsc".into()),
            governors: vec!["performance".into(), "powersave".into()],
            gives_memory_back: true,
            wakes_quickly: None,
        };
        assert_eq!(unprivileged, expected);
        fs::write(root.path().join("proc/self/status"), "CapEff:\t000001ffffffffff\n").unwrap();
        let root_user = look_below(root.path(), 4, Some(65_536));
        assert_eq!((root_user.memlock, root_user.pipe_pages, root_user.pipe_bytes), (None, None, None));
        assert_eq!(root_user.congestions.as_deref(), Some("reno cubic bbr"));
        let keeps = |name: &str, content: &str| {
            let path = root.path().join("sys").join(name);
            let before = fs::read(&path).unwrap();
            fs::write(&path, content).unwrap();
            let gives_memory_back = look_below(root.path(), 4, None).gives_memory_back;
            fs::write(&path, before).unwrap();
            !gives_memory_back
        };
        assert!(keeps("module/page_reporting/parameters/page_reporting_order", "10\n"));
        assert!(keeps("bus/virtio/drivers/virtio_balloon/virtio0/features", "0110000100\n"));
    }

    #[test]
    fn an_empty_machine_is_no_riddle() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(look_below(root.path(), 0, None), Host::default());
        let here = look(2);
        assert!(here.kernel.is_some() && here.tcp_send_max.is_some(), "{here:?}");
    }
}
