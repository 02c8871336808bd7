//! The staging directory on the detector's ramdisk, through which released files leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use inotify::WatchMask;
use rustix::io::Errno;

use crate::model::path::RelPath;
use crate::model::units::count;
use crate::rooted::{Root, RootError, STAGING_NAME, Staging};

/// A file that is taken is moved in.
pub(super) const MASK: WatchMask = WatchMask::MOVED_TO.union(WatchMask::ONLYDIR);

/// What is left there of an earlier process.
#[derive(Default)]
pub(super) struct Prepared {
    /// `None`: it is not wished, and not there.
    pub(super) directory: Option<OwnedFd>,
    /// What is wrong with it, for people.
    pub(super) kept: Option<String>,
}

/// Gives what an earlier process left there its name back, and opens the directory. Where it is not `wished` it is not made.
pub(super) fn prepare(root: &Arc<Root>, wished: bool) -> Result<Prepared, RootError> {
    let path = RelPath::new(STAGING_NAME.as_bytes())
        .map_err(|_| root.error("name staging in", None, Errno::INVAL))?;
    if !wished && root.stat(&path).is_err_and(|error| error.errno == Errno::NOENT) {
        return Ok(Prepared::default());
    }
    let swept = Staging::open(Arc::clone(root))?.sweep()?;
    if swept.put_back > 0 {
        tracing::info!(files = swept.put_back, "what was about to be released has its name again");
    }
    let at = root.path().join(STAGING_NAME);
    let kept = (swept.kept > 0).then(|| format!("{} in {}", count(swept.kept as u64, "file"), at.display()));
    let directory = if wished { Some(root.open_dir(Some(&path))?) } else { None };
    Ok(Prepared { directory, kept })
}
