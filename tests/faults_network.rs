//! FAULTS.md, the rows of the network, in network namespaces: nothing here touches a real network. The number in each test's name
//! is its row.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ppu_uringd::model::status::LinkState;
use support::netns::Net;
use support::oracle::{check_all_stored, names, write};
use support::rig::{Options, Rig};
use support::{content, is_root, wait_at_most, wait_until};

fn start(detectors: usize) -> (Arc<Net>, Rig) {
    let net = Arc::new(Net::new(detectors));
    let rig = Rig::start(Options { detectors, net: Some(Arc::clone(&net)), ..Options::default() });
    (net, rig)
}

fn is_connected(rig: &Rig, detector: usize) -> bool {
    rig.status().is_some_and(|status| status.detectors[detector].link.state == LinkState::Connected)
}

/// Breaks the first detector's link in the middle of a run, by `fault`. It is noticed, the second detector's files land meanwhile, and
/// everything arrives after `cure`.
fn a_fault_in_the_middle(fault: impl Fn(&Net), cure: impl Fn(&Net)) {
    let (net, rig) = start(2);
    for n in 0..60u64 {
        write(rig.source(0), format!("before/{n}"), &content(n, 300_000));
    }
    fault(&net);
    for n in 0..60u64 {
        write(rig.source(0), format!("after/{n}"), &content(n, 100_000));
        write(rig.source(1), format!("{n}"), &content(n, 100_000));
    }
    wait_at_most(Duration::from_secs(15), "the other detector's files land", || {
        names(&rig.landing(1)).len() == 60
    });
    // Both sides go by the silence of 5 s.
    wait_at_most(Duration::from_secs(30), "the dead link is noticed", || !is_connected(&rig, 0));
    cure(&net);
    assert_eq!(check_all_stored(&rig), 180);
    assert_eq!(rig.counts().lost, 0);
}

#[test]
fn row_6_black_hole_both_ways() {
    if !is_root("row_6_black_hole_both_ways") {
        return;
    }
    let both = |net: &Net| {
        net.on_input(0, "drop");
        net.on_output(0, "drop");
    };
    a_fault_in_the_middle(both, |net| net.heal(0));
}

#[test]
fn row_7_black_hole_towards_the_detector() {
    if !is_root("row_7_black_hole_towards_the_detector") {
        return;
    }
    a_fault_in_the_middle(|net| net.on_input(0, "drop"), |net| net.heal(0));
}

#[test]
fn row_7_black_hole_towards_the_ppu() {
    if !is_root("row_7_black_hole_towards_the_ppu") {
        return;
    }
    a_fault_in_the_middle(|net| net.on_output(0, "drop"), |net| net.heal(0));
}

#[test]
fn row_8_one_packet_in_twenty_is_lost() {
    if !is_root("row_8_one_packet_in_twenty_is_lost") {
        return;
    }
    let (net, rig) = start(1);
    net.on_input(0, "numgen random mod 100 < 5 drop");
    net.on_output(0, "numgen random mod 100 < 5 drop");
    for n in 0..200u64 {
        write(rig.source(0), n.to_string(), &content(n, 50_000));
    }
    assert_eq!(check_all_stored(&rig), 200);
    assert_eq!(rig.status().unwrap().detectors[0].integrity_errors, 0);
}

#[test]
fn row_9_link_flap() {
    if !is_root("row_9_link_flap") {
        return;
    }
    let (net, rig) = start(1);
    for round in 0..8u64 {
        for n in 0..30u64 {
            write(rig.source(0), format!("{round}/{n}"), &content(100 * round + n, 200_000));
        }
        net.cable(0, false);
        // For a moment, and once for longer than a link may be silent.
        let pulled = Instant::now();
        let time = Duration::from_millis(if round == 4 { 6500 } else { 60 * round });
        wait_until("the cable was pulled for that long", || pulled.elapsed() >= time);
        net.cable(0, true);
    }
    assert_eq!(check_all_stored(&rig), 240);
    assert_eq!(rig.counts().lost, 0);
}

/// A backlog of 400 MB behind a link of 5 MB/s: neither side holds it in memory.
#[test]
fn row_10_slow_link_bounded_memory() {
    if !is_root("row_10_slow_link_bounded_memory") {
        return;
    }
    const GROWTH_MAX: u64 = 48 << 20;
    let (net, rig) = start(1);
    write(rig.source(0), "first", &content(0, 1_000_000));
    check_all_stored(&rig);
    let rss = || [rig.ppu.as_ref().unwrap().rss(), rig.detectors[0].as_ref().unwrap().rss()];
    let before = rss();
    net.slow(0, Some("40mbit"));
    for n in 0..100u64 {
        write(rig.source(0), format!("large/{n}"), &content(n, 4_000_000));
    }
    for n in 0..2000u64 {
        write(rig.source(0), format!("small/{}/{n}", n % 10), &content(n, 2000));
    }
    let landed = || rig.status().unwrap().detectors[0].landed.bytes;
    let began = Instant::now();
    wait_until("the link was slow for a while", || {
        let growth = rss().iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).max();
        assert!(growth < Some(GROWTH_MAX), "memory grows: {before:?} to {:?}", rss());
        began.elapsed() > Duration::from_secs(5)
    });
    assert!(landed() < 200_000_000, "the link was slow");
    net.slow(0, None);
    assert_eq!(check_all_stored(&rig), 2101);
}

/// The links of three detectors stand still, one by one, in an order that the seed gives. Those whose link stands well are not slower.
#[test]
fn row_11_links_stalled_one_by_one() {
    if !is_root("row_11_links_stalled_one_by_one") {
        return;
    }
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11_u64);
    println!("seed {seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (net, rig) = start(3);
    let mut files = [0u64; 3];
    for _ in 0..8 {
        let stalled = next(3) as usize;
        net.on_input(stalled, &format!("tcp dport {} drop", rig.ports[stalled]));
        for (detector, files) in files.iter_mut().enumerate() {
            for _ in 0..5 + next(20) {
                write(rig.source(detector), files.to_string(), &content(*files, 100_000));
                *files += 1;
            }
        }
        let began = Instant::now();
        wait_at_most(Duration::from_secs(15), "the others' files land", || {
            (0..3).all(|detector| {
                detector == stalled || names(&rig.landing(detector)).len() as u64 == files[detector]
            })
        });
        let time = Duration::from_millis(next(800));
        wait_until("the link stood still for that long", || began.elapsed() >= time);
        net.heal(stalled);
        wait_until("the stalled detector's files land", || {
            names(&rig.landing(stalled)).len() as u64 == files[stalled]
        });
    }
    assert_eq!(check_all_stored(&rig) as u64, files.iter().sum::<u64>());
    assert_eq!(rig.counts().lost, 0);
}
