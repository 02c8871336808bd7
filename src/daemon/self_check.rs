//! What the machine costs us, said once at start.

use crate::host;
use crate::model::host::{Advice, Host, Ramdisk, Role};
use crate::rooted::Root;

/// Looks, and logs what could be better.
pub(super) fn run(role: Role, ramdisk: &Root, pipes: u64, low_latency: bool) -> Vec<Advice> {
    let ramdisk = ramdisk.file_system().ok().map(|found| Ramdisk {
        path: ramdisk.path().display().to_string(),
        tmpfs: found.tmpfs,
        huge: found.huge,
    });
    let found = host::look(pipes);
    let wakes_quickly = found.wakes_quickly.filter(|_| low_latency);
    let advice = Host { ramdisk, wakes_quickly, ..found }.advice(role);
    for Advice { what, cure } in &advice {
        tracing::warn!("{what}. {cure}");
    }
    advice
}
