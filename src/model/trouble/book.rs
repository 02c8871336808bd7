//! The detector's troubles: which last, which are still to be told to a PPU, and how many there were beyond what is kept.
//!
//! Each is told once when it begins. What was told and not noted by a PPU, and what lasts, is said again in the next session, under the number that it
//! has; the PPU passes over what it has noted. Bounded, whatever goes wrong: what does not fit is counted, and the number told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::{About, Ends, Report, Trouble, What};
use crate::model::allowance::Allowance;
use crate::model::path::RelPath;
use crate::model::units;

/// Most reports that are kept: what waits for a PPU, and what lasts.
pub const REPORTS_MAX: usize = 100;
/// Most lasting troubles that are known by their path, so that none is told twice.
pub const LASTING_MAX: usize = 4096;
/// After so many at once, one in that time.
const AT_ONCE: u32 = 100;
const EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Troubles {
    life: u64,
    /// Absolute.
    ramdisk: Box<[u8]>,
    lasting: BTreeMap<Key, Lasting>,
    /// More last than are known.
    crowded: bool,
    /// When patience with one of them may end; not before.
    due: Option<Instant>,
    /// By their number.
    reports: BTreeMap<u64, Kept>,
    last_number: u64,
    allowance: Allowance,
    /// Not told.
    uncounted: Uncounted,
    /// Counts the listings.
    scan: u32,
    /// A PPU is there and hears of troubles.
    session: Option<Session>,
}

type Key = (What, Option<RelPath>);

struct Lasting {
    since: Instant,
    why: String,
    /// The last listing that met it.
    scan: u32,
    told: Told,
}

#[derive(Clone, Copy)]
enum Told {
    NotYet,
    /// Under this number.
    Report(u64),
    /// There was no room for it.
    Counted,
}

struct Kept {
    trouble: Trouble,
    since: Instant,
    lasts: bool,
    /// By a PPU.
    noted: bool,
}

/// What did not fit.
#[derive(Default)]
struct Uncounted {
    count: u64,
    /// That was the last one told.
    told: Option<Instant>,
}

#[derive(Default)]
struct Session {
    /// Number of the last report that was said.
    said: u64,
    over: VecDeque<u64>,
}

/// What is to be said to the PPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// Something is wrong.
    Trouble(Report),
    /// It is over.
    Over(u64),
}

impl Default for Troubles {
    fn default() -> Self {
        Self::new(0, b"")
    }
}

impl Troubles {
    /// None yet. `life` is another one for every process; `ramdisk` is its absolute path.
    pub fn new(life: u64, ramdisk: &[u8]) -> Self {
        Self {
            life,
            ramdisk: ramdisk.strip_suffix(b"/").unwrap_or(ramdisk).into(),
            lasting: BTreeMap::new(),
            crowded: false,
            due: None,
            reports: BTreeMap::new(),
            last_number: 0,
            allowance: Allowance::new(AT_ONCE, EVERY),
            uncounted: Uncounted::default(),
            scan: 0,
            session: None,
        }
    }

    /// This was met. Of one that lasts only the first time counts.
    pub fn met(&mut self, now: Instant, trouble: Trouble) {
        let rule = trouble.what.rule();
        if !trouble.what.lasts() {
            self.log(&trouble);
            self.report(now, now, trouble);
            return;
        }
        let key = (trouble.what, trouble.path.clone());
        if let Some(lasting) = self.lasting.get_mut(&key) {
            (lasting.scan, lasting.why) = (self.scan, trouble.why);
            return;
        }
        if self.lasting.len() >= LASTING_MAX {
            if !std::mem::replace(&mut self.crowded, true) {
                self.log(&trouble);
                tracing::warn!(
                    "more than {LASTING_MAX} such things last: those beyond are not told one by one"
                );
                self.uncounted.count += 1;
            }
            return;
        }
        self.log(&trouble);
        let lasting = Lasting { since: now, why: trouble.why, scan: self.scan, told: Told::NotYet };
        self.lasting.insert(key, lasting);
        let due = now + rule.patience;
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.tick(now);
    }

    /// One that lasted does so no longer; it may never have.
    pub fn over(&mut self, what: What, path: Option<&RelPath>) {
        if !self.lasting.is_empty() {
            self.is_over(&(what, path.cloned()));
        }
    }

    /// A file is no more, or may be removed after all.
    pub fn gone(&mut self, path: &RelPath) {
        self.over(What::NotReleased, Some(path));
    }

    /// Everything is listed from here on.
    pub fn scan_begins(&mut self) {
        self.scan = self.scan.wrapping_add(1);
    }

    /// Everything was listed: what is met by listing, and was not, is over.
    pub fn scan_ends(&mut self) {
        let is_over = |(key, lasting): (&Key, &Lasting)| {
            (key.0.rule().ends == Ends::Unmet && lasting.scan != self.scan).then(|| key.clone())
        };
        let over: Vec<Key> = self.lasting.iter().filter_map(is_over).collect();
        over.iter().for_each(|key| self.is_over(key));
    }

    /// Time has passed: what has lasted long enough is told.
    pub fn tick(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let mut ripe = Vec::new();
        for (key, lasting) in &self.lasting {
            let due = lasting.since + key.0.rule().patience;
            match lasting.told {
                Told::NotYet if due <= now => ripe.push((lasting.since, key.clone())),
                Told::NotYet => self.due = Some(self.due.map_or(due, |before| before.min(due))),
                Told::Report(_) | Told::Counted => {}
            }
        }
        ripe.sort();
        for (since, key) in ripe {
            let why = self.lasting.get(&key).map(|lasting| lasting.why.clone()).unwrap_or_default();
            let trouble = Trouble { what: key.0, path: key.1.clone(), why };
            let told = self.report(now, since, trouble).map_or(Told::Counted, Told::Report);
            if let Some(lasting) = self.lasting.get_mut(&key) {
                lasting.told = told;
            }
        }
    }

    /// When [`Troubles::tick`] may have something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        self.due
    }

    /// A PPU is there that hears of troubles, and has noted those of this session up to `number`.
    pub fn noted(&mut self, number: u64) {
        let session = self.session.get_or_insert_default();
        // What it cannot have heard it has not noted.
        let number = number.min(session.said);
        for (_, kept) in self.reports.range_mut(..=number) {
            kept.noted = true;
        }
        self.reports.retain(|_, kept| kept.lasts || !kept.noted);
    }

    /// A PPU is there that hears of them.
    pub fn are_heard(&self) -> bool {
        self.session.is_some()
    }

    /// Something waits to be told.
    pub fn wait(&self) -> bool {
        self.uncounted.count > 0 || self.reports.values().any(|kept| !kept.noted)
    }

    /// The PPU is gone.
    pub fn session_ends(&mut self) {
        self.session = None;
    }

    /// What is to be said next, if a PPU hears of it.
    pub fn say(&mut self, now: Instant) -> Option<Say> {
        let session = self.session.as_mut()?;
        if let Some(number) = session.over.pop_front() {
            return Some(Say::Over(number));
        }
        if session.said == self.last_number {
            self.sum_up(now);
        }
        let session = self.session.as_mut()?;
        let (&number, kept) = self.reports.range(session.said + 1..).next()?;
        session.said = number;
        Some(Say::Trouble(self.put(now, number, kept)))
    }

    fn put(&self, now: Instant, number: u64, kept: &Kept) -> Report {
        let Kept { trouble, since, lasts, .. } = kept;
        let about = trouble.path.as_ref().map(|path| [&*self.ramdisk, b"/", path.as_bytes()].concat());
        let us_ago = now.saturating_duration_since(*since).as_micros();
        Report {
            life: self.life,
            number,
            us_ago: u64::try_from(us_ago).unwrap_or(u64::MAX),
            matter: trouble.what.rule().matter,
            // Longer than any path can be: said without.
            about: about.and_then(|about| About::try_from(about).ok()).unwrap_or_default(),
            text: trouble.text(),
            lasts: *lasts,
        }
    }

    /// Once all else was noted, what did not fit becomes a report of its own; not more often than others.
    fn sum_up(&mut self, now: Instant) {
        let too_early = self.uncounted.told.is_some_and(|told| now < told + EVERY);
        let count = self.uncounted.count;
        if count == 0 || too_early || self.reports.values().any(|kept| !kept.noted) {
            return;
        }
        self.uncounted = Uncounted { count: 0, told: Some(now) };
        self.keep(now, Trouble::new(What::More, units::count(count, "more trouble")));
    }

    /// The number that it is told under; `None`: it is only counted.
    fn report(&mut self, now: Instant, since: Instant, trouble: Trouble) -> Option<u64> {
        if self.reports.len() >= REPORTS_MAX || !self.allowance.take(now) {
            self.uncounted.count += 1;
            return None;
        }
        Some(self.keep(since, trouble))
    }

    fn keep(&mut self, since: Instant, trouble: Trouble) -> u64 {
        self.last_number += 1;
        let lasts = trouble.what.lasts();
        self.reports.insert(self.last_number, Kept { trouble, since, lasts, noted: false });
        self.last_number
    }

    fn is_over(&mut self, key: &Key) {
        let Some(lasting) = self.lasting.remove(key) else { return };
        self.crowded &= self.lasting.len() * 2 > LASTING_MAX;
        let (what, path) = key;
        tracing::info!(?what, path = path.as_ref().map(RelPath::to_string), "a trouble is over");
        let Told::Report(number) = lasting.told else { return };
        if let Some(kept) = self.reports.get_mut(&number) {
            kept.lasts = false;
        }
        self.reports.retain(|_, kept| kept.lasts || !kept.noted);
        if let Some(session) = &mut self.session
            && session.said >= number
        {
            session.over.push_back(number);
        }
    }

    fn log(&self, trouble: &Trouble) {
        let code = trouble.what.rule().matter.code();
        let path = trouble.path.as_ref().map(RelPath::to_string);
        tracing::warn!(%code, path, "{}", trouble.text().as_str());
    }
}

#[cfg(test)]
mod tests;
