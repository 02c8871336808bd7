use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    book: Troubles,
    now: Instant,
}

fn rig() -> Rig {
    Rig { book: Troubles::new(7, b"/ramdisk/"), now: Instant::now() }
}

fn path(n: usize) -> Option<RelPath> {
    Some(RelPath::new(format!("run/{n}").as_bytes()).unwrap())
}

impl Rig {
    fn met(&mut self, what: What, n: usize) {
        self.book.met(self.now, Trouble::with(what, path(n), "EIO"));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.book.tick(self.now);
    }

    /// Everything that a PPU hears now, and notes.
    fn hear(&mut self) -> Vec<Say> {
        self.book.noted(0);
        let mut heard = Vec::new();
        while let Some(say) = self.book.say(self.now) {
            if let Say::Trouble(report) = &say {
                self.book.noted(report.number);
            }
            heard.push(say);
        }
        heard
    }

    fn numbers(&mut self) -> Vec<u64> {
        self.hear().into_iter().filter_map(number).collect()
    }
}

fn number(say: Say) -> Option<u64> {
    match say {
        Say::Trouble(report) => Some(report.number),
        Say::Over(_) => None,
    }
}

#[test]
fn what_a_listing_meets_is_told_once_and_is_over_when_it_is_not_met() {
    let mut rig = rig();
    for round in 0..5 {
        rig.book.scan_begins();
        rig.met(What::Unlisted, 1);
        if round < 3 {
            rig.met(What::Unlisted, 2);
        }
        rig.book.scan_ends();
        rig.pass(30 * SECOND);
        let heard = rig.hear();
        match round {
            0 => {
                let [Say::Trouble(first), Say::Trouble(second)] = &heard[..] else { panic!("{heard:?}") };
                assert_eq!((first.life, first.number, first.lasts, first.us_ago), (7, 1, true, 30_000_000));
                assert_eq!(first.about.as_bytes(), b"/ramdisk/run/1");
                assert_eq!((second.number, second.about.as_bytes()), (2, &b"/ramdisk/run/2"[..]));
            }
            3 => assert_eq!(heard, [Say::Over(2)]),
            _ => assert_eq!(heard, []),
        }
    }
    // Met again it is a new one.
    rig.met(What::Unlisted, 2);
    assert_eq!(rig.numbers(), [3]);
}

#[test]
fn what_passes_in_a_moment_is_no_trouble() {
    let mut rig = rig();
    rig.met(What::NotReleased, 1);
    rig.met(What::NotReleased, 2);
    assert_eq!(rig.hear(), []);
    assert_eq!(rig.book.next_tick(), Some(rig.now + 3 * SECOND));
    rig.pass(2 * SECOND);
    rig.book.gone(&path(1).unwrap());
    rig.met(What::NotReleased, 3);
    rig.pass(SECOND);
    let heard = rig.hear();
    let [Say::Trouble(told)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((told.about.as_bytes(), told.us_ago), (&b"/ramdisk/run/2"[..], 3_000_000));
    assert_eq!(rig.book.next_tick(), Some(rig.now + 2 * SECOND), "of the third");
    rig.book.gone(&path(2).unwrap());
    assert_eq!(rig.hear(), [Say::Over(1)]);
}

#[test]
fn nothing_is_lost_by_a_link_that_breaks_and_what_lasts_is_said_in_every_session() {
    let mut rig = rig();
    rig.met(What::Unlisted, 1);
    rig.met(What::StagingKept, 0);
    assert_eq!(rig.book.say(rig.now), None, "nobody hears");
    assert!(rig.book.wait() && !rig.book.are_heard());
    // Said, and the link breaks before it is noted.
    rig.book.noted(0);
    let said: Vec<Say> = std::iter::from_fn(|| rig.book.say(rig.now)).collect();
    assert_eq!(said.into_iter().filter_map(number).collect::<Vec<_>>(), [1, 2]);
    rig.book.session_ends();
    assert_eq!(rig.numbers(), [1, 2]);
    assert_eq!(rig.hear(), [], "once in a session");
    assert!(!rig.book.wait());
    for _ in 0..3 {
        rig.book.session_ends();
        assert_eq!(rig.numbers(), [1], "it lasts");
    }
    // Over while nobody is there: nothing is left to say.
    rig.book.session_ends();
    rig.book.scan_begins();
    rig.book.scan_ends();
    assert_eq!(rig.hear(), []);
}

#[test]
fn what_began_and_ended_while_nobody_was_there_is_told_all_the_same() {
    let mut rig = rig();
    rig.book.met(rig.now, Trouble::new(What::RamdiskLost, "nothing is mounted there"));
    rig.pass(5 * SECOND);
    rig.book.over(What::RamdiskLost, None);
    rig.pass(100 * SECOND);
    let heard = rig.hear();
    let [Say::Trouble(told)] = &heard[..] else { panic!("{heard:?}") };
    assert!(!told.lasts && told.us_ago == 105_000_000 && told.about.as_bytes().is_empty(), "{told:?}");
    rig.book.session_ends();
    assert_eq!(rig.hear(), []);
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut rig = rig();
    (0..REPORTS_MAX + 50).for_each(|n| rig.met(What::Unlisted, n));
    let heard = rig.hear();
    assert_eq!(heard.len(), REPORTS_MAX + 1);
    let Some(Say::Trouble(last)) = heard.last() else { panic!() };
    assert!(last.text.as_str().contains("50 more troubles") && !last.lasts, "{last:?}");
    // Though as many as may be kept go on, others are counted on.
    rig.met(What::StagingKept, 0);
    assert_eq!(rig.hear(), [], "not more than one sum a minute");
    rig.pass(EVERY);
    let heard = rig.hear();
    let [Say::Trouble(sum)] = &heard[..] else { panic!("{heard:?}") };
    assert!(sum.text.as_str().contains("1 more trouble."), "{sum:?}");
    // The next listing does not tell them again.
    rig.book.scan_begins();
    (0..REPORTS_MAX + 50).for_each(|n| rig.met(What::Unlisted, n));
    rig.book.scan_ends();
    rig.pass(EVERY);
    assert_eq!(rig.hear(), []);
}

#[test]
fn more_than_can_be_known_by_name_is_said_to_be_more() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.book.scan_begins();
        (0..LASTING_MAX + 1000).for_each(|n| rig.met(What::Unlisted, n));
        rig.book.scan_ends();
    }
    assert_eq!(rig.book.lasting.len(), LASTING_MAX);
    assert_eq!(rig.book.uncounted.count, (LASTING_MAX - REPORTS_MAX + 1) as u64);
}

#[test]
fn a_ppu_that_notes_what_it_cannot_have_heard_swallows_nothing() {
    let mut rig = rig();
    rig.book.noted(u64::MAX);
    rig.met(What::StagingKept, 0);
    rig.book.noted(u64::MAX);
    assert_eq!(rig.numbers(), [1]);
}

/// What may happen to a book.
#[derive(Debug, Clone)]
enum Step {
    Met(usize, usize),
    Over(usize, usize),
    Scan(Vec<(usize, usize)>),
    Pass(u64),
    SessionEnds,
    Hears,
    Say(usize),
    Note,
}

fn step() -> impl Strategy<Value = Step> {
    let which = || (0..What::ALL.len() - 1, 0..4_usize);
    prop_oneof![
        8 => which().prop_map(|(what, n)| Step::Met(what, n)),
        3 => which().prop_map(|(what, n)| Step::Over(what, n)),
        1 => proptest::collection::vec(which(), 0..5).prop_map(Step::Scan),
        4 => (0..90_u64).prop_map(Step::Pass),
        1 => Just(Step::SessionEnds),
        3 => Just(Step::Hears),
        6 => (1..8_usize).prop_map(Step::Say),
        4 => Just(Step::Note),
    ]
}

proptest! {
    /// A PPU that passes over what it has noted hears of everything exactly once, or of its count, and in the end knows exactly what lasts.
    #[test]
    fn everything_is_told_once_or_counted(steps in proptest::collection::vec(step(), 0..300)) {
        let mut rig = rig();
        let (mut told, mut noted) = (Vec::new(), 0);
        let mut lasting = BTreeSet::new();
        let mut take = |say: Say, lasting: &mut BTreeSet<u64>| match say {
            Say::Over(number) => assert!(lasting.remove(&number), "only what was said to last"),
            Say::Trouble(report) => {
                assert!(!report.lasts || lasting.insert(report.number), "once in a session");
                if report.number > told.last().copied().unwrap_or(0) {
                    told.push(report.number);
                }
            }
        };
        let mut here = false;
        for step in steps {
            match step {
                Step::Met(what, n) => rig.met(What::ALL[what], n),
                Step::Over(what, n) => rig.book.over(What::ALL[what], path(n).as_ref()),
                Step::Scan(met) => {
                    rig.book.scan_begins();
                    met.into_iter().for_each(|(what, n)| rig.met(What::ALL[what], n));
                    rig.book.scan_ends();
                }
                Step::Pass(seconds) => rig.pass(Duration::from_secs(seconds)),
                Step::SessionEnds => {
                    rig.book.session_ends();
                    here = false;
                    lasting.clear();
                }
                Step::Hears => {
                    rig.book.noted(0);
                    here = true;
                }
                Step::Say(most) => {
                    for _ in 0..most {
                        let Some(say) = rig.book.say(rig.now) else { break };
                        take(say, &mut lasting);
                    }
                }
                Step::Note if here => {
                    rig.book.noted(noted);
                    noted = rig.book.session.as_ref().map_or(0, |session| session.said);
                }
                Step::Note => {}
            }
            prop_assert!(rig.book.reports.len() <= REPORTS_MAX + 1);
        }
        rig.book.session_ends();
        lasting.clear();
        for _ in 0..3 {
            rig.pass(EVERY);
            for say in rig.hear() {
                take(say, &mut lasting);
            }
        }
        prop_assert!(!rig.book.wait());
        prop_assert_eq!(told.len() as u64, rig.book.last_number, "every number");
        let lasts = |told: &Told| match told { Told::Report(number) => Some(*number), _ => None };
        let expected: BTreeSet<u64> =
            rig.book.lasting.values().filter_map(|lasting| lasts(&lasting.told)).collect();
        prop_assert_eq!(lasting, expected);
    }
}
