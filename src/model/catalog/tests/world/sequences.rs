//! What happens in the world: random sequences, and those that were found to matter.

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = Name> {
    0..4_u8
}

/// What moves files towards the PPU.
fn transport() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Watch),
        1 => Just(Step::Time),
        4 => Just(Step::ToPpu),
        4 => Just(Step::ToDetector),
        3 => Just(Step::StartSend),
        3 => Just(Step::EndSend),
        3 => any::<bool>().prop_map(|well| Step::Land { well }),
        1 => Just(Step::Grant),
    ]
}

fn anything() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => transport(),
        3 => name().prop_map(Step::Write),
        1 => name().prop_map(Step::Delete),
        1 => name().prop_map(Step::Open),
        1 => name().prop_map(Step::Close),
        1 => name().prop_map(Step::Touch),
        1 => name().prop_map(Step::Map),
        1 => name().prop_map(Step::Chmod),
        1 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
        1 => Just(Step::Overflow),
        1 => Just(Step::Break),
        1 => name().prop_map(Step::Fall),
    ]
}

fn releasing() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![Just(u64::MAX), 0..3_u64].prop_map(Step::Release),
        2 => Just(Step::ReleaseWork),
        2 => Just(Step::ReleaseReport),
        2 => Just(Step::Flow),
        1 => Just(Step::Watch),
        1 => name().prop_map(Step::Map),
    ]
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 2000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn in_the_end_the_ppu_has_what_is_there(steps in prop::collection::vec(anything(), 0..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        // A truncation or a chmod closes nothing: the next reconcile finds it.
        world.scan();
        world.settle();
        world.check();
    }

    /// Whatever is written, and however late the watch is, also through mappings, which move no time.
    #[test]
    fn only_what_the_ppu_has_leaves(steps in prop::collection::vec(prop_oneof![4 => anything(), 3 => releasing()], 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.scan();
        world.settle();
        world.check();
        world.everything_leaves();
    }

    /// Only what every side can see is counted: each close is told before the next.
    #[test]
    fn every_version_is_counted_once(
        steps in prop::collection::vec(prop_oneof![
            6 => transport(),
            2 => name().prop_map(Step::Write),
            1 => name().prop_map(Step::Delete),
            1 => Just(Step::Break),
            1 => name().prop_map(Step::Fall),
            2 => prop_oneof![
                2 => Just(Step::Release(u64::MAX)),
                2 => Just(Step::ReleaseWork),
                2 => Just(Step::ReleaseReport),
                1 => Just(Step::Flow),
            ],
        ], 0..150),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            while !world.events.is_empty() {
                world.step(Step::Watch);
            }
        }
        world.settle();
        world.check();
        let Ppu { landed, superseded, lost, .. } = world.ppu;
        prop_assert_eq!(landed + superseded + lost, world.produced);
    }
}

/// Only the close tells of a mapping's write; when it is looked at, the name it is told under may have another file, and the file
/// another ctime.
#[test]
fn a_close_speaks_for_all_names_of_the_file() {
    use Step::{Close, Flow, Link, Map, Overflow, Rename, Watch, Write};
    let check = |steps: &[Step]| {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(*step));
        world.settle();
        world.scan();
        world.settle();
        world.check();
        world.everything_leaves();
    };
    // A link has moved the ctime.
    check(&[Write(1), Watch, Flow, Link(1, 2), Watch, Flow, Map(1)]);
    // Another file has the name.
    check(&[Write(3), Write(0), Link(3, 1), Overflow, Flow, Map(3), Rename(0, 3)]);
    // A name that is given back: the old one is gone, and not told yet.
    let renamed = [Write(0), Watch, Write(3), Watch, Close(0), Watch, Map(0), Rename(0, 3), Watch, Flow];
    check(&[&renamed[..], &[Write(0), Rename(3, 0)]].concat());
}

/// It fell, and the link broke before that was told: what is written to it while it travels anew is the next version, not its first.
#[test]
fn what_fell_unheard_and_is_written_while_it_travels_again_counts() {
    use Step::{Break, Fall, Flow, ToDetector, Watch, Write};
    let mut world = World::new();
    let fallen = [Write(0), Watch, Write(3), Watch, Write(2), Watch, Flow, Fall(3), Fall(2), ToDetector];
    let written = [Break, Flow, Write(2), Watch, Write(2), Watch];
    fallen.iter().chain(&written).for_each(|step| world.step(*step));
    world.settle();
    world.check();
    let Ppu { landed, superseded, lost, .. } = world.ppu;
    assert_eq!(landed + superseded + lost, world.produced);
}

/// It landed as the link broke; it is offered again and replaced, and the newer version is quicker to land than it is to be declined.
#[test]
fn what_landed_unheard_and_is_replaced_counts_once() {
    use Step::{Break, Flow, ToDetector, ToPpu, Watch, Write};
    let mut world = World::new();
    let landed_unheard =
        [Write(1), Write(2), Write(0), Watch, Watch, Watch, Flow, Break, Write(3), Watch, Break, ToPpu, Flow];
    let replaced = [Break, Flow, Write(3), Watch, Write(1), Watch, ToPpu, ToPpu, Write(1), Watch, ToDetector];
    landed_unheard.iter().chain(&replaced).for_each(|step| world.step(*step));
    world.settle();
    world.check();
    let Ppu { landed, superseded, lost, .. } = world.ppu;
    assert_eq!(landed + superseded + lost, world.produced);
}

/// What was put back while events were lost is not waited for.
#[test]
fn a_file_put_back_in_an_overflow_is_there_again() {
    use Step::{Flow, Overflow, Release, ReleaseReport, ReleaseWork, Watch, Write};
    let mut world = World::new();
    let steps = [Write(0), Watch, Flow, Release(u64::MAX), Overflow, ReleaseWork, ReleaseReport, ReleaseWork];
    steps.iter().for_each(|step| world.step(*step));
    world.step(Overflow);
    world.settle();
    world.check();
    world.everything_leaves();
}
