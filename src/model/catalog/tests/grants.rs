//! Files that go out unasked.

use super::*;

const GRANTED: TransferId = TransferId(100);

/// With one grant, for files of at most 1,000 bytes.
fn granted() -> Rig {
    let mut rig = Rig::new();
    rig.catalog.granted(vec![GRANTED], 1000);
    rig
}

/// What goes out unasked now, and nothing else.
fn goes_out(rig: &mut Rig) -> OfferId {
    let words = rig.words();
    let [Word::Coming(coming)] = &words[..] else { panic!("{words:?}") };
    let [(coming, job)] = &coming[..] else { panic!("{coming:?}") };
    assert_eq!((coming.transfer, coming.shifts_heard, job.transfer), (GRANTED, 1, GRANTED));
    assert_eq!((&coming.file.path, coming.file.identity), (&job.path, job.identity));
    coming.file.offer
}

fn sent(version: u64) -> SendOutcome {
    SendOutcome::Sent { identity: identity(version), settled: true }
}

#[test]
fn only_what_is_new_small_and_alone_goes_unasked() {
    let mut rig = granted();
    rig.closed("large", 101);
    assert_eq!(rig.offer().identity.size, 1010);
    rig.found("met by a scan", 2);
    rig.offer();
    for name in ["several", "at once"] {
        rig.closed(name, 3);
    }
    assert_eq!(rig.offers().len(), 2, "one grant is not enough");
    rig.closed("alone", 4);
    let offer = goes_out(&mut rig);
    rig.catalog.landed(rig.now, &[offer]);
    rig.closed("no grant is left", 5);
    rig.offer();
    rig.catalog.granted(vec![GRANTED], 1000);
    rig.closed("alone", 6);
    rig.offer(); // of that name the PPU has one already, which may be the same
}

#[test]
fn what_was_not_taken_is_an_offer_like_any_other() {
    let mut rig = granted();
    rig.closed("a", 1);
    let offer = goes_out(&mut rig);
    rig.report(GRANTED, sent(1));
    rig.closed("a", 2);
    assert_eq!(rig.words(), [], "as far as is known it has landed, or will be asked for again");
    rig.catalog.not_taken(rig.now, GRANTED);
    let words = rig.words();
    assert!(
        matches!(&words[..], [Word::Withdrawn(old, Withdrawal::Replaced), Word::Offer(_)] if *old == offer)
    );
}

#[test]
fn how_the_earlier_of_two_transfers_ends_means_nothing() {
    let mut rig = granted();
    rig.closed("a", 1);
    let offer = goes_out(&mut rig);
    rig.catalog.not_taken(rig.now, GRANTED);
    let (wanted, job) = rig.want(offer);
    assert!(job.is_some());
    rig.report(GRANTED, sent(1));
    rig.decline(wanted, Decline::Busy);
    let expected = [Word::Declined(wanted, Decline::Busy), Word::Withdrawn(offer, Withdrawal::Reopened)];
    assert_eq!(rig.words(), expected);
}

/// A shift is heard of that had begun before it was closed, while the PPU's "not taken" is on its way; or the PPU asks for it again.
#[test]
fn what_was_not_taken_goes_to_the_shift_that_it_belongs_to_by_then() {
    for asked_again in [false, true] {
        let mut rig = granted();
        rig.pass(Duration::from_secs(60));
        rig.closed("a", 1);
        let offer = goes_out(&mut rig);
        rig.report(GRANTED, sent(1));
        let later = ShiftId(SHIFT.0 + 1);
        hear_of(&mut rig.catalog, rig.now, later, None, Began::Ago { us: 30_000_000 });
        assert_eq!(rig.words(), [Word::ShiftWord(later)], "it may have been taken");
        if asked_again {
            assert_eq!(rig.want(offer).1, None, "not under the shift that it was offered for");
        } else {
            rig.catalog.not_taken(rig.now, GRANTED);
        }
        let words = rig.words();
        let withdrawn = words.contains(&Word::Withdrawn(offer, Withdrawal::Reopened));
        let Some(Word::Offer(files)) = words.last() else { panic!("{words:?}") };
        assert!(withdrawn && files[0].shift != SHIFT, "{words:?}");
    }
}
