//! One copy to a storage, as a state machine: it says what to do next and is told what came of it.
//!
//! Writing → written (size, identity of the source, owner, mode, time, brand) → synced → placed. The thread that drives
//! it does the waiting. What is read from another storage is written by [`Fetcher`](super::fetch::Fetcher) instead.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ppu_uring::ops::{Data, Sync, Write};
use ppu_uring::{AlignedBuf, Fd, Mapping, Op, PAGE_BYTES};
use rustix::fs::{Advice, FallocateFlags, FileType, OFlags};
use rustix::io::Errno;

use super::writer::Settings;
use crate::model::extra::ExtraPath;
use crate::model::job::{CopyJob, CopyOutcome};
use crate::model::path::{RelPath, printable};
use crate::rooted::mount::Unavailable;
use crate::rooted::{
    Attributes, DirAttributes, FileStat, Occupied, Publication, PublishError, Published, RootError, Staged,
    Staging, hash_content, inherit_gid,
};

/// A file up to this size is written at once.
const WHOLE_BYTES_MAX: u64 = 8 << 20;
/// Larger ones in pieces of this size.
const PIECE_BYTES: u64 = 4 << 20;
/// Through a buffer, in pieces of this size.
const BUFFER_BYTES: u64 = 1 << 20;
/// Up to this size the page cache is cheaper than O_DIRECT: the last page of a file is not whole, so that after O_DIRECT the kernel
/// reads it once more to cut it off, and a mapping's end interrupts every processor that has seen it.
const CACHED_BYTES_MAX: u64 = 256 << 10;
/// Pieces of one file in flight: the next is queued while one is written. More bring nothing.
const PIECES_IN_FLIGHT: usize = 2;
/// Set-group-id of a directory: what is made in it belongs to its group.
const SETGID: u32 = 0o2000;

/// How the bytes get to the storage; each is tried when the one before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Via {
    /// O_DIRECT from the pages of the ramdisk: no copy by the CPU. Small files go by [`Via::Cache`] nevertheless.
    Mapping,
    /// O_DIRECT from an aligned buffer.
    Buffer,
    /// Through the page cache.
    Cache,
}

/// A copy on its way.
pub(super) struct Copy {
    source: Origin,
    staged: Staged,
    to: Fd,
    via: Via,
    mapping: Option<Mapping>,
    spare: Option<AlignedBuf>,
    /// Written up to here, or on its way.
    next: u64,
    /// To be written up to here: the length, for O_DIRECT rounded up to whole pages.
    end: u64,
    /// What short writes left over: offset, length.
    left_over: Vec<(u64, u64)>,
    in_flight: usize,
    /// Made for it before it was placed.
    new_directories: usize,
}

/// What is copied.
enum Origin {
    /// The landed file, as it was when it was opened.
    Ramdisk(OwnedFd, FileStat),
    /// Another storage's copy, which somebody else reads and writes.
    Storage { size: u64, mtime_ns: i64 },
}

/// Why a copy does not go on as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// It is over.
    End(CopyOutcome),
    /// The storage cannot be written this way: again from the start, the next way.
    Refused(CopyOutcome),
    /// The disk failed, and what it made of the file nobody knows: again, once, into a new file.
    DiskError(CopyOutcome),
}

impl From<CopyOutcome> for Setback {
    fn from(outcome: CopyOutcome) -> Self {
        Self::End(outcome)
    }
}

impl Copy {
    /// Opens the landed file and a file for it in staging.
    pub(super) fn begin(
        job: &CopyJob,
        settings: &Settings,
        staging: &Staging,
        via: Via,
    ) -> Result<Self, Setback> {
        let (source, stat) = open_source(job, settings)?;
        let via = via.for_size(stat.size);
        let staged = open_staged(job, staging, via, stat.size)?;
        let page = PAGE_BYTES as u64;
        let end = if via == Via::Cache { stat.size } else { stat.size.next_multiple_of(page) };
        Ok(Self::new(Origin::Ramdisk(source, stat), staged, via, end))
    }

    /// Makes a file in staging for what is fetched from another storage.
    pub(super) fn begin_fetch(job: &CopyJob, staging: &Staging) -> Result<Self, Setback> {
        if job.superseded.load(Ordering::Relaxed) {
            return Err(CopyOutcome::Superseded.into());
        }
        let staged = stage(staging)?;
        let identity = job.brand.identity;
        let source = Origin::Storage { size: identity.size, mtime_ns: identity.mtime_ns };
        Ok(Self::new(source, staged, Via::Cache, 0))
    }

    /// Its bytes.
    pub(super) fn size(&self) -> u64 {
        self.source.size()
    }

    /// How its bytes get there.
    pub(super) fn via(&self) -> Via {
        self.via
    }

    /// A buffer that was used before, if it needs one.
    pub(super) fn lend(&mut self, buffers: &mut Vec<AlignedBuf>) {
        if matches!(self.via, Via::Buffer | Via::Cache) {
            self.spare = buffers.pop();
        }
    }

    /// Gives back a buffer that it needs no more.
    pub(super) fn give_back(&mut self) -> Option<AlignedBuf> {
        self.spare.take()
    }

    /// Where what is fetched goes.
    pub(super) fn file(&self) -> Arc<OwnedFd> {
        Arc::clone(self.staged.file())
    }

    fn new(source: Origin, staged: Staged, via: Via, end: u64) -> Self {
        Self {
            source,
            to: Fd::from(staged.file().clone()),
            staged,
            via,
            mapping: None,
            spare: None,
            next: 0,
            end,
            left_over: Vec::new(),
            in_flight: 0,
            new_directories: 0,
        }
    }

    /// The next write, if one may be started now.
    pub(super) fn next_write(&mut self, job: &CopyJob, staging: &Staging) -> Result<Option<Op>, Setback> {
        let window = if self.via == Via::Mapping { PIECES_IN_FLIGHT } else { 1 };
        if self.in_flight == window {
            return Ok(None);
        }
        let (at, len) = match self.left_over.pop() {
            Some(part) => part,
            None if self.next == self.end => return Ok(None),
            None => (self.next, self.via.piece_bytes(self.source.size()).min(self.end - self.next)),
        };
        let (data, start) = match self.via {
            Via::Mapping => (Data::Mapped(self.mapping(job, staging)?), at as usize),
            Via::Buffer | Via::Cache => (Data::Buf(self.read(job, at, len)?), 0),
        };
        self.next = self.next.max(at + len);
        self.in_flight += 1;
        let range = start..start + len as usize;
        Ok(Some(Op::Write(Write { to: self.to.clone(), at, data, range })))
    }

    /// A write has ended.
    pub(super) fn wrote(
        &mut self,
        job: &CopyJob,
        write: Write,
        result: std::io::Result<u32>,
        staging: &Staging,
    ) -> Result<(), Setback> {
        self.in_flight -= 1;
        let Write { at, data, range, .. } = write;
        if let Data::Buf(buffer) = data {
            self.spare = Some(buffer);
        }
        let asked = range.len() as u64;
        let written = match result {
            Ok(0) => Err(Errno::IO),
            Ok(n) if u64::from(n) >= asked => Ok(asked),
            Ok(n) if self.via == Via::Cache => Ok(n.into()),
            // O_DIRECT goes on at a page's border only.
            Ok(n) if n as usize >= PAGE_BYTES => Ok(u64::from(n) / PAGE_BYTES as u64 * PAGE_BYTES as u64),
            Ok(_) => Err(Errno::INVAL),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        match written {
            Ok(n) if n < asked => self.left_over.push((at + n, asked - n)),
            Ok(_) => {}
            Err(errno) => return Err(self.write_failed(job, errno, staging)),
        }
        Ok(())
    }

    /// All of it is.
    pub(super) fn is_written(&self) -> bool {
        self.next == self.end && self.in_flight == 0 && self.left_over.is_empty()
    }

    /// All is written: the file gets its length, what else it needs, and is still a copy of what it was begun from.
    /// The sync that makes it durable is to be done next.
    pub(super) fn finish(
        &mut self,
        job: &CopyJob,
        settings: &Settings,
        staging: &Staging,
    ) -> Result<Op, Setback> {
        let end =
            |operation, errno| Setback::from(of_errno(errno, shown(staging, &job.to, operation, errno)));
        if self.end > self.source.size() {
            rustix::fs::ftruncate(self.staged.file(), self.source.size())
                .map_err(|errno| end("truncate", errno))?;
        }
        if let Origin::Ramdisk(source, stat) = &self.source {
            let now = FileStat::of(source).map_err(|errno| CopyOutcome::Failed(format!("statx: {errno}")))?;
            if (now.size, now.ctime_ns) != (stat.size, stat.ctime_ns) {
                return Err(source_changed(job).into());
            }
        }
        let (inherited, new_directories) = inherited_gid(job, settings, staging)?;
        self.new_directories = new_directories;
        if let Some(gid) = inherited {
            inherit_gid(self.staged.file(), gid).map_err(|errno| end("chown", errno))?;
        }
        publication(job, &self.source, settings, |publication| staging.dress(&self.staged, publication))
            .map_err(|error| of_error(&error))?;
        Ok(Op::Sync(Sync { file: self.to.clone(), data_only: false }))
    }

    /// The sync has ended. Its failure is never answered by another sync of the same file.
    pub(super) fn synced(
        &self,
        job: &CopyJob,
        result: &std::io::Result<u32>,
        staging: &Staging,
    ) -> Result<(), Setback> {
        let Err(error) = result else {
            // Nobody is known to read it here soon; the ramdisk needs the memory.
            let _ = rustix::fs::fadvise(self.staged.file(), 0, None, Advice::DontNeed);
            return Ok(());
        };
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        Err(disk_error(errno, shown(staging, &job.to, "sync", errno)))
    }

    /// Takes the final name, unless a newer version has landed.
    pub(super) fn place(
        self,
        job: &CopyJob,
        settings: &Settings,
        staging: &Staging,
    ) -> Result<Published, CopyOutcome> {
        let Self { source, staged, new_directories, .. } = self;
        let placed = publication(job, &source, settings, |publication| staging.place(staged, publication));
        let noted = |published: Published| {
            let new_directories = published.new_directories.max(new_directories);
            Published { new_directories, ..published }
        };
        placed.map(noted).map_err(|error| (error.to_string(), error)).map_err(|(error_text, error)| match error {
            PublishError::Superseded => CopyOutcome::Superseded,
            PublishError::Failed(error) => of_error(&error),
            PublishError::Foreign { brand } => {
                let at = staging.root().path().join(job.to.as_path());
                let whose = match brand {
                    Some(other) if other.shift == job.brand.shift => format!(
                        "the name belongs to {} of detector {}, which was stored there first in this shift",
                        other.path, other.detector
                    ),
                    _ => error_text,
                };
                CopyOutcome::Taken(format!("{}: {whose}", shown_path(&at)))
            }
        })
    }

    fn mapping(&mut self, job: &CopyJob, staging: &Staging) -> Result<Mapping, Setback> {
        if let Some(mapping) = &self.mapping {
            return Ok(mapping.clone());
        }
        let Origin::Ramdisk(source, stat) = &self.source else { return Err(source_changed(job).into()) };
        let len = usize::try_from(stat.size).unwrap_or(usize::MAX);
        let mapping = Mapping::new(source, len).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::NOMEM);
            Setback::Refused(CopyOutcome::Failed(shown(staging, &job.to, "map the source of", errno)))
        })?;
        Ok(self.mapping.insert(mapping).clone())
    }

    /// Reads a piece of the source into a buffer, zeros behind the file's end.
    fn read(&mut self, job: &CopyJob, at: u64, len: u64) -> Result<AlignedBuf, Setback> {
        let Origin::Ramdisk(source, stat) = &self.source else { return Err(source_changed(job).into()) };
        let mut buffer = self.spare.take().unwrap_or_else(|| AlignedBuf::new(BUFFER_BYTES as usize));
        let wanted = len.min(stat.size - at) as usize;
        let mut read = 0;
        while read < wanted {
            match rustix::io::pread(source, &mut buffer[read..wanted], at + read as u64) {
                Ok(0) => return Err(source_changed(job).into()),
                Ok(n) => read += n,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let text = format!("read {}: {errno}", job.from);
                    return Err(CopyOutcome::Failed(text).into());
                }
            }
        }
        buffer[wanted..len as usize].fill(0);
        Ok(buffer)
    }

    fn write_failed(&self, job: &CopyJob, errno: Errno, staging: &Staging) -> Setback {
        let text = shown(staging, &job.to, "write", errno);
        let truncated = || match &self.source {
            Origin::Ramdisk(source, stat) => FileStat::of(source).map_or(true, |now| now.size < stat.size),
            Origin::Storage { .. } => false,
        };
        match errno {
            Errno::FAULT if truncated() => source_changed(job).into(),
            Errno::INVAL | Errno::FAULT | Errno::OPNOTSUPP if self.via != Via::Cache => {
                Setback::Refused(CopyOutcome::Failed(text))
            }
            _ => disk_error(errno, text),
        }
    }
}

impl Origin {
    fn size(&self) -> u64 {
        match self {
            Self::Ramdisk(_, stat) => stat.size,
            Self::Storage { size, .. } => *size,
        }
    }

    /// Of the copy: the shift's, but an extra file keeps its own. `None`: not known here, left to the operating system.
    fn owner(&self, job: &CopyJob) -> (Option<u32>, Option<u32>) {
        match self {
            _ if !job.brand.is_extra() => (Some(job.uid), Some(job.gid)),
            Self::Ramdisk(_, stat) => (Some(stat.uid), Some(stat.gid)),
            Self::Storage { .. } => (ExtraPath::decode(&job.brand.path).map(|extra| extra.uid), None),
        }
    }

    fn mtime_ns(&self) -> i64 {
        match self {
            Self::Ramdisk(_, stat) => stat.mtime_ns,
            Self::Storage { mtime_ns, .. } => *mtime_ns,
        }
    }
}

impl Via {
    /// What follows where this is refused.
    pub(super) fn next(self) -> Option<Self> {
        match self {
            Self::Mapping => Some(Self::Buffer),
            Self::Buffer => Some(Self::Cache),
            Self::Cache => None,
        }
    }

    fn for_size(self, size: u64) -> Self {
        if size <= CACHED_BYTES_MAX { Self::Cache } else { self }
    }

    fn piece_bytes(self, size: u64) -> u64 {
        match self {
            Self::Mapping if size <= WHOLE_BYTES_MAX => WHOLE_BYTES_MAX,
            Self::Mapping => PIECE_BYTES,
            Self::Buffer | Self::Cache => BUFFER_BYTES,
        }
    }
}

fn open_source(job: &CopyJob, settings: &Settings) -> Result<(OwnedFd, FileStat), CopyOutcome> {
    if job.superseded.load(Ordering::Relaxed) {
        return Err(CopyOutcome::Superseded);
    }
    let opened = if job.brand.is_extra() { open_handed(job, settings) } else { open_landed(job, settings) };
    let (source, stat) = opened?;
    if is_as_landed(job, &source, &stat) { Ok((source, stat)) } else { Err(source_changed(job)) }
}

/// For so many bytes.
fn open_staged(job: &CopyJob, staging: &Staging, via: Via, size: u64) -> Result<Staged, Setback> {
    let staged = stage(staging)?;
    let failed = |operation, errno| of_errno(errno, shown(staging, &job.to, operation, errno));
    if via != Via::Cache {
        rustix::fs::fcntl_setfl(staged.file(), OFlags::DIRECT)
            .map_err(|errno| Setback::Refused(failed("open", errno)))?;
    }
    if size > via.piece_bytes(size) {
        match rustix::fs::fallocate(staged.file(), FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(failed("allocate", errno).into()),
        }
    }
    Ok(staged)
}

fn open_landed(job: &CopyJob, settings: &Settings) -> Result<(OwnedFd, FileStat), CopyOutcome> {
    settings.ramdisk.open_file(&job.from).map_err(|error| match error.errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => {
            CopyOutcome::SourceLost(error.to_string())
        }
        errno => of_errno(errno, error.to_string()),
    })
}

/// An extra file, which is below no root of ours.
fn open_handed(job: &CopyJob, settings: &Settings) -> Result<(OwnedFd, FileStat), CopyOutcome> {
    let Some(local) = job.local() else { return Err(source_changed(job)) };
    let file = settings.handed.open(&job.brand.path, local).map_err(CopyOutcome::SourceLost)?;
    let stat = FileStat::of(&file).map_err(|errno| CopyOutcome::Failed(format!("statx: {errno}")))?;
    Ok((file, stat))
}

fn publication<T>(
    job: &CopyJob,
    source: &Origin,
    settings: &Settings,
    then: impl FnOnce(&Publication<'_>) -> T,
) -> T {
    let link = settings.links_to.as_ref().map(|target| target.join(job.to.as_path()));
    then(&Publication {
        at: &job.to,
        attributes: Attributes {
            uid: source.owner(job).0.filter(|_| settings.preserve_uid),
            gid: source.owner(job).1.filter(|_| settings.preserve_gid),
            mode: job.mode,
            mtime_ns: source.mtime_ns(),
        },
        directories: &|path| directory_attributes(job, settings, path),
        brand: &job.brand,
        occupied: if settings.replace_other_shift { Occupied::Overwrite } else { Occupied::SetAside },
        link: link.as_deref(),
        just_before_rename: &|| !job.superseded.load(Ordering::Relaxed),
    })
}

/// The group that a file made in staging has not inherited from its directory, and how many directories had to be made
/// to know.
fn inherited_gid(
    job: &CopyJob,
    settings: &Settings,
    staging: &Staging,
) -> Result<(Option<u32>, usize), CopyOutcome> {
    if settings.preserve_gid {
        return Ok((None, 0));
    }
    let directories = |path: &RelPath| directory_attributes(job, settings, path);
    let parent = job.to.parent();
    let made = staging.make_dirs(parent.as_ref(), &directories).map_err(|error| of_error(&error))?;
    let parent = FileStat::of(made.fd).map_err(|errno| CopyOutcome::Failed(format!("statx: {errno}")))?;
    Ok(((parent.mode & SETGID != 0).then_some(parent.gid), made.new))
}

/// The ramdisk's directory that a storage's directory above this copy is a copy of.
pub(super) fn counterpart(job: &CopyJob, directory: &RelPath) -> Option<RelPath> {
    if job.brand.is_extra() {
        return None;
    }
    let (from, to) = (job.from.as_bytes(), job.to.as_bytes());
    let private = from.strip_suffix(to)?;
    if !(private.is_empty() || private.ends_with(b"/")) {
        return None;
    }
    RelPath::new(&[private, directory.as_bytes()].concat()).ok()
}

fn directory_attributes(job: &CopyJob, settings: &Settings, directory: &RelPath) -> DirAttributes {
    if job.brand.is_extra() {
        // Users choose where their files go: a directory made on the way must not become theirs, for others' images may come to
        // lie in it. It becomes what the ramdisk's directory of that name is, if there is one.
        return match settings.ramdisk.stat(directory) {
            Ok(like) if like.kind() == FileType::Directory => DirAttributes {
                uid: settings.preserve_uid.then_some(like.uid),
                gid: settings.preserve_gid.then_some(like.gid),
                mode: like.mode,
            },
            _ => DirAttributes { uid: None, gid: None, mode: 0o755 },
        };
    }
    let like = counterpart(job, directory).and_then(|path| settings.ramdisk.stat(&path).ok());
    match like {
        Some(like) if like.kind() == FileType::Directory => DirAttributes {
            uid: settings.preserve_uid.then_some(like.uid),
            gid: settings.preserve_gid.then_some(like.gid),
            mode: like.mode,
        },
        // Gone from the ramdisk, and its files with it: as it is made there.
        _ => DirAttributes {
            uid: settings.preserve_uid.then_some(job.uid),
            gid: settings.preserve_gid.then_some(job.gid),
            mode: 0o755,
        },
    }
}

fn stage(staging: &Staging) -> Result<Staged, CopyOutcome> {
    staging.stage().map_err(|error| match error.errno {
        // Not even a new file can be made: that is no fault of this one.
        Errno::IO => CopyOutcome::Unavailable(error.to_string()),
        _ => of_error(&error),
    })
}

/// It is the file that landed, with the content that was verified. A user's chmod or hard link moves the ctime as a write does; then
/// the content decides.
fn is_as_landed(job: &CopyJob, source: &OwnedFd, stat: &FileStat) -> bool {
    job.local().is_some_and(|local| {
        stat.ino == local.ino
            && (stat.ctime_ns == local.ctime_ns
                || stat.size == job.brand.identity.size && hash_content(source) == Ok(job.brand.hash))
    })
}

fn source_changed(job: &CopyJob) -> CopyOutcome {
    let place = if job.brand.is_extra() { "since it was handed over" } else { "on the ramdisk" };
    CopyOutcome::SourceLost(format!("{} was changed or replaced {place}", job.from))
}

fn disk_error(errno: Errno, text: String) -> Setback {
    match disk_outcome(of_errno(errno, text)) {
        outcome @ CopyOutcome::DiskError(_) => Setback::DiskError(outcome),
        other => other.into(),
    }
}

/// Of an error in writing or syncing: what is nobody else's fault is the disk's.
pub(super) fn disk_outcome(outcome: CopyOutcome) -> CopyOutcome {
    match outcome {
        CopyOutcome::Failed(text) => CopyOutcome::DiskError(text),
        other => other,
    }
}

fn of_error(error: &RootError) -> CopyOutcome {
    of_errno(error.errno, error.to_string())
}

/// Whose fault an error is: the storage's as a whole, or this copy's.
pub(super) fn of_errno(errno: Errno, text: String) -> CopyOutcome {
    match errno {
        Errno::NOSPC | Errno::DQUOT => CopyOutcome::Full(text),
        Errno::ROFS | Errno::STALE | Errno::NOTCONN | Errno::NODEV | Errno::NXIO | Errno::HOSTDOWN => {
            CopyOutcome::Unavailable(text)
        }
        Errno::IO => CopyOutcome::DiskError(text),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => CopyOutcome::NotNow(text),
        _ => CopyOutcome::Failed(text),
    }
}

fn shown(staging: &Staging, to: &RelPath, operation: &str, errno: Errno) -> String {
    format!("{operation} {}: {errno}", shown_path(&staging.root().path().join(to.as_path())))
}

fn shown_path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    printable(path.as_os_str().as_bytes())
}

impl From<Unavailable> for CopyOutcome {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable.0)
    }
}
