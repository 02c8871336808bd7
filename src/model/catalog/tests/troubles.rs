//! What the catalog makes of what goes wrong.

use super::*;
use crate::model::release::{Outcome, Report, Safe};
use crate::model::trouble::{Matter, Trouble, What};

const SECOND: Duration = Duration::from_secs(1);

impl Rig {
    fn refused(&mut self, name: &str) {
        self.catalog.release(self.now, u64::MAX);
        while self.catalog.next_release().is_some() {}
        let outcome = Outcome::Failed("take /ramdisk/a: Operation not permitted".to_owned());
        self.catalog.release_report(self.now, Report { path: path(name), outcome });
    }

    /// The matters of what is told now, and the numbers of what is over.
    fn troubles(&mut self) -> (Vec<Matter>, Vec<u64>) {
        let (mut told, mut over) = (Vec::new(), Vec::new());
        for word in self.words() {
            match word {
                Word::Trouble(report) => {
                    self.catalog.noted(report.number);
                    told.push(report.matter);
                }
                Word::TroubleOver(number) => over.push(number),
                _ => {}
            }
        }
        (told, over)
    }
}

fn hearing_rig() -> Rig {
    let rig = Rig::new();
    let mut rig = Rig { catalog: rig.catalog.with_release(Safe::Landed), ..rig };
    rig.catalog.noted(0);
    rig
}

#[test]
fn a_file_that_cannot_be_removed_is_told_once_and_over_when_it_is_gone() {
    let mut rig = hearing_rig();
    rig.land("a", 1);
    for tries in 0..8 {
        rig.refused("a");
        rig.pass(SECOND);
        let expected = if tries == 2 { vec![Matter::CannotRemove] } else { vec![] };
        assert_eq!(rig.troubles(), (expected, vec![]), "after {tries} s");
    }
    rig.gone("a");
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.troubles(), (vec![], vec![1]));
}

#[test]
fn a_file_that_is_removed_after_all_was_no_trouble() {
    let mut rig = hearing_rig();
    rig.land("a", 1);
    rig.refused("a");
    rig.pass(SECOND);
    rig.catalog.release(rig.now, u64::MAX);
    while rig.catalog.next_release().is_some() {}
    let outcome = Outcome::Taken { token: b"take-1"[..].into() };
    rig.catalog.release_report(rig.now, Report { path: path("a"), outcome });
    rig.pass(10 * SECOND);
    assert_eq!(rig.troubles(), (vec![], vec![]));
}

#[test]
fn a_ppu_that_does_not_say_that_it_hears_is_told_nothing() {
    let mut rig = Rig::new();
    rig.event(Event::Met(Trouble::new(What::WatchEnded, "poll: EIO")));
    assert_eq!(rig.words(), [], "an older one");
    rig.catalog.noted(0);
    assert_eq!(rig.troubles(), (vec![Matter::CannotLand], vec![]));
    // The next one may be an older one again.
    rig.connect();
    assert_eq!(rig.troubles(), (vec![], vec![]));
    rig.catalog.noted(0);
    assert_eq!(rig.troubles(), (vec![Matter::CannotLand], vec![]));
}

#[test]
fn a_clock_that_is_set_is_told() {
    let mut rig = hearing_rig();
    let at = |rig: &Rig, seconds: i64| Moment { at: rig.now, file_ns: seconds * 1_000_000_000 };
    rig.catalog.look_at_clock(at(&rig, 1000));
    rig.now += SECOND;
    rig.catalog.look_at_clock(at(&rig, 1001));
    assert_eq!(rig.troubles(), (vec![], vec![]));
    rig.now += SECOND;
    rig.catalog.look_at_clock(at(&rig, 4602));
    let words = rig.words();
    let [Word::Trouble(report)] = &words[..] else { panic!("{words:?}") };
    assert_eq!((report.matter, report.lasts), (Matter::Clock, false));
    assert!(report.text.as_str().starts_with("its clock was set: by +3600.0 s. "), "{report:?}");
}

#[test]
fn the_next_tick_is_in_time_for_a_trouble() {
    let mut rig = hearing_rig();
    rig.event(Event::Met(Trouble::new(What::RamdiskLost, "nothing is mounted there")));
    assert_eq!(rig.catalog.next_tick(), Some(rig.now + 3 * SECOND));
    rig.pass(3 * SECOND);
    assert_eq!(rig.troubles(), (vec![Matter::CannotLand], vec![]));
    rig.event(Event::Over(What::RamdiskLost));
    assert_eq!(rig.troubles(), (vec![], vec![1]));
    assert_eq!(rig.catalog.next_tick(), None);
}
