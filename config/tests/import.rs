//! `import`: typical files and messy ones against what must come of them, and whatever bytes there may be.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use ppu_config::{OldText, Ppu, StorageKind, Verdict, import};
use proptest::prelude::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name)
}

/// The result and the report are as in `NAME.toml` and `NAME.report`; with BLESS=1 these are written instead.
#[track_caller]
fn check(name: &str, furka: Option<&str>, grimsel: Option<&str>) -> Result<Ppu, String> {
    let load = |file: &str| OldText::load(&golden(file)).unwrap();
    let imported = import(furka.map(load).as_ref(), grimsel.map(load).as_ref(), Path::new("ppu.toml"));
    let mut report: String = imported
        .findings
        .iter()
        .map(|finding| {
            format!("{:?} | {} | {} | {}\n", finding.verdict, finding.from, finding.key, finding.what)
        })
        .collect();
    if let Err(error) = &imported.checked {
        report += &format!("{error}\n");
    }
    for (suffix, is) in [("toml", &imported.toml), ("report", &report)] {
        let file = golden(&format!("{name}.{suffix}"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, is).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(*is, expected, "{}: if that is as it should be, run with BLESS=1", file.display());
    }
    imported.checked.map(|checked| checked.config).map_err(|error| error.to_string())
}

#[test]
fn what_beamlines_have_is_complete_at_once() {
    let config = check("usual", Some("furka.conf"), Some("grimsel.conf")).unwrap();
    assert_eq!((config.uid, config.gid, &*config.user_dir), (500, 501, "$UID_$GID"));
    assert_eq!(config.ramdisk, Path::new("/ramdisk"));
    let [first, second] = &config.detectors[..] else { panic!() };
    assert_eq!((&*first.id, first.address.to_string()), ("1MF", "10.10.10.11:49371".to_owned()));
    assert_eq!((first.min_pause.as_millis(), first.interrun_pause.as_millis()), (10, 500));
    assert_eq!(second.source, Path::new("images"));
    let kinds: Vec<_> =
        config.storages.iter().map(|storage| (storage.kind, storage.target.to_str().unwrap())).collect();
    assert_eq!(
        kinds,
        [
            (StorageKind::Internal, "/data"),
            (StorageKind::External, "/media/usb/data"),
            (StorageKind::Optional, "/nfs/beamline")
        ]
    );
    assert_eq!(config.storages.iter().map(|storage| storage.queue_depth).collect::<Vec<_>>(), [12, 2, 8]);
    // It counted for the internal one only.
    let guarded: Vec<_> = config.storages.iter().map(|storage| storage.mountpoint.is_some()).collect();
    assert_eq!(guarded, [true, false, false]);
    assert!((config.create_links, config.preserve_uid, config.preserve_gid) == (true, true, false));
    assert_eq!((config.fillstate_limit, config.history_max_entries), (0.8, 100));
    assert_eq!(config.interfaces.status.unwrap().to_string(), "0.0.0.0:47199");
    assert_eq!((config.log.max_size, config.log.max_number), (20_971_520, 10));
}

#[test]
fn what_is_missing_is_named() {
    let error = check("messy", Some("messy-furka.conf"), Some("messy-grimsel.conf")).unwrap_err();
    for missing in
        ["uid: is missing", "gid: is missing", "detector.address: is missing", "storage.kind: is missing"]
    {
        assert!(error.contains(missing), "{missing}: {error}");
    }
}

#[test]
fn half_of_it_is_half_a_file() {
    let error = check("furka-only", Some("furka.conf"), None).unwrap_err();
    assert!(error.contains("storage: none is internal") && error.lines().count() == 1, "{error}");
    let error = check("grimsel-only", None, Some("grimsel.conf")).unwrap_err();
    assert!(error.contains("detector: there is none") && error.contains("uid: is missing"), "{error}");
}

#[test]
fn strange_marks_do_not_matter() {
    let text = "fillstate_limit = 97\n[storageID a b]\ntype=internal\ntarget=/data\nmountpoint = /mnt\n";
    let imported = import(None, Some(&OldText::new(Path::new("g"), text)), Path::new("x"));
    for expected in [
        "fillstate_limit = 0.97",
        "almost_overflow = 0.97",
        "id = \"a_b\"",
        "#mountpoint = \"/mnt\"  # DECIDE",
    ] {
        assert!(imported.toml.contains(expected), "{expected}: {}", imported.toml);
    }
}

#[test]
fn files_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("old.conf");
    assert!(OldText::load(&file).unwrap_err().to_string().contains("No such file"));
    std::fs::write(&file, vec![b'#'; 1 + (1 << 20)]).unwrap();
    assert!(OldText::load(&file).unwrap_err().to_string().contains("1 MiB"));
    std::fs::write(&file, b"uid = 500\nusrdir = \xff\n").unwrap();
    let imported = import(Some(&OldText::load(&file).unwrap()), None, Path::new("x"));
    let finding = imported.findings.iter().find(|finding| finding.key == "usrdir").unwrap();
    assert_eq!((finding.verdict, &*finding.from), (Verdict::Decide, "old.conf:2"));
}

/// Lines that old files are made of, with values that make trouble.
fn line() -> impl Strategy<Value = String> {
    let keys = [
        "uid",
        "gid",
        "usrdir",
        "logfile",
        "logfile_max_size",
        "logfile_max_number",
        "[detectorID",
        "detectorID",
        "remoteIP",
        "source",
        "target",
        "minpause",
        "interrun_pause",
        "ramdisk_mountpoint",
        "create_links",
        "preserve_uid",
        "status_port",
        "message_port",
        "history_max_entries",
        "fillstate_limit",
        "[storageID",
        "storageID",
        "type",
        "n_copy_processes",
        "mountpoint",
        "licensekey",
        "}",
        "[",
    ];
    let values = prop_oneof![
        any::<String>(),
        proptest::sample::select(vec![
            "1",
            "0",
            "-1",
            "1e999",
            "NaN",
            "99999999999999999999",
            "/",
            "/ramdisk",
            "/ramdisk/./a",
            "..",
            "INTERNAL]",
            "EXTERNAL",
            "\"",
            "'a",
            "\u{1}",
            "#",
            "{",
            "500",
            "0.5",
            "80%",
            "10.0.0.1",
            "[::1]",
            "::",
            "é",
            "$UID",
            "yes",
            "10 MB",
            "\\u0000",
            "'''",
            "]]",
        ])
        .prop_map(str::to_owned),
    ];
    (
        proptest::sample::select(keys.to_vec()),
        proptest::sample::select(vec![" = ", "=", ": ", " ", ""]),
        values,
    )
        .prop_map(|(key, between, value)| format!("{key}{between}{value}"))
}

proptest! {
    /// Never a panic; always a file that can be parsed, whose every problem is one of content, not of syntax; every line in the report or empty.
    #[test]
    fn whatever_is_in_them(
        furka in proptest::option::of(proptest::collection::vec(line(), 0..20)),
        grimsel in proptest::option::of(proptest::collection::vec(line(), 0..20)),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just(" ; ")],
    ) {
        let old = |lines: Option<Vec<String>>| lines.map(|lines| OldText::new(Path::new("/etc/old.conf"), &lines.join(end)));
        let (furka, grimsel) = (old(furka), old(grimsel));
        let imported = import(furka.as_ref(), grimsel.as_ref(), Path::new("x.toml"));
        let read: Result<toml::Table, _> = imported.toml.parse();
        prop_assert!(read.is_ok(), "{read:?}: {}", imported.toml);
        for finding in &imported.findings {
            let text = format!("{}{}{}", finding.from, finding.key, finding.what);
            prop_assert!(!text.contains(char::is_control), "{finding:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        let old = OldText::new(Path::new("old.conf"), &text);
        let imported = import(Some(&old), Some(&old), Path::new("x.toml"));
        prop_assert!(imported.toml.parse::<toml::Table>().is_ok(), "{}", imported.toml);
    }
}
