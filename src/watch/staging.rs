//! The staging directory on the detector's ramdisk, through which released files leave.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use inotify::WatchMask;
use rustix::io::Errno;

use crate::model::path::RelPath;
use crate::rooted::{Root, RootError, STAGING_NAME, Staging};

/// A file that is taken is moved in.
pub(super) const MASK: WatchMask = WatchMask::MOVED_TO.union(WatchMask::ONLYDIR);

/// Gives what an earlier process left there its name back, and opens the directory. Where it is not `wished` it is not made, and
/// `None` is the answer.
pub(super) fn prepare(root: &Arc<Root>, wished: bool) -> Result<Option<OwnedFd>, RootError> {
    let path = RelPath::new(STAGING_NAME.as_bytes())
        .map_err(|_| root.error("name staging in", None, Errno::INVAL))?;
    if !wished && root.stat(&path).is_err_and(|error| error.errno == Errno::NOENT) {
        return Ok(None);
    }
    let swept = Staging::open(Arc::clone(root))?.sweep()?;
    if swept.put_back > 0 {
        tracing::info!(files = swept.put_back, "what was about to be released has its name again");
    }
    if swept.kept > 0 {
        let path = root.path().join(STAGING_NAME);
        tracing::warn!(
            files = swept.kept,
            "in {} there is something that nobody misses: look at it",
            path.display()
        );
    }
    if wished { root.open_dir(Some(&path)).map(Some) } else { Ok(None) }
}
