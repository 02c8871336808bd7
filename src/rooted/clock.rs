//! The clock that a file system's time stamps come from.

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use super::root::{FileStat, Root};

impl Root {
    /// The time stamp that a change would get now, ns since the epoch: that of an unnamed file. Where there can be none (no room, an
    /// old file system), this machine's clock.
    pub fn file_clock_ns(&self) -> i64 {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let probe = rustix::fs::openat(self, ".", flags, Mode::RUSR | Mode::WUSR);
        match probe.and_then(|file| FileStat::of(&file)) {
            Ok(stat) => stat.ctime_ns,
            Err(_) => {
                let now = clock_gettime(ClockId::Realtime);
                now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_made_in_between_is_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let before = root.file_clock_ns();
        std::fs::write(dir.path().join("a"), b"a").unwrap();
        let path = crate::model::path::RelPath::new(b"a").unwrap();
        let stat = root.stat(&path).unwrap();
        assert!(before <= stat.ctime_ns && stat.ctime_ns <= root.file_clock_ns());
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
