//! A landing thread: what arrives on one data connection is staged, verified and published on the PPU's ramdisk.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ppu_uring::{Choice, open_engine};
use tokio::sync::mpsc;

use super::expect::{Arriving, Expect};
use super::stream::{self, LIMITS, Lander, Refusal};
use crate::host::priority::OnTheWay;
use crate::model::file_version::TransferId;
use crate::model::job::{Brand, LandFailure, LandJob, LandReport, Landed};
use crate::model::path::RelPath;
use crate::rooted::{
    Attributes, DirAttributes, Occupied, Publication, PublishError, RootError, Staged, Staging,
};
use crate::wire::data::{FileHeader, Trailer};

/// Of the directories made for landed files; their owner is the shift's.
const DIRECTORY_MODE: u32 = 0o755;

/// What all landing threads have in common.
#[derive(Clone)]
pub struct Landing {
    /// On the PPU's ramdisk.
    pub staging: Arc<Staging>,
    /// The internal storage's target: where links lead that eviction has left. `None`: there are none.
    pub links_to: Option<PathBuf>,
    /// Compare hashes before publishing.
    pub verify: bool,
    /// Each thread opens a driver of its own.
    pub engine: Choice,
}

impl Landing {
    /// Starts a thread on a data connection. It reports every transfer that it took up, unless the connection breaks first, and drops
    /// `ended` last, after saying why it ends.
    ///
    /// # Errors
    /// No thread.
    pub fn start(
        &self,
        connection: TcpStream,
        expect: Arc<Expect>,
        report: impl FnMut(LandReport) + Send + 'static,
        ended: mpsc::Sender<String>,
    ) -> io::Result<()> {
        let Self { staging, links_to, verify, engine } = self.clone();
        std::thread::Builder::new().name("land".to_owned()).spawn(move || {
            let _way = OnTheWay::take();
            let reason = match open_engine(engine, LIMITS) {
                Err(error) => error.to_string(),
                Ok(mut opened) => {
                    let mut lander =
                        Files { staging, links_to, expect, report, jobs: HashMap::new(), parent: None };
                    match stream::run(connection, &mut lander, verify, opened.driver.as_mut()) {
                        Ok(()) => "closed by the detector".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
            };
            // Nobody listens where the session is over already.
            let _ = ended.try_send(reason);
        })?;
        Ok(())
    }
}

struct Files<R> {
    staging: Arc<Staging>,
    links_to: Option<PathBuf>,
    expect: Arc<Expect>,
    report: R,
    /// Of the files that are arriving.
    jobs: HashMap<TransferId, Job>,
    /// Where the last file of this batch went.
    parent: Option<(Option<RelPath>, OwnedFd)>,
}

/// What a file that is arriving is.
enum Job {
    Known(Box<LandJob>),
    /// It came unasked, and before its offer: to be asked for before it gets a name.
    Ahead,
    /// It came unasked, and nobody waits for it: no report tells of it.
    Unwanted,
}

impl<R> Files<R> {
    /// What a transfer is, by now; waits for it where it came ahead of its offer.
    fn learn(&mut self, transfer: TransferId) {
        if let Some(job @ Job::Ahead) = self.jobs.get_mut(&transfer) {
            *job = match self.expect.job(transfer) {
                Some(known) => Job::Known(Box::new(known)),
                None => Job::Unwanted,
            };
        }
    }
}

impl<R: FnMut(LandReport)> Lander for Files<R> {
    type Temp = Staged;

    fn begin(&mut self, header: &FileHeader) -> Result<(Staged, Arc<OwnedFd>), Refusal> {
        let size = header.identity.size;
        let job = match self.expect.take(header.transfer).ok_or(Refusal::Unwanted)? {
            // Room was reserved for what was offered; a correct detector declines what has changed since.
            Arriving::Wanted(job) if size != job.offered.size => return Err(Refusal::Unwanted),
            Arriving::Wanted(job) if job.compare_only => return Err(Refusal::Failed(LandFailure::Nobodys)),
            Arriving::Wanted(job) => Job::Known(Box::new(job)),
            Arriving::Ahead { max_bytes } if size > max_bytes => return Err(Refusal::Unwanted),
            Arriving::Ahead { .. } => Job::Ahead,
            Arriving::Unwanted => {
                self.jobs.insert(header.transfer, Job::Unwanted);
                return Err(Refusal::Failed(unwanted()));
            }
        };
        self.jobs.insert(header.transfer, job);
        let staged = self.staging.stage().map_err(|error| Refusal::Failed(failure(&error)))?;
        // huge=within_size looks at the size when pages are made.
        rustix::fs::ftruncate(staged.file(), size).map_err(|errno| {
            Refusal::Failed(failure(&self.staging.root().error("truncate staged file", None, errno)))
        })?;
        let file = Arc::clone(staged.file());
        Ok((staged, file))
    }

    fn publish(
        &mut self,
        staged: Staged,
        header: &FileHeader,
        trailer: &Trailer,
    ) -> Result<Landed, LandFailure> {
        self.expect.note_progress();
        self.learn(header.transfer);
        let Some(Job::Known(job)) = self.jobs.get(&header.transfer) else { return Err(unwanted()) };
        if header.identity.size != job.offered.size {
            return Err(LandFailure::Changed);
        }
        let (uid, gid) = (Some(job.shift.uid), Some(job.shift.gid));
        let brand = Brand {
            detector: job.detector_id.to_string(),
            shift: job.shift.id,
            path: job.path.clone(),
            identity: trailer.identity,
            settled: trailer.settled,
            hash: trailer.hash,
        };
        let link = self.links_to.as_ref().zip(job.to.as_ref()).map(|(target, to)| target.join(to.as_path()));
        let publication = Publication {
            at: &job.at,
            attributes: Attributes { uid, gid, mode: header.mode, mtime_ns: header.identity.mtime_ns },
            directories: &|_: &RelPath| DirAttributes { uid, gid, mode: DIRECTORY_MODE },
            brand: &brand,
            occupied: if job.replace_past { Occupied::Past } else { Occupied::Refuse },
            link: link.as_deref(),
            just_before_rename: &|| true,
        };
        let above = job.at.parent();
        let parent = self.parent.take().filter(|(path, _)| *path == above).map(|(_, fd)| fd);
        let published =
            self.staging.publish_in(parent, staged, &publication).map_err(|error| match error {
                PublishError::Foreign { .. } => LandFailure::Foreign,
                PublishError::Failed(error) => failure(&error),
                PublishError::Superseded => LandFailure::Changed,
            })?;
        self.parent = Some((above, published.parent));
        Ok(Landed {
            identity: trailer.identity,
            mode: header.mode,
            settled: trailer.settled,
            hash: trailer.hash,
            local: published.local,
            visible: Instant::now(),
        })
    }

    fn batch_ends(&mut self) {
        self.parent = None;
    }

    fn report(&mut self, report: LandReport) {
        // The ledger hears of its offer first.
        self.learn(report.transfer);
        if !matches!(self.jobs.remove(&report.transfer), Some(Job::Unwanted)) {
            (self.report)(report);
        }
    }
}

fn unwanted() -> LandFailure {
    LandFailure::Io("it came unasked, and is not taken".to_owned())
}

fn failure(error: &RootError) -> LandFailure {
    match error.is_no_space() {
        true => LandFailure::NoSpace(error.to_string()),
        false => LandFailure::Io(error.to_string()),
    }
}
