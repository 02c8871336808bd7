//! Files that a stream met while somebody wrote them, or seemed to.

use super::*;

#[test]
fn busy_waits_for_the_close() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.decline(transfer, Decline::Busy);
    let expected = [Word::Declined(transfer, Decline::Busy), Word::Withdrawn(offer, Withdrawal::Reopened)];
    assert_eq!(rig.words(), expected);
    rig.closed("a", 2);
    let offered = rig.offer();
    assert_eq!(offered.superseded, 1, "the first version was closed, and counted nowhere yet");
}

#[test]
fn a_writer_that_the_kernel_has_not_yet_taken_off_is_no_reason_to_wait_for_another_close() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let begun = rig.now;
    let mut offers = vec![rig.offer().offer];
    loop {
        let (transfer, _) = rig.want(offers[offers.len() - 1]);
        rig.decline(transfer, Decline::Busy);
        assert_eq!(rig.words().len(), 2, "declined and withdrawn; not offered at once");
        let Some(due) = rig.catalog.next_tick() else { break };
        rig.pass(due - rig.now);
        let offered = rig.offer();
        assert_eq!((offered.identity, offered.fresh), (identity(1), true));
        offers.push(offered.offer);
    }
    // Whoever writes for so long will close.
    assert_eq!(offers.len(), 10);
    assert!((1000..1100).contains(&(rig.now - begun).as_millis()));
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.words(), []);
    // A close begins anew, and nothing is left behind by what is gone.
    rig.closed("a", 2);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.decline(transfer, Decline::Busy);
    assert!(rig.catalog.next_tick().is_some_and(|due| due - rig.now < Duration::from_millis(3)));
    rig.gone("a");
    rig.pass(VANISH_GRACE);
    rig.words();
    assert_eq!(rig.catalog.next_tick(), None);
}

#[test]
fn busy_after_the_close_was_seen_is_offered_at_once() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.closed("a", 2);
    rig.decline(transfer, Decline::Busy);
    let words = rig.words();
    assert_eq!(words[1], Word::Withdrawn(offer, Withdrawal::Replaced));
    assert!(matches!(&words[2], Word::Offer(files) if files[0].superseded == 0));
}
