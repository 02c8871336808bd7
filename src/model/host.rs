//! What of this machine holds the daemon back, and what to do about it: rules on values that `host` reads. Nothing here keeps anything from
//! working; it only costs speed, or work after a burst.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which daemon runs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends, and watches its ramdisk.
    Detector,
    /// Lands and stores.
    Ppu,
}

/// Values as they were read; `None`: this kernel does not tell, or it does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The ramdisk's file system.
    pub ramdisk: Option<Ramdisk>,
    /// `net.ipv4.tcp_congestion_control`.
    pub congestion: Option<String>,
    /// `net.ipv4.tcp_available_congestion_control`, or what this user may choose of it.
    pub congestions: Option<String>,
    /// The last number of `net.ipv4.tcp_wmem`.
    pub tcp_send_max: Option<u64>,
    /// The last number of `net.ipv4.tcp_rmem`.
    pub tcp_receive_max: Option<u64>,
    /// Major and minor release.
    pub kernel: Option<(u32, u32)>,
    /// The limit of locked memory in bytes, where there is one.
    pub memlock: Option<u64>,
    /// The hard limit of open files, where there is one.
    pub nofile: Option<u64>,
    /// `fs.inotify.max_user_watches`.
    pub watches: Option<u64>,
    /// `fs.inotify.max_queued_events`.
    pub queued_events: Option<u64>,
    /// `fs.pipe-user-pages-soft`, where it binds us and is not switched off.
    pub pipe_pages: Option<u64>,
    /// `fs.pipe-max-size`, where it binds us.
    pub pipe_bytes: Option<u64>,
    /// Pipes that the daemon will have.
    pub pipes: u64,
    /// What the kernel reads the time from.
    pub clock_source: Option<String>,
    /// Of the processors, each once.
    pub governors: Vec<String>,
    /// A virtual machine that hands free memory to its hypervisor at once (Documentation/mm/free_page_reporting.rst).
    pub gives_memory_back: bool,
    /// Whether quick wake-ups may be asked for, where they are wanted.
    pub wakes_quickly: Option<bool>,
}

/// See [`Host::ramdisk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramdisk {
    /// Where.
    pub path: String,
    /// It is a tmpfs.
    pub tmpfs: bool,
    /// The value of its `huge=`.
    pub huge: Option<String>,
}

/// Something to change on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// What is, and what it costs.
    pub what: String,
    /// A command, or a setting.
    pub cure: String,
}

/// Room for what is on its way on a link of 10 Gbit/s with 3 ms; what kernels have by default.
const TCP_BUFFER_BYTES: u64 = 4 << 20;
/// Files that are open at the worst: subscribers, extra files, copies in flight.
const OPEN_FILES: u64 = 4096;
/// Directories that a detector's ramdisk may well have.
const WATCHES: u64 = 65_536;
/// What kernels have by default: a burst of files that may wait until the daemon gets to run.
const QUEUED_EVENTS: u64 = 16_384;
/// What the daemon asks for per data connection; 64 kB, what a user gets whose share is used up, halves the throughput.
const PIPE_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
/// Rings and their memory counted as locked before Linux 5.12.
const MEMLOCK_BYTES: u64 = 16 << 20;
/// Each reading of the time is a system call, or worse.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"];

impl Host {
    /// The most worthwhile first.
    pub fn advice(&self, role: Role) -> Vec<Advice> {
        let found = [
            self.ramdisk_is_slow(role),
            self.congestion_is_slow(),
            self.buffers_are_small(role),
            self.pipes_are_small(),
            self.watches_are_few(role),
            self.queue_is_short(role),
            self.files_are_few(),
            self.memlock_is_low(),
            self.clock_is_slow(),
            self.processors_are_slow(),
            self.processors_sleep(),
            self.memory_is_cold(),
        ];
        found.into_iter().flatten().collect()
    }

    fn ramdisk_is_slow(&self, role: Role) -> Option<Advice> {
        let Ramdisk { path, tmpfs, huge } = self.ramdisk.as_ref()?;
        if !tmpfs {
            let what = format!("ramdisk {path} is no tmpfs: as slow as that file system is");
            return advice(what, format!("mount -t tmpfs -o huge=within_size tmpfs {path}"));
        }
        // `always` has huge pages as well, and wastes memory with small files.
        if matches!(huge.as_deref(), Some("within_size" | "always")) {
            return None;
        }
        let gain = match role {
            Role::Ppu => "landing is up to 2.7 times faster",
            Role::Detector => "large images are read and hashed faster",
        };
        let what = format!("ramdisk {path} is mounted without huge=within_size, with which {gain}");
        advice(what, format!("mount -o remount,huge=within_size {path}"))
    }

    /// The daemon chooses cubic for its own connections, where it can.
    fn congestion_is_slow(&self) -> Option<Advice> {
        let (default, choices) = (self.congestion.as_deref()?, self.congestions.as_deref()?);
        if !default.starts_with("bbr") || choices.split_whitespace().any(|name| name == "cubic") {
            return None;
        }
        let what = format!(
            "TCP goes by {default}, up to 2.5 times slower on a private link, and cubic cannot be chosen"
        );
        let cure = "modprobe tcp_cubic; sysctl -w net.ipv4.tcp_congestion_control=cubic";
        advice(what, cure)
    }

    /// net.core.wmem_max and rmem_max do not matter: no buffer is set by hand, so that the kernel sizes them, up to these.
    fn buffers_are_small(&self, role: Role) -> Option<Advice> {
        let (name, most, default) = match role {
            Role::Detector => ("tcp_wmem", self.tcp_send_max?, "4096 65536 16777216"),
            Role::Ppu => ("tcp_rmem", self.tcp_receive_max?, "4096 131072 16777216"),
        };
        if most >= TCP_BUFFER_BYTES {
            return None;
        }
        let what =
            format!("TCP buffers may grow to {most} bytes only (net.ipv4.{name}): too small for a fast link");
        advice(what, format!("sysctl -w net.ipv4.{name}=\"{default}\""))
    }

    fn pipes_are_small(&self) -> Option<Advice> {
        if let Some(bytes) = self.pipe_bytes.filter(|bytes| *bytes < PIPE_BYTES) {
            let what = format!("pipes hold {bytes} bytes at most: large images travel up to twice as slowly");
            return advice(what, format!("sysctl -w fs.pipe-max-size={PIPE_BYTES}"));
        }
        let needed = self.pipes * PIPE_BYTES / PAGE_BYTES;
        let pages = self.pipe_pages.filter(|pages| *pages < needed)?;
        let what = format!(
            "this user's pipes may have {pages} pages, {} data connections need {needed}: large images travel up to twice as slowly",
            self.pipes
        );
        advice(what, format!("sysctl -w fs.pipe-user-pages-soft={}", 2 * needed))
    }

    fn watches_are_few(&self, role: Role) -> Option<Advice> {
        let watches = self.watches.filter(|watches| role == Role::Detector && *watches < WATCHES)?;
        let what = format!(
            "{watches} directories can be watched at most; below others new images are found by searching only"
        );
        advice(what, "sysctl -w fs.inotify.max_user_watches=1048576")
    }

    fn queue_is_short(&self, role: Role) -> Option<Advice> {
        let events = self.queued_events.filter(|events| role == Role::Detector && *events < QUEUED_EVENTS)?;
        let what = format!(
            "{events} events can wait at most; after a burst of more the ramdisk is searched, which takes a while"
        );
        advice(what, "sysctl -w fs.inotify.max_queued_events=131072")
    }

    fn files_are_few(&self) -> Option<Advice> {
        let files = self.nofile.filter(|files| *files < OPEN_FILES)?;
        let what = format!("{files} files can be open at most: clients may be turned away");
        advice(what, "LimitNOFILE=65536 in the service, or ulimit -n 65536")
    }

    fn memlock_is_low(&self) -> Option<Advice> {
        let bytes = self.memlock.filter(|bytes| self.kernel < Some((5, 12)) && *bytes < MEMLOCK_BYTES)?;
        self.kernel?;
        let what = format!(
            "{bytes} bytes can be locked, and before Linux 5.12 io_uring's rings count: they may be refused"
        );
        advice(what, "LimitMEMLOCK=infinity in the service, or ulimit -l unlimited")
    }

    fn clock_is_slow(&self) -> Option<Advice> {
        let source = self.clock_source.as_deref().filter(|source| SLOW_CLOCKS.contains(source))?;
        let what = format!("the kernel reads the time from {source}, which is slow");
        let cure = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource (dmesg says why it was not taken)";
        advice(what, cure)
    }

    fn processors_are_slow(&self) -> Option<Advice> {
        let slow = self.governors.iter().find(|governor| *governor != "performance")?;
        let what =
            format!("processors go by the governor {slow}: they are slow when an image comes after a pause");
        advice(what, "cpupower frequency-set -g performance")
    }

    fn processors_sleep(&self) -> Option<Advice> {
        self.wakes_quickly.filter(|allowed| !allowed)?;
        let what = "processors sleep between images, as this user may not open /dev/cpu_dma_latency: each image takes up to twice as long";
        advice(
            what.to_owned(),
            "run the daemon as root, or setfacl -m u:USER:rw /dev/cpu_dma_latency (low_latency = false: not wanted)",
        )
    }

    fn memory_is_cold(&self) -> Option<Advice> {
        self.gives_memory_back.then_some(())?;
        let what = "this virtual machine gives free memory back to its host: an image that gets such memory again may take tens of milliseconds longer";
        advice(
            what.to_owned(),
            "switch off free page reporting in the virtual machine's balloon device (QEMU: free-page-reporting=off)",
        )
    }
}

fn advice(what: String, cure: impl Into<String>) -> Option<Advice> {
    Some(Advice { what, cure: cure.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host {
            ramdisk: Some(Ramdisk { path: "/ramdisk".into(), tmpfs: true, huge: Some("within_size".into()) }),
            congestion: Some("bbr".into()),
            congestions: Some("reno cubic bbr".into()),
            tcp_send_max: Some(4 << 20),
            tcp_receive_max: Some(6 << 20),
            kernel: Some((5, 11)),
            memlock: Some(64 << 20),
            nofile: Some(1 << 20),
            watches: Some(1 << 20),
            queued_events: Some(16_384),
            pipe_pages: Some(16_384),
            pipe_bytes: Some(1 << 20),
            pipes: 8,
            clock_source: Some("kvm-clock".into()),
            governors: vec!["performance".into()],
            gives_memory_back: false,
            wakes_quickly: Some(true),
        }
    }

    /// What is said of a good machine after `change`, to each role: the cures.
    #[track_caller]
    fn check(change: impl Fn(&mut Host), detector: &[&str], ppu: &[&str]) {
        let mut host = good();
        change(&mut host);
        for (role, expected) in [(Role::Detector, detector), (Role::Ppu, ppu)] {
            let advice = host.advice(role);
            assert_eq!(advice.len(), expected.len(), "{role:?}: {advice:?}");
            for (advice, word) in advice.iter().zip(expected) {
                assert!(advice.cure.contains(word) && !advice.what.is_empty(), "{role:?}: {advice:?}");
            }
        }
    }

    #[test]
    fn each_fault_is_told_with_its_cure() {
        let both = |change: fn(&mut Host), word: &str| check(change, &[word], &[word]);
        check(|_| {}, &[], &[]);
        both(|host| host.ramdisk.as_mut().unwrap().huge = None, "remount,huge=within_size /ramdisk");
        both(|host| host.ramdisk.as_mut().unwrap().huge = Some("never".into()), "remount,huge=within_size");
        both(|host| host.ramdisk.as_mut().unwrap().tmpfs = false, "mount -t tmpfs");
        check(|host| host.ramdisk.as_mut().unwrap().huge = Some("always".into()), &[], &[]);
        both(|host| host.congestions = Some("reno bbr".into()), "tcp_congestion_control=cubic");
        check(|host| host.tcp_send_max = Some(212_992), &["tcp_wmem"], &[]);
        check(|host| host.tcp_receive_max = Some(212_992), &[], &["tcp_rmem"]);
        both(|host| host.pipe_bytes = Some(65_536), "fs.pipe-max-size=1048576");
        both(|host| host.pipes = 65, "fs.pipe-user-pages-soft=33280");
        check(|host| host.watches = Some(8192), &["max_user_watches"], &[]);
        check(|host| host.queued_events = Some(100), &["max_queued_events"], &[]);
        both(|host| host.nofile = Some(1024), "LimitNOFILE");
        both(|host| host.memlock = Some(65_536), "LimitMEMLOCK");
        both(|host| host.clock_source = Some("hpet".into()), "clocksource");
        both(|host| host.governors.push("powersave".into()), "cpupower");
        both(|host| host.wakes_quickly = Some(false), "setfacl");
        both(|host| host.gives_memory_back = true, "free-page-reporting=off");
        // Of a newer kernel, locked memory does not matter.
        check(|host| (host.kernel, host.memlock) = (Some((6, 1)), Some(65_536)), &[], &[]);
    }

    #[test]
    fn what_is_not_known_is_not_blamed() {
        assert_eq!(Host::default().advice(Role::Detector), []);
        assert_eq!(Host::default().advice(Role::Ppu), []);
        let host = Host { memlock: Some(1), ..Host::default() };
        assert_eq!(host.advice(Role::Ppu), []);
    }
}
