//! Real file systems for tests: images mounted over loop devices, which can be filled, taken away and cut off.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Smallest: 1 MB.
    Ext4,
    /// Smallest: 300 MB.
    Xfs,
}

/// A file system in a sparse file, mounted; unmounted and gone when dropped.
pub(crate) struct LoopFs {
    kind: Kind,
    /// Holds `image` and the mount point `mount`.
    temp: TempDir,
    mountpoint: PathBuf,
    /// Mounts that still have a name, one on top of the other.
    mounts: usize,
}

impl LoopFs {
    /// `None`, and a line that says so, where we may not mount or cannot make such a file system.
    pub(crate) fn new(kind: Kind, bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: loop mounts take root");
            return None;
        }
        // In memory where possible: tests that sync every file are not for the disk's patience.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let image = std::fs::File::create(temp.path().join("image")).unwrap();
        image.set_len(bytes).unwrap();
        let mkfs = match kind {
            Kind::Ext4 => "mkfs.ext4",
            Kind::Xfs => "mkfs.xfs",
        };
        match Command::new(mkfs).arg("-q").arg(temp.path().join("image")).status() {
            Ok(status) => assert!(status.success(), "{mkfs}: {status}"),
            Err(error) => {
                eprintln!("SKIPPED: {mkfs}: {error}");
                return None;
            }
        }
        let mountpoint = temp.path().join("mount");
        std::fs::create_dir(&mountpoint).unwrap();
        let mut fs = Self { kind, temp, mountpoint, mounts: 0 };
        fs.mount();
        Some(fs)
    }

    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    pub(crate) fn mount(&mut self) {
        self.mount_image(&self.temp.path().join("image"));
    }

    /// Another file system takes the name, and this one is under it.
    pub(crate) fn cover_by(&mut self, other: &LoopFs) {
        run(Command::new("mount").arg("--bind").arg(&other.mountpoint).arg(&self.mountpoint));
        self.mounts += 1;
    }

    pub(crate) fn remount_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.mountpoint));
    }

    pub(crate) fn unmount(&mut self) {
        run(Command::new("umount").arg(&self.mountpoint));
        self.mounts -= 1;
    }

    pub(crate) fn unmount_lazily(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.mountpoint));
        self.mounts -= 1;
    }

    /// What a power cut does: nothing that is not on the disk yet gets there, and every later call fails.
    pub(crate) fn cut_power(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.mountpoint));
    }

    /// Mounts again what a power cut left. Nobody may hold anything on it any more.
    pub(crate) fn power_on(&mut self) {
        self.unmount();
        self.mount();
    }

    fn mount_image(&mut self, image: &Path) {
        let kind = match self.kind {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        };
        run(Command::new("mount").args(["-o", "loop", "-t", kind]).arg(image).arg(&self.mountpoint));
        self.mounts += 1;
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        for _ in 0..self.mounts {
            // A failed test may still hold something open.
            let _ = Command::new("umount").arg("-l").arg(&self.mountpoint).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
