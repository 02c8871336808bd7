//! Quick wake-ups while images flow.
//!
//! An image passes through eight threads that sleep until it comes, on two machines. A processor that has nothing to do
//! meanwhile goes to sleep more and more deeply, and takes 0.05 to 0.2 ms to come back, each time. Whoever holds `/dev/cpu_dma_latency` open tells
//! the kernel how long that may take (Documentation/power/pm_qos_interface.rst); on close it is forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::priority;

const DEVICE: &str = "/dev/cpu_dma_latency";
/// The lightest sleep of processors (C1), in microseconds.
const LIGHT_SLEEP_US: i32 = 2;
/// In virtual machines any sleep hands the processor back to the host: none then.
const NO_SLEEP_US: i32 = 0;
/// Held that long after the last image: longer than a detector pauses in a run.
const HELD_FOR: Duration = Duration::from_secs(10);
/// With so many images under way there is work enough: to do it in real time would lock others out, on a small machine even people.
const MANY: u64 = 16;
/// With so few there is not.
const FEW: u64 = 4;

/// Asks for quick wake-ups from an image until some time after the last.
#[derive(Debug)]
pub struct QuickWakeups {
    device: PathBuf,
    wanted: bool,
    /// `None`: refused.
    latency_us: Option<i32>,
    held: Option<File>,
    until: Option<Instant>,
    real_time: bool,
    /// Who is told that.
    switch: fn(bool),
}

impl QuickWakeups {
    /// For this machine. Never asks unless `wanted`.
    pub fn new(wanted: bool) -> Self {
        let driver = super::read(Path::new("/sys/devices/system/cpu/cpuidle/current_driver"));
        let virtual_machine = driver.as_deref() == Some("haltpoll");
        let latency_us = if virtual_machine { NO_SLEEP_US } else { LIGHT_SLEEP_US };
        Self::on(DEVICE.into(), wanted, latency_us, priority::real_time)
    }

    fn on(device: PathBuf, wanted: bool, latency_us: i32, switch: fn(bool)) -> Self {
        let latency_us = Some(latency_us);
        Self { device, wanted, latency_us, held: None, until: None, real_time: false, switch }
    }

    /// An image is on its way.
    pub fn image(&mut self, now: Instant) {
        if !self.wanted {
            return;
        }
        self.until = Some(now + HELD_FOR);
        if let (None, Some(latency_us)) = (&self.held, self.latency_us) {
            match ask(&self.device, latency_us) {
                Ok(file) => self.held = Some(file),
                // The self-check has said so.
                Err(_) => self.latency_us = None,
            }
        }
    }

    /// So many are.
    pub fn under_way(&mut self, images: u64) {
        let enough = if self.real_time { MANY } else { FEW + 1 };
        let real_time = self.until.is_some() && images < enough;
        if real_time != self.real_time {
            self.real_time = real_time;
            (self.switch)(real_time);
        }
    }

    /// Time passes.
    pub fn pass(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            (self.held, self.until) = (None, None);
        }
    }
}

/// Whether this user may ask.
pub(super) fn allowed() -> Option<bool> {
    match OpenOptions::new().write(true).open(DEVICE) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(false),
        // There is nothing to ask.
        Err(_) => None,
    }
}

fn ask(device: &Path, latency_us: i32) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(device)?;
    file.write_all(&latency_us.to_ne_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests' threads stay as they are.
    const NOBODY: fn(bool) = |_| {};

    #[test]
    fn it_is_held_while_images_flow() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("cpu_dma_latency");
        std::fs::write(&device, "").unwrap();
        let asked = || std::fs::read(&device).unwrap();
        let begin = Instant::now();

        let mut unwanted = QuickWakeups::on(device.clone(), false, 2, NOBODY);
        unwanted.image(begin);
        assert!(asked().is_empty());

        let mut wakeups = QuickWakeups::on(device.clone(), true, 2, NOBODY);
        wakeups.pass(begin);
        assert!(wakeups.held.is_none());
        wakeups.image(begin);
        wakeups.image(begin + Duration::from_secs(5));
        assert_eq!(asked(), 2_i32.to_ne_bytes(), "asked once");
        wakeups.pass(begin + Duration::from_secs(14));
        assert!(wakeups.held.is_some());
        wakeups.pass(begin + Duration::from_secs(15));
        assert!(wakeups.held.is_none());
        wakeups.image(begin + Duration::from_secs(16));
        assert!(wakeups.held.is_some(), "the next run");
    }

    #[test]
    fn a_backlog_is_not_worked_off_in_real_time() {
        let mut wakeups = QuickWakeups::on("/nowhere".into(), true, 2, NOBODY);
        let begin = Instant::now();
        wakeups.under_way(0);
        assert!(!wakeups.real_time, "nothing flows");
        wakeups.image(begin);
        for (images, real_time) in [(5, false), (4, true), (15, true), (16, false), (5, false), (0, true)] {
            wakeups.under_way(images);
            assert_eq!(wakeups.real_time, real_time, "{images}");
        }
        wakeups.pass(begin + Duration::from_secs(11));
        wakeups.under_way(0);
        assert!(!wakeups.real_time, "no more");
    }

    #[test]
    fn what_is_refused_is_not_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("cpu_dma_latency");
        let mut wakeups = QuickWakeups::on(device.clone(), true, 0, NOBODY);
        wakeups.image(Instant::now());
        std::fs::write(&device, "").unwrap();
        wakeups.image(Instant::now());
        assert!(wakeups.held.is_none());
    }
}
