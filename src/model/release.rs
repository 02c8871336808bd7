//! Removing from the detector's ramdisk what is safe elsewhere (SPEC 1.10): the policy, and what the thread that carries it out is
//! asked and reports.

use super::file_version::Identity;
use super::path::RelPath;

/// When a file may leave the detector's ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safe {
    /// Verified on the PPU's ramdisk; a PPU that reboots before it is stored loses it.
    Landed,
    /// Durable on the internal storage.
    Stored,
}

/// As configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// What is asked of a file.
    pub safe: Safe,
    /// Fill ratio of the ramdisk above which files go, oldest first; 0: as soon as they are safe.
    pub above: f64,
}

impl Policy {
    /// Bytes that are to leave a ramdisk of `total` bytes with `free` free ones.
    pub fn excess(&self, total: u64, free: u64) -> u64 {
        if self.above <= 0.0 {
            return u64::MAX;
        }
        let limit = (total as f64 * self.above) as u64;
        total.saturating_sub(free).saturating_sub(limit)
    }
}

/// What the thread is to do. Each path is under way once at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Out of sight with it, if it is this version still and nobody has it open for writing.
    Take {
        /// Below the ramdisk.
        path: RelPath,
        /// The safe version.
        identity: Identity,
    },
    /// What was taken is deleted.
    Delete {
        /// As it was called.
        path: RelPath,
    },
    /// What was taken gets its name back.
    PutBack {
        /// As it was called.
        path: RelPath,
    },
}

/// What came of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// As in the order.
    pub path: RelPath,
    /// How it ended.
    pub outcome: Outcome,
}

/// See [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Out of sight; [`Order::Delete`] or [`Order::PutBack`] is awaited.
    Taken {
        /// Its name in staging, by which the watch tells of it as well; not used again while
        /// the watch has not told of it.
        token: Box<[u8]>,
    },
    /// Left where it is: another version, or somebody writes it; for people.
    Left(String),
    /// Deleted.
    Deleted,
    /// Under its name again.
    Back,
    /// It can be neither put back nor deleted: it stays in staging; for people.
    Kept(String),
    /// The file system refuses; for people. Worth another try later.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_mark_down_to_the_mark() {
        let policy = |above| Policy { safe: Safe::Stored, above };
        assert_eq!(policy(0.5).excess(100, 60), 0);
        assert_eq!(policy(0.5).excess(100, 50), 0);
        assert_eq!(policy(0.5).excess(100, 20), 30);
        assert_eq!(policy(1.0).excess(100, 0), 0);
        assert_eq!(policy(0.0).excess(100, 100), u64::MAX, "as soon as they are safe");
        // What a ramdisk that is not there says.
        assert_eq!(policy(0.5).excess(0, 0), 0);
        assert_eq!(policy(0.5).excess(10, 20), 0);
    }
}
