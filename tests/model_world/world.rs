//! What happens next, and what is under way between the machines.

use std::time::Duration;

use ppu_uringd::model::ledger::Fact;
use ppu_uringd::model::offer::Heartbeat;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::residents::Home;
use ppu_uringd::model::shift::ShiftId;

use super::detector::{DETECTORS, Machine};
use super::journal::STORAGES;
use super::ppu::{Ppu, Said, Sizes};
use super::storage::Mood;
use super::truth::Truth;
use super::{Clock, Random};

/// What may happen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Everything.
    None,
    /// Nothing that nobody could count.
    Counted,
}

pub struct World {
    pub random: Random,
    pub clock: Clock,
    pub truth: Truth,
    pub care: Care,
    pub detectors: [Machine; DETECTORS],
    pub ppu: Ppu,
    /// Nothing has happened but for what is told, and no shift's beginning but for marks.
    exact: bool,
}

impl World {
    pub fn new(seed: u64, care: Care) -> Self {
        let (clock, mut truth) = (Clock::new(), Truth::default());
        let detectors = std::array::from_fn(|index| Machine::new(index, &clock));
        let mut random = Random::new(seed);
        let sizes = Sizes {
            // With plenty of room files come unasked.
            ramdisk_units: [6, 10, 20, 10_000][random.below(4) as usize],
            internal_units: [0, 8, 16][random.below(3) as usize],
            links: !random.one_in(3),
        };
        let ppu = Ppu::new(&sizes, &clock, &mut truth);
        let mut world = Self { random, clock, truth, care, detectors, ppu, exact: true };
        (0..DETECTORS).for_each(|detector| world.connect(detector));
        world
    }

    pub fn step(&mut self) {
        self.clock.pass(Duration::from_micros(self.random.below(300)));
        let detector = self.random.below(DETECTORS as u64) as usize;
        match self.random.below(1200) {
            0..100 => self.software(detector),
            100..230 => self.watch(detector),
            230..260 => self.time(),
            260..400 => self.speak(detector),
            400..540 => self.hear(detector),
            540..590 => self.detectors[detector].start_send(&self.clock),
            590..640 => self.detectors[detector].end_send(&self.clock),
            640..690 => {
                let well = !self.random.one_in(12);
                self.land(detector, well);
            }
            690..810 => self.copy(),
            810..860 => self.commit(),
            860..880 => self.detectors[detector].save(),
            880..895 => self.order_release(detector),
            895..925 => self.release(detector),
            925..950 => self.detectors[detector].release_report(&self.clock),
            950..965 => self.connect(detector),
            965..970 => self.break_link(detector),
            970..977 => self.start_shift(),
            977..981 => self.change_mood(),
            1000..1100 => self.keep(Home::Ramdisk),
            1100..1160 => self.keep(Home::Internal),
            1160..1165 => self.look(),
            1165..1185 => self.users_use(),
            _ if self.care == Care::Counted => {}
            981..984 => self.detector_crashes(detector),
            984..987 => self.ppu_crashes(false),
            987 => self.ppu_crashes(true),
            988..990 | 1185..1190 => self.users_change(),
            990..993 => self.overflow(detector),
            993..995 => self.change_journal(),
            _ => {}
        }
        self.hub();
    }

    fn software(&mut self, detector: usize) {
        let Self { random, clock, truth, .. } = self;
        match self.care {
            Care::None => self.detectors[detector].software(random, clock, truth),
            Care::Counted => {
                self.detectors[detector].plain_software(random, clock, truth);
                self.watch(detector);
            }
        }
    }

    fn watch(&mut self, detector: usize) {
        self.detectors[detector].watch(&mut self.clock);
        while self.care == Care::Counted && self.detectors[detector].is_behind() {
            self.detectors[detector].watch(&mut self.clock);
        }
    }

    fn time(&mut self) {
        let ms = [1, 20, 150, 700, 3000][self.random.below(5) as usize];
        self.pass(Duration::from_millis(ms));
    }

    fn pass(&mut self, time: Duration) {
        self.clock.pass(time);
        for machine in &mut self.detectors {
            machine.time(&mut self.clock);
        }
        let said = self.ppu.tick(&self.clock, &mut self.truth);
        self.say(said);
    }

    fn keep(&mut self, home: Home) {
        let fails = self.random.one_in(20);
        self.ppu.keep(home, fails, &self.clock, &self.truth);
    }

    fn look(&mut self) {
        let storage = self.random.below(STORAGES as u64) as usize;
        self.ppu.look(storage);
    }

    /// Facts gather now and then.
    fn hub(&mut self) {
        if self.random.below(3) > 0 {
            let most = 1 + self.random.below(8) as usize;
            let said = self.ppu.hub(most, &self.clock, &mut self.truth);
            self.say(said);
        }
    }

    fn say(&mut self, said: Said) {
        for (detector, session, word) in said {
            if let Some(link) = &mut self.detectors[detector].link
                && link.session == session
            {
                link.to_detector.push_back(word);
            }
        }
    }

    fn speak(&mut self, detector: usize) {
        let machine = &mut self.detectors[detector];
        machine.speak(&self.clock);
        let Some(link) = &mut machine.link else { return };
        if let Some(word) = link.to_ppu.pop_front() {
            self.ppu.hear(machine.index, word);
        }
        let counts = machine.catalog.counts();
        let beat = Heartbeat { backlog_files: counts.backlog_files, ..Heartbeat::default() };
        self.ppu.tell(Fact::Beat { detector: machine.index, beat });
    }

    fn hear(&mut self, detector: usize) {
        let Self { random, clock, truth, .. } = self;
        self.detectors[detector].hear(random, clock, truth);
    }

    /// `well`: what arrives is what was sent.
    fn land(&mut self, detector: usize, well: bool) {
        let machine = &mut self.detectors[detector];
        let Some(sent) = machine.link.as_mut().and_then(|link| link.data.pop_front()) else { return };
        let settled = |identity: &_| machine.is_settled(&self.clock, identity);
        if self.ppu.waits_for_word_on(machine.index, sent.0) {
            let Some(link) = &mut machine.link else { return };
            return link.data.push_front(sent);
        }
        let named = sent.1.map(|(_, content)| machine.named(content)).unwrap_or_default();
        self.ppu.land(machine.index, sent, settled, well.then_some(&named), &mut self.truth);
    }

    fn copy(&mut self) {
        let storage = self.random.below(STORAGES as u64) as usize;
        let (which, fails) = (self.random.below(100), self.random.one_in(15));
        self.ppu.copy(storage, which, fails);
    }

    fn commit(&mut self) {
        let records = 1 + self.random.below(1 + self.ppu.journal.under_way() as u64) as usize;
        self.ppu.commit(records);
    }

    fn order_release(&mut self, detector: usize) {
        let excess = if self.random.one_in(2) { u64::MAX } else { self.random.below(10) };
        self.detectors[detector].catalog.release(self.clock.at(), excess);
    }

    fn release(&mut self, detector: usize) {
        let Self { clock, truth, ppu, detectors, .. } = self;
        let machine = &mut detectors[detector];
        let id = machine.id.clone();
        // On the internal storage, and the journal knows.
        let is_safe = |path: &RelPath, content: u64| {
            let shifts: Vec<ShiftId> = ppu.ledger.all_shifts().map(|shift| shift.id).collect();
            shifts.into_iter().any(|shift| {
                let Some(below) = ppu.below_source(&id, shift, path) else { return false };
                ppu.storages[0].has(&id, shift, &below, content)
                    && ppu.journal.calls_stored(&|version| version.hash == super::detector::hash(content))
            })
        };
        machine.release(clock, is_safe, truth);
    }

    fn connect(&mut self, detector: usize) {
        if self.detectors[detector].link.is_none() {
            let session = self.ppu.new_session(self.detectors[detector].index);
            self.detectors[detector].connect(session, &mut self.clock);
        }
    }

    /// Landing threads take what has arrived, and report, before the link counts as down.
    fn cut(&mut self, detector: usize) {
        for _ in 0..self.random.below(4) {
            let well = !self.random.one_in(12);
            self.land(detector, well);
        }
        if let Some(link) = &mut self.detectors[detector].link {
            let (session, reason) = (link.session, "cable".to_owned());
            link.data.clear();
            let detector = self.detectors[detector].index;
            self.ppu.tell(Fact::LinkDown { detector, session, reason, refused: false });
        }
    }

    fn break_link(&mut self, detector: usize) {
        // A known gap (ARCHITECTURE.md): a count may be one too high where links break while a shift begins.
        if self.care == Care::Counted && !self.truth.is_exact() {
            return;
        }
        self.cut(detector);
        self.detectors[detector].disconnect(&self.clock);
    }

    fn detector_crashes(&mut self, detector: usize) {
        self.exact = false;
        self.cut(detector);
        self.truth.blurred += self.detectors[detector].names().len() as u64;
        self.detectors[detector].crash(&mut self.clock);
    }

    fn ppu_crashes(&mut self, reboot: bool) {
        for machine in &mut self.detectors {
            machine.disconnect(&self.clock);
        }
        self.ppu.crash(reboot, &self.clock, &mut self.truth);
    }

    fn start_shift(&mut self) {
        let linked = self.detectors.iter().all(|machine| machine.link.is_some());
        if self.care == Care::Counted && !linked {
            return;
        }
        // A part of it that a shift does not take is not counted, either.
        let part = std::array::from_fn(|_| self.care == Care::None && self.random.one_in(3));
        let uid = 500 + self.random.below(2) as u32;
        let said = self.ppu.start_shift(uid, part, &self.clock, &mut self.truth);
        self.say(said);
    }

    fn change_mood(&mut self) {
        let storage = self.random.below(STORAGES as u64) as usize;
        let moods = [Mood::Well, Mood::Away, Mood::Full, Mood::Broken, Mood::Hung];
        self.ppu.told_away[storage] = false;
        self.ppu.storages[storage].mood = moods[self.random.below(5) as usize];
    }

    fn overflow(&mut self, detector: usize) {
        self.exact = false;
        self.detectors[detector].overflow(&mut self.clock);
    }

    fn change_journal(&mut self) {
        let stuck = !self.ppu.journal.stuck;
        self.ppu.journal.stuck = stuck;
        self.ppu.tell(Fact::JournalTrouble(stuck.then(|| "full".to_owned())));
    }
}

/// The end: nothing breaks any more.
impl World {
    pub fn end(&mut self) {
        for machine in &mut self.detectors {
            machine.close_all(&mut self.clock, &mut self.truth);
        }
        self.recover();
        self.relieve();
        self.check_pressure();
        self.users_return_space();
        self.settle();
        // What nobody can attribute is closed again, as people are told to do.
        for _ in 0..3 {
            let held = self.held();
            let exact = self.exact && self.truth.is_exact();
            assert!(!exact || held == 0, "{held} files are held, and marks alone tell all apart");
            if held > 0 {
                for detector in 0..DETECTORS {
                    for name in self.detectors[detector].names() {
                        self.detectors[detector].write(name, &mut self.clock, &mut self.truth);
                        self.watch(detector);
                    }
                }
                self.settle();
            }
        }
        self.check();
        for detector in 0..DETECTORS {
            self.detectors[detector].catalog.release(self.clock.at(), u64::MAX);
        }
        self.settle();
        self.check();
    }

    fn held(&self) -> u64 {
        self.ppu.ledger.report(self.clock.now()).detectors.iter().map(|detector| detector.held).sum()
    }

    fn recover(&mut self) {
        for storage in &mut self.ppu.storages {
            storage.mood = Mood::Well;
        }
        if self.ppu.journal.stuck {
            self.change_journal();
        }
        self.ppu.ramdisk.close_all();
    }

    /// Until everything has left that may and must, while nothing comes.
    fn relieve(&mut self) {
        for round in 0..20 {
            let said = self.ppu.hub(1000, &self.clock, &mut self.truth);
            self.say(said);
            self.store();
            self.pass(Duration::from_secs(if round % 8 == 7 { 16 } else { 1 }));
        }
    }

    /// Storages and keepers go on, until they have nothing to do.
    fn store(&mut self) {
        for storage in 0..STORAGES {
            self.ppu.look(storage);
            for which in 0..12 {
                self.ppu.copy(storage, which, false);
            }
        }
        self.ppu.commit(1000);
        for home in [Home::Ramdisk, Home::Internal] {
            while !self.ppu.keep(home, false, &self.clock, &self.truth) {}
        }
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        for round in 0..60 {
            for detector in 0..DETECTORS {
                self.connect(detector);
                for _ in 0..12 {
                    self.watch(detector);
                    self.speak(detector);
                    self.hear(detector);
                    self.detectors[detector].start_send(&self.clock);
                    self.detectors[detector].end_send(&self.clock);
                    self.land(detector, true);
                    self.release(detector);
                    self.detectors[detector].release_report(&self.clock);
                    self.clock.pass(Duration::from_micros(10));
                    let said = self.ppu.hub(100, &self.clock, &mut self.truth);
                    self.say(said);
                }
            }
            self.store();
            if round % 20 == 10 {
                let said = self.ppu.retry(&self.clock, &mut self.truth);
                self.say(said);
            }
            self.pass(Duration::from_millis(if round % 20 == 19 { 16_000 } else { 100 }));
        }
        for machine in &mut self.detectors {
            machine.scan(&self.clock);
        }
    }
}
