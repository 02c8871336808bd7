//! A private network: the PPU and each detector in a namespace of its own, a cable between.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::mount::run;

/// Namespaces and cables; gone when dropped.
pub struct Net {
    name: String,
    detectors: usize,
}

impl Net {
    pub fn new(detectors: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = Self { name: format!("ppu-{}-{n}", std::process::id()), detectors };
        let ppu = net.ppu();
        ip(&["netns", "add", &ppu]);
        inside(&ppu, "ip link set lo up");
        for detector in 0..detectors {
            let there = net.detector(detector);
            ip(&["netns", "add", &there]);
            let (here, peer) = (format!("d{detector}"), "ppu");
            ip(&["-n", &ppu, "link", "add", &here, "type", "veth", "peer", "name", peer, "netns", &there]);
            inside(&ppu, &format!("ip addr add 10.77.{detector}.1/24 dev {here}"));
            inside(&ppu, &format!("ip link set {here} up"));
            inside(&there, &format!("ip addr add {}/24 dev {peer}", net.address(detector)));
            inside(&there, "ip link set lo up");
            inside(&there, &format!("ip link set {peer} up"));
        }
        net
    }

    /// Where detector N listens.
    pub fn address(&self, detector: usize) -> String {
        format!("10.77.{detector}.2")
    }

    /// The command before a command that runs it beside the PPU.
    pub fn at_ppu(&self) -> Vec<String> {
        prefix(&self.ppu())
    }

    /// The command before a command that runs it beside detector N.
    pub fn at_detector(&self, detector: usize) -> Vec<String> {
        prefix(&self.detector(detector))
    }

    /// Packets that come in at detector N meet this rule of nftables.
    pub fn on_input(&self, detector: usize, rule: &str) {
        self.rule(detector, "input", rule);
    }

    /// Packets that leave detector N meet this rule of nftables.
    pub fn on_output(&self, detector: usize, rule: &str) {
        self.rule(detector, "output", rule);
    }

    /// No more rules.
    pub fn heal(&self, detector: usize) {
        inside(&self.detector(detector), "nft flush ruleset");
    }

    /// Pulls the cable, or plugs it in.
    pub fn cable(&self, detector: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        inside(&self.ppu(), &format!("ip link set d{detector} {state}"));
    }

    /// What leaves detector N leaves at this rate (`40mbit`); `None`: as fast as it can.
    pub fn slow(&self, detector: usize, rate: Option<&str>) {
        match rate {
            Some(rate) => inside(
                &self.detector(detector),
                &format!("tc qdisc replace dev ppu root tbf rate {rate} burst 32kb latency 100ms"),
            ),
            None => inside(&self.detector(detector), "tc qdisc del dev ppu root"),
        }
    }

    fn rule(&self, detector: usize, hook: &str, rule: &str) {
        let there = self.detector(detector);
        inside(&there, "nft add table inet fault");
        let chain = format!("nft add chain inet fault {hook} {{ type filter hook {hook} priority 0 ; }}");
        inside(&there, &chain);
        inside(&there, &format!("nft add rule inet fault {hook} {rule}"));
    }

    fn ppu(&self) -> String {
        format!("{}-ppu", self.name)
    }

    fn detector(&self, detector: usize) -> String {
        format!("{}-d{detector}", self.name)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let names = (0..self.detectors).map(|detector| self.detector(detector)).chain([self.ppu()]);
        for name in names {
            // What a failed start has not made cannot be removed.
            let _ = Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status();
        }
    }
}

/// Not `ip netns exec`, which would give it mounts of its own.
fn prefix(name: &str) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{name}")]
}

#[track_caller]
fn inside(name: &str, command: &str) {
    let mut whole = Command::new("nsenter");
    run(whole.arg(format!("--net=/run/netns/{name}")).args(command.split_whitespace()));
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}
