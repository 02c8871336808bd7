//! Shifts: how one begins, what detectors are told of them, and their words (SPEC 2).
//!
//! A shift that is asked for begins when the journal has it: else a crash could leave a detector with a shift that nobody knows. From then
//! on it is the current one; every connected detector is told, and gives its word when the files closed there are told apart. A
//! detector that is not connected is told when it is, with the shift's age.

use std::sync::Arc;
use std::time::Instant;

use super::detector::Link;
use super::{Ledger, Now, Order};
use crate::model::file_version::DetectorIndex;
use crate::model::record::Record;
use crate::model::shift::{Began, Shift, ShiftId, WORD_WAIT};

/// Most shifts that a detector is told of at a session's start; it remembers what it was told before.
const TOLD_SHIFTS_MAX: usize = 256;

/// A word that a detector owes us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) shift: ShiftId,
    /// It was told as beginning at that moment.
    live: bool,
    /// Its word came late, and it was told again when the shift really began.
    corrected: bool,
}

/// A shift that is not yet in the journal.
pub(super) struct Starting {
    /// Of its record.
    sequence: u64,
    shift: Arc<Shift>,
}

impl Ledger {
    /// The number of a shift that starts now: its time, but later than every other's.
    pub fn next_shift_id(&self, now: Now) -> ShiftId {
        let last = self.starting.back().map_or(self.current.id, |starting| starting.shift.id);
        ShiftId(now.wall_ms.max(last.0.saturating_add(1)))
    }

    /// A shift is asked for; [`has_begun`](Self::has_begun) tells when it is the current one.
    ///
    /// # Errors
    /// For people: the journal cannot be written, so that nobody would know of it after a crash.
    pub fn start_shift(&mut self, shift: Shift, out: &mut Vec<Order>) -> Result<(), String> {
        if let Some(trouble) = &self.journal.trouble {
            return Err(format!(
                "no shift can begin while the journal cannot be written: {trouble}. Make room or repair the file system that holds state_dir, \
                 then start it again; the current shift goes on meanwhile"
            ));
        }
        let sequence = self.record(Record::Shift(shift.clone()), out);
        self.starting.push_back(Starting { sequence, shift: Arc::new(shift) });
        Ok(())
    }

    /// The shift is, or was, the current one.
    pub fn has_begun(&self, id: ShiftId) -> bool {
        self.shifts.contains_key(&id)
    }

    /// Every shift, oldest first.
    pub fn all_shifts(&self) -> impl DoubleEndedIterator<Item = &Arc<Shift>> {
        self.shifts.values()
    }

    /// The detectors that have not yet given their word on a shift, and why; for people.
    pub fn without_word(&self, id: ShiftId) -> Vec<(String, String)> {
        let owes = |(index, _): &(usize, &super::Detector)| {
            !self.has_word(*index, id) && !self.settings.detectors[*index].is_extra()
        };
        let why = |(index, state): (usize, &super::Detector)| {
            let why = match &state.link {
                Link::Up(_) => "gave no answer yet".to_owned(),
                Link::Never => "is not connected yet".to_owned(),
                Link::Down { reason, .. } => format!("is not connected: {reason}"),
            };
            (self.settings.detectors[index].id.to_string(), why)
        };
        self.detectors.iter().enumerate().filter(owes).map(why).collect()
    }

    /// Whether the detector of that id tells this shift's files from earlier ones'; `None`: there is none.
    pub fn word_of(&self, detector: &str, id: ShiftId) -> Option<bool> {
        let index = self.settings.detectors.iter().position(|settings| *settings.id == *detector)?;
        Some(self.has_word(index, id))
    }

    /// The detector knows this shift, or a later one.
    fn has_word(&self, detector: usize, id: ShiftId) -> bool {
        self.detectors.get(detector).is_some_and(|state| state.word >= Some(id))
    }

    /// The journal has everything up to this record.
    pub(super) fn begin_committed(&mut self, now: Now, up_to: u64, out: &mut Vec<Order>) {
        while let Some(Starting { sequence, shift }) = self.starting.front()
            && *sequence <= up_to
        {
            let shift = Arc::clone(shift);
            self.starting.pop_front();
            self.begin(now, shift, out);
        }
    }

    fn begin(&mut self, now: Now, shift: Arc<Shift>, out: &mut Vec<Order>) {
        self.begins.insert(shift.id, now.at);
        self.shifts.insert(shift.id, Arc::clone(&shift));
        self.current = Arc::clone(&shift);
        out.push(Order::PrepareShift(shift));
        for index in 0..self.detectors.len() {
            if self.detectors[index].link.is_up() {
                let detector = DetectorIndex(index as u16);
                self.announce(detector, self.current.id, Began::Now, false, out);
                let awaited = Awaited { shift: self.current.id, live: true, corrected: false };
                self.detectors[index].awaited.push(awaited);
            }
        }
    }

    /// A session begins: the detector hears of every shift that it may not know.
    pub(super) fn announce_all(&mut self, now: Now, detector: DetectorIndex, out: &mut Vec<Order>) {
        let newest: Vec<ShiftId> = self.shifts.keys().rev().take(TOLD_SHIFTS_MAX).copied().collect();
        let first = self.shifts.keys().next().copied();
        for &id in newest.iter().rev() {
            let began = if Some(id) == first { Began::Ever } else { self.age(now, id) };
            self.announce(detector, id, began, id != self.current.id, out);
        }
        let current = self.current.id;
        let awaited = &mut self.detectors[detector.index()].awaited;
        // Told as beginning at that moment, and nobody knows when that was heard.
        awaited.retain(|awaited| awaited.live);
        awaited.iter_mut().for_each(|awaited| awaited.corrected = false);
        if awaited.last().is_none_or(|last| last.shift != current) {
            awaited.push(Awaited { shift: current, live: false, corrected: false });
        }
    }

    /// A detector's word on a shift.
    pub(super) fn shift_word(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        id: ShiftId,
        out: &mut Vec<Order>,
    ) {
        let begins = &self.begins;
        let state = &mut self.detectors[detector.index()];
        if state.awaited.is_empty() || !self.shifts.contains_key(&id) {
            return; // nobody asked
        }
        state.word = state.word.max(Some(id));
        let late = |awaited: &Awaited| {
            let began = begins.get(&awaited.shift);
            awaited.live && began.is_some_and(|began| now.at.saturating_duration_since(*began) > WORD_WAIT)
        };
        // Whoever began it did not wait for this word: what was closed since then is the new shift's.
        let is_corrected = |awaited: &Awaited| awaited.shift > id || (late(awaited) && !awaited.corrected);
        state.awaited.retain(is_corrected);
        let mut corrected = Vec::new();
        for awaited in state.awaited.iter_mut().filter(|awaited| awaited.shift <= id) {
            awaited.corrected = true;
            corrected.push(awaited.shift);
        }
        if corrected.is_empty() {
            return;
        }
        // A row ends with the current one. If that is not what the row is about, its beginning is nothing new.
        let current = self.current.id;
        let began = if corrected.contains(&current) { self.age(now, current) } else { Began::Ever };
        for id in corrected.into_iter().filter(|id| *id != current) {
            self.announce(detector, id, self.age(now, id), true, out);
        }
        self.announce(detector, current, began, false, out);
    }

    /// A file was closed after a shift had begun, and is offered for an earlier one, by a detector that has not yet told them apart.
    pub(super) fn may_be_misplaced(&self, detector: DetectorIndex, shift: ShiftId, closed: Instant) -> bool {
        let awaited = &self.detectors[detector.index()].awaited;
        let later = awaited.iter().filter(|awaited| shift < awaited.shift);
        later.filter_map(|awaited| self.begins.get(&awaited.shift)).any(|began| closed >= *began)
    }

    fn announce(
        &mut self,
        detector: DetectorIndex,
        id: ShiftId,
        began: Began,
        more: bool,
        out: &mut Vec<Order>,
    ) {
        self.detectors[detector.index()].shifts_told += 1;
        let place =
            self.shifts.get(&id).and_then(|shift| shift.place(&self.settings.detectors[detector.index()].id));
        let source = place.and_then(|place| place.source.clone());
        out.push(Order::AnnounceShift { detector, shift: id, source, began, more });
    }

    /// By the monotonic clock where this process saw it begin, else by its own time.
    fn age(&self, now: Now, id: ShiftId) -> Began {
        let us = match self.begins.get(&id) {
            Some(began) => {
                u64::try_from(now.at.saturating_duration_since(*began).as_micros()).unwrap_or(u64::MAX)
            }
            None => u64::try_from(now.wall_ms.saturating_sub(id.0)).unwrap_or(0).saturating_mul(1000),
        };
        Began::Ago { us }
    }
}
