//! The run itself: the simulated detector in a thread, and a line about how far everything is.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ppu_uringd::model::status::{Counts, StatusReport};
use ppu_uringd::simulate::{self, Plan, Record, SimulateError, Summary};

use super::super::Failure;
use super::super::output::People;
use super::board::Board;
use super::daemons::Daemons;

/// Between two looks at the daemon's status.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Between two lines where nobody watches.
const LINE_PERIOD: Duration = Duration::from_secs(1);
/// A run in which nothing moves for this long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The thread in which the simulated detector writes.
pub(super) struct Simulation {
    begin: Instant,
    thread: JoinHandle<(Result<Summary, SimulateError>, Vec<Record>)>,
}

/// What the simulated detector wrote.
pub(super) struct Written {
    pub(super) records: Vec<Record>,
    pub(super) summary: Summary,
}

/// How things stood when the last file was stored.
pub(super) struct End {
    /// From the first file's beginning.
    pub(super) elapsed: Duration,
    pub(super) status: StatusReport,
}

impl Simulation {
    pub(super) fn start(plan: Plan, board: Arc<Board>, stop: Arc<AtomicBool>) -> Self {
        let thread = std::thread::spawn(move || {
            let mut records = Vec::new();
            let summary = simulate::run(&plan, &stop, |closed| {
                if let Some(path) = closed.record.rel_path() {
                    board.closed(path, closed.at, closed.record.size);
                }
                records.push(closed.record);
            });
            (summary, records)
        });
        Self { begin: Instant::now(), thread }
    }

    /// `stop` is set where the run was given up, so that this does not wait for the rest of it.
    pub(super) fn end(self, stop: &AtomicBool) -> Result<Written, Failure> {
        stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok((Ok(summary), records)) => Ok(Written { records, summary }),
            Ok((Err(error), _)) => Err(Failure::Failed(format!("the simulated detector: {error}"))),
            Err(_) => Err(Failure::Failed("the simulated detector panicked".into())),
        }
    }
}

/// Shows progress until the daemon has stored `files` files, or some have failed for good.
pub(super) fn until_all_is_stored(
    simulation: &Simulation,
    board: &Board,
    daemons: &mut Daemons,
    files: u64,
    stop: &AtomicBool,
    people: People,
) -> Result<End, Failure> {
    let mut line = Line::new(people);
    let mut moved = (Instant::now(), (0, 0, 0));
    // A daemon that is too busy for one answer is no failure; one that gives none while nothing moves is.
    let mut known = Err(String::from("no answer yet"));
    loop {
        daemons.check_alive()?;
        let answer = daemons.status();
        let fresh = answer.is_ok();
        if fresh || known.is_err() {
            known = answer;
        }
        let counts = known.as_ref().map(counts).unwrap_or_default();
        let (totals, elapsed) = (board.totals(), simulation.begin.elapsed());
        let settled = counts.copied + counts.failed + counts.lost;
        line.show(board, &counts, elapsed);

        if stop.load(Ordering::Relaxed) {
            line.end();
            return Err(Failure::Failed("interrupted".into()));
        }
        let written = simulation.thread.is_finished() && totals == board.totals();
        if written
            && fresh
            && (totals.closed < files || settled >= files)
            && let Ok(status) = known
        {
            line.end();
            return Ok(End { elapsed, status });
        }
        let now = (totals.closed, totals.visible, settled);
        if now != moved.1 {
            moved = (Instant::now(), now);
        } else if moved.0.elapsed() > STALL_LIMIT {
            line.end();
            let silence = known.err().map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(daemons.failure(&format!(
                "nothing has moved for {} s, {} of {files} files are stored{silence}",
                STALL_LIMIT.as_secs(),
                counts.copied
            )));
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// Of the demo's one storage, over all shifts.
pub(super) fn counts(status: &StatusReport) -> Counts {
    let mut sum = Counts::default();
    for copies in status.shifts.iter().flat_map(|shift| &shift.storages) {
        sum.produced += copies.counts.produced;
        sum.pending += copies.counts.pending;
        sum.copied += copies.counts.copied;
        sum.failed += copies.counts.failed;
        sum.superseded += copies.counts.superseded;
        sum.lost += copies.counts.lost;
    }
    sum
}

/// One line, written over again on a terminal; a new line now and then elsewhere.
struct Line {
    people: People,
    terminal: bool,
    shown: Option<(Instant, u64)>,
}

impl Line {
    fn new(people: People) -> Self {
        let terminal = match people {
            People::Output => std::io::stdout().is_terminal(),
            People::Error => std::io::stderr().is_terminal(),
        };
        Self { people, terminal, shown: None }
    }

    fn show(&mut self, board: &Board, counts: &Counts, elapsed: Duration) {
        let now = Instant::now();
        let period = if self.terminal { LOOK_PERIOD / 2 } else { LINE_PERIOD };
        if self.shown.is_some_and(|(at, _)| now - at < period) {
            return;
        }
        let totals = board.totals();
        let rate = match self.shown {
            Some((at, bytes)) => (totals.visible_bytes - bytes) as f64 / 1e9 / (now - at).as_secs_f64(),
            None => 0.0,
        };
        self.shown = Some((now, totals.visible_bytes));
        let latency = match board.latency() {
            Some(latency) => format!("close to visible p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99),
            None => String::new(),
        };
        let text = format!(
            "{:5.1} s  closed {}  visible {}  stored {}  {rate:.2} GB/s  {latency}",
            elapsed.as_secs_f64(),
            totals.closed,
            totals.visible,
            counts.copied
        );
        self.write(&if self.terminal { format!("\r\x1b[K{text}") } else { text + "\n" });
    }

    fn end(&self) {
        if self.terminal && self.shown.is_some() {
            self.write("\n");
        }
    }

    /// Progress that nobody can see is no reason to stop.
    fn write(&self, text: &str) {
        let mut out: Box<dyn Write> = match self.people {
            People::Output => Box::new(std::io::stdout()),
            People::Error => Box::new(std::io::stderr()),
        };
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
