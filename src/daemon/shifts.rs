//! Beginning a shift: asked for on the control socket, begun by the ledger, answered when the detectors have given their word.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ppu_config::Ppu;

use super::ppu::PpuError;
use crate::model::half::Half;
use crate::model::ledger::{Ledger, Now, Order};
use crate::model::message::{Code, Message};
use crate::model::path::RelPath;
use crate::model::replica_path::Target;
use crate::model::shift::{Place, Shift, ShiftId, WORD_WAIT};
use crate::model::shift_report::{ShiftReport, Silent, Started};
use crate::model::shift_request::{Owner, ShiftDefaults, ShiftRequest, shared_replicas};
use crate::rooted::{DirAttributes, Staging};

/// How long the journal may take for a shift before whoever asked is told so.
const JOURNAL_WAIT: Duration = Duration::from_millis(2500);
/// Of the directories made for a shift, as of those made for files.
const DIRECTORY_MODE: u32 = 0o755;

/// Where an answer goes.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// The hub's part in it.
pub struct Shifts {
    /// What is left out comes from there.
    defaults: ShiftDefaults,
    /// Where its directories are made.
    staging: Arc<Staging>,
    starting: Vec<Starting>,
}

/// Somebody waits for an answer.
struct Starting {
    id: ShiftId,
    asked: Instant,
    begun: Option<Instant>,
    reply: Reply<Result<Started, String>>,
}

impl Shifts {
    /// Nobody waits.
    pub fn new(defaults: ShiftDefaults, staging: Arc<Staging>) -> Self {
        Self { defaults, staging, starting: Vec::new() }
    }

    /// Asks the ledger to begin a shift. The answer comes by [`Shifts::answer`], but for what cannot be.
    pub fn start(
        &mut self,
        ledger: &mut Ledger,
        now: Now,
        request: &ShiftRequest,
        reply: Reply<Result<Started, String>>,
        orders: &mut Vec<Order>,
    ) {
        let id = ledger.next_shift_id(now);
        let shift = self.defaults.shift(id, request).map_err(|error| error.to_string());
        match shift.and_then(|shift| ledger.start_shift(shift, orders)) {
            Ok(()) => self.starting.push(Starting { id, asked: now.at, begun: None, reply }),
            Err(reason) => reply(Err(reason)),
        }
    }

    /// Answers whoever has waited long enough.
    pub fn answer(&mut self, ledger: &Ledger, now: Now) {
        for mut starting in std::mem::take(&mut self.starting) {
            if !ledger.has_begun(starting.id) {
                if now.at.saturating_duration_since(starting.asked) > JOURNAL_WAIT {
                    (starting.reply)(Err(
                        "the journal has not taken the shift yet, its disk is slow or hangs. The shift begins as soon as it has: look with \
                         `ppu-uringd shift show` before you go on"
                            .to_owned(),
                    ));
                } else {
                    self.starting.push(starting);
                }
                continue;
            }
            let begun = *starting.begun.get_or_insert(now.at);
            let silent = ledger.without_word(starting.id);
            if !silent.is_empty() && now.at.saturating_duration_since(begun) < WORD_WAIT {
                self.starting.push(starting);
                continue;
            }
            let Some(shift) = ledger.all_shifts().rev().find(|shift| shift.id == starting.id) else {
                continue;
            };
            let silent = silent.into_iter().map(|(detector, why)| Silent { detector, why }).collect();
            let mut warnings = shared_replicas(shift);
            warnings.extend(paused(ledger));
            let started = Started { shift: self.report(ledger, shift), silent, warnings };
            (starting.reply)(Ok(started));
        }
    }

    /// The last `count` shifts, oldest first.
    pub fn list(&self, ledger: &Ledger, count: usize) -> Vec<ShiftReport> {
        let mut list: Vec<_> =
            ledger.all_shifts().rev().take(count).map(|shift| self.report(ledger, shift)).collect();
        list.reverse();
        list
    }

    /// Makes the directories of a shift that begins (SPEC 1.5); what cannot be made is to be told.
    pub fn prepare(&self, shift: &Shift) -> Vec<Message> {
        let mut said = Vec::new();
        for place in &shift.places {
            let directory = match (place.target.directory(), &shift.user_dir) {
                (Some(target), Some(user_dir)) => target.join(user_dir).ok(),
                (target, user_dir) => target.or_else(|| user_dir.clone()),
            };
            let attributes = |_: &RelPath| DirAttributes {
                uid: Some(shift.uid),
                gid: Some(shift.gid),
                mode: DIRECTORY_MODE,
            };
            if let Err(error) = self.staging.make_dirs(directory.as_ref(), &attributes) {
                let long = format!(
                    "The directory of detector {}'s files in the shift that begins cannot be made: {error}. It is made with the first file, if \
                     that is possible then; else the files wait on the detector.",
                    place.detector
                );
                said.push(Message::new(
                    Code::LandError,
                    directory.map_or(String::new(), |at| at.to_string()),
                    long,
                ));
            }
        }
        said
    }

    fn report(&self, ledger: &Ledger, shift: &Shift) -> ShiftReport {
        let current = ledger.current_shift().id == shift.id;
        ShiftReport::new(shift, current, &self.defaults.ramdisk, |detector| {
            ledger.word_of(detector, shift.id)
        })
    }
}

/// A new shift ends no pause: whoever has begun it should know.
fn paused(ledger: &Ledger) -> impl Iterator<Item = String> {
    let paused = ledger.paused();
    let halves = Half::ALL.into_iter().filter(move |half| paused.since(*half).is_some());
    halves.map(|half| {
        format!(
            "{half} is paused, a new shift does not change that: {}. To go on: ppu-uringd resume {half}",
            half.while_paused()
        )
    })
}

/// What the configuration says of a shift.
pub(super) fn defaults(config: &Ppu) -> Result<ShiftDefaults, PpuError> {
    let ramdisk = config.ramdisk.as_os_str().as_bytes().to_vec();
    let mut places = Vec::new();
    for detector in &config.detectors {
        let target = Target::parse(&ramdisk, detector.target.as_os_str().as_bytes());
        let target = target.map_err(|reason| PpuError::Target {
            id: detector.id.clone(),
            target: detector.target.display().to_string(),
            reason,
        })?;
        let source = match detector.source.as_os_str().as_bytes().trim_ascii() {
            b"" => None,
            source => Some(RelPath::new(source).map_err(|reason| PpuError::Path {
                what: "source",
                value: detector.source.display().to_string(),
                reason,
            })?),
        };
        places.push(Place { detector: detector.id.clone(), source, target });
    }
    let owner = Owner { uid: config.uid, gid: config.gid };
    Ok(ShiftDefaults { ramdisk, owner, user_dir: config.user_dir.clone(), places })
}

/// The shift to go on with at start (SPEC 2.4): the last one, whatever the configuration says by now; the first is as configured. And whether
/// it is to be written into the journal.
pub(super) fn current(
    shifts: &[Shift],
    defaults: &ShiftDefaults,
    now: Now,
) -> Result<(Arc<Shift>, bool), PpuError> {
    let Some(last) = shifts.last() else {
        let first = defaults.shift(ShiftId(now.wall_ms), &ShiftRequest::default());
        return Ok((Arc::new(first.map_err(PpuError::Shift)?), true));
    };
    let (longer, said) = defaults.go_on_with(last);
    for line in said {
        tracing::warn!("{line}");
    }
    if (last.uid, last.gid) != (defaults.owner.uid, defaults.owner.gid) {
        tracing::info!(
            uid = last.uid,
            gid = last.gid,
            "the current shift goes on; what the configuration says is for the next `ppu-uringd shift start`"
        );
    }
    Ok(match longer {
        Some(longer) => (Arc::new(longer), true),
        None => (Arc::new(last.clone()), false),
    })
}
