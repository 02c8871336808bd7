//! Several storages, against the real daemons: what is copied from where, what is taken up again, what belongs to whom (SPEC 3).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ppu_uringd::model::message::Code;
use support::oracle::{check_sum, names, tree, write};
use support::rig::{Options, Other, Rig};
use support::several::{QUICK, three, wait_stored_on};
use support::{content, is_root, wait_until};

/// SPEC 3.1: all of them, in parallel; owner, mode and time as they are on the ramdisk.
#[test]
fn every_storage_gets_everything() {
    if !is_root("every_storage_gets_everything") {
        return;
    }
    let rig = Rig::start(three());
    for n in 0..60u64 {
        write(rig.source(0), format!("run{}/{n}", n % 3), &content(n, 100_000 + n as usize));
    }
    for storage in 0..3 {
        wait_stored_on(&rig, storage);
        assert_eq!(rig.health(storage), "ok");
        for name in names(&rig.landing(0)) {
            let (landed, stored) = (rig.landing(0).join(&name), rig.stored_on(storage, 0).join(&name));
            let (landed, stored) = (landed.metadata().unwrap(), stored.metadata().unwrap());
            assert_eq!((landed.uid(), landed.gid()), (stored.uid(), stored.gid()));
            assert_eq!(
                (landed.mode(), landed.modified().unwrap()),
                (stored.mode(), stored.modified().unwrap())
            );
        }
    }
    check_sum(&rig);
}

/// SPEC 3.5: what is no longer on the ramdisk is copied from the internal storage, byte for byte, with its time and owner.
#[test]
fn a_pending_copy_reads_from_another_storage() {
    if !is_root("a_pending_copy_reads_from_another_storage") {
        return;
    }
    let mut rig = Rig::prepare(three());
    rig.others[1].unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..20u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 300_000 + n as usize));
    }
    write(rig.source(0), "large", &content(77, 20_000_000));
    write(rig.source(0), "empty", b"");
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
    // Whoever takes them away; the internal storage's is damaged for one, the external's for another.
    std::fs::remove_dir_all(rig.landing(0)).unwrap();
    flip_a_byte(&rig.stored_on(0, 0).join("run/3"));
    flip_a_byte(&rig.stored_on(1, 0).join("run/4"));
    rig.others[1].mount_image();
    std::fs::create_dir_all(rig.others[1].path().join("data")).unwrap();
    wait_stored_on(&rig, 2);
    let of = |path: std::path::PathBuf| {
        let meta = path.metadata().unwrap();
        (meta.uid(), meta.gid(), meta.mode(), meta.modified().unwrap())
    };
    for name in names(&rig.stored_on(2, 0)) {
        assert_eq!(
            of(rig.stored_on(2, 0).join(&name)),
            of(rig.stored_on(1, 0).join(&name)),
            "{}",
            name.display()
        );
    }
    assert_eq!(of(rig.stored_on(2, 0).join("run")).0, support::rig::UID);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 22, "nothing travelled again");
}

fn flip_a_byte(path: &Path) {
    let meta = path.metadata().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
}

/// SPEC 3.5, and the storage that is to be read hangs: what comes from the ramdisk goes on, and nobody else waits.
#[test]
fn a_source_that_hangs_holds_up_nobody_else() {
    if !is_root("a_source_that_hangs_holds_up_nobody_else") {
        return;
    }
    let mut rig = Rig::prepare(Options {
        others: vec![Other::ext4("optional", &format!("{QUICK}queue_depth = 1\n"))],
        ..three()
    });
    rig.others[0].unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..10u64 {
        write(rig.source(0), format!("old/{n}"), &content(n, 100_000));
    }
    wait_stored_on(&rig, 0);
    std::fs::remove_dir_all(rig.landing(0).join("old")).unwrap();
    // Reading works while it is frozen, but an access time that is to be updated does not; so it is the mount that is taken away.
    rig.storage.unmount_lazily();
    rig.others[0].mount_image();
    std::fs::create_dir_all(rig.others[0].path().join("data")).unwrap();
    for n in 0..10u64 {
        write(rig.source(0), format!("new/{n}"), &content(n, 100_000));
    }
    let new = |storage: usize| names(&rig.stored_on(storage, 0).join("new")).len();
    wait_until("what is on the ramdisk is stored", || new(1) == 10);
    assert_eq!(rig.counts_on(1).failed, 0, "a source that is away is no failure");
    assert!(rig.counts_on(1).pending >= 10);
    rig.storage.mount_image();
    wait_stored_on(&rig, 0);
    wait_stored_on(&rig, 1);
}

/// A user removes an image before it was stored anywhere: it is fetched again, without a restart, and counted once.
#[test]
fn what_was_removed_before_it_was_stored_is_fetched_again() {
    if !is_root("what_was_removed_before_it_was_stored_is_fetched_again") {
        return;
    }
    let mut rig = Rig::prepare(Options { storage_extra: QUICK.to_owned(), ..Options::default() });
    rig.storage.unmount();
    rig.start_detector(0);
    rig.start_ppu();
    rig.wait_linked();
    for n in 0..6u64 {
        write(rig.source(0), format!("{n}"), &content(n, 100_000));
    }
    wait_until("they have landed", || names(&rig.landing(0)).len() == 6);
    std::fs::remove_file(rig.landing(0).join("1")).unwrap();
    std::fs::write(rig.landing(0).join("2"), b"a user's idea").unwrap();
    std::fs::remove_file(rig.landing(0).join("3")).unwrap();
    // The detector does not have this one any more: it cannot be had again.
    std::fs::remove_file(rig.source(0).join("3")).unwrap();
    wait_until("the detector has said so", || {
        let log = rig.status().unwrap();
        log.detectors[0].backlog.files == 0
    });
    rig.storage.mount_image();
    std::fs::create_dir_all(rig.storage.path().join("data")).unwrap();
    wait_until("1 was fetched again", || rig.landing(0).join("1").exists());
    wait_until("3 has failed", || rig.counts().failed == 1);
    assert!(rig.messages().iter().any(|(code, short)| *code == Code::CopyError && short.contains("/3")));
    // What somebody else put there is never replaced; it lands when the name is free.
    std::fs::rename(rig.landing(0).join("2"), rig.landing(0).join("mine")).unwrap();
    wait_stored_but(&rig, &["mine"]);
    let c = rig.counts();
    assert_eq!((c.produced, c.copied, c.failed), (6, 5, 1), "{c:?}");
    // Found in a backup, and put back: not the file that landed, so it stays failed, and says so again.
    std::fs::write(rig.landing(0).join("3"), content(3, 100_000)).unwrap();
    let (text, code) = rig.command(&["retry"]);
    assert_eq!((text.as_str(), code), ("Queued again: 1 copies of 1 files.\n", 0));
    wait_until("it has failed again", || rig.counts().failed == 1 && rig.counts().pending == 0);
}

fn wait_stored_but(rig: &Rig, ignored: &[&str]) {
    let source = tree(rig.source(0));
    wait_until("everything is stored", || {
        let mut stored = tree(&rig.stored(0));
        stored.retain(|path, _| !ignored.iter().any(|name| path == std::ffi::OsStr::new(name)));
        stored == source && rig.counts().pending == 0
    });
}

/// SPEC 3.7: what was given up is said, kept, and taken up again on demand.
#[test]
fn retry_queues_what_had_failed() {
    if !is_root("retry_queues_what_had_failed") {
        return;
    }
    let rig = Rig::start(three());
    // Directories stand where files are to go.
    for name in ["a/taken", "b/taken"] {
        std::fs::create_dir_all(rig.stored_on(1, 0).join(name)).unwrap();
        write(rig.source(0), name, &content(7, 10_000));
    }
    write(rig.source(0), "free", b"free");
    wait_until("they have failed", || rig.counts_on(1).failed == 2);
    assert!(rig.messages().iter().any(|(code, short)| {
        *code == Code::CopyError && short.contains(":external1/") && short.ends_with("a/taken")
    }));
    assert_eq!(rig.command(&["retry", "--storage", "optional2"]).0, "Nothing of that has failed.\n");
    let (text, code) = rig.command(&["retry", "--storage", "extern"]);
    assert!(code == 1 && text.contains("internal, external1, optional2"), "{text}");
    for name in ["a/taken", "b/taken"] {
        std::fs::remove_dir(rig.stored_on(1, 0).join(name)).unwrap();
    }
    let a = rig.landing(0).join("a");
    let (text, code) = rig.command(&["retry", "--json", a.to_str().unwrap()]);
    let queued: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((queued, code), (serde_json::json!({ "version": 1, "copies": 1, "files": 1 }), 0));
    wait_until("one is stored", || rig.counts_on(1).failed == 1 && rig.counts_on(1).pending == 0);
    let (text, code) = rig.command(&["retry", "--storage", "external1", "--shift", "current", "b/taken"]);
    assert_eq!((text.as_str(), code), ("Queued again: 1 copies of 1 files.\n", 0));
    wait_stored_on(&rig, 1);
}

/// SPEC 3.2: two detectors that share a replica root. A stored path belongs to the detector that first stored it in the shift.
#[test]
fn a_stored_path_belongs_to_the_detector_that_came_first() {
    if !is_root("a_stored_path_belongs_to_the_detector_that_came_first") {
        return;
    }
    let mut rig =
        Rig::prepare(Options { detectors: 2, storage_extra: QUICK.to_owned(), ..Options::default() });
    let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
    std::fs::write(rig.ppu_config(), config.replace("/./d", "/d")).unwrap();
    rig.start_detector(0);
    rig.start_detector(1);
    rig.start_ppu();
    rig.wait_linked();
    let stored = rig.storage.path().join(format!("data/{}_{}", support::rig::UID, support::rig::GID));
    write(rig.source(0), "same", b"of detector 0");
    wait_until("the first is stored", || rig.counts().copied == 1);
    write(rig.source(1), "same", b"of detector 1");
    write(rig.source(1), "other", b"of detector 1");
    wait_until("the second has failed", || rig.counts().failed == 1 && rig.counts().copied == 2);
    assert_eq!(std::fs::read(stored.join("same")).unwrap(), b"of detector 0");
    assert_eq!(names(&stored).len(), 2, "nothing is set aside");
    let told = rig.status().unwrap().messages;
    let told = told.iter().find(|told| told.message.code == Code::CopyError).unwrap();
    assert!(told.message.long.contains("belongs to same of detector 0"), "{}", told.message.long);
    // The owner may replace it.
    write(rig.source(0), "same", b"of detector 0, again");
    wait_until("the newer version is stored", || {
        std::fs::read(stored.join("same")).unwrap() == b"of detector 0, again"
    });
}

/// Storages come and go with the configuration.
#[test]
fn a_storage_is_added_removed_and_added_again() {
    if !is_root("a_storage_is_added_removed_and_added_again") {
        return;
    }
    let mut rig = Rig::prepare(Options { others: vec![Other::ext4("optional", QUICK)], ..three() });
    let with = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let without = with[..with.rfind("[[storage]]").unwrap()].to_owned();
    let restart = |rig: &mut Rig, config: &str| {
        if let Some(ppu) = rig.ppu.take() {
            assert!(ppu.stop().success());
        }
        std::fs::write(rig.ppu_config(), config).unwrap();
        rig.start_ppu();
        rig.wait_linked();
    };
    rig.start_detector(0);
    restart(&mut rig, &without);
    write(rig.source(0), "before", &content(1, 10_000));
    write(rig.source(0), "evicted", &content(2, 10_000));
    wait_stored_on(&rig, 0);
    std::fs::remove_file(rig.landing(0).join("evicted")).unwrap();
    // Added: it gets what the detector still has, from wherever that is.
    restart(&mut rig, &with);
    wait_stored_on(&rig, 1);
    // Away, in the middle of work.
    rig.others[0].unmount_lazily();
    write(rig.source(0), "pending", &content(3, 10_000));
    wait_stored_on(&rig, 0);
    assert_eq!(rig.counts_on(1).pending, 1);
    restart(&mut rig, &without);
    write(rig.source(0), "meanwhile", &content(4, 10_000));
    wait_stored_on(&rig, 0);
    // Back again: what was pending there still is, and what came meanwhile is, too.
    rig.others[0].mount_image();
    restart(&mut rig, &with);
    wait_stored_on(&rig, 1);
    assert_eq!(rig.status().unwrap().detectors[0].landed.files, 0, "nothing travelled again");
    assert_eq!(rig.counts_on(1).copied, 4);
}

/// What is stored is read again: damaged, missing and unreadable copies are named, and the exit code says so.
#[test]
fn verify_finds_what_is_not_as_it_was_stored() {
    if !is_root("verify_finds_what_is_not_as_it_was_stored") {
        return;
    }
    let rig = Rig::start(three());
    for n in 0..30u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 50_000));
    }
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    // An older version of a path is not looked for.
    write(rig.source(0), "run/0", &content(100, 50_000));
    (0..3).for_each(|storage| wait_stored_on(&rig, storage));
    let (text, code) = rig.command(&["verify"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("30 files (1.5 MB), 30 as stored").count(), 3, "{text}");

    flip_a_byte(&rig.stored_on(1, 0).join("run/7"));
    std::fs::remove_file(rig.stored_on(2, 0).join("run/8")).unwrap();
    let (text, code) = rig.command(&["verify"]);
    assert_eq!(code, 1, "{text}");
    let line = |storage: &str, name: &str, what: &str| {
        text.lines().any(|line| line.starts_with(storage) && line.contains(name) && line.contains(what))
    };
    assert!(line("external1", "/run/7 is", "damaged: its hash is"), "{text}");
    assert!(line("optional2", "/run/8 is", "missing"), "{text}");
    assert!(line("internal", "30 files", "30 as stored"), "{text}");
    assert_eq!(rig.command(&["verify", "--storage", "internal", "--shift", "current"]).1, 0);
    let (json, code) = rig.command(&["verify", "--json", "--storage", "external1"]);
    assert_eq!(code, 1);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert!(lines[0]["finding"]["path"].as_str().unwrap().ends_with("run/7"));
    assert_eq!(lines[1]["verified"]["storages"][0]["damaged"], 1);
    let (text, code) = rig.command(&["verify", "--shift", "20200101-000000"]);
    assert!(code == 1 && text.contains("no shift 20200101-000000 is known"), "{text}");

    rig.others[0].unmount_lazily();
    let (text, code) = rig.command(&["verify", "--storage", "external1"]);
    assert!(code == 1 && text.contains("NOT COMPLETE: nothing is mounted"), "{text}");
}

/// SPEC 3.3: a daemon without privileges, on a storage that does not let it change owners or groups.
#[test]
fn owners_are_left_to_the_operating_system_where_that_is_wished() {
    if !is_root("owners_are_left_to_the_operating_system_where_that_is_wished") {
        return;
    }
    use std::os::unix::fs::{PermissionsExt, chown};
    use support::rig::{GID, UID};
    let mut rig = Rig::prepare(Options {
        ppu_extra: "preserve_uid = false\npreserve_gid = false\n".to_owned(),
        storage_extra: QUICK.to_owned(),
        others: vec![],
        ..three()
    });
    rig.start_detector(0);
    let ours = [
        rig.dir.path(),
        &rig.dir.path().join("key"),
        &rig.dir.path().join("ppu.state"),
        rig.ppu_ramdisk.path(),
    ];
    for path in ours {
        chown(path, Some(UID), Some(GID)).unwrap();
    }
    // Below the storage's target everything belongs to a group that the daemon is not in.
    let data = rig.storage.path().join("data");
    chown(&data, Some(UID), Some(777)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o2775)).unwrap();
    rig.ppu = Some(support::daemon::Daemon::start_with("ppu", &rig.ppu_config(), |command| {
        std::os::unix::process::CommandExt::uid(command, UID);
        std::os::unix::process::CommandExt::gid(command, GID);
    }));
    rig.wait_linked();
    for n in 0..10u64 {
        write(rig.source(0), format!("run/{n}"), &content(n, 10_000));
    }
    wait_stored_on(&rig, 0);
    assert_eq!(rig.counts().failed, 0);
    let stored = rig.stored(0).join("run/3").metadata().unwrap();
    assert_eq!(
        (stored.uid(), stored.mtime_nsec()),
        (UID, rig.source(0).join("run/3").metadata().unwrap().mtime_nsec())
    );
}
