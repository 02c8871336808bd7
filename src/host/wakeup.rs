//! Quick wake-ups while images flow.
//!
//! An image passes through eight threads that sleep until it comes, on two machines. A processor that has nothing to do
//! meanwhile goes to sleep more and more deeply, and takes 0.05 to 0.2 ms to come back, each time. Whoever holds `/dev/cpu_dma_latency` open tells
//! the kernel how long that may take (Documentation/power/pm_qos_interface.rst); on close it is forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/cpu_dma_latency";
/// The lightest sleep of processors (C1), in microseconds.
const LIGHT_SLEEP_US: i32 = 2;
/// In virtual machines any sleep hands the processor back to the host: none then.
const NO_SLEEP_US: i32 = 0;
/// Held that long after the last image: longer than a detector pauses in a run.
const HELD_FOR: Duration = Duration::from_secs(10);

/// Asks for quick wake-ups from an image until some time after the last.
#[derive(Debug)]
pub struct QuickWakeups {
    device: PathBuf,
    /// `None`: not wanted, or refused.
    latency_us: Option<i32>,
    held: Option<File>,
    until: Option<Instant>,
}

impl QuickWakeups {
    /// For this machine. Never asks unless `wanted`.
    pub fn new(wanted: bool) -> Self {
        let driver = super::read(Path::new("/sys/devices/system/cpu/cpuidle/current_driver"));
        let virtual_machine = driver.as_deref() == Some("haltpoll");
        let latency_us = if virtual_machine { NO_SLEEP_US } else { LIGHT_SLEEP_US };
        Self::on(DEVICE.into(), wanted.then_some(latency_us))
    }

    fn on(device: PathBuf, latency_us: Option<i32>) -> Self {
        Self { device, latency_us, held: None, until: None }
    }

    /// An image is on its way.
    pub fn image(&mut self, now: Instant) {
        let Some(latency_us) = self.latency_us else { return };
        self.until = Some(now + HELD_FOR);
        if self.held.is_none() {
            match ask(&self.device, latency_us) {
                Ok(file) => self.held = Some(file),
                // The self-check has said so.
                Err(_) => self.latency_us = None,
            }
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

    #[test]
    fn it_is_held_while_images_flow() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("cpu_dma_latency");
        std::fs::write(&device, "").unwrap();
        let asked = || std::fs::read(&device).unwrap();
        let begin = Instant::now();

        let mut unwanted = QuickWakeups::on(device.clone(), None);
        unwanted.image(begin);
        assert!(asked().is_empty());

        let mut wakeups = QuickWakeups::on(device.clone(), Some(2));
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
    fn what_is_refused_is_not_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("cpu_dma_latency");
        let mut wakeups = QuickWakeups::on(device.clone(), Some(0));
        wakeups.image(Instant::now());
        std::fs::write(&device, "").unwrap();
        wakeups.image(Instant::now());
        assert!(wakeups.held.is_none());
    }
}
