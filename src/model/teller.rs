//! Which messages are told at once, and which are only counted for now: one rule for all of them (SPEC 4.2). Pure.
//!
//! The same code and short text again within a minute is counted; when the minute is over one message says how often. Many
//! different ones of a code within some seconds: the first are told, the others counted and summed up likewise. So nothing is
//! swallowed: every message that was raised stands behind exactly one of those told, which says for how many it stands.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::{Code, Message};

/// The same again within this time is counted.
const REPEAT: Duration = Duration::from_secs(60);
/// Different ones of one code are counted from the [`STORM_MESSAGES`]th on within this time.
const STORM: Duration = Duration::from_secs(10);
/// See [`STORM`].
const STORM_MESSAGES: u32 = 20;
/// Texts that are remembered: bounds the memory. More than that at a time are a storm, too.
const RECENT_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Teller {
    recent: BTreeMap<(Code, String), Held>,
    storms: BTreeMap<Code, Storm>,
    /// Nothing is due before.
    due: Option<Instant>,
}

/// A message to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub message: Message,
    /// Messages that it stands for.
    pub count: u64,
}

/// Messages that were raised and not told yet.
#[derive(Debug)]
struct Held {
    since: Instant,
    count: u64,
    /// The last long text.
    long: String,
}

#[derive(Debug)]
struct Storm {
    since: Instant,
    told: u32,
    count: u64,
    last: Option<Message>,
}

impl Teller {
    /// A message is raised; what is to be told comes into `say`.
    pub fn raise(&mut self, at: Instant, message: Message, say: &mut Vec<Said>) {
        self.pass(at, say);
        let key = (message.code, message.short.clone());
        if let Some(held) = self.recent.get_mut(&key) {
            held.count += 1;
            held.long = message.long;
            return;
        }
        let fresh = Storm { since: at, told: 0, count: 0, last: None };
        let storm = self.storms.entry(message.code).or_insert(fresh);
        if storm.told >= STORM_MESSAGES || self.recent.len() >= RECENT_MAX {
            storm.count += 1;
            storm.last = Some(message);
        } else {
            storm.told += 1;
            self.recent.insert(key, Held { since: at, count: 0, long: String::new() });
            say.push(Said { message, count: 1 });
        }
        self.due = Some(self.due.map_or(at + STORM, |due| due.min(at + STORM)));
    }

    /// Time has passed: sums up what was counted and is due.
    pub fn pass(&mut self, at: Instant, say: &mut Vec<Said>) {
        if self.due.is_none_or(|due| at < due) {
            return;
        }
        self.storms.retain(|_, storm| {
            let over = at >= storm.since + STORM;
            if over {
                say.extend(sum_up_storm(storm));
            }
            !over
        });
        self.recent.retain(|key, held| {
            if at < held.since + REPEAT {
                return true;
            }
            // While it goes on, it is told once in a while.
            let goes_on = held.count > 0;
            say.extend(sum_up(key, held));
            *held = Held { since: at, count: 0, long: String::new() };
            goes_on
        });
        let storms = self.storms.values().map(|storm| storm.since + STORM);
        self.due = storms.chain(self.recent.values().map(|held| held.since + REPEAT)).min();
    }

    /// The end: sums up everything that was counted.
    pub fn rest(&mut self, say: &mut Vec<Said>) {
        say.extend(std::mem::take(&mut self.storms).values().filter_map(sum_up_storm));
        say.extend(std::mem::take(&mut self.recent).iter().filter_map(|(key, held)| sum_up(key, held)));
        self.due = None;
    }
}

fn sum_up((code, short): &(Code, String), held: &Held) -> Option<Said> {
    let Held { count, long, .. } = held;
    let long = format!("{long} … and {count} more like it within {} s.", REPEAT.as_secs());
    (*count > 0).then(|| Said { message: Message::new(*code, short.as_str(), long), count: *count })
}

fn sum_up_storm(storm: &Storm) -> Option<Said> {
    let last = storm.last.clone()?;
    let more = match storm.count {
        1 => String::new(),
        count => {
            format!(" … and {} more {} of other things within {} s.", count - 1, last.code, STORM.as_secs())
        }
    };
    let message = Message::new(last.code, last.short, format!("{}{more}", last.long));
    Some(Said { message, count: storm.count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(code: Code, short: &str) -> Message {
        Message::new(code, short, format!("{short} is ill."))
    }

    fn raise(teller: &mut Teller, at: Instant, code: Code, short: &str) -> Vec<Said> {
        let mut said = Vec::new();
        teller.raise(at, message(code, short), &mut said);
        said
    }

    #[test]
    fn the_same_again_is_counted_and_told_once_a_minute() {
        let mut teller = Teller::default();
        let start = Instant::now();
        let first = raise(&mut teller, start, Code::IntegrityError, "a");
        assert_eq!(first, [Said { message: message(Code::IntegrityError, "a"), count: 1 }]);
        for n in 1..=5 {
            assert_eq!(raise(&mut teller, start + n * Duration::from_secs(1), Code::IntegrityError, "a"), []);
        }
        assert_eq!(
            raise(&mut teller, start, Code::CopyError, "a").len(),
            1,
            "another code is another message"
        );
        let mut said = Vec::new();
        teller.pass(start + REPEAT - Duration::from_millis(1), &mut said);
        assert_eq!(said, []);
        teller.pass(start + REPEAT, &mut said);
        let [Said { message, count: 5 }] = &said[..] else { panic!("{said:?}") };
        assert_eq!(message.long, "a is ill. … and 5 more like it within 60 s.");
        // It goes on: counted again, told again after another minute. Then it is over, and forgotten.
        assert_eq!(raise(&mut teller, start + REPEAT, Code::IntegrityError, "a"), []);
        said.clear();
        teller.pass(start + 2 * REPEAT, &mut said);
        assert_eq!(said.iter().map(|said| said.count).sum::<u64>(), 1);
        teller.pass(start + 4 * REPEAT, &mut said);
        assert_eq!(raise(&mut teller, start + 4 * REPEAT, Code::IntegrityError, "a").len(), 1);
    }

    #[test]
    fn a_storm_of_different_files_is_summed_up() {
        let mut teller = Teller::default();
        let start = Instant::now();
        let at_once: usize =
            (0..100_000).map(|n| raise(&mut teller, start, Code::DataLost, &format!("f{n}")).len()).sum();
        assert_eq!(at_once, STORM_MESSAGES as usize);
        assert_eq!(raise(&mut teller, start, Code::LandError, "x").len(), 1, "others are heard meanwhile");
        assert!(teller.recent.len() <= RECENT_MAX);
        let mut said = Vec::new();
        teller.pass(start + STORM, &mut said);
        let [Said { message, count: 99_980 }] = &said[..] else { panic!("{said:?}") };
        assert_eq!(message.short, "f99999");
        assert_eq!(message.long, "f99999 is ill. … and 99979 more DATA_LOST of other things within 10 s.");
    }

    proptest! {
        /// told + counted = raised: each of them stands behind exactly one that is told.
        #[test]
        fn nothing_is_swallowed(raised in proptest::collection::vec((0u64..8000, 0usize..3, 0u32..60), 0..600)) {
            const CODES: [Code; 3] = [Code::CopyError, Code::DataLost, Code::LandError];
            let mut teller = Teller::default();
            let mut at = Instant::now();
            let (mut told, mut of_code) = (Vec::new(), [0; 3]);
            for &(ms, code, file) in &raised {
                at += Duration::from_millis(ms);
                teller.raise(at, message(CODES[code], &format!("f{file}")), &mut told);
                of_code[code] += 1;
                prop_assert!(teller.recent.len() <= RECENT_MAX);
            }
            teller.rest(&mut told);
            for (code, raised) in CODES.into_iter().zip(of_code) {
                let counted: u64 = told.iter().filter(|said| said.message.code == code).map(|said| said.count).sum();
                prop_assert_eq!(counted, raised);
            }
        }
    }
}
