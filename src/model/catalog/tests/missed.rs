//! Closes that were lost by the kernel: a scan meets what they left behind.

use super::*;

/// The PPU may have what is on offer, and never asks for it: the newer file would wait for the next scan.
#[test]
fn what_a_scan_meets_instead_of_what_is_on_offer_is_offered() {
    let mut rig = Rig::without_ppu();
    rig.closed("a", 1);
    rig.connect();
    let (rest, old) = (rig.words(), OfferId(1));
    assert!(matches!(&rest[..], [.., Word::ManifestEnd]), "{rest:?}");
    rig.found("a", 2);
    rig.catalog.landed(rig.now, &[old]);
    let words = rig.words();
    let [Word::Withdrawn(withdrawn, Withdrawal::Reopened), Word::Gone(gone), Word::Offer(files)] = &words[..]
    else {
        panic!("{words:?}")
    };
    assert_eq!((*withdrawn, &gone[..], files[0].identity), (old, &[old][..], identity(2)));
}

#[test]
fn what_a_scan_meets_behind_a_send_is_offered_after_it() {
    for lands in [true, false] {
        let mut rig = Rig::new();
        rig.closed("a", 1);
        let offer = rig.offer().offer;
        let (transfer, _) = rig.want(offer);
        rig.found("a", 2);
        let outcome = match lands {
            true => SendOutcome::Sent { identity: identity(1), settled: true },
            false => SendOutcome::Changed { identity: Some(identity(2)) },
        };
        rig.report(transfer, outcome);
        rig.found("a", 3);
        if lands {
            rig.catalog.landed(rig.now, &[offer]);
        }
        let offered: Vec<_> = rig.words().into_iter().filter(|word| matches!(word, Word::Offer(_))).collect();
        let [Word::Offer(files)] = &offered[..] else { panic!("{offered:?}") };
        assert_eq!(files[0].identity, identity(3), "landed: {lands}");
        assert_eq!(files[0].superseded, 0, "nobody has seen another close");
    }
}

/// The scan was early: it met a file that was being written again.
#[test]
fn a_close_that_is_told_after_the_scan_is_one_version() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.found("a", 2);
    rig.closed("a", 3);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    rig.catalog.landed(rig.now, &[offer]);
    let offered = rig.offer();
    assert_eq!((offered.identity, offered.superseded, offered.fresh), (identity(3), 0, true));
}

/// A file was deleted while it was on its way, and made anew, which nobody told.
#[test]
fn a_name_that_is_there_again_behind_a_send_is_offered() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.gone("a");
    rig.found("a", 2);
    rig.decline(transfer, Decline::Vanished);
    let words = rig.words();
    let [Word::Declined(..), Word::Withdrawn(withdrawn, Withdrawal::Replaced), Word::Offer(files)] =
        &words[..]
    else {
        panic!("{words:?}")
    };
    assert_eq!((*withdrawn, files[0].identity), (offer, identity(2)));
}

/// Of a file that was renamed over one on its way, the watch told only that its old name is gone.
#[test]
fn a_file_that_a_scan_meets_under_a_name_on_its_way_is_not_lost() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.closed("b", 2);
    rig.offer();
    rig.gone("b");
    rig.found("a", 2);
    rig.pass(2 * VANISH_GRACE);
    let lost = |word: &Word| matches!(word, Word::Withdrawn(_, Withdrawal::Vanished));
    let words = rig.words();
    assert!(!words.iter().any(lost), "{words:?}");
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    rig.catalog.landed(rig.now, &[offer]);
    assert_eq!(rig.offer().identity, identity(2));
}

/// A close is looked at when it is told: a file that was written, renamed and written anew is seen before the old name's going is told.
#[test]
fn what_a_scan_meets_again_is_not_gone() {
    for newer in [1, 2] {
        for lands in [true, false] {
            let mut rig = Rig::new();
            rig.closed("a", 1);
            let offer = rig.offer().offer;
            let (transfer, _) = rig.want(offer);
            if newer > 1 {
                rig.closed("a", newer);
            }
            rig.gone("a");
            rig.event(Event::Missed);
            rig.event(Event::ScanBegins);
            rig.found("a", newer);
            rig.event(Event::ScanEnds);
            if lands {
                rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
                rig.catalog.landed(rig.now, &[offer]);
            } else {
                rig.decline(transfer, Decline::Changed);
            }
            rig.pass(VANISH_GRACE);
            let words = rig.words();
            let offered = words.iter().filter_map(|word| match word {
                Word::Offer(files) => Some(&files[0]),
                _ => None,
            });
            let offered: Vec<_> = offered.map(|file| (file.identity, file.superseded)).collect();
            assert_eq!(offered, [(identity(newer), 0)], "{newer} lands {lands}: {words:?}");
            let vanished =
                |word: &Word| matches!(word, Word::Withdrawn(_, Withdrawal::Vanished) | Word::Gone(_));
            assert!(!words.iter().any(vanished), "{newer} lands {lands}: {words:?}");
        }
    }
}
