//! SPEC 3.9, FAULTS 42: extra files, by descriptor from anybody, by name from a pipe.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ppu_uringd::model::message::Code;
use ppu_uringd::model::status::Told;
use ppu_uringd::serve::control::{Client, Request, Response};
use support::daemon::BINARY;
use support::oracle::{check_sum, names, write};
use support::rig::{GID, Options, Rig, UID};
use support::{content, is_root, wait_until};

/// A rig with pipes and without detectors that run, and a directory for users' files that everybody may search.
struct Intake {
    rig: Rig,
    work: tempfile::TempDir,
}

impl Intake {
    fn prepare(options: Options) -> Self {
        let rig = Rig::prepare(options);
        let work = tempfile::tempdir().unwrap();
        for dir in [rig.dir.path(), work.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (run, roots) = (rig.dir.path().join("run"), work.path().join("roots"));
        fs::create_dir(&roots).unwrap();
        let pipes = format!(
            "file_pipe = {:?}\nold_file_pipe = {:?}\nintake_roots = [{roots:?}]",
            run.join("files"),
            run.join("old"),
        );
        let config = fs::read_to_string(rig.ppu_config()).unwrap();
        fs::write(rig.ppu_config(), config.replace("file_pipe = \"off\"", &pipes)).unwrap();
        // Where the build directory is root's alone, users get the program here.
        fs::copy(BINARY, rig.dir.path().join("ppu-uringd")).unwrap();
        Self { rig, work }
    }

    fn start(options: Options) -> Self {
        let mut this = Self::prepare(options);
        this.start_ppu();
        this
    }

    fn start_ppu(&mut self) {
        self.rig.start_ppu();
        wait_until("the daemon answers", || self.rig.status().is_some());
    }

    fn at(&self, path: &str) -> PathBuf {
        self.work.path().join(path)
    }

    fn stored(&self, path: &str) -> PathBuf {
        self.rig.storage.path().join("data").join(path)
    }

    fn add(&self, arguments: &[&Path]) -> Output {
        let mut command = Command::new(BINARY);
        command.arg("add").arg("--control").arg(self.rig.dir.path().join("control.sock"));
        command.args(arguments).output().unwrap()
    }

    fn add_as(&self, uid: u32, arguments: &[&Path]) -> Output {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
        command.arg(self.rig.dir.path().join("ppu-uringd")).arg("add");
        command.arg("--control").arg(self.rig.dir.path().join("control.sock"));
        command.args(arguments).output().unwrap()
    }

    fn messages(&self, code: Code) -> Vec<Told> {
        let messages = self.rig.status().unwrap().messages;
        messages.into_iter().filter(|told| told.message.code == code).collect()
    }

    fn pipe(&self, name: &str) -> File {
        File::options().write(true).open(self.rig.dir.path().join("run").join(name)).unwrap()
    }
}

fn small() -> Options {
    Options {
        storage: "ext4",
        storage_megabytes: 64,
        storage_extra: "retries = 0".into(),
        ..Options::default()
    }
}

fn owned(path: &Path, text: &str, uid: u32, mode: u32) {
    write(Path::new("/"), path.strip_prefix("/").unwrap(), text.as_bytes());
    chown(path, Some(uid), Some(uid + 1)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn ok(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
}

#[test]
fn users_hand_over_what_they_may_read() {
    if !is_root("users_hand_over_what_they_may_read") {
        return;
    }
    const WAIT: &str = "--wait";
    let intake = Intake::start(small());
    let wait = Path::new(WAIT);
    owned(&intake.at("some/path/to/file"), "first", 4242, 0o640);
    ok(&intake.add(&[wait, &intake.at("some/./path/to/file")]));
    let copy = intake.stored("path/to/file");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "first");
    let (from, to) = (intake.at("some/path/to/file").metadata().unwrap(), copy.metadata().unwrap());
    assert_eq!((to.uid(), to.gid(), to.mode() & 0o7777), (4242, 4243, 0o640), "the file's owner and mode");
    assert_eq!((to.mtime(), to.mtime_nsec()), (from.mtime(), from.mtime_nsec()));
    let directory = intake.stored("path/to").metadata().unwrap();
    assert_eq!(
        (directory.uid(), directory.mode() & 0o7777),
        (0, 0o755),
        "no user gets a directory on a storage"
    );
    // Without a mark: all of the path.
    ok(&intake.add(&[wait, &intake.at("some/path/to/file")]));
    let whole = intake.at("some/path/to/file");
    assert!(intake.stored(whole.strip_prefix("/").unwrap().to_str().unwrap()).exists());
    // A newer version replaces the older one.
    owned(&intake.at("some/path/to/file"), "second", 4242, 0o600);
    ok(&intake.add(&[wait, &intake.at("some/./path/to/file")]));
    assert_eq!(fs::read_to_string(&copy).unwrap(), "second");

    // A user: what may be read is stored, whosever it is; what may not is not, and the rest is.
    owned(&intake.at("public"), "public", 0, 0o644);
    owned(&intake.at("secret"), "secret", 0, 0o600);
    refused(
        &intake.add_as(65_534, &[wait, &intake.at("./secret"), &intake.at("./public")]),
        "secret: Permission denied",
    );
    assert_eq!(fs::read_to_string(intake.stored("public")).unwrap(), "public");
    assert!(!intake.stored("secret").exists());
    // Another user's file of the same stored name is not touched, and neither is a directory or a device stored.
    owned(&intake.at("other/path/to/file"), "mine", 65_534, 0o644);
    let other = intake.at("other/./path/to/file");
    refused(&intake.add_as(65_534, &[wait, &other]), "not stored everywhere");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "second");
    let told = intake.messages(Code::CopyError);
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.message.short.ends_with("other/path/to/file:internal/path/to/file"), "{told:?}");
    refused(&intake.add(&[intake.work.path()]), "not a regular file");
    refused(&intake.add(&[Path::new("/dev/zero")]), "not a regular file");
    refused(&intake.add(&[&intake.at("some/../public")]), "'.' or '..' in path");
    refused(&intake.add(&[&intake.at("missing")]), "No such file");

    let counts = intake.rig.counts();
    assert_eq!((counts.copied, counts.failed, counts.pending), (4, 1, 0), "{counts:?}");
    check_sum(&intake.rig);
    assert_eq!(intake.rig.status().unwrap().detectors.len(), 1, "no detector but the configured one");
}

#[test]
fn pending_files_survive_names_and_restarts() {
    if !is_root("pending_files_survive_names_and_restarts") {
        return;
    }
    let mut intake = Intake::prepare(small());
    intake.rig.storage.unmount();
    intake.start_ppu();
    for name in ["kept", "replaced", "unlinked"] {
        owned(&intake.at(name), name, 4242, 0o600);
    }
    ok(&intake.add(&[&intake.at("./kept"), &intake.at("./replaced")]));
    intake.rig.ppu.take().unwrap().kill();
    // It is no longer the file that was handed over: perhaps one that its user may not read.
    owned(&intake.at("new"), "somebody's", 0, 0o600);
    fs::rename(intake.at("new"), intake.at("replaced")).unwrap();
    intake.start_ppu();
    ok(&intake.add(&[&intake.at("./unlinked")]));
    fs::remove_file(intake.at("unlinked")).unwrap();
    assert_eq!(intake.rig.counts().pending, 3);
    intake.rig.storage.mount_image();
    wait_until("two are stored, one is not", || {
        let counts = intake.rig.counts();
        (counts.copied, counts.failed, counts.pending) == (2, 1, 0)
    });
    assert_eq!(fs::read_to_string(intake.stored("kept")).unwrap(), "kept");
    assert_eq!(
        fs::read_to_string(intake.stored("unlinked")).unwrap(),
        "unlinked",
        "held open, it needs no name"
    );
    assert!(!intake.stored("replaced").exists());
    let told = intake.messages(Code::CopyError);
    assert!(
        told.iter().any(|told| told.message.long.contains("no longer the file that was handed over")),
        "{told:?}"
    );
    check_sum(&intake.rig);
}

#[test]
fn a_file_that_changes_is_taken_as_it_is_then() {
    if !is_root("a_file_that_changes_is_taken_as_it_is_then") {
        return;
    }
    let mut intake = Intake::prepare(Options { storage_extra: "retry_pause_ms = 50".into(), ..small() });
    intake.rig.storage.unmount();
    intake.start_ppu();
    owned(&intake.at("log"), "begin", 4242, 0o600);
    ok(&intake.add(&[&intake.at("./log")]));
    File::options().append(true).open(intake.at("log")).unwrap().write_all(b" and end").unwrap();
    intake.rig.storage.mount_image();
    wait_until("it is stored as it is now", || {
        fs::read_to_string(intake.stored("log")).is_ok_and(|text| text == "begin and end")
    });
    wait_until("and counted", || intake.rig.counts().copied == 1);
    let counts = intake.rig.counts();
    assert_eq!((counts.produced, counts.superseded, counts.failed), (2, 1, 0), "{counts:?}");
}

#[test]
fn no_more_than_can_be_held_open() {
    if !is_root("no_more_than_can_be_held_open") {
        return;
    }
    let mut intake = Intake::prepare(small());
    intake.rig.storage.unmount();
    intake.start_ppu();
    let mut client = Client::connect(&intake.rig.dir.path().join("control.sock")).unwrap();
    let mut hand_over = |n: usize| {
        let path = intake.at(&format!("./f{n}"));
        owned(&path, "x", 4242, 0o600);
        let file = File::open(&path).unwrap();
        client.hand_over(&Request::Add { path: path.as_os_str().as_bytes().to_vec() }, file.as_fd()).unwrap();
        loop {
            let heard = client.hear().unwrap();
            if !heard.more {
                break heard.response;
            }
        }
    };
    let taken = (0..).find(|n| matches!(hand_over(*n), Response::TryAgain(_))).unwrap();
    assert_eq!(taken, 256);
    assert!(intake.rig.ppu.as_ref().unwrap().descriptors() < 400);
    intake.rig.storage.mount_image();
    wait_until("all are stored", || intake.rig.counts().copied == 256);
    wait_until("there is room again", || matches!(hand_over(taken), Response::Added { .. }));
    wait_until("none is held any more", || intake.rig.ppu.as_ref().unwrap().descriptors() < 100);
}

#[test]
fn images_and_extra_files_keep_out_of_each_others_way() {
    if !is_root("images_and_extra_files_keep_out_of_each_others_way") {
        return;
    }
    let mut intake = Intake::start(small());
    intake.rig.start_detector(0);
    intake.rig.wait_linked();
    let wait = Path::new("--wait");
    let below = format!("d0/{UID}_{GID}");
    // A user has put a file where an image belongs: the image does not wait for it, and it is not lost.
    owned(&intake.at(&format!("{below}/a.cbf")), "a user's", 4242, 0o644);
    ok(&intake.add(&[wait, &intake.at(&format!("./{below}/a.cbf"))]));
    write(intake.rig.source(0), "a.cbf", &content(1, 1000));
    wait_until("the image is stored", || {
        fs::read(intake.stored(&format!("{below}/a.cbf"))).is_ok_and(|found| found == content(1, 1000))
    });
    let aside: Vec<_> =
        names(&intake.stored(&below)).into_iter().filter(|name| name != Path::new("a.cbf")).collect();
    let [aside] = &aside[..] else { panic!("{aside:?}") };
    assert_eq!(fs::read_to_string(intake.stored(&below).join(aside)).unwrap(), "a user's");
    wait_until("that is told", || !intake.messages(Code::FileReplaced).is_empty());
    // The other way round the image stays.
    owned(&intake.at(&format!("{below}/a.cbf")), "newer", 4242, 0o644);
    refused(&intake.add(&[wait, &intake.at(&format!("./{below}/a.cbf"))]), "not stored everywhere");
    assert_eq!(fs::read(intake.stored(&format!("{below}/a.cbf"))).unwrap(), content(1, 1000));
    check_sum(&intake.rig);
}

/// Row 42: what is not to be stored is refused, one by one, and stops nothing.
#[test]
fn row_42_pipe() {
    if !is_root("row_42_pipe") {
        return;
    }
    let intake = Intake::start(small());
    let roots = |name: &str| intake.at("roots").join(name);
    for name in ["a/b", "last", "late", "two"] {
        owned(&roots(name), name, 4242, 0o600);
    }
    owned(&intake.at("outside"), "outside", 0, 0o600);
    symlink("/etc/shadow", roots("soft")).unwrap();
    fs::hard_link(intake.at("outside"), roots("hard")).unwrap();
    fs::create_dir(roots("directory")).unwrap();
    for name in ["files", "old"] {
        let mode = fs::metadata(intake.rig.dir.path().join("run").join(name)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
    let line = |path: &Path| [path.as_os_str().as_bytes(), b"\n"].concat();
    let mut text = line(&roots("./a/b"));
    let refused: [Vec<u8>; 11] = [
        b"/etc/shadow\n".to_vec(),
        b"relative\n".to_vec(),
        b"/\xff\xfe\x00\x01binary\n".to_vec(),
        [&[b'/'; 1][..], &[b'x'; 5000], b"\n"].concat(),
        line(&roots("a/../../outside")),
        line(&roots("soft")),
        line(&roots("hard")),
        line(&roots("directory")),
        line(&roots("missing")),
        line(&intake.at("outside")),
        line(&roots("./a/./b")),
    ];
    refused.iter().for_each(|line| text.extend_from_slice(line));
    text.extend_from_slice(&line(&roots("last")));
    intake.pipe("files").write_all(&text).unwrap();
    let last = roots("last");
    wait_until("what comes last is stored", || {
        intake.stored(last.strip_prefix("/").unwrap().to_str().unwrap()).exists()
    });
    // Writers come and go; the old name serves as well.
    intake.pipe("files").write_all(&line(&roots("./late"))).unwrap();
    intake.pipe("old").write_all(&line(&roots("./two"))).unwrap();
    wait_until("all are stored", || intake.rig.counts().copied == 4);
    assert_eq!(fs::read_to_string(intake.stored("a/b")).unwrap(), "a/b");
    assert_eq!(intake.stored("late").metadata().unwrap().uid(), 4242);
    assert_eq!(names(&intake.stored("")).len(), 4);
    let told = intake.messages(Code::CopyError);
    assert_eq!(told.iter().map(|told| told.count).sum::<u64>(), refused.len() as u64, "{told:#?}");
    for why in [
        "not below one of",
        "not absolute",
        "NUL",
        "at most 4096 bytes",
        "'..'",
        "links are not followed",
        "several names",
    ] {
        assert!(told.iter().any(|told| told.message.long.contains(why)), "{why}: {told:#?}");
    }
    assert_eq!(intake.rig.counts().failed, 0);
}

/// A pipe that cannot be made is no reason not to start, and not said to the log alone.
#[test]
fn a_pipe_that_cannot_be_made_is_told() {
    if !is_root("a_pipe_that_cannot_be_made_is_told") {
        return;
    }
    let mut intake = Intake::prepare(small());
    let run = intake.rig.dir.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("files"), b"somebody's file").unwrap();
    intake.start_ppu();
    let short = format!("{}:storages", run.join("files").display());
    wait_until("it is told", || {
        let told = intake.messages(Code::CopyError);
        told.iter()
            .any(|told| told.message.short == short && told.message.long.contains("restart the daemon"))
    });
    assert_eq!(fs::read(run.join("files")).unwrap(), b"somebody's file");
    // The other one works.
    let at = intake.at("roots/file");
    owned(&at, "file", 4242, 0o600);
    intake.pipe("old").write_all(&[at.as_os_str().as_bytes(), b"\n"].concat()).unwrap();
    wait_until("it is stored", || intake.rig.counts().copied == 1);
}
