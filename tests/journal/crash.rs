//! The process is killed (SIGKILL) at random moments (FAULTS 3).

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use ppu_uringd::journal::{News, start};

use crate::model::{history, open_sound};

/// Set in the environment of the process to be killed: where its journal is, and the seed of its records.
const VICTIM: &str = "PPU_URINGD_TEST_JOURNAL_VICTIM";
const RECORDS: usize = 600;

#[test]
fn what_was_committed_survives_sigkill() {
    for seed in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--nocapture"])
            .env(VICTIM, format!("{seed} {}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The end comes after some number of commits, and then a little later.
        let mut committed = 0;
        let enough = 1 + (seed as usize * 37) % 25;
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let said = lines.filter_map(|line| line.unwrap().strip_prefix("committed ")?.parse().ok());
        for (count, up_to) in said.enumerate() {
            committed = up_to;
            if count + 1 == enough {
                std::thread::park_timeout(Duration::from_micros(seed * 531));
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();

        let (_, models) = history(seed, RECORDS);
        let known = open_sound(dir.path()).1;
        let found = models.iter().rposition(|model| model.known() == known);
        let found = found.unwrap_or_else(|| panic!("seed {seed}: a state that never was"));
        assert!(found >= committed, "seed {seed}: {committed} records were committed, {found} are there");
        assert!(committed > 0);
    }
}

/// Not a test of its own: the process that the test above kills.
#[test]
fn victim() {
    let Ok(what) = env::var(VICTIM) else { return };
    let (seed, dir) = what.split_once(' ').unwrap();
    let (records, _) = history(seed.parse().unwrap(), RECORDS);
    let (journal, _) = open_sound(dir.as_ref());
    let running = start(journal, |news| {
        if let News::Committed { up_to } = news {
            println!("\ncommitted {up_to}");
        }
    })
    .unwrap();
    for chunk in records.chunks(10) {
        for record in chunk {
            running.records.send(record.clone()).unwrap();
        }
        // Spreads the records over many commits.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    drop(running.records);
    running.thread.join().unwrap();
}
