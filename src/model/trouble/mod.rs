//! What goes wrong on a detector and becomes a message of the PPU, because nobody looks at the detector's log at night: the one rule of what is such a
//! trouble, with which code, from when on, and in which words.
//!
//! No trouble is what passes by itself in a moment (a file that somebody writes, a queue that overflowed and is listed anew, a connection that was refused), what ends the
//! daemon at its start, and what the PPU learns in another way: a file that cannot be read (it asks for it and is told), one whose shift cannot be told (it is offered for none).

mod book;
mod report;

use std::time::Duration;

pub use book::{LASTING_MAX, REPORTS_MAX, Say, Troubles};
pub use report::{ABOUT_MAX_BYTES, About, Matter, Report, TEXT_MAX_BYTES, Text};

use super::message::one_line;
use super::path::RelPath;

/// Longest cause in a text, so that what to do is never cut off.
const WHY_MAX_BYTES: usize = 400;

/// Something that is wrong now, or has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub what: What,
    /// With which file or directory, below the ramdisk; `None`: with the detector as a whole.
    pub path: Option<RelPath>,
    /// Why, for people; may be empty.
    pub why: String,
}

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The ramdisk is not where it was.
    RamdiskLost,
    /// Another one is there.
    RamdiskAnew,
    /// Another one is there, and cannot be watched.
    RamdiskUnwatched,
    /// Nobody watches any more.
    WatchEnded,
    /// There are more directories than the kernel grants watches.
    TooFewWatches,
    /// A directory cannot be opened or read.
    Unlisted,
    /// A directory is listed, and not watched.
    Unwatched,
    /// A file cannot be looked at.
    Unseen,
    /// What leaves the ramdisk cannot be watched.
    StagingUnusable,
    /// In staging lies what belongs to nobody.
    StagingKept,
    /// A file cannot be removed.
    NotReleased,
    /// A file could not be put back.
    NotPutBack,
    /// Nobody removes any more.
    ReleaseEnded,
    /// How full the ramdisk is cannot be looked up.
    FillUnknown,
    /// The clock was set.
    ClockSet,
    /// A shift's beginning cannot be marked.
    NoMark,
    /// Which shift had the beam when cannot be written down.
    ShiftsUnsaved,
    /// What was written down of that is damaged.
    ShiftsDamaged,
    /// A vanished file is counted nowhere.
    Uncounted,
    /// There is more than can be told.
    More,
}

/// How one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It has happened, and that is all.
    AtOnce,
    /// When a listing of everything no longer meets it.
    Unmet,
    /// When somebody says so, or its file is gone.
    Told,
}

/// What is said of one, and when.
struct Rule {
    matter: Matter,
    ends: Ends,
    /// Before it has lasted that long it is no trouble.
    patience: Duration,
    is: &'static str,
    cure: &'static str,
}

const AT_ONCE: Duration = Duration::ZERO;
/// What is tried again every second has failed a few times by then.
const SOON: Duration = Duration::from_secs(3);

impl What {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 20] = [
        Self::RamdiskLost,
        Self::RamdiskAnew,
        Self::RamdiskUnwatched,
        Self::WatchEnded,
        Self::TooFewWatches,
        Self::Unlisted,
        Self::Unwatched,
        Self::Unseen,
        Self::StagingUnusable,
        Self::StagingKept,
        Self::NotReleased,
        Self::NotPutBack,
        Self::ReleaseEnded,
        Self::FillUnknown,
        Self::ClockSet,
        Self::NoMark,
        Self::ShiftsUnsaved,
        Self::ShiftsDamaged,
        Self::Uncounted,
        Self::More,
    ];

    fn rule(self) -> Rule {
        use Ends::{AtOnce, Told, Unmet};
        use Matter::{CannotLand, CannotRemove, Clock, Lost, State};
        let rule = |matter, ends, patience, is, cure| Rule { matter, ends, patience, is, cure };
        match self {
            Self::RamdiskLost => rule(
                CannotLand,
                Told,
                SOON,
                "its ramdisk is not there, and nothing is transferred",
                "Mount it again; that is noticed within a second. See in that machine's log who unmounted it: what had not landed may be gone with it",
            ),
            Self::RamdiskAnew => rule(
                CannotLand,
                AtOnce,
                AT_ONCE,
                "its ramdisk was mounted anew",
                "What is there now is transferred; what was there before and had not landed counts as lost (DATA_LOST). See who mounted it, and why",
            ),
            Self::RamdiskUnwatched => rule(
                CannotLand,
                Told,
                AT_ONCE,
                "its ramdisk was mounted anew and cannot be watched, so nothing new is transferred",
                "It is tried again every second; remove the cause, or restart ppu-uringd there",
            ),
            Self::WatchEnded => rule(
                CannotLand,
                Told,
                AT_ONCE,
                "its ramdisk is no longer watched, and no new image is noticed",
                "Restart ppu-uringd there: what is on the ramdisk is found then",
            ),
            Self::TooFewWatches => rule(
                CannotLand,
                Unmet,
                AT_ONCE,
                "there are more directories than the kernel grants watches, so everything is listed every few seconds and images land late",
                "Raise sysctl fs.inotify.max_user_watches there (1000000 costs nothing until it is used); no restart is needed",
            ),
            Self::Unlisted => rule(
                CannotLand,
                Unmet,
                AT_ONCE,
                "the directory cannot be listed, and images in it are not transferred",
                "See its owner and mode, and dmesg there; it is tried again every half minute",
            ),
            Self::Unwatched => rule(
                CannotLand,
                Unmet,
                AT_ONCE,
                "the directory cannot be watched, only listed every half minute, so images in it land late",
                "Remove the cause; no restart is needed",
            ),
            Self::Unseen => rule(
                CannotLand,
                Unmet,
                AT_ONCE,
                "the file cannot be looked at, and is not transferred",
                "See dmesg there; it is tried again every half minute",
            ),
            Self::StagingUnusable => rule(
                CannotRemove,
                Told,
                AT_ONCE,
                "nothing is removed from its ramdisk, which fills up",
                "Remove the cause, then restart ppu-uringd there",
            ),
            Self::StagingKept => rule(
                CannotRemove,
                AtOnce,
                AT_ONCE,
                "in the staging directory on its ramdisk there is what belongs to nobody",
                "Nothing there is transferred or removed: look at it, and move away what you need",
            ),
            Self::NotReleased => rule(
                CannotRemove,
                Told,
                SOON,
                "it is safe on the PPU and cannot be removed from the detector's ramdisk",
                "It is tried again every second. See its attributes (lsattr; chattr -i) and its directory's there",
            ),
            Self::NotPutBack => rule(
                CannotRemove,
                AtOnce,
                AT_ONCE,
                "it was being removed, and could be neither removed nor given its name back",
                "Look for it in the staging directory (.ppu-uringd) on the detector's ramdisk. If it was written again meanwhile, that version is there alone: move it to where it was",
            ),
            Self::ReleaseEnded => rule(
                CannotRemove,
                Told,
                AT_ONCE,
                "nothing more is removed from its ramdisk, which fills up: a thread of ppu-uringd has ended",
                "Restart ppu-uringd there, and send its log to its makers",
            ),
            Self::FillUnknown => rule(
                CannotRemove,
                Told,
                SOON,
                "it cannot be seen how full its ramdisk is, so nothing is removed from it",
                "See dmesg there; it goes on by itself",
            ),
            Self::ClockSet => rule(
                Clock,
                AtOnce,
                AT_ONCE,
                "its clock was set",
                "Images whose shift cannot be told any more are held there (LAND_ERROR says which). Let NTP slew the clock instead of setting it while images are taken",
            ),
            Self::NoMark => rule(
                CannotLand,
                Told,
                SOON,
                "the beginning of a shift cannot be noted there, so images closed since may have to wait",
                "Make room in its state_dir and make it writable; it is tried again every second",
            ),
            Self::ShiftsUnsaved => rule(
                State,
                Told,
                AT_ONCE,
                "it cannot write down which shift had the beam when",
                "Images go to the right shift all the same; after a restart of ppu-uringd there some may be held. Make room in its state_dir and make it writable",
            ),
            Self::ShiftsDamaged => rule(
                State,
                AtOnce,
                AT_ONCE,
                "what it had written down of shifts was damaged and was set aside",
                "The PPU tells it again; images of which that does not tell enough are held (LAND_ERROR says which). See that machine's disk",
            ),
            Self::Uncounted => rule(
                Lost,
                AtOnce,
                AT_ONCE,
                "it vanished before it had landed, and is counted nowhere: too many have",
                "Find out what removes images from the detector's ramdisk",
            ),
            Self::More => rule(
                CannotLand,
                AtOnce,
                AT_ONCE,
                "more is wrong there than is told here",
                "The log of ppu-uringd on that machine has all of it",
            ),
        }
    }

    fn lasts(self) -> bool {
        self.rule().ends != Ends::AtOnce
    }
}

impl Trouble {
    /// With the detector as a whole.
    pub fn new(what: What, why: impl Into<String>) -> Self {
        Self { what, path: None, why: why.into() }
    }

    /// With a file or a directory; `None` is the ramdisk itself.
    pub fn with(what: What, path: Option<RelPath>, why: impl Into<String>) -> Self {
        Self { what, path, why: why.into() }
    }

    /// What is wrong, and what to do: one line.
    fn text(&self) -> Text {
        let Rule { is, cure, .. } = self.what.rule();
        let why = one_line(self.why.clone());
        let why = report::cut(why.trim_end_matches('.'), WHY_MAX_BYTES);
        let colon = if why.is_empty() { "" } else { ": " };
        Text::cut(&format!("{is}{colon}{why}. {cure}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_fits_however_long_its_cause_is() {
        for what in What::ALL {
            let text = Trouble::new(what, "é\n".repeat(5000)).text();
            let text = text.as_str();
            assert!(text.len() < TEXT_MAX_BYTES && text.ends_with('.'), "{text}");
            assert!(text.ends_with(&format!("{}.", what.rule().cure)), "{text}");
            assert!(!text.contains(char::is_control), "{text}");
            assert!(!Trouble::new(what, "").text().as_str().contains(": . "));
        }
    }

    #[test]
    fn all_are_all() {
        for (n, what) in What::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, n);
        }
        assert_eq!(What::ALL.len(), What::More as usize + 1, "More is the last");
    }

    #[test]
    fn worded_for_people() {
        let path = RelPath::new(b"run/a.cbf").unwrap();
        let trouble = Trouble::with(What::NotReleased, Some(path), "Operation not permitted (os error 1)");
        assert_eq!(
            trouble.text().as_str(),
            "it is safe on the PPU and cannot be removed from the detector's ramdisk: Operation not permitted (os error 1). It is tried again every \
             second. See its attributes (lsattr; chattr -i) and its directory's there."
        );
    }
}
