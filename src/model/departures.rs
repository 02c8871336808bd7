//! What leaves a file system next, and why: pages of past shifts' files (SPEC 2.3), and of the oldest when there is no room (SPEC 4.1). Pure: says what to ask
//! the journal and what to take away, one step at a time, and hears what came of it.
//!
//! ```text
//! begin ──► walk (a page of what is stored since an earlier run) ──► purge (a page) ──► evict (a page, when there is no room) ──► over
//!               │ NextVersion, Walk                                     │ Prove, Take ...      │ Prove, Take ...
//! ```

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::file_version::VersionId;
use super::residents::{PutOff, Resident, Residents};
use super::shift::ShiftId;

/// Versions that the journal is asked about at a time; no record is committed meanwhile.
const PAGE: usize = 256;
/// The same at the start, where little is asked of each.
const WALK_VERSIONS: u64 = 2000;
/// What somebody has open for writing is looked at again after that time.
const BUSY: Duration = Duration::from_millis(500);
/// What is still being copied likewise.
const COPYING: Duration = Duration::from_secs(2);
/// What could not be taken likewise.
const FAILED: Duration = Duration::from_secs(30);
/// While the journal does not answer, or the file system is away, nothing is tried for that time.
const UNANSWERED: Duration = Duration::from_millis(500);
/// Who is gentle rests after so long a stretch of work ...
const STRETCH: Duration = Duration::from_millis(1);
/// ... for that time: a third of a processor still takes away thousands of files a second.
const REST: Duration = Duration::from_millis(2);

/// The proof that a version may leave. Only the journal makes one.
pub trait Proof {
    /// Which, and whose.
    fn resident(&self) -> Resident;

    /// No copy of it is still to be made.
    fn is_copied(&self) -> bool;
}

/// Why a file leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no room.
    Evicted,
    /// Its shift is over.
    Purged,
}

/// How things are when a round begins.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    /// Shifts before it are past.
    pub current: ShiftId,
    /// Bytes that must leave; `None`: the file system cannot be looked at.
    pub wanted: Option<u64>,
    /// What cannot be read elsewhere at the moment stays, whatever the journal says: it may be needed.
    pub doubtful: bool,
    /// Images land meanwhile, and none of them waits for the room that this makes: processors are theirs first.
    pub gentle: bool,
}

/// What to do now, and what to say then.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// Ask the journal for the number that its next version will have: [`Departures::next_version`].
    NextVersion,
    /// Ask it for what seems to be stored of the versions from the first up to but not with the second: [`Departures::walked`].
    Walk(VersionId, VersionId),
    /// Ask it for the proofs: [`Departures::proven`].
    Prove(Vec<Resident>),
    /// Take this version's file away: [`Departures::done`].
    Take(P, Why),
    /// Do nothing for that time.
    Rest(Duration),
    /// The round is over.
    Over {
        /// There is more to do at once.
        more: bool,
    },
}

/// What became of a file that was to be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Of it that many bytes come free.
    Gone(u64),
    /// Nothing to be done about it any more: replaced, changed, or taken away before.
    Passed,
    /// Something else is there: a link, perhaps, from before the start.
    Other,
    /// Somebody has it open for writing.
    Busy,
    /// It was tried, and that went wrong.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct Departures<P> {
    /// A link takes an evicted file's place.
    create_links: bool,
    residents: Residents,
    walk: Walk,
    /// Not before, anything is tried again.
    ask_again: Option<Instant>,
    /// Of past shifts, put off once because copies were still to be made.
    waited: HashSet<VersionId>,
    /// When the stretch of work began that goes on, or will begin after a rest.
    stretch: Option<Instant>,
    round: Round<P>,
}

/// Through the journal once at the start, oldest first: what may leave since an earlier run.
#[derive(Debug, Default)]
struct Walk {
    next: VersionId,
    /// Later ones are told by the ledger; `None`: not known yet.
    end: Option<VersionId>,
}

#[derive(Debug)]
struct Round<P> {
    outlook: Outlook,
    next: Part,
    /// That the journal was asked about.
    asked: Vec<Resident>,
    page: VecDeque<P>,
    why: Why,
    /// What is still being copied leaves as well.
    last_resort: bool,
    freed: u64,
    more: bool,
}

/// Of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Walk,
    Purge,
    Evict,
    Over,
}

impl<P: Proof> Departures<P> {
    /// Nothing may leave yet. `create_links`: a link takes an evicted file's place.
    pub fn new(create_links: bool) -> Self {
        let outlook = Outlook { current: ShiftId(0), wanted: None, doubtful: true, gentle: false };
        Self {
            create_links,
            residents: Residents::default(),
            walk: Walk::default(),
            ask_again: None,
            waited: HashSet::new(),
            stretch: None,
            round: Round::new(outlook, Part::Over),
        }
    }

    /// The ledger says that it may leave.
    pub fn add(&mut self, resident: Resident) {
        self.residents.add(resident);
    }

    /// A round begins. The one before is over.
    pub fn begin(&mut self, now: Instant, outlook: Outlook) {
        self.residents.pass(now);
        let waits = self.ask_again.is_some_and(|at| now < at);
        if !waits {
            self.ask_again = None;
        }
        self.round = Round::new(outlook, if waits { Part::Over } else { Part::Walk });
    }

    /// What is to be done next.
    pub fn next(&mut self, now: Instant) -> Step<P> {
        if self.round.outlook.gentle && !self.round.page.is_empty() {
            let stretch = *self.stretch.get_or_insert(now);
            if now.saturating_duration_since(stretch) >= STRETCH {
                self.stretch = Some(now + REST);
                return Step::Rest(REST);
            }
        }
        while let Some(proof) = self.round.page.pop_front() {
            if self.goes(now, &proof) {
                return Step::Take(proof, self.round.why);
            }
        }
        loop {
            match self.round.next {
                Part::Walk => match self.walk.end {
                    None => return Step::NextVersion,
                    Some(end) if self.walk.next < end => {
                        let until = VersionId(self.walk.next.0.saturating_add(WALK_VERSIONS)).min(end);
                        return Step::Walk(self.walk.next, until);
                    }
                    Some(_) => self.round.walked(),
                },
                Part::Purge => {
                    self.round.next = Part::Evict;
                    let past = self.residents.take_past(self.round.outlook.current, PAGE);
                    if !past.is_empty() {
                        return self.prove(past, Why::Purged);
                    }
                }
                Part::Evict => {
                    self.round.next = Part::Over;
                    if self.round.outlook.wanted.is_some_and(|wanted| wanted > 0) {
                        let oldest = self.oldest();
                        if !oldest.is_empty() {
                            return self.prove(oldest, Why::Evicted);
                        }
                    }
                }
                Part::Over => return Step::Over { more: self.round.more },
            }
        }
    }

    /// An answer: the number that the journal's next version will have.
    pub fn next_version(&mut self, end: VersionId) {
        self.walk.end = Some(end);
    }

    /// An answer: what seems to be stored of the versions asked for, up to but not with `until`.
    pub fn walked(&mut self, until: VersionId, found: Vec<Resident>) {
        found.into_iter().for_each(|resident| self.residents.add(resident));
        self.walk.next = until;
        self.round.more = true;
        self.round.walked();
    }

    /// An answer: the proofs for those that may leave. The others are of no interest any more.
    pub fn proven(&mut self, page: Vec<P>) {
        self.round.asked.clear();
        self.round.more = true;
        self.round.page = page.into();
    }

    /// No answer: the journal is in trouble, and that is told elsewhere. Nothing leaves.
    pub fn unanswered(&mut self, now: Instant) {
        std::mem::take(&mut self.round.asked).into_iter().for_each(|resident| self.residents.add(resident));
        self.pause(now);
    }

    /// It was not tried: the file system is away, or the daemon ends.
    pub fn not_now(&mut self, now: Instant, proof: &P) {
        self.residents.add(proof.resident());
        self.pause(now);
    }

    /// What became of it.
    pub fn done(&mut self, now: Instant, proof: &P, outcome: Outcome) {
        let (resident, why) = (proof.resident(), self.round.why);
        match outcome {
            Outcome::Gone(bytes) => {
                self.round.freed = self.round.freed.saturating_add(bytes);
                if why == Why::Evicted && self.create_links {
                    self.residents.leave_link(resident);
                }
            }
            Outcome::Other if why == Why::Evicted => self.residents.leave_link(resident),
            Outcome::Passed | Outcome::Other => {}
            Outcome::Busy => self.residents.put_off(resident, now + BUSY, PutOff::Busy),
            Outcome::Failed => self.residents.put_off(resident, now + FAILED, PutOff::Busy),
        }
    }

    /// Whether a proven one is taken away now. If not, it is not forgotten.
    fn goes(&mut self, now: Instant, proof: &P) -> bool {
        let resident = proof.resident();
        let may_wait = match self.round.why {
            // What is being copied is read from here as long as that is no hindrance; a second look shows whether it may take long.
            Why::Purged => !proof.is_copied() && self.waited.insert(resident.version),
            Why::Evicted if self.round.freed >= self.round.outlook.wanted.unwrap_or(0) => {
                self.residents.add(resident);
                return false;
            }
            Why::Evicted => !proof.is_copied() && !self.round.last_resort,
        };
        if may_wait {
            self.residents.put_off(resident, now + COPYING, PutOff::Copying);
            return false;
        }
        self.waited.remove(&resident.version);
        true
    }

    fn oldest(&mut self) -> Vec<Resident> {
        let oldest = self.residents.take_oldest(PAGE);
        let all_known = self.walk.end.is_some_and(|end| self.walk.next >= end);
        if !oldest.is_empty() || !all_known {
            return oldest;
        }
        self.round.last_resort = true;
        self.residents.take_copying(PAGE)
    }

    fn prove(&mut self, residents: Vec<Resident>, why: Why) -> Step<P> {
        self.round.why = why;
        self.round.asked.clone_from(&residents);
        Step::Prove(residents)
    }

    /// Nothing more leaves for a while.
    fn pause(&mut self, now: Instant) {
        self.ask_again = Some(now + UNANSWERED);
        for proof in std::mem::take(&mut self.round.page) {
            self.residents.add(proof.resident());
        }
        (self.round.next, self.round.more) = (Part::Over, false);
    }
}

impl<P> Round<P> {
    fn new(outlook: Outlook, next: Part) -> Self {
        let (asked, page) = (Vec::new(), VecDeque::new());
        Self { outlook, next, asked, page, why: Why::Purged, last_resort: false, freed: 0, more: false }
    }

    /// The walk's part is over.
    fn walked(&mut self) {
        let leaves = self.outlook.wanted.is_some() && !self.outlook.doubtful;
        self.next = if leaves { Part::Purge } else { Part::Over };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Safe(Resident, bool);

    impl Proof for Safe {
        fn resident(&self) -> Resident {
            self.0
        }

        fn is_copied(&self) -> bool {
            self.1
        }
    }

    const CURRENT: ShiftId = ShiftId(9);

    fn resident(version: u64, shift: i64) -> Resident {
        Resident { version: VersionId(version), shift: ShiftId(shift) }
    }

    /// With a journal that knows these residents as stored; those with an odd number still have copies to make.
    struct Rounds {
        departures: Departures<Safe>,
        now: Instant,
        stored: Vec<Resident>,
        outlook: Outlook,
    }

    impl Rounds {
        fn new(create_links: bool, stored: &[Resident]) -> Self {
            let outlook = Outlook { current: CURRENT, wanted: Some(0), doubtful: false, gentle: false };
            let departures = Departures::new(create_links);
            Self { departures, now: Instant::now(), stored: stored.to_vec(), outlook }
        }

        fn begin(&mut self) {
            self.departures.begin(self.now, self.outlook);
        }

        /// Answers for the journal until a file is to be taken, or the round is over.
        fn next(&mut self) -> Step<Safe> {
            loop {
                match self.departures.next(self.now) {
                    Step::NextVersion => self.departures.next_version(VersionId(100)),
                    Step::Walk(first, until) => {
                        let range = first..until;
                        let found = self.stored.iter().filter(|resident| range.contains(&resident.version));
                        self.departures.walked(until, found.copied().collect());
                    }
                    Step::Prove(residents) => {
                        let proven = residents.into_iter().filter(|resident| self.stored.contains(resident));
                        let safe = |resident: Resident| Safe(resident, resident.version.0.is_multiple_of(2));
                        self.departures.proven(proven.map(safe).collect());
                    }
                    step => return step,
                }
            }
        }

        /// A whole round in which every file that is to be taken has so many bytes: which, and why.
        fn round(&mut self, outcome: Outcome) -> Vec<(u64, Why)> {
            self.begin();
            let mut taken = Vec::new();
            while let Step::Take(safe, why) = self.next() {
                taken.push((safe.0.version.0, why));
                self.departures.done(self.now, &safe, outcome);
            }
            taken
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }
    }

    use Why::{Evicted, Purged};

    #[test]
    fn past_shifts_are_purged_and_the_oldest_evicted_when_there_is_no_room() {
        let stored = [resident(2, 1), resident(4, 9), resident(6, 9), resident(8, 9)];
        let mut rounds = Rounds::new(false, &stored);
        rounds.departures.add(resident(10, 1));
        assert_eq!(rounds.round(Outcome::Gone(5)), [(2, Purged)], "10 is not proven, and there is room");
        rounds.outlook.wanted = Some(6);
        assert_eq!(rounds.round(Outcome::Gone(5)), [(4, Evicted), (6, Evicted)], "and no more");
        assert_eq!(rounds.round(Outcome::Gone(5)), [(8, Evicted)]);
        assert_eq!(rounds.round(Outcome::Gone(5)), []);
    }

    #[test]
    fn who_is_gentle_rests_between_files() {
        let stored: Vec<_> = (1..=8).map(|n| resident(2 * n, 1)).collect();
        for (gentle, rests) in [(true, 3), (false, 0)] {
            let mut rounds = Rounds::new(false, &stored);
            rounds.outlook.gentle = gentle;
            rounds.begin();
            let (mut rested, mut taken) = (0, 0);
            loop {
                match rounds.next() {
                    Step::Take(safe, Purged) => {
                        taken += 1;
                        rounds.pass(STRETCH / 2);
                        rounds.departures.done(rounds.now, &safe, Outcome::Gone(1));
                    }
                    Step::Rest(time) => {
                        rested += 1;
                        rounds.pass(time);
                    }
                    step => break assert_eq!(step, Step::Over { more: true }),
                }
            }
            assert_eq!((rested, taken), (rests, 8));
        }
    }

    #[test]
    fn links_go_with_their_shift() {
        for (links, first, then) in [
            (true, Outcome::Gone(1), &[(2, Purged)][..]),
            (false, Outcome::Gone(1), &[]),
            // A link, perhaps, that an earlier run has left.
            (false, Outcome::Other, &[(2, Purged)]),
            (true, Outcome::Passed, &[]),
        ] {
            let mut rounds = Rounds::new(links, &[resident(2, 9)]);
            rounds.outlook.wanted = Some(1);
            assert_eq!(rounds.round(first), [(2, Evicted)]);
            assert_eq!(rounds.round(Outcome::Gone(1)), [], "no room is in it");
            rounds.outlook.current = ShiftId(10);
            assert_eq!(rounds.round(Outcome::Gone(0)), then, "{links} {first:?}");
        }
    }

    #[test]
    fn what_is_still_being_copied_waits() {
        let mut rounds = Rounds::new(false, &[resident(1, 1), resident(3, 9), resident(4, 9)]);
        assert_eq!(rounds.round(Outcome::Gone(1)), [], "it is put off once");
        rounds.pass(COPYING);
        assert_eq!(rounds.round(Outcome::Gone(1)), [(1, Purged)]);
        rounds.outlook.wanted = Some(10);
        assert_eq!(rounds.round(Outcome::Gone(1)), [(4, Evicted)]);
        assert_eq!(rounds.round(Outcome::Gone(1)), [(3, Evicted)], "the last resort");
    }

    #[test]
    fn what_fails_is_tried_again_later() {
        for (outcome, pause) in [(Outcome::Busy, BUSY), (Outcome::Failed, FAILED)] {
            let mut rounds = Rounds::new(true, &[resident(2, 1)]);
            assert_eq!(rounds.round(outcome), [(2, Purged)]);
            rounds.pass(pause - Duration::from_nanos(1));
            assert_eq!(rounds.round(outcome), []);
            rounds.pass(Duration::from_nanos(1));
            assert_eq!(rounds.round(Outcome::Gone(1)), [(2, Purged)]);
        }
    }

    #[test]
    fn nothing_leaves_while_it_may_be_the_only_replica_or_cannot_be_looked_at() {
        let mut rounds = Rounds::new(true, &[resident(2, 1), resident(4, 9)]);
        for (wanted, doubtful) in [(None, false), (Some(9), true), (None, true)] {
            rounds.outlook = Outlook { wanted, doubtful, ..rounds.outlook };
            assert_eq!(rounds.round(Outcome::Gone(1)), []);
        }
        rounds.outlook = Outlook { wanted: Some(9), doubtful: false, ..rounds.outlook };
        assert_eq!(rounds.round(Outcome::Gone(1)), [(2, Purged), (4, Evicted)], "what was walked was kept");
    }

    #[test]
    fn without_an_answer_nothing_leaves_and_nothing_is_forgotten() {
        let mut rounds = Rounds::new(true, &[resident(2, 1), resident(4, 1), resident(6, 9)]);
        rounds.outlook.wanted = Some(9);
        // At the first question, the second, and the third.
        for answered in [0, 1, 1] {
            rounds.begin();
            for _ in 0..answered {
                match rounds.departures.next(rounds.now) {
                    Step::NextVersion => rounds.departures.next_version(VersionId(100)),
                    Step::Walk(_, until) => rounds.departures.walked(until, rounds.stored.clone()),
                    step => panic!("{step:?}"),
                }
            }
            rounds.departures.next(rounds.now);
            rounds.departures.unanswered(rounds.now);
            assert_eq!(rounds.next(), Step::Over { more: false });
            assert_eq!(rounds.round(Outcome::Gone(1)), [], "it is left in peace for a while");
            rounds.pass(UNANSWERED);
        }
        // The file system is away in the middle of a page.
        rounds.begin();
        let Step::Take(safe, Purged) = rounds.next() else { panic!() };
        rounds.departures.not_now(rounds.now, &safe);
        assert_eq!(rounds.next(), Step::Over { more: false });
        rounds.pass(UNANSWERED);
        assert_eq!(rounds.round(Outcome::Gone(1)), [(2, Purged), (4, Purged), (6, Evicted)]);
    }
}
