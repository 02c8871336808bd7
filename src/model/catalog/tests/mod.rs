//! One rule after the other; `world` tries them all together.

mod busy;
mod found;
mod grants;
mod manifest;
mod missed;
mod ppu;
mod release;
mod shifts;
mod troubles;
mod world;

use std::time::{Duration, Instant};

use super::*;
use crate::model::file_version::TransferId;
use crate::model::offer::{Decline, Offered};
use crate::model::offer::{OFFER_PAGE_FILES, OFFER_WINDOW, Wanted};
use crate::model::send::{SendJob, SendOutcome, SendReport};
use crate::model::shift::Began;

const SHIFT: ShiftId = ShiftId(7);

struct Rig {
    catalog: Catalog,
    now: Instant,
    transfers: u64,
}

fn path(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn identity(version: u64) -> Identity {
    Identity { size: 10 * version, mtime_ns: version as i64, ino: version, ctime_ns: version as i64 }
}

/// The PPU tells of the current shift; marks are made, come by, and are remembered at once.
fn hear_of(catalog: &mut Catalog, at: Instant, shift: ShiftId, source: Option<RelPath>, began: Began) {
    let now = Moment { at, file_ns: 0 };
    catalog.shift_began(now, Announced { shift, source, began, more: false });
    while let Some(number) = catalog.mark_due() {
        catalog.marked(number, now, now, true);
        catalog.event(at, Event::Mark(number));
    }
    if let Some((revision, _)) = catalog.unsaved_shifts() {
        catalog.shifts_saved(revision);
    }
}

impl Rig {
    /// Scanned, nothing found, a PPU connected, its manifest ended.
    fn new() -> Self {
        let mut rig = Self::without_ppu();
        rig.connect();
        assert_eq!(rig.words(), [Word::ShiftWord(SHIFT), Word::ManifestBegin, Word::ManifestEnd]);
        rig
    }

    fn without_ppu() -> Self {
        let now = Instant::now();
        let mut rig = Self { catalog: Catalog::new(now), now, transfers: 0 };
        rig.event(Event::ScanBegins);
        rig.event(Event::ScanEnds);
        rig
    }

    fn connect(&mut self) {
        self.catalog.session_begins(self.now);
        hear_of(&mut self.catalog, self.now, SHIFT, None, Began::Ever);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.catalog.tick(self.now);
    }

    fn event(&mut self, event: Event) {
        self.now += Duration::from_micros(10);
        self.catalog.event(self.now, event);
    }

    fn closed(&mut self, name: &str, version: u64) {
        self.event(Event::Closed { path: path(name), identity: identity(version), at: self.now });
    }

    fn found(&mut self, name: &str, version: u64) {
        self.event(Event::Found { path: path(name), identity: identity(version), at: self.now });
    }

    fn gone(&mut self, name: &str) {
        self.event(Event::Gone { path: path(name) });
    }

    fn words(&mut self) -> Vec<Word> {
        std::iter::from_fn(|| self.catalog.next_word(self.now)).collect()
    }

    /// The files of the next words, which must all be offers.
    fn offers(&mut self) -> Vec<Offered> {
        let files = |word| match word {
            Word::Offer(files) => files,
            other => panic!("{other:?}"),
        };
        self.words().into_iter().flat_map(files).collect()
    }

    fn offer(&mut self) -> Offered {
        let offers = self.offers();
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.into_iter().next().unwrap()
    }

    fn want(&mut self, offer: OfferId) -> (TransferId, Option<SendJob>) {
        self.transfers += 1;
        let transfer = TransferId(self.transfers);
        (transfer, self.catalog.want(self.now, Wanted { transfer, offer, known_hash: None }))
    }

    fn report(&mut self, transfer: TransferId, outcome: SendOutcome) {
        self.catalog.sent(self.now, SendReport { transfer, outcome });
    }

    fn decline(&mut self, transfer: TransferId, why: Decline) {
        self.report(transfer, SendOutcome::Declined { why, identity: None });
    }

    fn land(&mut self, name: &str, version: u64) -> OfferId {
        self.closed(name, version);
        let offer = self.offer().offer;
        let (transfer, job) = self.want(offer);
        assert_eq!(job.unwrap().identity, identity(version));
        self.report(transfer, SendOutcome::Sent { identity: identity(version), settled: true });
        self.catalog.landed(self.now, &[offer]);
        offer
    }
}

#[test]
fn what_a_scan_met_while_it_was_written_is_no_version() {
    let written = Identity { size: 10, mtime_ns: 2, ctime_ns: 2, ..identity(1) };
    let closed = |rig: &mut Rig| rig.event(Event::Closed { path: path("a"), identity: written, at: rig.now });
    // Before anybody wanted it.
    let mut rig = Rig::new();
    rig.found("a", 1);
    let offer = rig.offer().offer;
    closed(&mut rig);
    let words = rig.words();
    assert_eq!(words[0], Word::Withdrawn(offer, Withdrawal::Reopened));
    assert!(
        matches!(&words[1], Word::Offer(files) if files[0].identity == written && files[0].superseded == 0)
    );
    // While a stream tries it.
    let mut rig = Rig::new();
    rig.found("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    closed(&mut rig);
    rig.decline(transfer, Decline::Busy);
    let words = rig.words();
    assert_eq!(words[1], Word::Withdrawn(offer, Withdrawal::Reopened));
    assert!(
        matches!(&words[2], Word::Offer(files) if files[0].identity == written && files[0].superseded == 0)
    );
    // Another file that takes the name is another version.
    let mut rig = Rig::new();
    rig.found("a", 1);
    let offer = rig.offer().offer;
    rig.closed("a", 2);
    assert_eq!(rig.words()[0], Word::Withdrawn(offer, Withdrawal::Replaced));
}

#[test]
fn a_closed_file_is_offered_sent_and_landed() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    assert_eq!(rig.catalog.counts(), Counts { files: 1, backlog_files: 1, backlog_bytes: 10 });
    rig.now += Duration::from_micros(5);
    let offered = rig.offer();
    assert_eq!((offered.path, offered.identity, offered.shift), (path("a"), identity(1), SHIFT));
    assert_eq!((offered.fresh, offered.superseded, offered.closed_us_ago), (true, 0, 15));
    let (transfer, job) = rig.want(offered.offer);
    assert_eq!(job.unwrap().path, path("a"));
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    rig.catalog.landed(rig.now, &[offered.offer]);
    assert_eq!(rig.words(), []);
    assert_eq!(rig.catalog.counts().backlog_files, 0);
}

#[test]
fn the_ppu_may_say_landed_before_the_stream_says_sent() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.catalog.landed(rig.now, &[offer]);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    rig.found("a", 1);
    assert_eq!(rig.words(), [], "it stays landed");
    rig.gone("a");
    assert_eq!(rig.words(), [Word::Gone(vec![offer])]);
}

#[test]
fn oldest_close_first() {
    let mut rig = Rig::without_ppu();
    for (name, version) in [("c", 1), ("a", 2), ("b", 3), ("c", 4)] {
        rig.closed(name, version);
    }
    rig.connect();
    let Some(Word::Offer(files)) = rig.words().into_iter().nth(2) else { panic!("no offer") };
    let order: Vec<String> = files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(files[2].superseded, 1);
}

#[test]
fn only_the_source_is_offered_and_paths_are_below_it() {
    let mut rig = Rig::without_ppu();
    rig.closed("run/in/a", 1);
    rig.closed("other", 2);
    rig.closed("running", 3);
    rig.catalog.session_begins(rig.now);
    hear_of(&mut rig.catalog, rig.now, SHIFT, Some(path("run")), Began::Ever);
    rig.closed("run/b", 4);
    rig.closed("outside", 5);
    let words = rig.words();
    let Word::Offer(files) = &words[2] else { panic!("{words:?}") };
    assert_eq!(files.iter().map(|f| f.path.clone()).collect::<Vec<_>>(), [path("in/a"), path("b")]);
    assert_eq!(words[3], Word::ManifestEnd);
    rig.gone("outside");
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.words(), []);
}

#[test]
fn nothing_is_offered_before_the_ppu_names_the_shift() {
    let mut rig = Rig::without_ppu();
    rig.closed("a", 1);
    rig.catalog.session_begins(rig.now);
    assert_eq!(rig.words(), []);
}

#[test]
fn the_manifest_ends_after_the_first_scan() {
    let now = Instant::now();
    let mut rig = Rig { catalog: Catalog::new(now), now, transfers: 0 };
    rig.event(Event::ScanBegins);
    rig.connect();
    assert_eq!(rig.words(), [Word::ShiftWord(SHIFT), Word::ManifestBegin]);
    rig.found("a", 1);
    assert!(!rig.offer().fresh, "a scan saw no close");
    rig.event(Event::ScanEnds);
    assert_eq!(rig.words(), [Word::ManifestEnd]);
}

#[test]
fn a_manifest_names_everything_again_and_fresh_what_was_closed_since() {
    let mut rig = Rig::new();
    rig.land("landed", 1);
    rig.closed("open offer", 2);
    rig.offer();
    rig.catalog.session_ends(rig.now);
    rig.land_later("landed", 1);
    rig.connect();
    let words = rig.words();
    let Word::Offer(files) = &words[2] else { panic!("{words:?}") };
    let seen: Vec<_> = files.iter().map(|f| (f.path.to_string(), f.fresh)).collect();
    assert_eq!(seen, [("landed".to_owned(), false), ("open offer".to_owned(), true)]);
}

impl Rig {
    /// A scan between sessions changes nothing.
    fn land_later(&mut self, name: &str, version: u64) {
        self.found(name, version);
    }
}

#[test]
fn the_window_bounds_what_is_unanswered() {
    let mut rig = Rig::new();
    for version in 0..2 * OFFER_WINDOW as u64 {
        rig.closed(&version.to_string(), version + 1);
    }
    let offers = rig.offers();
    assert_eq!(offers.len(), OFFER_WINDOW);
    assert_eq!(rig.catalog.counts().backlog_files, OFFER_WINDOW as u64);
    let ids: Vec<OfferId> = offers.iter().take(5).map(|o| o.offer).collect();
    rig.catalog.landed(rig.now, &ids);
    assert_eq!(rig.offers().len(), 5);
    assert!(rig.catalog.next_word(rig.now).is_none());
}

#[test]
fn pages_are_bounded() {
    let mut rig = Rig::new();
    for version in 0..OFFER_PAGE_FILES as u64 + 1 {
        rig.closed(&version.to_string(), version + 1);
    }
    let lengths: Vec<usize> = rig
        .words()
        .iter()
        .map(|word| match word {
            Word::Offer(files) => files.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [OFFER_PAGE_FILES, 1]);
}

#[test]
fn a_newer_version_replaces_one_that_is_only_offered() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let first = rig.offer().offer;
    rig.closed("a", 2);
    let words = rig.words();
    assert_eq!(words[0], Word::Withdrawn(first, Withdrawal::Replaced));
    let Word::Offer(files) = &words[1] else { panic!("{words:?}") };
    assert_eq!((files[0].identity, files[0].superseded), (identity(2), 0));
}

#[test]
fn a_newer_version_waits_for_the_end_of_one_that_is_being_sent() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.closed("a", 2);
    rig.closed("a", 3);
    assert_eq!(rig.words(), []);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    assert_eq!(rig.words(), [], "not before the PPU says what became of it");
    rig.catalog.landed(rig.now, &[offer]);
    let offered = rig.offer();
    assert_eq!((offered.identity, offered.fresh, offered.superseded), (identity(3), true, 1));
}

#[test]
fn a_want_after_a_failed_landing_sends_again_or_says_changed() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: false });
    let (again, job) = rig.want(offer);
    assert!(job.is_some());
    rig.report(again, SendOutcome::Sent { identity: identity(1), settled: false });
    rig.closed("a", 2);
    let (last, job) = rig.want(offer);
    assert_eq!(job, None);
    let words = rig.words();
    assert_eq!(words[0], Word::Withdrawn(offer, Withdrawal::Replaced));
    assert_eq!(words[1], Word::Declined(last, Decline::Changed));
    assert!(matches!(&words[2], Word::Offer(files) if files[0].identity == identity(2)));
}

#[test]
fn a_close_with_an_equal_identity_makes_an_offer_fresh() {
    let mut rig = Rig::new();
    rig.found("a", 1);
    let offer = rig.offer();
    assert!(!offer.fresh);
    rig.closed("a", 1);
    assert_eq!(rig.words(), [], "the answer may still be a want");
    rig.catalog.landed(rig.now, &[offer.offer]);
    assert!(rig.offer().fresh, "Have went by the identity, which proves nothing");
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_offered_as_it_is_now() {
    let rewritten = Identity { ino: identity(1).ino, ..identity(2) };
    // Another file was renamed over it: then the first is no more.
    for (now, why) in [(rewritten, Withdrawal::Reopened), (identity(2), Withdrawal::Replaced)] {
        let mut rig = Rig::new();
        rig.closed("a", 1);
        let offer = rig.offer().offer;
        let (transfer, _) = rig.want(offer);
        rig.report(transfer, SendOutcome::Changed { identity: Some(now) });
        let words = rig.words();
        assert_eq!(words[0], Word::Withdrawn(offer, why));
        assert!(matches!(&words[1], Word::Offer(files) if files[0].identity == now));
        // Its close is told at last.
        rig.event(Event::Closed { path: path("a"), identity: now, at: rig.now });
        assert_eq!(rig.words(), []);
    }
}

#[test]
fn a_vanished_file_is_lost_after_the_grace() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    rig.gone("a");
    assert_eq!(rig.words(), []);
    let (transfer, job) = rig.want(offer);
    assert_eq!(job, None);
    assert_eq!(rig.words(), [Word::Declined(transfer, Decline::Vanished)]);
    assert_eq!(rig.catalog.next_tick(), Some(rig.catalog.epoch + rig.us_later(VANISH_GRACE)));
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.words(), [Word::Withdrawn(offer, Withdrawal::Vanished)]);
    assert_eq!(rig.catalog.counts().files, 0);
    assert_eq!(rig.catalog.next_tick(), None);
}

impl Rig {
    fn us_later(&self, time: Duration) -> Duration {
        Duration::from_micros((self.now - self.catalog.epoch).as_micros() as u64) + time
    }
}

#[test]
fn a_renamed_file_is_not_lost_in_either_order() {
    for gone_first in [true, false] {
        let mut rig = Rig::new();
        rig.closed("a.tmp", 1);
        let offer = rig.offer().offer;
        let renamed = Identity { ctime_ns: 99, ..identity(1) };
        let to = Event::Closed { path: path("a"), identity: renamed, at: rig.now };
        if gone_first {
            rig.gone("a.tmp");
            rig.event(to);
        } else {
            rig.event(to);
            rig.gone("a.tmp");
        }
        rig.pass(VANISH_GRACE);
        let words = rig.words();
        assert_eq!(words[0], Word::Withdrawn(offer, Withdrawal::Moved));
        assert!(matches!(&words[1], Word::Offer(files) if files[0].path == path("a")));
        assert_eq!(words.len(), 2);
    }
}

#[test]
fn a_file_renamed_before_it_was_offered_is_one_file() {
    let mut rig = Rig::without_ppu();
    rig.closed("a.tmp", 1);
    rig.gone("a.tmp");
    rig.closed("a", 1);
    rig.pass(VANISH_GRACE);
    rig.connect();
    let words = rig.words();
    assert!(matches!(&words[2], Word::Offer(files) if files.len() == 1 && files[0].superseded == 0));
    assert_eq!(words[3], Word::ManifestEnd);
}

#[test]
fn what_vanishes_while_no_ppu_is_there_is_offered_and_withdrawn() {
    let mut rig = Rig::without_ppu();
    rig.closed("a", 1);
    rig.gone("a");
    rig.connect();
    assert_eq!(rig.words(), [Word::ShiftWord(SHIFT), Word::ManifestBegin], "is it lost?");
    rig.pass(VANISH_GRACE);
    let words = rig.words();
    let Word::Offer(files) = &words[0] else { panic!("{words:?}") };
    assert_eq!(words[1], Word::Withdrawn(files[0].offer, Withdrawal::Vanished));
    assert_eq!(words[2], Word::ManifestEnd);
    assert_eq!(rig.catalog.counts(), Counts::default());
    assert_eq!(rig.catalog.ghosts, 0);
}

#[test]
fn landed_files_that_are_deleted_are_gone() {
    let mut rig = Rig::new();
    let offers = [rig.land("d/a", 1), rig.land("d/b", 2)];
    rig.land("e", 3);
    rig.event(Event::GoneBelow { directory: path("d") });
    let words = rig.words();
    let [Word::Gone(gone)] = &words[..] else { panic!("{words:?}") };
    let mut gone = gone.clone();
    gone.sort_unstable();
    assert_eq!(gone, offers);
}

#[test]
fn a_landed_file_that_is_rewritten_and_deleted_is_gone_and_lost() {
    let mut rig = Rig::new();
    let landed = rig.land("a", 1);
    rig.closed("a", 2);
    rig.gone("a");
    assert_eq!(rig.words(), [Word::Gone(vec![landed])]);
    rig.pass(VANISH_GRACE);
    let words = rig.words();
    assert!(matches!(&words[0], Word::Offer(files) if files[0].identity == identity(2)));
    assert!(matches!(&words[1], Word::Withdrawn(_, Withdrawal::Vanished)));
}

/// The PPU had it, and lost it: its ramdisk was emptied.
#[test]
fn a_landed_file_that_is_wanted_again_and_has_vanished_is_lost() {
    let mut rig = Rig::new();
    rig.land("a", 1);
    rig.connect();
    let words = rig.words();
    let Some(Word::Offer(files)) = words.iter().find(|word| matches!(word, Word::Offer(_))) else {
        panic!("{words:?}")
    };
    rig.gone("a");
    let (transfer, job) = rig.want(files[0].offer);
    assert!(job.is_none());
    rig.pass(VANISH_GRACE);
    let expected =
        [Word::Declined(transfer, Decline::Vanished), Word::Withdrawn(files[0].offer, Withdrawal::Vanished)];
    assert_eq!(rig.words(), expected);
}

#[test]
fn have_for_a_file_that_vanished_meanwhile_is_answered_with_gone() {
    let mut rig = Rig::new();
    rig.found("a", 1);
    let offer = rig.offer().offer;
    rig.gone("a");
    rig.pass(VANISH_GRACE);
    rig.catalog.landed(rig.now, &[offer, OfferId(999)]);
    let expected = [Word::Withdrawn(offer, Withdrawal::Vanished), Word::Gone(vec![offer])];
    assert_eq!(rig.words(), expected);
}

#[test]
fn a_file_deleted_while_it_is_sent_may_still_land() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.gone("a");
    rig.pass(VANISH_GRACE);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: true });
    rig.catalog.landed(rig.now, &[offer]);
    assert_eq!(rig.words(), [Word::Gone(vec![offer])]);

    rig.closed("b", 2);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.gone("b");
    rig.report(transfer, SendOutcome::Changed { identity: None });
    rig.pass(VANISH_GRACE);
    assert_eq!(rig.words(), [Word::Withdrawn(offer, Withdrawal::Vanished)]);
}

#[test]
fn a_scan_finds_what_slipped() {
    let mut rig = Rig::new();
    let kept = rig.land("kept", 1);
    let deleted = rig.land("deleted", 2);
    rig.land("rewritten", 3);
    rig.event(Event::ScanBegins);
    rig.found("kept", 1);
    rig.found("rewritten", 4);
    rig.found("new", 5);
    rig.event(Event::ScanEnds);
    let words = rig.words();
    assert_eq!(words[0], Word::Gone(vec![deleted]));
    let Word::Offer(files) = &words[1] else { panic!("{words:?}") };
    let seen: Vec<_> = files.iter().map(|f| (f.path.to_string(), f.fresh)).collect();
    assert_eq!(seen, [("rewritten".to_owned(), true), ("new".to_owned(), false)]);
    rig.gone("kept");
    assert_eq!(rig.words(), [Word::Gone(vec![kept])]);
}

#[test]
fn an_unsettled_identity_is_offered_again_by_a_scan() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    let offer = rig.offer().offer;
    let (transfer, _) = rig.want(offer);
    rig.report(transfer, SendOutcome::Sent { identity: identity(1), settled: false });
    rig.catalog.landed(rig.now, &[offer]);
    rig.found("a", 1);
    assert!(!rig.offer().fresh);
}

#[test]
fn a_later_shift_takes_later_files() {
    let mut rig = Rig::new();
    rig.closed("a", 1);
    hear_of(&mut rig.catalog, rig.now, ShiftId(8), Some(path("s")), Began::Now);
    rig.closed("s/b", 2);
    let words = rig.words();
    assert_eq!(words[0], Word::ShiftWord(ShiftId(8)));
    let Word::Offer(files) = &words[1] else { panic!("{words:?}") };
    let seen: Vec<_> = files.iter().map(|f| (f.path.to_string(), f.shift)).collect();
    assert_eq!(seen, [("a".to_owned(), SHIFT), ("b".to_owned(), ShiftId(8))]);
}

#[test]
fn an_entry_stays_small() {
    assert!(size_of::<Entry>() <= 104, "{}", size_of::<Entry>());
}
