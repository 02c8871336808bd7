//! The mount guard against real mounts.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::testing::{Kind, LoopFs};
use crate::rooted::mount::Place;

#[test]
fn only_what_is_mounted_is_opened() {
    let Some(mut fs) = LoopFs::new(Kind::Ext4, 64 << 20) else { return };
    let place = fs.place("images/here");
    let root = place.open().unwrap();
    assert!(fs.mountpoint().join("images/here").is_dir());
    drop(root);
    fs.unmount();
    let refused = place.open().unwrap_err().0;
    assert!(refused.starts_with("nothing is mounted at /"), "{refused}");
    assert_eq!(fs.mountpoint().read_dir().unwrap().count(), 0, "nothing is made below the bare mount point");
    fs.mount();
    place.open().unwrap();
}

#[test]
fn lazily_unmounted_and_mounted_again_is_noticed() {
    let Some(mut fs) = LoopFs::new(Kind::Ext4, 64 << 20) else { return };
    let place = fs.place("");
    let root = place.open().unwrap();
    fs.unmount_lazily();
    assert!(place.check(&root).is_err());
    fs.mount();
    let refused = place.check(&root).unwrap_err().0;
    assert!(refused.ends_with("has been mounted anew"), "{refused}");
    place.check(&place.open().unwrap()).unwrap();
}

#[test]
fn a_mount_hidden_by_another_is_noticed() {
    let Some(mut fs) = LoopFs::new(Kind::Ext4, 64 << 20) else { return };
    let Some(other) = LoopFs::new(Kind::Ext4, 64 << 20) else { return };
    let place = fs.place("");
    let root = place.open().unwrap();
    fs.cover_by(&other);
    assert!(place.check(&root).is_err());
    place.check(&place.open().unwrap()).unwrap();
    fs.unmount();
    place.check(&root).unwrap();
}

#[test]
fn a_target_on_another_mount_than_its_mountpoint_is_refused() {
    let Some(fs) = LoopFs::new(Kind::Ext4, 64 << 20) else { return };
    let target = tempfile::tempdir().unwrap();
    let outside = Place { target: target.path().into(), ..fs.place("") };
    assert!(outside.open().unwrap_err().0.contains("is not below its mountpoint"));
    std::os::unix::fs::symlink(target.path(), fs.mountpoint().join("link")).unwrap();
    assert!(fs.place("link").open().is_err());
}

#[test]
fn the_root_file_system_only_where_it_is_allowed() {
    let temp = tempfile::tempdir_in("/").or_else(|_| tempfile::tempdir()).unwrap();
    let device = |path: &Path| path.metadata().unwrap().dev();
    if device(temp.path()) != device(Path::new("/")) {
        eprintln!("SKIPPED: no directory of ours on the root file system");
        return;
    }
    let target = temp.path().join("data");
    let refused = Place { target: target.clone(), mountpoint: None, allow_root_fs: false };
    refused.open().unwrap_err();
    assert!(!target.exists());
    std::fs::create_dir(&target).unwrap();
    assert!(refused.open().unwrap_err().0.contains("root file system"));
    let bare = Place { mountpoint: Some(temp.path().into()), ..refused.clone() };
    assert!(bare.open().unwrap_err().0.starts_with("nothing is mounted at"));
    let system = Place { mountpoint: Some("/".into()), ..refused.clone() };
    assert!(system.open().unwrap_err().0.contains("root file system"));
    let allowed = Place { allow_root_fs: true, ..refused };
    let root = allowed.open().unwrap();
    std::fs::rename(&target, temp.path().join("away")).unwrap();
    assert!(allowed.check(&root).is_err(), "the target's name is gone");
}
