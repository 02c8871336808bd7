//! Whose files are whose, by time: the detector's shifts on the clock of its ramdisk's time stamps.
//!
//! Only what nobody saw closed is looked up here (scans), and what was closed around a beginning that this detector heard of late. All else
//! is attributed by the order of events. An edge between two shifts is known between two bounds; what falls between them is
//! unsure, and nobody gets it.
//!
//! ```text
//!   time stamps ──►       edge                  clock set back
//!   ────────A────────────[lo..hi]────────B──────────┤ until
//!                                               ├───────────B────────►
//! ```

use crate::model::shift::ShiftId;

/// Most spans that are remembered: years of shifts. Older ones are forgotten, and files that old are held.
const SPANS_MAX: usize = 1024;
/// After the clock was set, moments before are known this well.
const STEP_BLUR_NS: i64 = 2_000_000_000;

/// Place of a shift in the catalog's table.
pub(super) type Place = u32;

/// When a span began: not before the first, not after the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// Microseconds on the catalog's clock; [`i64::MIN`] where an earlier process saw it.
    pub(super) us: (i64, i64),
    /// Nanoseconds, as time stamps of files.
    pub(super) ns: (i64, i64),
}

impl Edge {
    /// Before everything.
    pub(super) const EVER: Self = Self { us: (i64::MIN, i64::MIN), ns: (i64::MIN, i64::MIN) };
}

/// A time in which one shift had the beam and the clock was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) place: Place,
    pub(super) from: Edge,
    /// The clock was set at its end: no time stamp of it is later.
    pub(super) until_ns: Option<i64>,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// That shift's.
    Of(Place),
    /// One of several shifts'; the oldest of them that takes the file at all.
    Unsure(Place),
    /// No known shift's.
    Nobody,
}

/// In the order of real time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    spans: Vec<Span>,
}

impl Timeline {
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(super) fn last(&self) -> Option<&Span> {
        self.spans.last()
    }

    pub(super) fn first(&self) -> Option<&Span> {
        self.spans.first()
    }

    pub(super) fn knows(&self, place: Place) -> bool {
        self.spans.iter().any(|span| span.place == place)
    }

    /// The last beginning of `place`.
    pub(super) fn beginning(&self, place: Place) -> Option<Edge> {
        let (mut found, mut before) = (None, None);
        for span in &self.spans {
            if span.place == place && before != Some(place) {
                found = Some(span.from);
            }
            before = Some(span.place);
        }
        found
    }

    /// From `from` on, until something else is said.
    pub(super) fn begin(&mut self, place: Place, from: Edge) {
        self.spans.push(Span { place, from, until_ns: None });
        self.forget_oldest();
    }

    /// As it was remembered.
    pub(super) fn restore(&mut self, span: Span) {
        self.spans.push(span);
        self.forget_oldest();
    }

    /// The clock was set: from the last time stamp that there may be before, to the first that there may be after.
    pub(super) fn step(&mut self, us: (i64, i64), before_ns: i64, after_ns: i64) {
        let Some(last) = self.spans.last_mut() else { return };
        last.until_ns = Some(before_ns);
        let place = last.place;
        self.begin(place, Edge { us, ns: (after_ns, after_ns) });
    }

    /// A shift is heard of that began some time ago, on the clock of today: it had the beam from then until the next one that is
    /// younger than itself.
    pub(super) fn insert(&mut self, place: Place, mut from: Edge, id_of: impl Fn(Place) -> ShiftId) {
        let id = id_of(place);
        let mut at = self.spans.len();
        let mut stepped = 0;
        while at > 0 {
            let span = &self.spans[at - 1];
            let began_before = match span.from.us.0 {
                i64::MIN => span.from.ns.0 <= from.ns.0.saturating_add(stepped),
                us => us <= from.us.0,
            };
            if began_before {
                break;
            }
            if let Some(before) = at.checked_sub(2).and_then(|before| self.spans[before].until_ns) {
                stepped += before.saturating_sub(span.from.ns.0);
            }
            at -= 1;
        }
        if stepped != 0 {
            let (lo, hi) = (from.ns.0.saturating_add(stepped), from.ns.1.saturating_add(stepped));
            from.ns = (lo.saturating_sub(STEP_BLUR_NS), hi.saturating_add(STEP_BLUR_NS));
        }
        let until_ns = match at.checked_sub(1).map(|before| &mut self.spans[before]) {
            // Its time was over before it began.
            Some(span) if id_of(span.place) > id => return,
            Some(span) => span.until_ns.take(),
            None => None,
        };
        self.spans.insert(at, Span { place, from, until_ns });
        for span in &mut self.spans[at + 1..] {
            if id_of(span.place) < id {
                span.place = place;
            }
        }
        self.forget_oldest();
    }

    /// Whose a file is that was last changed at `ctime_ns`, and whose close nobody saw. `takes`: it lies below that shift's source.
    pub(super) fn changed(&self, ctime_ns: i64, takes: impl Fn(Place) -> bool) -> Whose {
        self.only(|this, at| this.spans[at].from.ns.0 <= ctime_ns && ctime_ns <= this.end_ns(at), takes)
    }

    /// Whose a file is that was last changed at `ctime_ns`, and was seen closed at `at_us` at the latest. `takes`: likewise.
    pub(super) fn closed(&self, ctime_ns: i64, at_us: i64, takes: impl Fn(Place) -> bool) -> Whose {
        self.only(|this, at| this.spans[at].from.us.0 <= at_us && ctime_ns <= this.end_ns(at), takes)
    }

    fn end_ns(&self, at: usize) -> i64 {
        match (self.spans[at].until_ns, self.spans.get(at + 1)) {
            (Some(until), _) => until,
            (None, Some(next)) => next.from.ns.1,
            (None, None) => i64::MAX,
        }
    }

    fn only(&self, may_be: impl Fn(&Self, usize) -> bool, takes: impl Fn(Place) -> bool) -> Whose {
        let places = || (0..self.spans.len()).filter(|at| may_be(self, *at)).map(|at| self.spans[at].place);
        match places().next() {
            None => Whose::Nobody,
            Some(first) if places().all(|place| place == first) => Whose::Of(first),
            Some(first) => Whose::Unsure(places().find(|place| takes(*place)).unwrap_or(first)),
        }
    }

    fn forget_oldest(&mut self) {
        if self.spans.len() > SPANS_MAX {
            self.spans.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edge(lo: i64, hi: i64) -> Edge {
        Edge { us: (lo, hi), ns: (lo * 1000, hi * 1000) }
    }

    fn id(place: Place) -> ShiftId {
        ShiftId(i64::from(place))
    }

    #[test]
    fn what_falls_between_the_bounds_of_an_edge_is_nobodys() {
        let mut timeline = Timeline::default();
        timeline.begin(1, Edge::EVER);
        timeline.begin(2, edge(100, 102));
        for (ctime, whose) in [
            (0, Whose::Of(1)),
            (99_999, Whose::Of(1)),
            (100_000, Whose::Unsure(1)),
            (102_000, Whose::Unsure(1)),
            (102_001, Whose::Of(2)),
        ] {
            assert_eq!(timeline.changed(ctime, |_| true), whose, "{ctime}");
        }
        assert_eq!(timeline.closed(50_000, 99, |_| true), Whose::Of(1), "closed before it began");
        assert_eq!(
            timeline.closed(50_000, 200, |_| true),
            Whose::Unsure(1),
            "closed on one side or the other"
        );
        assert_eq!(timeline.closed(150_000, 200, |_| true), Whose::Of(2));
    }

    #[test]
    fn before_the_first_shift_nobody_has_the_beam() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.changed(5, |_| true), Whose::Nobody);
        timeline.begin(1, edge(100, 100));
        assert_eq!(timeline.changed(99_999, |_| true), Whose::Nobody);
        assert_eq!(timeline.changed(100_000, |_| true), Whose::Of(1));
    }

    #[test]
    fn shifts_that_are_heard_of_late_take_their_time_and_no_more() {
        let mut timeline = Timeline::default();
        timeline.begin(1, Edge::EVER);
        timeline.insert(3, edge(300, 300), id);
        timeline.insert(2, edge(200, 200), id);
        let places: Vec<_> = timeline.spans().iter().map(|span| span.place).collect();
        assert_eq!(places, [1, 2, 3]);
        assert_eq!(timeline.changed(250_000, |_| true), Whose::Of(2));
        // It is said to begin after the one that followed it: it had no time.
        timeline.insert(2, edge(350, 350), id);
        assert_eq!(timeline.spans().len(), 3);
        // Older than everything that is known.
        let mut timeline = Timeline::default();
        timeline.begin(5, edge(500, 500));
        timeline.insert(4, edge(400, 400), id);
        assert_eq!(timeline.changed(450_000, |_| true), Whose::Of(4));
        assert_eq!(timeline.changed(350_000, |_| true), Whose::Nobody);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_times_unsure_where_shifts_differ() {
        let mut timeline = Timeline::default();
        timeline.begin(1, Edge::EVER);
        timeline.begin(2, edge(1000, 1000));
        // At 2000 the clock is set back to 500.
        timeline.step((1990, 2000), 2_000_000, 500_000);
        assert_eq!(timeline.changed(400_000, |_| true), Whose::Of(1));
        assert_eq!(timeline.changed(700_000, |_| true), Whose::Unsure(1), "before either edge");
        assert_eq!(
            timeline.changed(1_500_000, |_| true),
            Whose::Of(2),
            "twice, and both times in the same shift"
        );
        assert_eq!(timeline.changed(3_000_000, |_| true), Whose::Of(2));
        // A shift is heard of that began while the clock was not yet set: when, on that clock, is not known well.
        timeline.insert(3, Edge { us: (1500, 1500), ns: (0, 0) }, id);
        assert_eq!(timeline.spans().iter().map(|span| span.place).collect::<Vec<_>>(), [1, 2, 3, 3]);
        assert!(matches!(timeline.changed(1_500_000, |_| true), Whose::Unsure(_)));
        assert_eq!(timeline.changed(3_000_000_000, |_| true), Whose::Of(3));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut timeline = Timeline::default();
        for place in 0..2000 {
            timeline.begin(place, edge(i64::from(place), i64::from(place)));
        }
        assert_eq!(timeline.spans().len(), SPANS_MAX);
        assert_eq!(timeline.changed(5, |_| true), Whose::Nobody);
    }

    proptest! {
        /// In whatever order shifts are heard of, each has the time from its beginning to the next one's.
        #[test]
        fn the_order_of_hearing_does_not_matter(order in Just((1..8_u32).collect::<Vec<_>>()).prop_shuffle(), ctime in 0..9000_i64) {
            let mut timeline = Timeline::default();
            timeline.begin(0, Edge::EVER);
            for place in order {
                let at = i64::from(place) * 1000;
                timeline.insert(place, edge(at, at), id);
            }
            let ctime = ctime * 1000 + 500;
            let expected = (ctime / 1_000_000).min(7) as Place;
            prop_assert_eq!(timeline.changed(ctime, |_| true), Whose::Of(expected));
        }
    }
}
