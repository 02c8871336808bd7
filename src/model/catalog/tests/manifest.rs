//! The manifest names everything that was there when it began, whatever becomes of it meanwhile.

use super::*;

/// In an earlier session the PPU may have been offered what was there: it would take for lost what the manifest leaves out.
#[test]
fn what_is_rewritten_or_renamed_meanwhile_is_named_before_the_end() {
    let rewritten = |rig: &mut Rig| rig.closed("a", 2);
    let renamed = |rig: &mut Rig| {
        rig.gone("a");
        rig.closed("b", 1);
    };
    type Happens<'a> = &'a dyn Fn(&mut Rig);
    let cases: [(&str, Happens<'_>); 2] = [("a", &rewritten), ("b", &renamed)];
    for (name, happens) in cases {
        let mut rig = Rig::without_ppu();
        rig.closed("a", 1);
        rig.connect();
        assert_eq!(rig.catalog.next_word(rig.now), Some(Word::ShiftWord(SHIFT)));
        assert_eq!(rig.catalog.next_word(rig.now), Some(Word::ManifestBegin));
        happens(&mut rig);
        let words = rig.words();
        let [Word::Offer(files), Word::ManifestEnd] = &words[..] else { panic!("{words:?}") };
        assert_eq!(files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>(), [name]);
    }
}

/// What comes later does not keep it from ending.
#[test]
fn what_was_not_there_is_not_waited_for() {
    let mut rig = Rig::without_ppu();
    rig.connect();
    assert_eq!(rig.catalog.next_word(rig.now), Some(Word::ShiftWord(SHIFT)));
    assert_eq!(rig.catalog.next_word(rig.now), Some(Word::ManifestBegin));
    rig.pass(Duration::from_millis(1));
    rig.closed("new", 1);
    rig.closed("new", 2);
    assert_eq!(rig.catalog.next_word(rig.now), Some(Word::ManifestEnd));
    assert_eq!(rig.offer().superseded, 1);
}
