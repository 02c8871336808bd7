//! What scripts and people build on: JSON as it is documented, exit codes, help, and no riddles.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::daemon::BINARY;
use support::documented::{compare, has_form};
use support::oracle::write;
use support::rig::{Options, Rig};
use support::{content, is_root, wait_until};

/// Every command that says something to a script, and enough to make it ask the daemon.
const OF_THE_DAEMON: [&[&str]; 11] = [
    &["status"],
    &["shift", "start"],
    &["shift", "show"],
    &["shift", "list"],
    &["pause", "fetch"],
    &["resume", "store"],
    &["messages"],
    &["add", "/dev/null"],
    &["retry"],
    &["verify"],
    &["add", "--wait", "/dev/null"],
];

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output is one object, as it is documented.
#[track_caller]
fn documented(name: &str, output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {output:?}"));
    has_form(name, &said);
    assert_eq!(said["version"], 1, "{name}");
    said
}

#[test]
fn the_daemons_answers_are_as_documented() {
    if !is_root("the_daemons_answers_are_as_documented") {
        return;
    }
    let rig = Rig::start(Options {
        storage: "tmpfs",
        storage_megabytes: 64,
        ppu_extra: "history_max_entries = 1".to_owned(),
        ..Options::default()
    });
    let config = rig.ppu_config();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--json").arg("--config").arg(&config).output().unwrap()
    };
    write(rig.source(0), "a", &content(1, 1000));
    wait_until("it is stored", || rig.counts().copied == 1);
    let said = documented("pause", &ask(&["pause", "store"]), 0);
    assert_eq!((&said["half"], &said["changed"]), (&json!("store"), &json!(true)));
    assert_eq!(documented("pause", &ask(&["resume", "store"]), 0)["since_ms"], Value::Null);
    let said = documented("retry", &ask(&["retry"]), 0);
    assert_eq!((&said["copies"], &said["files"]), (&json!(0), &json!(0)));
    let said = documented("verify", &ask(&["verify"]), 0);
    assert_eq!(said["verified"]["storages"][0]["same"], 1);
    std::fs::write(rig.stored(0).join("a"), b"damaged").unwrap();
    let output = ask(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let (finding, verified) = text.split_once('\n').unwrap();
    has_form("verify finding", &serde_json::from_str(finding).unwrap());
    has_form("verify", &serde_json::from_str(verified).unwrap());

    let extra = rig.ppu_ramdisk.path().join("run 7.log");
    std::fs::write(&extra, b"a log").unwrap();
    let output = ask(&["add", "--wait", extra.to_str().unwrap(), "/no/such/file"]);
    let said = documented("add", &output, 1);
    assert_eq!(said["files"][0]["outcome"], "stored", "{said}");
    assert_eq!(
        (&said["files"][1]["path"], &said["files"][1]["outcome"]),
        (&json!("/no/such/file"), &json!("refused"))
    );
    assert!(stderr(&output).contains("/no/such/file: No such file"), "{}", stderr(&output));
    assert_eq!(documented("add", &ask(&["add", extra.to_str().unwrap()]), 0)["files"][0]["outcome"], "taken");

    let said = documented("shift start", &ask(&["shift", "start", "-u", "700:800"]), 0);
    assert_eq!((&said["shift"]["uid"], &said["silent"]), (&json!(700), &json!([])));
    let shown = documented("shift show", &ask(&["shift", "show"]), 0);
    assert_eq!(shown["start_ms"], said["shift"]["start_ms"]);
    let list = documented("shift list", &ask(&["shift", "list"]), 0);
    assert_eq!(list["shifts"].as_array().unwrap().len(), 2);
    let messages = ask(&["messages"]);
    let lines: Vec<Value> = messages
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    lines.iter().for_each(|line| has_form("messages", line));
    assert!(lines.iter().any(|line| line["code"] == "PAUSED"), "{lines:?}");
    let said = documented("config check", &ask(&["config", "check"]), 0);
    assert_eq!((&said["role"], &said["fit"]), (&json!("ppu"), &json!(true)));
    // The list has both shifts; the status forgets the first one when nothing is to be done in it.
    wait_until("the status remembers the current shift alone", || {
        let status: Value = serde_json::from_slice(&ask(&["status"]).stdout).unwrap();
        assert_eq!(status["version"], 1);
        let shifts = status["shifts"].as_array().unwrap();
        shifts.len() == 1 && shifts[0]["start_ms"] == shown["start_ms"]
    });
}

#[test]
fn what_needs_no_daemon_is_as_documented_too() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let said = documented("config check", &run(&["config", "check", "--host", "--json"]), 0);
    assert_eq!((&said["file"], &said["role"]), (&Value::Null, &Value::Null));
    let bad = at("bad.toml");
    std::fs::write(&bad, "state_dir = \"/var/lib/x\"\nramdisk = 5\n[[detector]]\n").unwrap();
    let output = run(&["config", "check", "--json", "--config", &bad]);
    let said = documented("config check", &output, 2);
    assert_eq!(said["fit"], false);
    let of_ramdisk = |finding: &&Value| finding["key"] == "ramdisk" && finding["line"] == 2;
    assert!(said["findings"].as_array().unwrap().iter().any(|finding| of_ramdisk(&finding)), "{said}");
    assert!(stderr(&output).contains("bad.toml:2: ramdisk: "), "people read the same: {}", stderr(&output));
    let said = documented("config check", &run(&["config", "check", "--json", "--config", &at("none")]), 2);
    assert_eq!(said["findings"][0]["key"], "file");

    let old = |name| format!("{}/config/tests/import/{name}", env!("CARGO_MANIFEST_DIR"));
    let import =
        ["config", "import", "--json", "--furka", &old("furka.conf"), "--grimsel", &old("grimsel.conf")];
    let said = documented("config import", &run(&import), 0);
    assert!(said["toml"].as_str().unwrap().contains("[[storage]]") && said["output"].is_null(), "{said}");
    let new = at("ppu.toml");
    let said = documented("config import", &run(&[&import[..], &["--output", &new]].concat()), 0);
    assert_eq!(
        (&said["output"], said["toml"].as_str().unwrap()),
        (&json!(new), &*std::fs::read_to_string(&new).unwrap())
    );

    let (target, count) = (at("images"), ["--rate=0", "--count=3", "--size=4kB"]);
    let simulate = [&["simulate", "--json", "--target", &target], &count[..]].concat();
    assert_eq!(documented("simulate", &run(&simulate), 0)["files"], 3);
    let disk = directory.path().to_str().unwrap();
    let output = run(&["demo", "--json", "--disk", disk, "--files=3", "--rate=0", "--size=4kB"]);
    let said = documented("demo", &output, 0);
    assert_eq!((&said["passed"], &said["written"]["files"]), (&json!(true), &json!(3)));
    assert!(stderr(&output).contains("comparing every byte"), "{}", stderr(&output));
}

#[test]
fn without_a_daemon_every_command_says_what_to_do() {
    for command in OF_THE_DAEMON {
        for json in [&[][..], &["--json"]] {
            let output = run(&[command, &["--control", "/no/such/control.sock"], json].concat());
            assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
            assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
            let said = stderr(&output);
            assert!(
                said.contains("no daemon answers at /no/such/control.sock: is `ppu-uringd ppu` running?"),
                "{said}"
            );
        }
    }
}

#[test]
fn wrong_usage_is_2_and_named() {
    for (arguments, word) in [
        (&["nonsense"][..], "nonsense"),
        (&["status", "--jsn"], "--json"),
        (&["status", "extra"], "extra"),
        (&["status", "--config", "/no/such/ppu.toml"], "/no/such/ppu.toml: cannot be read"),
        (&["status", "--config", "a", "--control", "b"], "cannot be used with"),
        (&["shift"], "Usage"),
        (&["shift", "start", "-u", "root"], "UID"),
        (&["shift", "start", "-u", "0"], "root"),
        (&["shift", "start", "-d", "1MF"], "ID:SOURCE:TARGET"),
        (&["pause"], "fetch|store"),
        (&["pause", "all"], "all"),
        (&["messages", "--code", "NONSENSE"], "NONSENSE"),
        (&["messages", "--since", "yesterday"], "yesterday"),
        (&["add"], "PATH"),
        (&["config", "check"], "--config"),
        (&["config", "import", "--furka", "/no/such/file"], "/no/such/file"),
        (&["simulate", "--target", "/tmp", "--size", "much"], "2.4MB"),
        (&["demo", "--rate=-1"], "--rate"),
        (&["tune"], "--config"),
        (&["completions", "tcsh"], "bash"),
        (&["ppu"], "--config"),
        (&["ppu", "--config", "/no/such/ppu.toml"], "/no/such/ppu.toml"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(word), "{arguments:?}: no {word:?} in {}", stderr(&output));
    }
}

/// The commands below `before`, as its help lists them.
fn commands(before: &[&str]) -> Vec<String> {
    let output = run(&[before, &["--help"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let list = text.split_once("Commands:\n").unwrap().1;
    let list = list.split_once("\n\n").map_or(list, |(list, _)| list);
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself_its_exit_codes_and_its_json() {
    let mut all = Vec::new();
    for command in commands(&[]) {
        match command.as_str() {
            "config" | "shift" => {
                let each = commands(&[&command]);
                all.extend(each.into_iter().map(|sub| vec![command.clone(), sub]));
            }
            _ => all.push(vec![command]),
        }
    }
    assert!(all.len() >= 18, "{all:?}");
    for command in all {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = run(&arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{command:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Exit codes: 0 = "), "{help}");
        let is_for_people = matches!(command[0].as_str(), "completions" | "detector" | "ppu");
        assert_eq!(help.contains("--json"), !is_for_people, "{help}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().to_str().unwrap().to_owned();
    let commands: [&[&str]; 4] = [
        &["completions", "bash"],
        &["config", "check", "--host"],
        &["config", "check", "--host", "--json"],
        &["simulate", "--rate=0", "--count=1", "--size=4kB", "--force", "--target", &target],
    ];
    for command in commands {
        let ends = |to: Stdio| Command::new(BINARY).args(command).stdout(to).output().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = ends(writer.into());
        assert!(output.status.success(), "{command:?}: {output:?}");
        let output = ends(File::options().write(true).open(Path::new("/dev/full")).unwrap().into());
        assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
        assert!(stderr(&output).contains("standard output: No space left"), "{}", stderr(&output));
    }
    // Nobody hears the reason; the exit code still tells.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let arguments = ["status", "--control", "/no/such/control.sock"];
    let status = Command::new(BINARY).args(arguments).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_difference_is_found() {
    let of = |example: &str, said: &str| {
        compare(&serde_json::from_str(example).unwrap(), &serde_json::from_str(said).unwrap())
    };
    assert_eq!(of(r#"{"a":[{"b":1}],"c":null}"#, r#"{"a":[{"b":2},{"b":3}],"c":"x"}"#), Ok(()));
    assert_eq!(of(r#"{"a":[{"b":1}]}"#, r#"{"a":[]}"#), Ok(()));
    assert_eq!(of(r#"{"a":[{"b":1}]}"#, r#"{"a":[{"b":1},{"c":1}]}"#), Err(".a[].c".to_owned()));
    assert_eq!(of(r#"{"a":1,"b":1}"#, r#"{"a":1}"#), Err(".b (missing)".to_owned()));
    assert_eq!(of(r#"{"a":1}"#, r#"{"a":"1"}"#), Err(".a (kind)".to_owned()));
}
