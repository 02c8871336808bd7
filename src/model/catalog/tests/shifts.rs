//! Whose files are whose: rules one by one, then random closes, shifts, marks, scans, broken links and restarts, with the real
//! answer beside them.

mod late;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::*;
use super::path;
use crate::model::shift::Began;

/// The file system's clock moves in ticks.
const TICK_NS: i64 = 4_000_000;
const EPOCH_NS: i64 = 1_785_542_399_000_000_000;

/// A detector in time, and what it has.
struct World {
    catalog: Catalog,
    start: Instant,
    ns: i64,
    /// What the watch has not told yet.
    queue: VecDeque<Queued>,
    /// When each file was closed last.
    files: BTreeMap<u8, i64>,
    /// When each shift really began, for what this detector closes; the first at 0.
    shifts: Vec<i64>,
    /// When the PPU began each.
    begun: Vec<i64>,
    connected: bool,
    saved: Vec<KnownSpan>,
    offered: BTreeMap<u8, ShiftId>,
    exact: bool,
    unknown: usize,
}

enum Queued {
    Closed(u8),
    Mark(u64),
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let mut world = Self {
            catalog: Catalog::new(start),
            start,
            ns: 0,
            queue: VecDeque::new(),
            files: BTreeMap::new(),
            shifts: vec![0],
            begun: vec![0],
            connected: false,
            saved: Vec::new(),
            offered: BTreeMap::new(),
            exact: true,
            unknown: 0,
        };
        world.scan();
        world
    }

    /// Its PPU has named the first shift.
    fn linked() -> Self {
        let mut world = Self::new();
        world.connect([10, 10]);
        world.watch();
        world.hear();
        world
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.ns as u64)
    }

    fn moment(&self) -> Moment {
        Moment { at: self.now(), file_ns: EPOCH_NS + self.ns / TICK_NS * TICK_NS }
    }

    fn pass(&mut self, us: u32) {
        self.ns += i64::from(us) * 1000;
    }

    fn identity(&self, name: u8, closed: i64) -> Identity {
        let ctime_ns = EPOCH_NS + closed / TICK_NS * TICK_NS;
        Identity { size: 7, mtime_ns: EPOCH_NS + closed, ino: u64::from(name), ctime_ns }
    }

    fn whose(&self, closed: i64) -> ShiftId {
        ShiftId(self.shifts.iter().filter(|began| **began <= closed).count() as i64)
    }

    fn close(&mut self, name: u8) {
        self.pass(1);
        // A first close that is told after a second one, in the tick of a mark that is between them, is taken for the second until that is
        // told; the PPU does not ask before the shift's word.
        if self.queue.iter().any(|queued| matches!(queued, Queued::Closed(other) if *other == name)) {
            self.ns += 2 * TICK_NS;
        }
        self.files.insert(name, self.ns);
        self.queue.push_back(Queued::Closed(name));
    }

    fn watch(&mut self) {
        match self.queue.pop_front() {
            None => {}
            Some(Queued::Mark(number)) => self.event(Event::Mark(number)),
            // Looked at when it is told: as it is by then.
            Some(Queued::Closed(name)) => {
                let (path, identity) = (path(&name.to_string()), self.identity(name, self.files[&name]));
                let at = self.now();
                self.event(Event::Closed { path, identity, at });
            }
        }
        self.tend();
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        self.catalog.event(now, event);
    }

    fn scan(&mut self) {
        self.event(Event::ScanBegins);
        for (name, closed) in self.files.clone() {
            let (path, identity) = (path(&name.to_string()), self.identity(name, closed));
            let at = self.now();
            self.event(Event::Found { path, identity, at });
        }
        self.event(Event::ScanEnds);
    }

    fn overflow(&mut self) {
        self.exact = false;
        self.queue.clear();
        self.event(Event::Missed);
        self.tend();
        self.scan();
    }

    fn restart(&mut self) {
        self.exact = false;
        self.disconnect();
        self.queue.clear();
        self.catalog = Catalog::new(self.now());
        self.catalog.restore_shifts(self.saved.clone());
        self.scan();
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.offered.clear();
        let now = self.now();
        self.catalog.session_ends(now);
    }

    /// Marks are made at once, and come by in the queue; the log is written at once.
    fn tend(&mut self) {
        while let Some(number) = self.catalog.mark_due() {
            let before = self.moment();
            self.pass(30);
            self.queue.push_back(Queued::Mark(number));
            let after = self.moment();
            self.catalog.marked(number, before, after, true);
        }
        if let Some((revision, spans)) = self.catalog.unsaved_shifts() {
            self.saved = spans;
            self.catalog.shifts_saved(revision);
        }
    }

    fn began(&mut self, shift: usize, began: Began, more: bool) {
        let announced = Announced { shift: ShiftId(shift as i64 + 1), source: None, began, more };
        let moment = self.moment();
        self.catalog.shift_began(moment, announced);
        self.tend();
    }

    fn connect(&mut self, transit: [u32; 2]) {
        if self.connected {
            return;
        }
        self.connected = true;
        let now = self.now();
        self.catalog.session_begins(now);
        self.pass(transit[0]);
        let told = self.ns;
        self.pass(transit[1]);
        for (shift, begun) in self.begun.clone().into_iter().enumerate() {
            let ago = Began::Ago { us: ((told - begun) / 1000) as u64 };
            let began = if shift == 0 { Began::Ever } else { ago };
            self.began(shift, began, shift + 1 < self.begun.len());
        }
    }

    fn start_shift(&mut self) {
        self.pass(1);
        self.begun.push(self.ns);
        if self.connected {
            // Its mark makes the difference, which is made right now.
            self.shifts.push(self.ns);
            self.began(self.begun.len() - 1, Began::Now, false);
        } else {
            self.exact = false;
            self.shifts.push(self.ns);
        }
    }

    fn watch_all(&mut self) {
        while !self.queue.is_empty() {
            self.watch();
        }
    }

    fn words(&mut self) -> Vec<Word> {
        let now = self.now();
        std::iter::from_fn(|| self.catalog.next_word(now)).collect()
    }

    /// One begins on the PPU, whoever hears of it.
    fn begins_there(&mut self) {
        self.begun.push(self.ns);
        self.shifts.push(self.ns);
    }

    /// What the PPU would say now.
    fn ago(&self, shift: usize) -> Began {
        Began::Ago { us: ((self.ns - self.begun[shift]) / 1000) as u64 }
    }

    /// Every offer is right, or nobody's.
    fn hear(&mut self) {
        let now = self.now();
        while let Some(word) = self.catalog.next_word(now) {
            let Word::Offer(files) = word else { continue };
            for file in files {
                let name: u8 = file.path.to_string().parse().unwrap();
                // What was offered may have been closed again, which the watch has not told yet.
                let closed = file.identity.mtime_ns - EPOCH_NS;
                let right = self.whose(closed);
                assert!(
                    file.shift == right || file.shift == ShiftId::UNKNOWN,
                    "{name}: {:?} is not {right:?}",
                    file.shift
                );
                self.unknown += usize::from(file.shift == ShiftId::UNKNOWN);
                self.offered.insert(name, file.shift);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Close(u8),
    Watch,
    Shift,
    Connect([u32; 2]),
    Disconnect,
    Overflow,
    Restart,
    Hear,
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..30_u8).prop_map(Step::Close),
        8 => Just(Step::Watch),
        2 => Just(Step::Shift),
        2 => [0..9_000_u32, 0..9_000_u32].prop_map(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Overflow),
        1 => Just(Step::Restart),
        3 => Just(Step::Hear),
        4 => (0..30_000_u32).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_file_is_given_to_another_shift(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Close(name) => world.close(name),
                Step::Watch => world.watch(),
                Step::Shift => world.start_shift(),
                Step::Connect(transit) => world.connect(transit),
                Step::Disconnect => world.disconnect(),
                Step::Overflow => world.overflow(),
                Step::Restart => world.restart(),
                Step::Hear => world.hear(),
                Step::Pass(us) => world.pass(us),
            }
        }
        world.connect([100, 100]);
        while !world.queue.is_empty() || world.catalog.mark_due().is_some() {
            world.watch();
        }
        world.hear();
        for name in world.files.keys() {
            prop_assert!(world.offered.contains_key(name), "{} is not offered", name);
        }
        if world.exact {
            prop_assert_eq!(world.unknown, 0, "with marks alone nothing is unsure");
        }
    }
}

#[test]
fn what_is_closed_well_before_or_after_is_not_held() {
    let mut world = World::new();
    world.connect([10, 10]);
    world.watch();
    world.disconnect();
    for name in 0..20 {
        world.close(name);
        world.pass(1000);
        world.watch();
        if name == 9 {
            world.pass(50_000);
            world.start_shift();
            world.pass(50_000);
        }
    }
    world.connect([500, 500]);
    world.watch_all();
    world.hear();
    let shifts: Vec<i64> = world.offered.values().map(|shift| shift.0).collect();
    assert_eq!(shifts, [[1; 10], [2; 10]].concat());
}

#[test]
fn a_restart_tells_them_apart_by_their_times() {
    let mut world = World::new();
    world.connect([10, 10]);
    world.watch();
    world.close(1);
    world.pass(50_000);
    world.start_shift();
    world.pass(50_000);
    world.close(2);
    world.restart();
    world.connect([10, 10]);
    world.watch_all();
    world.hear();
    assert_eq!(world.offered, BTreeMap::from([(1, ShiftId(1)), (2, ShiftId(2))]));
}

#[test]
fn what_no_shift_covers_is_nobodys_until_it_is_closed_again() {
    let mut world = World::new();
    world.close(1);
    world.watch();
    world.pass(60_000);
    world.begun = vec![world.ns];
    let now = world.now();
    world.catalog.session_begins(now);
    world.pass(20);
    // Not the first of all: there were others, which the PPU does not remember.
    world.began(0, Began::Ago { us: 20 }, false);
    world.watch_all();
    let offer = |world: &mut World| loop {
        let now = world.now();
        if let Word::Offer(files) = world.catalog.next_word(now).unwrap() {
            break (files[0].offer, files[0].shift);
        }
    };
    assert_eq!(offer(&mut world).1, ShiftId::UNKNOWN);
    world.pass(60_000);
    world.close(1);
    world.watch();
    assert_eq!(offer(&mut world).1, ShiftId(1));
}

#[test]
fn a_renamed_file_stays_with_its_shift_until_it_has_landed() {
    let mut world = World::new();
    world.connect([10, 10]);
    world.watch();
    world.close(1);
    world.watch();
    world.start_shift();
    world.watch();
    let (identity, at) = (world.identity(1, world.files[&1]), world.now());
    world.event(Event::Gone { path: path("1") });
    world.event(Event::Closed {
        path: path("2"),
        identity: Identity { ctime_ns: EPOCH_NS + world.ns, ..identity },
        at,
    });
    let now = world.now();
    let offers: Vec<ShiftId> = std::iter::from_fn(|| world.catalog.next_word(now))
        .filter_map(|word| if let Word::Offer(files) = word { Some(files[0].shift) } else { None })
        .collect();
    assert_eq!(offers, [ShiftId(1)]);
}

#[test]
fn a_clock_that_is_set_back_gives_nothing_to_another_shift() {
    let mut world = World::new();
    world.connect([10, 10]);
    world.watch();
    world.pass(3_000_000);
    world.start_shift();
    world.watch();
    world.catalog.look_at_clock(world.moment());
    // Two seconds back, half a second later: the time before the second shift comes once more.
    let set_back =
        |world: &World| Moment { file_ns: world.moment().file_ns - 2_000_000_000, ..world.moment() };
    world.pass(500_000);
    world.catalog.look_at_clock(set_back(&world));
    world.tend();
    let whose = |world: &mut World, ns: i64| {
        let stamp = EPOCH_NS + ns;
        let identity = Identity { size: 1, mtime_ns: stamp, ino: 1, ctime_ns: stamp };
        let place = world.catalog.whose_change(&path("x"), &identity);
        world.catalog.shifts[place as usize].id
    };
    assert_eq!(whose(&mut world, 100_000_000), ShiftId(1));
    assert_eq!(
        whose(&mut world, 2_000_000_000),
        ShiftId::UNKNOWN,
        "in the first, or in the second after the clock was set"
    );
    assert_eq!(whose(&mut world, 3_200_000_000), ShiftId(2), "twice in the second");
    let restored = world.saved.clone();
    let mut catalog = Catalog::new(world.now());
    catalog.restore_shifts(restored);
    let stamp = EPOCH_NS + 2_000_000_000;
    let identity = Identity { size: 1, mtime_ns: stamp, ino: 1, ctime_ns: stamp };
    let place = catalog.whose_change(&path("x"), &identity);
    assert_eq!(catalog.shifts[place as usize].id, ShiftId::UNKNOWN, "also after a restart");
}

/// The older shift takes a part of the ramdisk, the newer one all of it: what neither can be told of is held, not left out.
#[test]
fn what_only_one_of_the_shifts_takes_is_held_where_nobody_can_tell() {
    let mut catalog = Catalog::new(Instant::now());
    let span = |id: i64, source: Option<RelPath>, from_ns| KnownSpan {
        shift: ShiftId(id),
        source,
        from_ns,
        until_ns: None,
    };
    catalog.restore_shifts([span(1, Some(path("run")), (0, 0)), span(2, None, (100, 200))]);
    let mut whose = |name: &str, ns: i64| {
        let identity = Identity { size: 1, mtime_ns: ns, ino: 1, ctime_ns: ns };
        let place = catalog.whose_change(&path(name), &identity);
        let shift = &catalog.shifts[place as usize];
        (shift.id, shift.source.clone())
    };
    assert_eq!(whose("other/a", 50), (ShiftId(1), Some(path("run"))), "that shift does not take it");
    assert_eq!(whose("other/a", 150), (ShiftId::UNKNOWN, None));
    assert_eq!(whose("run/a", 150), (ShiftId::UNKNOWN, Some(path("run"))));
    assert_eq!(whose("other/a", -5), (ShiftId::UNKNOWN, None), "closed before any shift");
    assert_eq!(whose("other/a", 250), (ShiftId(2), None));
}
