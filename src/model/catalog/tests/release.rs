//! Releasing, one rule after the other.

use super::*;
use crate::model::release::{Order, Outcome, Report, Safe};

fn rig(safe: Safe) -> Rig {
    let rig = Rig::new();
    Rig { catalog: rig.catalog.with_release(safe), ..rig }
}

fn take(name: &str, version: u64) -> Order {
    Order::Take { path: path(name), identity: identity(version) }
}

fn taken() -> Outcome {
    Outcome::Taken { token: b"take-1"[..].into() }
}

impl Rig {
    /// The watch comes to where it was taken.
    fn told(&mut self, name: &str) {
        self.gone(name);
        self.event(Event::Taken { token: b"take-1"[..].into() });
    }

    fn stored(&mut self, offer: OfferId) {
        self.catalog.stored(&[offer]);
    }

    fn orders(&mut self, excess: u64) -> Vec<Order> {
        self.catalog.release(self.now, excess);
        std::iter::from_fn(|| self.catalog.next_release()).collect()
    }

    fn came_of(&mut self, name: &str, outcome: Outcome) {
        self.catalog.release_report(self.now, Report { path: path(name), outcome });
    }
}

#[test]
fn a_stored_file_is_taken_then_deleted_and_said_to_be_gone() {
    let mut rig = rig(Safe::Stored);
    let offer = rig.land("a", 1);
    assert_eq!(rig.orders(u64::MAX), [], "it has only landed");
    rig.stored(offer);
    assert_eq!(rig.orders(0), [], "the ramdisk is not that full");
    assert_eq!(rig.orders(1), [take("a", 1)]);
    rig.came_of("a", taken());
    assert_eq!(rig.orders(1), [], "a close may still be in the queue");
    rig.told("a");
    assert_eq!(rig.words(), [], "not gone before it is deleted");
    assert_eq!(rig.orders(1), [Order::Delete { path: path("a") }]);
    rig.came_of("a", Outcome::Deleted);
    assert_eq!(rig.words(), [Word::Gone(vec![offer])]);
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.words(), [], "and not lost");
    assert_eq!((rig.catalog.released(), rig.catalog.counts().files), ((1, 10), 0));
}

#[test]
fn landed_is_enough_where_that_is_the_policy() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    assert_eq!(rig.orders(u64::MAX), [take("a", 1)]);
}

#[test]
fn without_a_policy_nothing_leaves() {
    let mut rig = Rig::new();
    let offer = rig.land("a", 1);
    rig.stored(offer);
    assert_eq!(rig.orders(u64::MAX), []);
}

#[test]
fn oldest_close_first_and_no_more_than_needed() {
    let mut rig = rig(Safe::Landed);
    for (name, version) in [("c", 1), ("a", 2), ("b", 3)] {
        rig.land(name, version);
    }
    assert_eq!(rig.orders(25), [take("c", 1), take("a", 2)]);
    assert_eq!(rig.orders(30), [], "what is on its way out counts");
    assert_eq!(rig.orders(31), [take("b", 3)]);
}

#[test]
fn a_file_written_again_is_not_released_for_its_older_version() {
    let mut rig = rig(Safe::Stored);
    let offer = rig.land("a", 1);
    rig.closed("a", 2);
    rig.stored(offer);
    assert_eq!(rig.orders(u64::MAX), []);
    let newer = rig.offer().offer;
    rig.stored(offer);
    assert_eq!(rig.orders(u64::MAX), [], "an old offer says nothing of the new version");
    let (transfer, _) = rig.want(newer);
    rig.report(transfer, SendOutcome::Sent { identity: identity(2), settled: true });
    rig.catalog.landed(rig.now, &[newer]);
    assert_eq!(rig.orders(u64::MAX), [], "landed anew, stored not yet");
    rig.stored(newer);
    assert_eq!(rig.orders(u64::MAX), [take("a", 2)]);
}

#[test]
fn a_close_that_was_in_the_queue_brings_it_back() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    assert_eq!(rig.orders(u64::MAX), [take("a", 1)]);
    rig.came_of("a", taken());
    // Written through a mapping: the identity is the same.
    rig.closed("a", 1);
    rig.told("a");
    assert_eq!(rig.orders(u64::MAX), [Order::PutBack { path: path("a") }]);
    rig.closed("a", 5);
    rig.came_of("a", Outcome::Back);
    assert!(rig.offer().fresh, "its content is compared");
    assert!(!rig.catalog.is_releasing());
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.words(), [], "neither lost nor gone");
}

#[test]
fn a_going_of_long_ago_is_not_taken_for_ours() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    rig.orders(u64::MAX);
    // Both were in the queue before the file was taken.
    rig.gone("a");
    rig.closed("a", 1);
    rig.came_of("a", taken());
    assert_eq!(rig.orders(u64::MAX), []);
    rig.told("a");
    assert_eq!(rig.orders(u64::MAX), [Order::PutBack { path: path("a") }]);
}

#[test]
fn a_new_file_under_the_name_of_one_that_leaves_is_another() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    rig.orders(u64::MAX);
    rig.told("a");
    rig.closed("a", 2);
    rig.came_of("a", taken());
    assert_eq!(rig.orders(u64::MAX), [Order::Delete { path: path("a") }]);
    rig.came_of("a", Outcome::Deleted);
    let offered = rig.offer();
    assert_eq!((offered.identity, offered.superseded), (identity(2), 0));
    assert_eq!(rig.catalog.counts().files, 1);
}

#[test]
fn a_file_that_a_user_deleted_first_is_gone_as_usual() {
    let mut rig = rig(Safe::Landed);
    let offer = rig.land("a", 1);
    rig.orders(u64::MAX);
    rig.gone("a");
    rig.came_of("a", Outcome::Left("it is not there".to_owned()));
    assert_eq!(rig.words(), [Word::Gone(vec![offer])]);
}

#[test]
fn a_file_left_alone_waits_for_its_next_close() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    rig.orders(u64::MAX);
    rig.came_of("a", Outcome::Left("somebody has it open for writing".to_owned()));
    assert_eq!(rig.orders(u64::MAX), []);
    rig.land("a", 2);
    assert_eq!(rig.orders(u64::MAX), [take("a", 2)]);
}

#[test]
fn a_file_system_that_refuses_is_asked_again_later() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    rig.orders(u64::MAX);
    rig.came_of("a", Outcome::Failed("read-only".to_owned()));
    assert_eq!(rig.orders(u64::MAX), []);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.orders(u64::MAX), [take("a", 1)]);
}

#[test]
fn an_unsettled_identity_proves_nothing() {
    let mut rig = rig(Safe::Landed);
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.catalog.landed(rig.now, &[offer]);
    assert_eq!(rig.orders(u64::MAX), [], "the stream has not yet said whether it is settled");
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: false });
    assert_eq!(rig.orders(u64::MAX), []);
}

#[test]
fn a_new_session_says_again_what_is_stored() {
    let mut rig = rig(Safe::Stored);
    let offer = rig.land("a", 1);
    rig.stored(offer);
    rig.connect();
    let Some(Word::Offer(files)) = rig.words().into_iter().nth(2) else { panic!("no offer") };
    assert_eq!(rig.orders(u64::MAX), []);
    rig.catalog.landed(rig.now, &[files[0].offer]);
    assert_eq!(rig.orders(u64::MAX), []);
    rig.stored(files[0].offer);
    assert_eq!(rig.orders(u64::MAX), [take("a", 1)]);
}

#[test]
fn what_has_only_landed_stays_while_no_ppu_is_there() {
    for (safe, leaves) in [(Safe::Landed, 0), (Safe::Stored, 1)] {
        let mut rig = rig(safe);
        let offer = rig.land("a", 1);
        rig.stored(offer);
        rig.catalog.session_ends(rig.now);
        assert_eq!(rig.orders(u64::MAX).len(), leaves, "{safe:?}");
    }
}

#[test]
fn missed_events_take_every_proof_away() {
    let mut rig = rig(Safe::Stored);
    let offers = [rig.land("a", 1), rig.land("b", 2)];
    rig.catalog.stored(&offers);
    assert_eq!(rig.orders(1), [take("a", 1)]);
    rig.came_of("a", taken());
    rig.event(Event::Missed);
    rig.event(Event::ScanBegins);
    rig.found("b", 2);
    rig.event(Event::ScanEnds);
    assert_eq!(rig.orders(u64::MAX), [Order::PutBack { path: path("a") }]);
    assert!(rig.offer().fresh, "its content is to be compared");
}

#[test]
fn what_waits_too_long_for_its_event_is_put_back() {
    let mut rig = rig(Safe::Landed);
    rig.land("a", 1);
    rig.orders(u64::MAX);
    rig.came_of("a", taken());
    rig.pass(Duration::from_secs(21));
    assert_eq!(rig.orders(0), [Order::PutBack { path: path("a") }]);
    rig.came_of("a", Outcome::Back);
    rig.gone("a");
    rig.closed("a", 4);
    assert_eq!(rig.words().len(), 1, "offered, and never said to be gone");
    assert!(!rig.catalog.is_releasing());
}
