//! How much a demo may write: the files stay where they are until every byte has been compared.

use std::fs;

use super::super::Failure;
use super::super::machine::free_bytes;
use super::stage::Stage;

/// Shares of what is free that the demo takes, in percent: others live here too.
const RAMDISK_SHARE: u64 = 80;
const MEMORY_SHARE: u64 = 70;
const DISK_SHARE: u64 = 80;

/// Bytes of images, and what limits them (for people).
pub(super) fn for_images(stage: &Stage) -> Result<(u64, String), Failure> {
    let free = |path| {
        free_bytes(path)
            .map_err(|error| Failure::Failed(format!("{}: {error}", std::path::Path::display(path))))
    };
    // Each image lies on both ramdisks; where the storage is in memory too, three times there.
    let copies = if stage.disk_is_memory { 3 } else { 2 };
    let ramdisks = free(&stage.detector_ramdisk)?;
    let disk = free(&stage.data)?;
    let mut limits = vec![
        (ramdisks / 100 * RAMDISK_SHARE / 2, format!("{:.1} GB are free for the ramdisks", gb(ramdisks))),
        (disk / 100 * DISK_SHARE, format!("{:.1} GB are free for the storage", gb(disk))),
    ];
    if stage.ramdisks_are_memory
        && let Some(memory) = available_memory()
    {
        let share = memory / 100 * MEMORY_SHARE / copies;
        limits.push((share, format!("{:.1} GB of memory are available", gb(memory))));
    }
    Ok(limits.into_iter().min().unwrap_or_default())
}

/// What the kernel thinks can be used without swapping.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
