//! The PPU's end of the connections: lands what is sent, as the daemon does, and counts it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use ppu_config::Verify;
use ppu_uring::Choice;
use ppu_uringd::land::expect::Expect;
use ppu_uringd::land::landing::Landing;
use ppu_uringd::land::link::Notice;
use ppu_uringd::model::file_version::{DetectorIndex, Identity, TransferId};
use ppu_uringd::model::job::{LandJob, LandReport};
use ppu_uringd::model::ledger::Fact;
use ppu_uringd::model::path::RelPath;
use ppu_uringd::model::shift::{Shift, ShiftId};
use ppu_uringd::rooted::{Root, Staging};

use super::Pace;

/// Asked for at a time, as the daemon asks: bounded, so that the ramdisk is.
const WANTED_BYTES: u64 = 64_000_000;
const WANTED_FILES: u64 = 256;
/// A measurement that has brought fewer says nothing: it goes on.
const FILES_MIN: u64 = 4;
/// Without a file for that long something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether this was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// Who sends.
pub(super) trait Supply {
    /// What there is.
    fn files(&self) -> &[(RelPath, Identity)];
    /// Wants some of them, by their places.
    fn ask(&mut self, wanted: &[(TransferId, usize)]) -> Result<(), String>;
}

/// What is heard while files come.
pub(super) enum News {
    Landed(LandReport),
    /// Of the link, where there is one.
    Notice(Notice),
    /// Sending has failed.
    Broken(String),
}

/// One set-up of the PPU's end.
pub(super) struct Arrivals {
    pub(super) landing: Landing,
    target: PathBuf,
    pub(super) news: Receiver<News>,
    pub(super) tell: Sender<News>,
}

impl Arrivals {
    /// Files land below `target`, a directory of their own.
    pub(super) fn new(target: &Path, verify: Verify, engine: Choice) -> io::Result<Self> {
        let root = Arc::new(Root::open(target).map_err(io::Error::other)?);
        let staging = Arc::new(Staging::open(root).map_err(io::Error::other)?);
        let landing = Landing { staging, links_to: None, verify: verify == Verify::Publish, engine };
        let (tell, news) = channel();
        Ok(Self { landing, target: target.to_owned(), news, tell })
    }

    /// Files and bytes that land in `time`, and how long it took: from a landing that is not counted to the last that is, so that what is under
    /// way at either end makes no difference. Each file is removed when it has landed: the same ones come again and again.
    pub(super) fn count(
        &self,
        supply: &mut impl Supply,
        expect: &Expect,
        pace: &Pace,
        time: Duration,
    ) -> Result<(u64, u64, Duration), String> {
        let work = Work::new()?;
        let known = supply.files().to_vec();
        let largest = known.iter().map(|(_, identity)| identity.size).max().ok_or("there are no files")?;
        let in_flight_max = in_flight_max(largest);
        let mut start: Option<Instant> = None;
        let (mut asked, mut landed_files, mut files, mut bytes) = (0, 0, 0, 0);
        let mut names = HashMap::new();
        loop {
            let mut wanted = Vec::new();
            while asked - landed_files < in_flight_max {
                let (transfer, at) = (TransferId(asked), (asked % known.len() as u64) as usize);
                let (path, identity) = &known[at];
                let job = work.job(transfer, path, *identity)?;
                names.insert(transfer, job.at.clone());
                expect.add(transfer, job);
                wanted.push((transfer, at));
                asked += 1;
            }
            if !wanted.is_empty() {
                supply.ask(&wanted)?;
            }
            let mut news = Some(self.next(pace)?);
            // All that have landed meanwhile are replaced together.
            while let Some(next) = news {
                let Some(report) = landed(next)? else {
                    news = self.news.try_recv().ok();
                    continue;
                };
                let landed = report.outcome.map_err(|why| why.to_string())?;
                landed_files += 1;
                if start.is_some() {
                    files += 1;
                    bytes += landed.identity.size;
                }
                if let Some(name) = names.remove(&report.transfer) {
                    let path = self.target.join(name.as_path());
                    std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                news = self.news.try_recv().ok();
            }
            match start {
                Some(start) if files >= FILES_MIN && start.elapsed() >= time => {
                    return Ok((files, bytes, start.elapsed()));
                }
                None if landed_files > 0 => start = Some(Instant::now()),
                _ => {}
            }
        }
    }

    /// What was still on its way has landed or never will: it goes.
    pub(super) fn clear(&self) -> Result<(), String> {
        let landed = self.target.join(LANDED);
        match std::fs::remove_dir_all(&landed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", landed.display()))
            }
            _ => Ok(()),
        }
    }

    /// Waits for it.
    pub(super) fn next(&self, pace: &Pace) -> Result<News, String> {
        let start = Instant::now();
        loop {
            if pace.is_stopped() {
                return Err("interrupted".to_owned());
            }
            match self.news.recv_timeout(LOOK) {
                Ok(news) => return Ok(news),
                Err(RecvTimeoutError::Timeout) if start.elapsed() < PATIENCE => {}
                Err(_) => return Err(format!("nothing comes for {} s", PATIENCE.as_secs())),
            }
        }
    }
}

/// Files of that size.
pub(super) fn in_flight_max(bytes: u64) -> u64 {
    (WANTED_BYTES / bytes.max(1)).clamp(2, WANTED_FILES)
}

/// The directory below the target.
const LANDED: &str = "run";

/// Everything else either means nothing here, or the end.
fn landed(news: News) -> Result<Option<LandReport>, String> {
    match news {
        News::Landed(report) => Ok(Some(report)),
        News::Broken(reason) | News::Notice(Notice::Fact(Fact::LinkDown { reason, .. })) => Err(reason),
        News::Notice(Notice::Fact(Fact::Declined { why, .. })) => {
            Err(format!("the detector sends no file: {why:?}"))
        }
        News::Notice(Notice::Fact(Fact::Withdrawn { why, .. })) => {
            Err(format!("the detector takes a file back: {why:?}"))
        }
        News::Notice(_) => Ok(None),
    }
}

/// What all of them have in common.
struct Work {
    shift: Arc<Shift>,
    detector_id: Arc<str>,
}

impl Work {
    fn new() -> Result<Self, String> {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let shift = Shift::new(ShiftId(1), uid, gid, "", Vec::new()).map_err(|error| error.to_string())?;
        Ok(Self { shift: Arc::new(shift), detector_id: "tune".into() })
    }

    /// Each lands under a name of its own.
    fn job(&self, transfer: TransferId, path: &RelPath, identity: Identity) -> Result<LandJob, String> {
        let at = format!("{LANDED}/{}", transfer.0);
        Ok(LandJob {
            detector: DetectorIndex(0),
            detector_id: Arc::clone(&self.detector_id),
            shift: Arc::clone(&self.shift),
            path: path.clone(),
            at: RelPath::new(at.as_bytes()).map_err(|error| error.to_string())?,
            to: None,
            offered: identity,
            replace_past: false,
            compare_only: false,
        })
    }
}
