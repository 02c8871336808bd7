//! A detector hears of a shift after it began, or the PPU of the detector's word.

use super::*;

#[test]
fn a_word_that_came_late_moves_the_beginning() {
    let mut world = World::linked();
    // The PPU began it three seconds before the detector heard of it.
    world.close(1);
    world.watch();
    world.pass(1_000_000);
    world.begins_there();
    world.pass(1_000_000);
    world.close(2);
    world.watch();
    world.pass(2_000_000);
    world.began(1, Began::Now, false);
    world.watch();
    let now = world.now();
    assert_eq!(world.catalog.next_word(now), Some(Word::ShiftWord(ShiftId(2))));
    let Some(Word::Offer(files)) = world.catalog.next_word(now) else { panic!() };
    assert_eq!(files.iter().map(|file| file.shift.0).collect::<Vec<_>>(), [1, 1], "as far as it knows");
    let ago = world.ago(1);
    world.began(1, ago, false);
    world.watch();
    let words = world.words();
    let [Word::Withdrawn(withdrawn, Withdrawal::Reopened), Word::ShiftWord(ShiftId(2)), Word::Offer(again)] =
        &words[..]
    else {
        panic!("{words:?}")
    };
    assert_eq!(*withdrawn, files[1].offer);
    assert_eq!((again[0].path.clone(), again[0].shift), (path("2"), ShiftId(2)));
}

/// The link is slow: both the shift and its correction are heard of three seconds late.
#[test]
fn a_correction_that_was_long_under_way_gives_nothing_to_the_earlier_shift() {
    let mut world = World::linked();
    world.pass(1_000_000);
    world.begins_there();
    world.pass(1_000_000);
    world.close(1);
    world.watch();
    world.pass(2_000_000);
    world.began(1, Began::Now, false);
    world.watch();
    let now = world.now();
    assert_eq!(world.catalog.next_word(now), Some(Word::ShiftWord(ShiftId(2))));
    let Some(Word::Offer(files)) = world.catalog.next_word(now) else { panic!() };
    assert_eq!(files[0].shift, ShiftId(1), "as far as it knows");
    let ago = world.ago(1);
    world.close(2);
    world.watch();
    world.pass(3_000_000);
    world.began(1, ago, false);
    world.watch();
    let words = world.words();
    let again = words.iter().find_map(|word| match word {
        Word::Offer(files) => {
            Some(files.iter().map(|file| (file.path.to_string(), file.shift)).collect::<Vec<_>>())
        }
        _ => None,
    });
    // The first may have been closed before it began; the second was after its mark.
    let expected = [("1".to_owned(), ShiftId::UNKNOWN), ("2".to_owned(), ShiftId(2))];
    assert_eq!(again.as_deref(), Some(&expected[..]), "{words:?}");
}

/// Time stamps move with the timer tick: a close right before the mark has the mark's. The PPU hears the word late, and corrects it later still.
#[test]
fn what_was_closed_in_the_tick_of_the_mark_is_not_given_to_the_later_shift() {
    let mut world = World::linked();
    world.pass((TICK_NS - world.ns % TICK_NS) as u32 / 1000);
    world.close(1);
    world.watch();
    world.pass(500);
    world.begins_there();
    world.pass(500);
    world.began(1, Began::Now, false);
    world.watch();
    let now = world.now();
    assert_eq!(world.catalog.next_word(now), Some(Word::ShiftWord(ShiftId(2))));
    let Some(Word::Offer(files)) = world.catalog.next_word(now) else { panic!() };
    assert_eq!(files[0].shift, ShiftId(1));
    world.pass(3_000_000);
    let ago = world.ago(1);
    world.began(1, ago, false);
    world.watch();
    let again = world.words().into_iter().find_map(|word| match word {
        Word::Offer(files) => Some(files[0].shift),
        _ => None,
    });
    assert_eq!(again, Some(ShiftId::UNKNOWN), "it may have been closed before it began");
}

/// The mark of a shift that began before the link broke is passed while the next session's row is on its way.
#[test]
fn a_word_that_is_said_before_the_row_has_come_tells_nothing_of_its_age() {
    let mut world = World::linked();
    world.begins_there();
    world.began(1, Began::Now, false);
    let now = world.now();
    world.catalog.session_begins(now);
    world.pass(1_000);
    world.begun.push(world.ns);
    world.pass(10_000);
    world.close(1);
    world.watch_all();
    world.pass(10_000);
    let (second, third) = (world.ago(1), world.ago(2));
    world.pass(100_000);
    let now = world.now();
    assert_eq!(world.catalog.next_word(now), Some(Word::ShiftWord(ShiftId(2))));
    world.pass(100_000);
    world.began(1, second, true);
    world.began(2, third, false);
    world.watch_all();
    let words = world.words();
    let offered = first_offer(&words);
    assert_eq!(offered, Some(ShiftId::UNKNOWN), "{words:?}");
}

/// The PPU was killed before it could say that the word came late.
#[test]
fn what_was_closed_long_after_a_shift_began_and_before_its_mark_is_held() {
    for late_us in [1_000_000, 3_000_000] {
        let mut world = World::linked();
        world.pass(1_000_000);
        world.begins_there();
        world.pass(late_us - 100_000);
        world.close(1);
        world.watch();
        world.pass(100_000);
        world.began(1, Began::Now, false);
        world.watch_all();
        let now = world.now();
        world.catalog.session_begins(now);
        world.began(0, Began::Ever, true);
        let ago = world.ago(1);
        world.began(1, ago, false);
        world.watch_all();
        let words = world.words();
        let offered = first_offer(&words);
        // Whoever began it waited for the word for two seconds: until then the mark tells.
        let expected = if late_us > 2_000_000 { ShiftId::UNKNOWN } else { ShiftId(1) };
        assert_eq!(offered, Some(expected), "{words:?}");
    }
}

/// Both earlier shifts take another part of the ramdisk; the third one takes all of it.
#[test]
fn what_is_held_is_heard_of_once_a_shift_that_takes_it_may_have_it() {
    let mut world = World::linked();
    world.close(1);
    world.watch();
    world.connected = false;
    let source = || Some(path("elsewhere"));
    let began = |world: &mut World, shift, source, us, more| {
        let announced = Announced { shift: ShiftId(shift), source, began: Began::Ago { us }, more };
        let moment = world.moment();
        world.catalog.shift_began(moment, announced);
    };
    let now = world.now();
    world.catalog.session_begins(now);
    // Long under way: it may be any of them.
    world.pass(3_000_000);
    began(&mut world, 2, source(), 20_000, true);
    began(&mut world, 3, source(), 15_000, true);
    began(&mut world, 4, None, 10_000, false);
    world.tend();
    world.watch_all();
    let words = world.words();
    let offered = words.iter().any(|word| {
        matches!(word, Word::Offer(files) if files[0].path == path("1") && files[0].shift == ShiftId::UNKNOWN)
    });
    assert!(offered, "{words:?}");
}

/// Its link is down while a shift begins. Then one file takes the name of an older one, and the events are lost: a scan meets it there.
#[test]
fn a_file_that_a_scan_meets_under_a_new_name_was_closed_when_it_was() {
    let mut world = World::linked();
    world.disconnect();
    world.close(1);
    world.watch();
    world.pass(3_000_000);
    world.begins_there();
    world.pass(3_000_000);
    world.close(2);
    world.watch();
    let identity = world.identity(2, world.files[&2]);
    let renamed = Identity { ctime_ns: identity.ctime_ns + TICK_NS, ..identity };
    let at = world.now();
    world.event(Event::Missed);
    world.event(Event::ScanBegins);
    world.event(Event::Found { path: path("1"), identity: renamed, at });
    world.event(Event::ScanEnds);
    world.tend();
    let now = world.now();
    world.catalog.session_begins(now);
    world.began(0, Began::Ever, true);
    let ago = world.ago(1);
    world.began(1, ago, false);
    world.watch_all();
    world.pass(5_000_000);
    let now = world.now();
    world.catalog.tick(now);
    let words = world.words();
    assert_eq!(first_offer(&words), Some(ShiftId(2)), "{words:?}");
}

/// A file has two names, and another one gets the first of them in a later shift.
#[test]
fn a_close_under_a_name_that_is_another_files_by_now_gives_no_shift_to_the_file_before() {
    let mut world = World::linked();
    world.close(1);
    let linked = world.identity(1, world.files[&1]);
    world.watch();
    let at = world.now();
    world.event(Event::Closed { path: path("3"), identity: linked, at });
    let shifts = |words: &[Word]| -> Vec<(String, ShiftId)> {
        let offers = words.iter().filter_map(|word| match word {
            Word::Offer(files) => Some(files.iter().map(|file| (file.path.to_string(), file.shift))),
            _ => None,
        });
        offers.flatten().collect()
    };
    world.watch_all();
    let first = world.words();
    assert_eq!(shifts(&first).len(), 2, "{first:?}");
    world.pass(1_000_000);
    world.begins_there();
    world.began(1, Began::Now, false);
    world.watch_all();
    world.pass(1_000_000);
    world.close(1);
    let identity = Identity { ino: 9, ..world.identity(1, world.files[&1]) };
    world.queue.clear();
    let at = world.now();
    world.event(Event::Closed { path: path("1"), identity, at });
    let words = world.words();
    let given = shifts(&words);
    assert!(given.contains(&("1".to_owned(), ShiftId(2))), "{words:?}");
    assert!(!given.contains(&("3".to_owned(), ShiftId(2))), "{words:?}");
}

/// Under which shift the first of them is offered.
fn first_offer(words: &[Word]) -> Option<ShiftId> {
    words.iter().find_map(|word| match word {
        Word::Offer(files) => Some(files[0].shift),
        _ => None,
    })
}
