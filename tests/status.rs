//! `ppu-uringd status`, the real binary, against a daemon that only answers.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ppu_uringd::model::attention::problems;
use ppu_uringd::model::half::Paused;
use ppu_uringd::model::status::{
    Amount, Daemon, Health, Journal, Latency, Left, Ramdisk, Rate, Room, STATUS_VERSION, StatusReport,
    Storage,
};
use ppu_uringd::serve::control::{ControlSocket, Response};
use tempfile::TempDir;

fn status(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ppu-uringd")).arg("status").args(arguments).output().unwrap()
}

/// Runs `client` while a daemon answers at `socket`.
fn with_daemon(socket: &Path, report: StatusReport, client: impl FnOnce()) {
    let socket = ControlSocket::bind(socket).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let serve = socket.serve(move |_, answer| {
                    answer.send(Response::Status(Box::new(report.clone()))).unwrap();
                });
                tokio::select! {
                    ended = serve => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        // Dropped on a panic of the client too: then the daemon ends, and the panic is seen.
        let _stop = stop;
        client();
    });
}

fn report() -> StatusReport {
    let report = StatusReport {
        version: STATUS_VERSION,
        at_ms: 1_785_542_399_000,
        daemon: Daemon {
            software: "ppu-uringd 0.1.0".to_owned(),
            pid: 77,
            uptime_s: 3600,
            engine: "uring".to_owned(),
            verify: true,
        },
        ramdisk: Ramdisk {
            path: "/ramdisk".to_owned(),
            room: Room { total_bytes: 9, free_bytes: 4 },
            left: Left::default(),
        },
        journal: Journal::Ok,
        paused: Paused::default(),
        detectors: vec![],
        storages: vec![Storage {
            id: "internal".to_owned(),
            kind: "internal".to_owned(),
            target: "/data".to_owned(),
            health: Health::Unavailable { reason: "/data is not a mount point".to_owned() },
            since_ms: None,
            in_flight: 0,
            pending: 3,
            rate: Rate::default(),
            stored: Amount::default(),
            room: Room::default(),
            left: Left::default(),
        }],
        shifts: vec![],
        latency: Latency::default(),
        fills: vec![],
        problems: vec![],
        advice: vec![],
        messages: vec![],
    };
    StatusReport { problems: problems(&report), ..report }
}

#[test]
fn a_table_without_colours_where_nobody_looks_and_json_for_scripts() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    let control = socket.to_str().unwrap();
    with_daemon(&socket, report(), || {
        let table = status(&["--control", control]);
        assert!(table.status.success());
        let text = String::from_utf8(table.stdout).unwrap();
        assert!(!text.contains('\x1b'), "{text}");
        assert_eq!(
            text.lines().nth(1),
            Some(
                "ERROR   storage internal unavailable: /data is not a mount point. 3 files pending: mount or repair it; resumes by itself"
            )
        );
        let json = status(&["--control", control, "--json"]);
        assert_eq!(serde_json::from_slice::<StatusReport>(&json.stdout).unwrap(), report());
    });
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    let output = status(&["--control", "/nowhere/control.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("ppu-uringd: no daemon answers at /nowhere/control.sock: is `ppu-uringd ppu`"));
}

#[test]
fn the_socket_is_found_through_the_configuration() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("control.sock");
    let config = directory.path().join("ppu.toml");
    let shipped = ppu_config::PPU_EXAMPLE;
    assert!(shipped.contains("\"/run/ppu-uringd/control.sock\""));
    fs::write(&config, shipped.replace("/run/ppu-uringd/control.sock", socket.to_str().unwrap())).unwrap();
    with_daemon(&socket, report(), || {
        let output = status(&["--config", config.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    });
    fs::write(&config, "ramdisk = 5").unwrap();
    assert_eq!(status(&["--config", config.to_str().unwrap()]).status.code(), Some(2));
}
