//! Several storages: what the tests of them share.

use super::oracle::{names, tree};
use super::rig::{Options, Other, Rig};
use super::wait_until;

/// Times that a test can wait for.
pub const QUICK: &str =
    "hung_after_ms = 500\nslow_after_ms = 1000\nretry_pause_ms = 50\nretry_pause_max_ms = 200\n";

/// Internal, external and optional.
pub fn three() -> Options {
    Options {
        storage_megabytes: 512,
        storage_extra: QUICK.to_owned(),
        others: vec![Other::ext4("external", QUICK), Other::ext4("optional", QUICK)],
        ..Options::default()
    }
}

/// Everything that the detector has is on that storage, byte for byte.
#[track_caller]
pub fn wait_stored_on(rig: &Rig, storage: usize) {
    let source = tree(rig.source(0));
    wait_until("everything is stored", || {
        names(&rig.stored_on(storage, 0)).len() == source.len()
            && tree(&rig.stored_on(storage, 0)) == source
            && rig.counts_on(storage).pending == 0
    });
    let c = rig.counts_on(storage);
    assert_eq!(c.pending + c.copied + c.failed + c.superseded + c.lost, c.produced, "{c:?}");
}
