//! When an identity can be trusted to change with the next write.

use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, fstat};

/// Where time stamps move with the timer tick, two writes within one tick look alike. The longest tick is 10 ms (HZ=100).
const TICK_NS: i64 = 20_000_000;

/// How fine the time stamps of a file system are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// A change after a look always shows (multigrain time stamps, Linux 6.13).
    AtOnce,
    /// A change shows once the clock's tick has passed.
    AfterTick,
}

impl Settling {
    /// Tries it out with an unnamed file in `directory`.
    pub fn probe(directory: impl AsFd) -> Self {
        if changes_show(directory).unwrap_or(false) { Self::AtOnce } else { Self::AfterTick }
    }

    /// Whether no write after now can leave a file with this ctime, looked at just now, as it is.
    pub fn is_settled(self, ctime_ns: i64) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        self == Self::AtOnce || now_ns.saturating_sub(ctime_ns) >= TICK_NS
    }
}

/// A few writes in a row, each looked at, all with different times.
fn changes_show(directory: impl AsFd) -> Result<bool, rustix::io::Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?;
    let mut last = None;
    for byte in 0..4u8 {
        rustix::io::write(&file, &[byte])?;
        let stat = fstat(&file)?;
        let ctime = Some((stat.st_ctime, stat.st_ctime_nsec));
        if ctime == last {
            return Ok(false);
        }
        last = ctime;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_changes_are_settled_everywhere() {
        assert!(Settling::AfterTick.is_settled(0));
        assert!(!Settling::AfterTick.is_settled(i64::MAX));
        assert!(Settling::AtOnce.is_settled(i64::MAX));
    }

    #[test]
    fn the_probe_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Settling::probe(std::fs::File::open(dir.path()).unwrap());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
