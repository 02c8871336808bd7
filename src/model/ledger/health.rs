//! What a storage is able to take: as its thread's reports show it, and its silence.
//!
//! | health | shown by | copies in flight | ends |
//! |---|---|---|---|
//! | ok, slow | – | twice the queue depth | – |
//! | unavailable, full | a report says so | one now and then | with the first copy that is stored |
//! | quarantined | disk errors, one after the other | one, ever more rarely | likewise |
//! | hung | work and no sign of life | what it has | with the next sign of life |

use std::time::{Duration, Instant};

use crate::model::message::{Code, Message};

/// Pause before a storage that could not be written is tried again; doubles up to [`PROBE_PAUSE_MAX`].
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// Short enough that a storage is in use again soon after somebody mounted it or made room.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(2);
/// So many disk errors without a success in between are the disk's fault and no longer the files'.
const DISK_ERRORS_MAX: u32 = 5;

/// See the module.
#[derive(Default)]
pub(super) struct Health {
    trouble: Option<(Trouble, Instant)>,
    probe_at: Option<Instant>,
    probe_pause: Duration,
    /// Since the last copy that was stored.
    disk_errors: u32,
    writing: Pulse,
    /// Of the thread that reads other storages for this one.
    reading: Pulse,
    /// Since then there has always been more to copy than was in flight.
    behind: Option<Instant>,
}

/// A thread's signs of life.
#[derive(Default)]
struct Pulse {
    /// Its count of its steps, when that was last looked at.
    steps: u64,
    /// When that count last changed, or there was nothing to do.
    moved: Option<Instant>,
    /// It is known to hang, since then.
    hung: Option<Instant>,
}

/// Why a storage is not written; texts for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Unavailable(String),
    Full(String),
    Quarantined(String),
}

/// How long things may take on a storage; from its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Silence of its thread, with work to do, after which it counts as hung.
    pub hung_after: Duration,
    /// Time in which it never had nothing to wait for, after which it counts as slow.
    pub slow_after: Duration,
    /// Pause before a disk that gives errors is tried again; doubles from try to try.
    pub quarantine: Duration,
    /// Longest such pause.
    pub quarantine_max: Duration,
}

/// What the status says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Ok,
    Slow,
    Trouble(&'a Trouble),
    Hung,
    /// What is read for it from another storage hangs; the rest goes on.
    SourceHung,
}

impl Health {
    /// How many copies may be in flight.
    pub(super) fn in_flight_max(&self, now: Instant, usual: usize) -> usize {
        match self.probe_at {
            None => usual,
            Some(at) if at <= now => 1,
            Some(_) => 0,
        }
    }

    /// Time between two tries at the moment.
    pub(super) fn probe_pause(&self) -> Duration {
        self.probe_pause
    }

    /// It stored something, or refused it for the file's sake.
    pub(super) fn well(&mut self) {
        self.trouble = None;
        self.probe_at = None;
        self.probe_pause = Duration::ZERO;
    }

    /// It stored something.
    pub(super) fn stored(&mut self) {
        self.disk_errors = 0;
        self.well();
    }

    /// It cannot be written at all. The message, where this is news.
    pub(super) fn ill(&mut self, now: Instant, storage: &str, trouble: Trouble) -> Option<Message> {
        let (pause, longest) = (PROBE_PAUSE, PROBE_PAUSE_MAX);
        self.put_off(now, storage, trouble, pause, longest)
    }

    /// The disk failed. `Err`: as it may for one file. `Ok`: it fails for all, so that no file is to blame; with the message, where
    /// this is news.
    pub(super) fn disk_error(
        &mut self,
        now: Instant,
        storage: &str,
        reason: &str,
        patience: &Patience,
    ) -> Result<Option<Message>, ()> {
        self.disk_errors = self.disk_errors.saturating_add(1);
        if self.disk_errors < DISK_ERRORS_MAX {
            return Err(());
        }
        let trouble = Trouble::Quarantined(reason.to_owned());
        Ok(self.put_off(now, storage, trouble, patience.quarantine, patience.quarantine_max))
    }

    fn put_off(
        &mut self,
        now: Instant,
        storage: &str,
        trouble: Trouble,
        pause: Duration,
        longest: Duration,
    ) -> Option<Message> {
        let before = self.trouble.take();
        let news = before.as_ref().is_none_or(|(before, _)| !before.is_like(&trouble));
        let message = news.then(|| trouble.message(storage));
        let since = before.filter(|_| !news).map_or(now, |(_, since)| since);
        self.trouble = Some((trouble, since));
        // Copies that were in flight together report one after the other: only the first of them counts as a try.
        if self.probe_at.is_none_or(|at| at <= now) {
            self.probe_pause = if news { pause } else { (self.probe_pause * 2).clamp(pause, longest) };
            self.probe_at = Some(now + self.probe_pause);
        }
        message
    }

    /// How many steps its thread has made in all; `busy`: it has work. The message, where it has just become clear that it hangs.
    pub(super) fn steps(
        &mut self,
        now: Instant,
        storage: &str,
        steps: u64,
        busy: bool,
        patience: &Patience,
    ) -> Option<Message> {
        let news = self.writing.look(now, steps, busy, patience)?;
        let Pulsation::Hangs = news else {
            tracing::info!(storage, "the storage answers again");
            return None;
        };
        let seconds = patience.hung_after.as_secs_f64();
        let long = format!(
            "Storage {storage} hangs: it has not answered for {seconds:.0} s. Landing and the other storages go on; its files stay pending \
             and are copied by themselves as soon as it answers. Look at the disk, its controller, or the file server (dmesg)."
        );
        Some(Message::new(Code::StorageUnavailable, storage, long))
    }

    /// The same of the thread that reads other storages for it.
    pub(super) fn reads(
        &mut self,
        now: Instant,
        storage: &str,
        steps: u64,
        busy: bool,
        patience: &Patience,
    ) -> Option<Message> {
        let Pulsation::Hangs = self.reading.look(now, steps, busy, patience)? else { return None };
        let seconds = patience.hung_after.as_secs_f64();
        let long = format!(
            "A storage that is read for storage {storage}, because the files have left the ramdisk, has not answered for {seconds:.0} s. Those \
             files stay pending until it does; all others go on. Look at the disks and file servers (dmesg)."
        );
        Some(Message::new(Code::StorageUnavailable, storage, long))
    }

    /// Whether something waits that cannot be in flight yet.
    pub(super) fn waiting(&mut self, now: Instant, waiting: bool) {
        let normal = self.trouble.is_none() && self.writing.hung.is_none();
        self.behind = if waiting && normal { self.behind.or(Some(now)) } else { None };
    }

    /// Nothing is to be read from it or expected of it at the moment.
    pub(super) fn is_out(&self) -> bool {
        self.writing.hung.is_some() || matches!(self.trouble, Some((Trouble::Unavailable(_), _)))
    }

    /// What is stored there may not be to be had.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_out() || matches!(self.trouble, Some((Trouble::Quarantined(_), _)))
    }

    /// What it is, and since when.
    pub(super) fn condition(&self, now: Instant, patience: &Patience) -> (Condition<'_>, Option<Instant>) {
        if let Some(since) = self.writing.hung {
            return (Condition::Hung, Some(since));
        }
        if let Some((trouble, since)) = &self.trouble {
            return (Condition::Trouble(trouble), Some(*since));
        }
        if let Some(since) = self.reading.hung {
            return (Condition::SourceHung, Some(since));
        }
        match self.behind {
            Some(since) if now.saturating_duration_since(since) >= patience.slow_after => {
                (Condition::Slow, Some(since))
            }
            _ => (Condition::Ok, None),
        }
    }
}

/// News of a thread.
enum Pulsation {
    Hangs,
    IsBack,
}

impl Pulse {
    fn look(&mut self, now: Instant, steps: u64, busy: bool, patience: &Patience) -> Option<Pulsation> {
        let Some(since) = self.moved.filter(|_| busy && steps == self.steps) else {
            self.steps = steps;
            self.moved = Some(now);
            return self.hung.take().map(|_| Pulsation::IsBack);
        };
        let hangs = self.hung.is_none() && now.saturating_duration_since(since) >= patience.hung_after;
        hangs.then(|| {
            self.hung = Some(since);
            Pulsation::Hangs
        })
    }
}

impl Trouble {
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn message(&self, storage: &str) -> Message {
        let (code, what, reason, advice) = match self {
            Self::Full(reason) => (Code::DiskOverflow, "is full", reason, "Make room there"),
            Self::Unavailable(reason) => {
                (Code::StorageUnavailable, "cannot be written", reason, "Mount or repair it")
            }
            Self::Quarantined(reason) => (
                Code::StorageUnavailable,
                "gives one disk error after the other and is only tried now and then",
                reason,
                "Look at the disk (dmesg, smartctl) and replace it",
            ),
        };
        let long = format!(
            "Storage {storage} {what}: {reason}. {advice}; its files stay pending and are copied by themselves when it works again."
        );
        Message::new(code, storage, long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        hung_after: Duration::from_secs(10),
        slow_after: Duration::from_secs(30),
        quarantine: Duration::from_secs(1),
        quarantine_max: Duration::from_secs(60),
    };

    fn unavailable() -> Trouble {
        Trouble::Unavailable("not mounted".to_owned())
    }

    #[test]
    fn trouble_is_told_once_and_probed_now_and_then() {
        let mut health = Health::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(health.in_flight_max(at(0), 16), 16);
        let told = health.ill(at(0), "s", unavailable()).unwrap();
        assert_eq!((told.code, &*told.short), (Code::StorageUnavailable, "s"));
        // Others that were in flight say the same.
        assert!(health.ill(at(1), "s", unavailable()).is_none());
        assert_eq!(health.in_flight_max(at(249), 16), 0);
        assert_eq!(health.in_flight_max(at(250), 16), 1);
        assert!(health.ill(at(250), "s", unavailable()).is_none());
        assert_eq!(health.in_flight_max(at(749), 16), 0, "the pause has doubled");
        assert_eq!(health.in_flight_max(at(750), 16), 1);
        let full = health.ill(at(750), "s", Trouble::Full("no room".to_owned())).unwrap();
        assert_eq!(full.code, Code::DiskOverflow, "another trouble is news");
        assert_eq!(health.condition(at(800), &PATIENCE).1, Some(at(750)));
        health.stored();
        assert_eq!(health.in_flight_max(at(800), 16), 16);
        assert_eq!(health.condition(at(800), &PATIENCE), (Condition::Ok, None));
    }

    #[test]
    fn a_disk_that_fails_again_and_again_is_quarantined() {
        let mut health = Health::default();
        let now = Instant::now();
        for _ in 0..4 {
            health.disk_error(now, "s", "EIO", &PATIENCE).unwrap_err();
        }
        health.stored();
        for _ in 0..4 {
            health.disk_error(now, "s", "EIO", &PATIENCE).unwrap_err();
        }
        let told = health.disk_error(now, "s", "EIO", &PATIENCE).unwrap().unwrap();
        assert_eq!(told.code, Code::StorageUnavailable);
        assert!(told.long.contains("one disk error after the other"), "{}", told.long);
        let mut at = now;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(health.in_flight_max(at + Duration::from_millis(seconds * 1000 - 1), 16), 0);
            at += Duration::from_secs(seconds);
            assert_eq!(health.in_flight_max(at, 16), 1);
            assert!(health.disk_error(at, "s", "EIO", &PATIENCE).unwrap().is_none(), "told already");
        }
        health.stored();
        assert_eq!(health.in_flight_max(at, 16), 16);
    }

    #[test]
    fn silence_with_work_to_do_is_a_hang() {
        let mut health = Health::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut steps = |s, steps, busy| health.steps(at(s), "s", steps, busy, &PATIENCE).is_some();
        assert!(!steps(0, 7, false));
        assert!(!steps(100, 7, false), "it has nothing to do");
        assert!(!steps(101, 7, true));
        assert!(!steps(109, 7, true));
        assert!(steps(110, 7, true), "silent since second 100");
        assert!(!steps(200, 7, true), "told already");
        assert_eq!(health.condition(at(200), &PATIENCE), (Condition::Hung, Some(at(100))));
        assert!(health.is_out());
        assert!(health.steps(at(201), "s", 8, true, &PATIENCE).is_none());
        assert_eq!(health.condition(at(201), &PATIENCE), (Condition::Ok, None));
        assert!(health.steps(at(211), "s", 8, true, &PATIENCE).is_some(), "hangs again");
    }

    #[test]
    fn a_queue_that_never_gets_empty_is_slow() {
        let mut health = Health::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        health.waiting(at(0), true);
        health.waiting(at(29), true);
        assert_eq!(health.condition(at(29), &PATIENCE).0, Condition::Ok);
        assert_eq!(health.condition(at(30), &PATIENCE), (Condition::Slow, Some(at(0))));
        health.waiting(at(31), false);
        health.waiting(at(32), true);
        assert_eq!(health.condition(at(40), &PATIENCE).0, Condition::Ok);
        let told = health.ill(at(41), "s", unavailable());
        assert!(told.is_some());
        health.waiting(at(41), true);
        health.stored();
        health.waiting(at(100), true);
        assert_eq!(
            health.condition(at(100), &PATIENCE).0,
            Condition::Ok,
            "while it was away it was not slow"
        );
    }
}
