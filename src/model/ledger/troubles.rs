//! What is wrong on a detector, by its own word: told to people once, and shown while it lasts.
//!
//! A detector is not believed in everything. What it says is bounded when it is decoded (`model/trouble`), it can raise no other code than those of
//! [`Matter`](crate::model::trouble::Matter), and one that has something to say without end is summed up, so that it does not push everybody else's messages out of
//! the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Ledger, Now, Order};
use crate::model::allowance::Allowance;
use crate::model::file_version::DetectorIndex;
use crate::model::message::{Code, Message};
use crate::model::path::printable;
use crate::model::status::Trouble;
use crate::model::trouble::{REPORTS_MAX, Report};
use crate::model::units::{count, duration};

/// Told at once of one detector; each further one takes [`EVERY`].
const AT_ONCE: u32 = 100;
const EVERY: Duration = Duration::from_secs(60);
/// What began longer ago was not told at once: it is said how long.
const LATE: Duration = Duration::from_secs(60);

/// Of one detector.
pub(super) struct Troubles {
    /// Its process, and the last number that was noted of it. Outlives sessions, so that none is told twice.
    life: u64,
    noted: u64,
    /// Of this session, by number.
    lasting: BTreeMap<u64, Trouble>,
    allowance: Allowance,
    /// Not told one by one; the code of the last.
    untold: (u64, Option<Code>),
}

impl Default for Troubles {
    fn default() -> Self {
        let allowance = Allowance::new(AT_ONCE, EVERY);
        Self { life: 0, noted: 0, lasting: BTreeMap::new(), allowance, untold: (0, None) }
    }
}

impl Troubles {
    /// The session is over, or a new one begins: it says anew what lasts.
    pub(super) fn forget(&mut self) {
        self.lasting.clear();
    }

    pub(super) fn over(&mut self, number: u64) {
        self.lasting.remove(&number);
    }

    /// What lasts, oldest first.
    pub(super) fn lasting(&self) -> Vec<Trouble> {
        self.lasting.values().cloned().collect()
    }
}

impl Ledger {
    pub(super) fn trouble(
        &mut self,
        now: Now,
        detector: DetectorIndex,
        report: Report,
        out: &mut Vec<Order>,
    ) {
        let Report { life, number, us_ago, matter, about, text, lasts } = report;
        let id = &self.settings.detectors[detector.index()].id;
        let troubles = &mut self.detectors[detector.index()].troubles;
        if life != troubles.life {
            (troubles.life, troubles.noted) = (life, 0);
        }
        let about = Some(printable(about.as_bytes())).filter(|about| !about.is_empty());
        let (comma, place) = about.as_deref().map_or(("", ""), |about| (", ", about));
        let mut long = format!("Detector {id}{comma}{place}: {}", text.as_str());
        let ago = Duration::from_micros(us_ago);
        if ago >= LATE {
            let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
            long += &format!(" That began {} before it could be told here.", duration(ago));
        }
        let message = Message::new(matter.code(), about.unwrap_or_else(|| id.to_string()), long);
        if lasts && troubles.lasting.len() <= REPORTS_MAX {
            let ago = i64::try_from(us_ago / 1000).unwrap_or(i64::MAX);
            let since_ms = now.wall_ms.saturating_sub(ago);
            troubles.lasting.insert(number, Trouble { message: message.clone(), since_ms });
        }
        if number > troubles.noted {
            troubles.noted = number;
            if troubles.allowance.take(now.at) {
                out.push(Order::Tell(message));
            } else {
                troubles.untold = (troubles.untold.0 + 1, Some(message.code));
            }
        }
        out.push(Order::Noted { detector, number });
    }

    /// What was not told one by one, as soon as something may be told again.
    pub(super) fn sum_up_troubles(&mut self, now: Now, detector: DetectorIndex, out: &mut Vec<Order>) {
        let id = &self.settings.detectors[detector.index()].id;
        let troubles = &mut self.detectors[detector.index()].troubles;
        let (untold @ 1.., Some(code)) = troubles.untold else { return };
        if !troubles.allowance.take(now.at) {
            return;
        }
        troubles.untold = (0, None);
        let more = count(untold, "more trouble");
        let long = format!(
            "Detector {id} has {more} than are told here one by one. The log of ppu-uringd on that machine has all of it."
        );
        out.push(Order::Tell(Message::new(code, &**id, long)));
    }
}
