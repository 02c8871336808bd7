//! What the world of both sides (`tests/model_world`) has found, one by one.

use super::*;
use crate::model::offer::Withdrawal;

const EPOCH_NS: i64 = 1_785_542_399_000_000_000;
const NEXT: ShiftId = ShiftId(8);

/// As files are that were last written that long after the first look at the clock.
fn written(after: Duration) -> Identity {
    let stamp = EPOCH_NS + after.as_nanos() as i64;
    Identity { size: 10, mtime_ns: stamp, ino: 1, ctime_ns: stamp }
}

/// A file of the first shift is on offer when the next shift begins, a second after the first look at the clock.
fn offered_when_the_next_begins() -> (Rig, OfferId) {
    let mut rig = Rig::without_ppu();
    let began = rig.now;
    rig.catalog.look_at_clock(Moment { at: began, file_ns: EPOCH_NS });
    rig.catalog.session_begins(rig.now);
    let hear = |rig: &mut Rig, shift, began_now| {
        let file_ns = EPOCH_NS + rig.now.duration_since(began).as_nanos() as i64;
        let moment = Moment { at: rig.now, file_ns };
        rig.catalog.shift_began(moment, Announced { shift, source: None, began: began_now, more: false });
        while let Some(number) = rig.catalog.mark_due() {
            rig.catalog.marked(number, moment, moment, true);
            rig.event(Event::Mark(number));
        }
        if let Some((revision, _)) = rig.catalog.unsaved_shifts() {
            rig.catalog.shifts_saved(revision);
        }
    };
    hear(&mut rig, SHIFT, Began::Ever);
    rig.words();
    rig.pass(Duration::from_millis(500));
    let at = rig.now;
    rig.event(Event::Closed { path: path("a"), identity: written(Duration::from_millis(500)), at });
    let offer = rig.offer();
    assert_eq!(offer.shift, SHIFT);
    rig.pass(Duration::from_millis(500));
    hear(&mut rig, NEXT, Began::Now);
    assert_eq!(rig.words(), [Word::ShiftWord(NEXT)]);
    rig.pass(Duration::from_millis(500));
    (rig, offer.offer)
}

/// What is offered instead of the older offer.
#[track_caller]
fn offered_anew(rig: &mut Rig, older: OfferId) -> ShiftId {
    let words: Vec<Word> =
        rig.words().into_iter().filter(|word| !matches!(word, Word::Declined(..))).collect();
    let [Word::Withdrawn(withdrawn, Withdrawal::Reopened), Word::Offer(files)] = &words[..] else {
        panic!("{words:?}")
    };
    assert_eq!((*withdrawn, files.len()), (older, 1));
    files[0].shift
}

/// The stream meets what was written after the shift had begun; the watch has not told of its close yet.
#[test]
fn a_write_whose_close_is_not_told_goes_by_its_times() {
    let (mut rig, offer) = offered_when_the_next_begins();
    let (transfer, job) = rig.want(offer);
    assert!(job.is_some());
    let identity = Some(written(Duration::from_millis(1400)));
    rig.report(transfer, SendOutcome::Declined { why: Decline::Changed, identity });
    assert_eq!(offered_anew(&mut rig, offer), NEXT);
}

#[test]
fn a_close_that_changes_nothing_moves_an_offer_to_its_shift() {
    let (mut rig, offer) = offered_when_the_next_begins();
    let at = rig.now;
    rig.event(Event::Closed { path: path("a"), identity: written(Duration::from_millis(500)), at });
    assert_eq!(offered_anew(&mut rig, offer), NEXT);
}

/// What had landed fell from the PPU's ramdisk, and what the file is by now no shift takes: else the PPU would wait for it for ever.
#[test]
fn what_fell_and_is_outside_by_now_is_gone() {
    let mut rig = Rig::new();
    let offer = rig.land("out", 1);
    hear_of(&mut rig.catalog, rig.now, NEXT, Some(path("in")), Began::Now);
    assert_eq!(rig.words(), [Word::ShiftWord(NEXT)]);
    rig.closed("out", 2);
    let before = rig.words();
    rig.catalog.fell(&[offer]);
    let gone = |word: &Word| matches!(word, Word::Gone(offers) if offers.contains(&offer));
    assert_eq!(before.iter().chain(&rig.words()).filter(|word| gone(word)).count(), 1);
}

/// It is told apart by that whether it was closed before a shift had begun for the PPU, as long as that waits for our word on the shift.
#[test]
fn what_a_scan_meets_in_place_of_what_waits_was_closed_by_then() {
    let mut rig = Rig::without_ppu();
    let met = |rig: &mut Rig, identity: Identity| {
        rig.pass(Duration::from_secs(1));
        rig.event(Event::ScanBegins);
        let at = rig.now;
        rig.event(Event::Found { path: path("a"), identity, at });
        rig.event(Event::ScanEnds);
    };
    rig.closed("a", 1);
    met(&mut rig, written(Duration::ZERO));
    // A link or a chmod is no close.
    met(&mut rig, Identity { ctime_ns: EPOCH_NS + 5, ..written(Duration::ZERO) });
    rig.connect();
    let words = rig.words();
    let [Word::ShiftWord(_), Word::ManifestBegin, Word::Offer(files), Word::ManifestEnd] = &words[..] else {
        panic!("{words:?}")
    };
    assert_eq!((files[0].closed_us_ago / 1000, files.len()), (1000, 1), "{words:?}");
}
