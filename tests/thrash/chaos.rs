//! Breaks things, and heals them; and begins shifts in between.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::sys::signal::Signal;
use ppu_uringd::model::shift_report::{ShiftReport, Started};

use crate::beam::Beam;
use crate::random::Random;
use crate::support::daemon::BINARY;
use crate::support::mount::{Mount, run};
use crate::support::proxy::Proxy;
use crate::support::rig::{GID, Options, Other, Rig, UID};
use crate::support::wait_until;
use crate::{DETECTORS, STORAGES, say};

/// Whose shifts they are; one comes back now and then, with the same names.
const USERS: [(u32, u32); 3] = [(UID, GID), (701, 801), (702, 802)];
/// Of the last shift.
pub const LAST_USER: (u32, u32) = (799, 899);
/// Every so many steps a shift begins for sure.
const STEPS_PER_SHIFT: u64 = 6;

pub struct Chaos {
    pub rig: Rig,
    proxies: Vec<Proxy>,
    pub random: Random,
    beam: Arc<Beam>,
    steps: u64,
}

impl Chaos {
    /// Everything runs. A ramdisk and an internal storage that are too small for what comes.
    pub fn new(seed: u64, beam: &Arc<Beam>) -> Self {
        let mut random = Random::new(seed, 0);
        let quick = "retry_pause_ms = 50\nretry_pause_max_ms = 500\n";
        let other = |kind| Other { megabytes: 4096, ..Other::ext4(kind, quick) };
        let links = random.below(4) > 0;
        let mut rig = Rig::prepare(Options {
            detectors: DETECTORS,
            ppu_ramdisk: "size=40m,huge=within_size",
            ppu_extra: format!("create_links = {links}"),
            storage_megabytes: 200,
            storage_extra: quick.to_owned(),
            others: vec![other("external"), other("optional")],
            ..Options::default()
        });
        say(&format!("create_links = {links}"));
        let proxies: Vec<Proxy> = rig.ports.iter().map(|port| Proxy::start(*port)).collect();
        let mut config = std::fs::read_to_string(rig.ppu_config()).unwrap();
        for (port, proxy) in rig.ports.iter().zip(&proxies) {
            config = config.replace(&format!(":{port}\""), &format!(":{}\"", proxy.port));
        }
        std::fs::write(rig.ppu_config(), config).unwrap();
        // The first one releases what is stored.
        let config = std::fs::read_to_string(rig.detector_config(0)).unwrap();
        std::fs::write(rig.detector_config(0), format!("release = \"stored\"\n{config}")).unwrap();
        (0..DETECTORS).for_each(|detector| rig.start_detector(detector));
        rig.start_ppu();
        rig.wait_linked();
        Self { rig, proxies, random, beam: Arc::clone(beam), steps: 0 }
    }

    pub fn step(&mut self) {
        self.steps += 1;
        let detector = self.random.below(DETECTORS as u64) as usize;
        let storage = self.random.below(STORAGES as u64) as usize;
        let what = self.random.below(15);
        match what {
            _ if self.steps % STEPS_PER_SHIFT == 2 => self.next_shift(detector),
            0 => {
                say("the PPU is killed");
                self.kill_ppu();
            }
            1 | 2 => {
                say(&format!("detector {detector} is killed"));
                self.kill_detector(detector);
            }
            3 => {
                say("the PPU stands still");
                self.rig.ppu.as_ref().unwrap().signal(Signal::SIGSTOP);
                self.random.pause(50, 1500);
                self.rig.ppu.as_ref().unwrap().signal(Signal::SIGCONT);
            }
            4 => {
                say(&format!("detector {detector} stands still"));
                self.stand_still(detector);
            }
            5 => {
                say(&format!("the link of detector {detector} stalls"));
                self.stall(detector);
            }
            6 | 7 => {
                say(&format!("the link of detector {detector} breaks"));
                self.break_link(detector);
            }
            8 => {
                say(&format!("a bit flips on the link of detector {detector}"));
                let bytes = self.random.below(500_000);
                self.proxies[detector].flip_in(bytes);
            }
            9 | 10 => {
                say(&format!("storage {storage} is unmounted"));
                self.storage(storage).unmount_lazily();
                self.random.pause(50, 1500);
                self.storage(storage).mount_image();
            }
            11 => {
                let half = ["fetch", "store"][storage % 2];
                say(&format!("somebody pauses {half}, and the PPU is killed"));
                self.command("pause", half);
                self.random.pause(1, 400);
                self.kill_ppu();
                self.command("resume", half);
            }
            12 => {
                say("somebody else fills the ramdisk");
                let ballast = self.rig.ppu_ramdisk.path().join("ballast");
                fill(&ballast, self.rig.ppu_ramdisk.path());
                self.random.pause(50, 1000);
                std::fs::remove_file(ballast).unwrap();
            }
            13 => self.next_shift(detector),
            _ => {
                say(&format!("storage {storage} is full"));
                let ballast = self.storage(storage).path().join("ballast");
                fill(&ballast, self.storage(storage).path());
                self.random.pause(50, 1500);
                std::fs::remove_file(ballast).unwrap();
            }
        }
        self.random.pause(20, 500);
    }

    /// Another shift, while something else happens.
    fn next_shift(&mut self, detector: usize) {
        let user = USERS[self.random.below(USERS.len() as u64) as usize];
        let what = self.random.below(10);
        let said = match what {
            0..=3 => "",
            4 => ", while a detector stands still",
            5 => ", while a link stalls",
            6 => ", while a link breaks",
            7 => ", while a detector is dead",
            8 => ", while a detector dies",
            _ => ", while the PPU dies",
        };
        say(&format!("shift {} begins, of user {}{said}", self.beam.count(), user.0));
        if what == 7 {
            self.rig.detectors[detector].take().unwrap().kill();
            self.random.pause(1, 400);
        }
        let asked = self.beam.ask();
        let child = self.start_shift(user);
        match what {
            0..=3 => {}
            4 => self.stand_still(detector),
            5 => self.stall(detector),
            6 => self.break_link(detector),
            7 => {
                self.random.pause(1, 2500);
                self.rig.start_detector(detector);
            }
            8 => {
                self.random.pause(1, 50);
                self.kill_detector(detector);
            }
            _ => {
                self.random.pause(1, 50);
                self.kill_ppu();
            }
        }
        self.answered(asked, child.wait_with_output().unwrap());
    }

    /// The very last shift, with nothing in its way.
    pub fn last_shift(&mut self) {
        let asked = self.beam.ask();
        let output = self.start_shift(LAST_USER).wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.answered(asked, output);
    }

    fn start_shift(&self, (uid, gid): (u32, u32)) -> Child {
        let mut command = Command::new(BINARY);
        command.args(["shift", "start", "--json", "-u", &format!("{uid}:{gid}"), "--config"]);
        command.arg(self.rig.ppu_config()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Whether it has begun is for sure from now on, and every detector knows.
    fn answered(&mut self, asked: Instant, output: Output) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let before = self.beam.count();
        let begun = match serde_json::from_slice::<Started>(&output.stdout) {
            Ok(_) => true,
            // It will, whenever the disk has taken it.
            Err(_) if said.contains("as soon as it has") => {
                wait_until("the shift has begun", || shifts(&self.rig).len() > before);
                true
            }
            // The PPU was killed, or is just starting.
            Err(_) => {
                wait_until("the PPU answers", || !shifts(&self.rig).is_empty());
                let begun = shifts(&self.rig).len() > before;
                say(&format!("it has {}begun: {}", if begun { "" } else { "not " }, said.trim()));
                begun
            }
        };
        self.beam.answer(asked, begun);
        // A PPU that is killed while it waits for a word that is late forgets to (ARCHITECTURE.md, "Several words may be owed").
        wait_until("every detector knows the shift", || {
            let current = shifts(&self.rig).pop();
            current.is_some_and(|shift| shift.detectors.iter().all(|place| place.word == Some(true)))
        });
    }

    fn kill_ppu(&mut self) {
        self.rig.ppu.take().unwrap().kill();
        self.random.pause(1, 400);
        self.rig.start_ppu();
    }

    fn kill_detector(&mut self, detector: usize) {
        self.rig.detectors[detector].take().unwrap().kill();
        self.random.pause(1, 400);
        self.rig.start_detector(detector);
    }

    fn stand_still(&mut self, detector: usize) {
        self.rig.detectors[detector].as_ref().unwrap().signal(Signal::SIGSTOP);
        self.random.pause(50, 1500);
        self.rig.detectors[detector].as_ref().unwrap().signal(Signal::SIGCONT);
    }

    fn stall(&mut self, detector: usize) {
        self.proxies[detector].mischief.stalled.store(true, Ordering::SeqCst);
        self.random.pause(50, 2000);
        self.proxies[detector].mischief.stalled.store(false, Ordering::SeqCst);
    }

    fn break_link(&self, detector: usize) {
        run(Command::new("ss").args(["-K", "dport", "=", &self.proxies[detector].port.to_string()]));
    }

    /// A daemon that is just starting does not answer yet.
    fn command(&self, command: &str, half: &str) {
        wait_until("the daemon answers", || self.rig.command(&[command, half]).1 == 0);
    }

    fn storage(&self, storage: usize) -> &Mount {
        if storage == 0 { &self.rig.storage } else { &self.rig.others[storage - 1] }
    }
}

/// All that the PPU knows, oldest first; none while it does not answer.
pub fn shifts(rig: &Rig) -> Vec<ShiftReport> {
    let mut command = Command::new(BINARY);
    command.args(["shift", "list", "--json", "-n", "100000", "--config"]).arg(rig.ppu_config());
    let answer = serde_json::from_slice::<serde_json::Value>(&command.output().unwrap().stdout);
    answer.ok().and_then(|answer| serde_json::from_value(answer["shifts"].clone()).ok()).unwrap_or_default()
}

/// Takes what is free, to the last megabyte or so.
fn fill(ballast: &Path, mount: &Path) {
    let free = nix::sys::statvfs::statvfs(mount).unwrap();
    let bytes = free.blocks_available() * free.fragment_size();
    let file = File::create(ballast).unwrap();
    // What the daemon writes meanwhile may be faster.
    let _ = rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        bytes.saturating_sub(1 << 20).max(1),
    );
}
