//! Real file systems, unmounted when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mounted file system in a temporary directory of its own.
pub struct Mount {
    dir: tempfile::TempDir,
    at: PathBuf,
}

impl Mount {
    /// A tmpfs with mount options such as `size=64m,huge=within_size`.
    pub fn tmpfs(options: &str) -> Self {
        let this = Self::empty();
        this.mount_tmpfs(options);
        this
    }

    /// `mkfs.ext4` or `mkfs.xfs` on a sparse image, mounted through a loop device.
    pub fn image(kind: &str, megabytes: u64) -> Self {
        let this = Self::empty();
        let image = this.dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        mkfs(kind, &image);
        this.mount_image();
        this
    }

    /// As [`image`](Self::image), with the image on a tmpfs that has room for so much of it only: what does not fit is an error of the disk.
    pub fn bad_disk(kind: &str, megabytes: u64, room_megabytes: u64) -> (Self, Mount) {
        let backing = Self::tmpfs(&format!("size={room_megabytes}m"));
        let this = Self::empty();
        let image = backing.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        mkfs(kind, &image);
        std::os::unix::fs::symlink(&image, this.dir.path().join("image")).unwrap();
        this.mount_image();
        (this, backing)
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("mnt");
        std::fs::create_dir(&at).unwrap();
        Self { dir, at }
    }

    pub fn mount_tmpfs(&self, options: &str) {
        mount(Some("tmpfs"), &self.at, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
    }

    /// Mounts the image (again).
    pub fn mount_image(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.dir.path().join("image")).arg(&self.at));
    }

    pub fn unmount(&self) {
        umount2(&self.at, MntFlags::empty()).unwrap();
    }

    pub fn unmount_lazily(&self) {
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
    }

    /// Nobody uses the image's loop device any more: it was unmounted, and nothing on it is held open.
    pub fn is_free(&self) -> bool {
        let image = self.dir.path().join("image").canonicalize().unwrap();
        let devices = Command::new("losetup").arg("-j").arg(image).output().unwrap();
        devices.stdout.is_empty()
    }

    pub fn image_path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Several mounts may be stacked here; the last attempt fails.
        while umount2(&self.at, MntFlags::MNT_DETACH).is_ok() {}
    }
}

fn mkfs(kind: &str, image: &Path) {
    let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
    run(Command::new(format!("mkfs.{kind}")).arg(quiet).arg(image));
}

/// A file system that takes no writes, as if its disk hung; until this is dropped.
pub struct Frozen(PathBuf);

impl Frozen {
    pub fn new(at: &Path) -> Self {
        run(Command::new("fsfreeze").arg("-f").arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

#[track_caller]
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
