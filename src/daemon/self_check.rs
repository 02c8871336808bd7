//! What the machine costs us, said once at start.

use crate::host;
use crate::model::host::{Advice, Host, Ramdisk, Role};
use crate::rooted::Root;

/// Looks, and logs what could be better.
pub(super) fn run(role: Role, ramdisk: &Root, pipes: u64) -> Vec<Advice> {
    let ramdisk = ramdisk.file_system().ok().map(|found| Ramdisk {
        path: ramdisk.path().display().to_string(),
        tmpfs: found.tmpfs,
        huge: found.huge,
    });
    let advice = Host { ramdisk, ..host::look(pipes) }.advice(role);
    for Advice { what, cure } in &advice {
        tracing::warn!("{what}. {cure}");
    }
    advice
}
