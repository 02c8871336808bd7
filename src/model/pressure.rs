//! When a file system is too full, and how much must leave it (SPEC 4.1). The high mark triggers, the low mark sets the amount. Pure.

use super::message::{Code, Message};

/// Fill ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marks {
    /// Above it, eviction begins.
    pub limit: f64,
    /// Below it, eviction ends.
    pub low: f64,
    /// Above it people are warned.
    pub almost: f64,
}

/// A file system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// Bytes in all; 0: not known.
    pub total: u64,
    /// Free bytes.
    pub free: u64,
    /// Of what is not free: bytes of files that have left already, and come free when the last one who has them open closes them.
    pub held: u64,
    /// Bytes that must be free before the file fits that waits for room; 0: none does.
    pub needed: u64,
}

/// One file system's pressure, look by look.
#[derive(Debug)]
pub struct Pressure {
    marks: Marks,
    /// The mount point, for messages.
    name: String,
    /// Something can leave it.
    evicts: bool,
    evicting: bool,
    almost: bool,
    full: bool,
    /// What comes is more than leaves without hurry.
    losing: bool,
    /// An image waits for room.
    lacking: bool,
}

impl Pressure {
    /// Of what is mounted at `name`; nothing was seen yet. `evicts`: files leave it under pressure.
    pub fn new(name: String, marks: Marks, evicts: bool) -> Self {
        Self {
            marks,
            name,
            evicts,
            evicting: false,
            almost: false,
            full: false,
            losing: false,
            lacking: false,
        }
    }

    /// How many bytes must leave now. What is to be told goes to `out`, once per crossing.
    pub fn look(&mut self, level: Level, out: &mut Vec<Message>) -> u64 {
        let Level { total, free, held, needed } = level;
        // A large file may find no room although the high mark is not reached. It must not wait for ever for what nobody would take away.
        let lacking = needed.saturating_sub(free);
        self.lacking = lacking > 0;
        if total == 0 {
            return 0;
        }
        let Marks { limit, low, almost } = self.marks;
        let used = total.saturating_sub(free);
        let fill = used as f64 / total as f64;
        let (begins, full) = match self.evicts {
            true => (
                "the oldest stored files make room now",
                "what has no room waits; nothing is lost. Look at the storages, or remove what is not ours",
            ),
            false => (
                "nothing leaves it by itself. Make room there in time",
                "files for it stay pending, and are copied when there is room. Make room there",
            ),
        };
        let warned = "files come faster than they leave";
        let crossings = [
            (&mut self.evicting, limit, low, Code::FillstateLimit, begins),
            (&mut self.almost, almost, limit.min(almost), Code::AlmostOverflow, warned),
            (&mut self.full, 1.0, almost, Code::DiskOverflow, full),
        ];
        for (on, above, until, code, advice) in crossings {
            let crossed = if above >= 1.0 { free == 0 } else { fill > above };
            if crossed && !*on {
                *on = true;
                let percent = (fill * 100.0).floor();
                out.push(Message::new(
                    code,
                    self.name.as_str(),
                    format!("{} is {percent:.0} % full: {advice}.", self.name),
                ));
            } else if *on && fill < until {
                *on = false;
            }
        }
        if !self.evicts {
            return 0;
        }
        // Half way to where people would be warned.
        self.losing = fill > limit.midpoint(almost) || self.losing && fill >= limit;
        if !self.evicting {
            return lacking;
        }
        // What others hold open is on its way; but they may hold it for hours, so when it gets tight it does not count.
        let held = if fill > almost { 0 } else { held };
        used.saturating_sub((total as f64 * low) as u64).saturating_sub(held).max(lacking)
    }

    /// Files must leave as fast as they can: an image waits for room, or what comes is more than what leaves.
    pub fn is_urgent(&self) -> bool {
        self.losing || self.lacking
    }

    /// Between the high mark and the low one.
    pub fn is_evicting(&self) -> bool {
        self.evicts && self.evicting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKS: Marks = Marks { limit: 0.8, low: 0.7, almost: 0.95 };

    fn pressure(evicts: bool) -> Pressure {
        Pressure::new("/r".to_owned(), MARKS, evicts)
    }

    fn level(free: u64) -> Level {
        Level { total: 1000, free, ..Level::default() }
    }

    fn codes(messages: &[Message]) -> Vec<Code> {
        messages.iter().map(|message| message.code).collect()
    }

    #[test]
    fn the_high_mark_triggers_and_the_low_mark_sets_the_amount() {
        let mut pressure = pressure(true);
        let mut out = Vec::new();
        assert_eq!(pressure.look(level(210), &mut out), 0, "79 %");
        assert_eq!(pressure.look(level(190), &mut out), 110, "81 %");
        assert_eq!(pressure.look(level(250), &mut out), 50, "75 %: goes on");
        assert_eq!(pressure.look(level(310), &mut out), 0, "69 %: over");
        assert_eq!(pressure.look(level(210), &mut out), 0, "79 %: not yet again");
        assert_eq!(codes(&out), [Code::FillstateLimit]);
        assert_eq!(out[0].short, "/r");
    }

    #[test]
    fn told_once_per_crossing() {
        for evicts in [true, false] {
            let mut pressure = pressure(evicts);
            let mut out = Vec::new();
            for free in [0, 0, 10, 0, 40, 0] {
                let leave = pressure.look(level(free), &mut out);
                assert_eq!(leave > 0, evicts);
            }
            assert_eq!(codes(&out), [Code::FillstateLimit, Code::AlmostOverflow, Code::DiskOverflow]);
            out.clear();
            for free in [400, 0] {
                pressure.look(level(free), &mut out);
            }
            assert_eq!(out.len(), 3);
            assert_eq!(pressure.look(Level::default(), &mut out), 0, "nothing is known");
        }
    }

    #[test]
    fn what_others_hold_open_is_on_its_way_but_not_when_it_gets_tight() {
        let mut pressure = pressure(true);
        let mut out = Vec::new();
        let held = |free| Level { held: 100, ..level(free) };
        assert_eq!(pressure.look(held(150), &mut out), 50, "85 %: 150 too much, 100 have left");
        assert_eq!(pressure.look(held(200), &mut out), 0);
        assert_eq!(pressure.look(held(40), &mut out), 260, "96 %");
    }

    #[test]
    fn it_is_urgent_before_people_would_be_warned_until_the_high_mark_is_regained() {
        let mut pressure = pressure(true);
        let mut out = Vec::new();
        for (free, urgent) in
            [(190, false), (126, false), (124, true), (190, true), (210, false), (150, false)]
        {
            pressure.look(level(free), &mut out);
            assert_eq!(pressure.is_urgent(), urgent, "{free} free");
        }
        assert_eq!(codes(&out), [Code::FillstateLimit]);
    }

    #[test]
    fn a_file_that_waits_for_room_makes_room_below_the_high_mark_too() {
        let (mut pressure, mut watched) = (pressure(true), pressure(false));
        let mut out = Vec::new();
        let needs = |free, needed| Level { needed, ..level(free) };
        assert_eq!(pressure.look(needs(300, 300), &mut out), 0, "it fits");
        assert!(!pressure.is_urgent());
        assert_eq!(pressure.look(needs(250, 300), &mut out), 50, "75 %");
        assert!(pressure.is_urgent());
        let held = Level { held: 100, ..needs(250, 300) };
        assert_eq!(pressure.look(held, &mut out), 50, "what others hold may be held for hours");
        assert_eq!(pressure.look(needs(150, 900), &mut out), 750, "85 %: more than the low mark asks for");
        assert_eq!(pressure.look(needs(150, 160), &mut out), 150, "less than it asks for");
        assert_eq!(watched.look(needs(250, 300), &mut out), 0, "nothing leaves it");
    }

    proptest! {
        #[test]
        fn what_must_leave_brings_it_to_the_low_mark(frees in proptest::collection::vec(0_u64..=1000, 1..50)) {
            let mut pressure = pressure(true);
            let mut out = Vec::new();
            for free in frees {
                let leave = pressure.look(level(free), &mut out);
                prop_assert!(leave == 0 || free + leave == 300);
                prop_assert!(free >= 200 || leave > 0, "above the limit something always leaves");
                prop_assert!(free <= 300 || leave == 0);
            }
        }
    }
}
