//! Shifts (SPEC 2), against the real daemons: whose files are whose, whatever happens meanwhile.
#![allow(missing_docs, clippy::unwrap_used)]

mod clocks;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use ppu_uringd::model::message::Code;
use ppu_uringd::model::shift_report::{ShiftReport, Started};
use ppu_uringd::model::status::LinkState;
use support::daemon::BINARY;
use support::oracle::{check_sum, names, write};
use support::proxy::Proxy;
use support::rig::{GID, Options, Rig, UID};
use support::{content, is_root, wait_until};

fn shift(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("shift").args(arguments).arg("--config").arg(rig.ppu_config());
    command.output().unwrap()
}

/// `shift start`, which must do.
#[track_caller]
fn start(rig: &Rig, arguments: &[&str]) -> Started {
    let output = shift(rig, &[&["start", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list(rig: &Rig) -> Vec<ShiftReport> {
    let answer: serde_json::Value = serde_json::from_slice(&shift(rig, &["list", "--json"]).stdout).unwrap();
    serde_json::from_value(answer["shifts"].clone()).unwrap()
}

fn landing(rig: &Rig, user: &str) -> PathBuf {
    rig.ppu_ramdisk.path().join("d0").join(user)
}

fn stored(rig: &Rig, user: &str) -> PathBuf {
    rig.storage.path().join("data/d0").join(user)
}

fn first() -> String {
    format!("{UID}_{GID}")
}

/// Waits until everything is stored, and checks that the sums are right.
#[track_caller]
fn settled(rig: &Rig, files: usize) {
    wait_until(&format!("{files} files are stored"), || {
        let counts = rig.counts();
        counts.pending == 0 && counts.copied as usize == files
    });
    check_sum(rig);
}

/// Exactly these are stored for that user, with its owner, and are on the ramdisk as well; from there a past shift's leave meanwhile.
#[track_caller]
fn check_user(rig: &Rig, user: &str, owner: (u32, u32), files: impl IntoIterator<Item = String>) {
    let expected: BTreeSet<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    let current = list(rig).last().is_some_and(|shift| (shift.uid, shift.gid) == owner);
    for (root, all) in [(stored(rig, user), true), (landing(rig, user), current)] {
        let there: BTreeSet<PathBuf> = names(&root).into_iter().collect();
        let wrong: Vec<_> =
            there.symmetric_difference(&expected).filter(|name| all || there.contains(*name)).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", root.display());
        for name in there {
            let Ok(meta) = std::fs::metadata(root.join(&name)) else {
                assert!(!all, "{} is gone", root.join(name).display());
                continue;
            };
            assert_eq!((meta.uid(), meta.gid()), owner, "{}", root.join(name).display());
        }
    }
}

/// Files are written without a pause while shifts begin: what was closed before a command was given is the former shift's, what was closed
/// after it has returned is the new one's, and what was closed meanwhile is somebody's.
#[test]
fn shifts_begin_under_load() {
    if !is_root("shifts_begin_under_load") {
        return;
    }
    let rig = Rig::start(Options::default());
    let (written, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    // How far the writer may go, so that a fast one does not leave more than can be stored in the test's time.
    let enough = AtomicUsize::new(0);
    let mut borders = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let n = written.load(Ordering::SeqCst);
                if n >= enough.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                    continue;
                }
                write(rig.source(0), format!("{}/{n}", n % 7), &content(n as u64, 1000 + n % 5000));
                written.store(n + 1, Ordering::SeqCst);
            }
        });
        for user in 1..=4 {
            // Beyond what is waited for, so that writing goes on while the shift begins.
            enough.store(500 * user + 2000, Ordering::SeqCst);
            wait_until("files are written", || written.load(Ordering::SeqCst) > 500 * user);
            let before = written.load(Ordering::SeqCst);
            let started = start(&rig, &["-u", &format!("{user}:{}", 100 + user)]);
            // The next one may have been begun already, but for its close.
            let after = written.load(Ordering::SeqCst) + 1;
            assert!(started.silent.is_empty(), "{:?}", started.silent);
            borders.push((before, after));
        }
        wait_until("files are written", || written.load(Ordering::SeqCst) > 2500);
        over.store(true, Ordering::SeqCst);
    });
    let all = written.load(Ordering::SeqCst);
    settled(&rig, all);
    let mut seen = vec![0; all];
    let users: Vec<(String, (u32, u32))> = std::iter::once((first(), (UID, GID)))
        .chain((1..=4).map(|user| (format!("{user}_{}", 100 + user), (user, 100 + user))))
        .collect();
    for (index, (user, owner)) in users.iter().enumerate() {
        let from = index.checked_sub(1).map_or(0, |border| borders[border].0);
        let sure = index.checked_sub(1).map_or(0, |border| borders[border].1);
        let (sure_to, to) = borders.get(index).copied().unwrap_or((all, all));
        let there: Vec<usize> = names(&stored(&rig, user))
            .iter()
            .map(|name| name.file_name().unwrap().to_str().unwrap().parse().unwrap())
            .collect();
        for n in &there {
            assert!((from..to).contains(n), "{n} is not {user}'s: {from}..{to}");
            seen[*n] += 1;
        }
        let there: BTreeSet<usize> = there.into_iter().collect();
        let missing: Vec<_> = (sure..sure_to).filter(|n| !there.contains(n)).collect();
        assert!(missing.is_empty(), "{user} lacks {missing:?}");
        check_user(&rig, user, *owner, there.iter().map(|n| format!("{}/{n}", n % 7)));
    }
    assert!(seen.iter().all(|count| *count == 1));
    let shifts = list(&rig);
    assert_eq!(shifts.len(), 5);
    assert_eq!(shifts.iter().filter(|shift| shift.current).count(), 1);
    assert!(shifts[4].current && shifts[4].uid == 4, "{shifts:?}");
    // Whoever was told of a word can rely on it.
    assert_eq!(shifts[4].detectors[0].word, Some(true));
}

/// The directory of the new user is there at once (SPEC 1.5), and what `show` and `status` say is that shift.
#[test]
fn a_shift_has_its_directory_and_is_shown() {
    if !is_root("a_shift_has_its_directory_and_is_shown") {
        return;
    }
    let rig = Rig::start(Options::default());
    assert!(landing(&rig, &first()).is_dir(), "the first one's, too");
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    let started = start(&rig, &["-u", "77", "-d", &format!("0:run//x:{ramdisk}//./other/")]);
    let user_dir = rig.ppu_ramdisk.path().join("other/77_77");
    let meta = std::fs::metadata(&user_dir).unwrap();
    assert!(meta.is_dir());
    assert_eq!((meta.uid(), meta.gid()), (77, 77));
    assert_eq!(started.shift.detectors[0].source, "/run/x");
    assert_eq!(started.shift.detectors[0].target, format!("{ramdisk}/./other"));
    let shown = String::from_utf8(shift(&rig, &["show"]).stdout).unwrap();
    assert!(shown.contains("77:77, below 77_77") && shown.contains("/run/x to"), "{shown}");
    assert_eq!(rig.status().unwrap().shifts.last().unwrap().uid, 77);
    write(rig.source(0), "run/x/a/b", b"inside");
    write(rig.source(0), "outside", b"outside");
    wait_until("what is below the source has landed", || user_dir.join("a/b").exists());
    settled(&rig, 1);
    assert_eq!(names(&user_dir), [PathBuf::from("a/b")]);
}

/// What cannot be is refused, with what to do, and changes nothing (FAULTS 44).
#[test]
fn impossible_shifts_are_refused() {
    if !is_root("impossible_shifts_are_refused") {
        return;
    }
    let rig = Rig::start(Options { detectors: 2, ..Options::default() });
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    let refused = |arguments: &[&str], code: i32, says: &str| {
        let output = shift(&rig, &[&["start"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    };
    refused(&["-u", "0"], 2, "is root");
    refused(&["-u="], 2, "write two numbers");
    refused(&["--user=-5"], 2, "write two numbers");
    refused(&["-d", "0:/"], 2, "write for example");
    refused(&["-d", &format!("9:/:{ramdisk}/x")], 1, "the configuration has 0, 1");
    refused(&["-d", "0:/:/elsewhere/x"], 1, "is not below the ramdisk");
    refused(&["-d", &format!("0:/:{ramdisk}/d1/x")], 1, "inside each other");
    refused(&["-d", &format!("0:/:{ramdisk}")], 1, "inside each other");
    assert_eq!(list(&rig).len(), 1);
    // A shared replica root is possible, and said (SPEC 3.2).
    let places = [format!("0:/:{ramdisk}/d0"), format!("1:/:{ramdisk}/d1")];
    let output = shift(&rig, &["start", "-d", &places[0], "-d", &places[1]]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("WARNING  Detectors 0 and 1"), "{text}");
}

/// The link is down when shifts begin: told with their age when it is up, on both machines' monotonic clocks. What was closed well
/// before and well after is the right one's; nobody need agree on the time of day.
#[test]
fn shifts_begin_while_the_link_is_down() {
    if !is_root("shifts_begin_while_the_link_is_down") {
        return;
    }
    let mut rig = Rig::prepare(Options::default());
    rig.start_detector(0);
    rig.options.via = Some(support::rig::free_port());
    rig.write_ppu_config();
    rig.start_ppu();
    wait_until("the PPU runs, and does not reach its detector", || {
        let link = |status: ppu_uringd::model::status::StatusReport| status.detectors[0].link.state.clone();
        matches!(rig.status().map(link), Some(LinkState::Connecting { reason: Some(_) }))
    });
    let mut expected = vec![(first(), (UID, GID))];
    let mut n = 0;
    for round in 0..4_u32 {
        for _ in 0..50 {
            write(rig.source(0), format!("{round}/{n}"), &content(n, 3000));
            n += 1;
        }
        if round < 3 {
            // What is closed within some milliseconds around a beginning that nobody marked is held: that is another test's.
            pass_a_while();
            let started = start(&rig, &["-u", &format!("{}", 100 + round)]);
            assert!(started.silent[0].why.contains("not connected"), "{:?}", started.silent);
            expected.push((format!("{0}_{0}", 100 + round), (100 + round, 100 + round)));
        }
    }
    // The proxy is the link.
    let _link = Proxy::start_at(rig.options.via.unwrap(), rig.ports[0]);
    rig.wait_linked();
    settled(&rig, 200);
    for (round, (user, owner)) in expected.iter().enumerate() {
        check_user(&rig, user, *owner, (50 * round..50 * (round + 1)).map(|n| format!("{round}/{n}")));
    }
}

/// What was closed in a shift and could not land in it lands later, from its source to its target and for its user, though both are others' by
/// then (SPEC 2.2); and what is open when a shift begins is whose it is closed in.
#[test]
fn what_waits_keeps_its_source_and_its_target() {
    if !is_root("what_waits_keeps_its_source_and_its_target") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    let ramdisk = rig.ppu_ramdisk.path().display().to_string();
    start(&rig, &["-u", "601", "-d", &format!("0:one:{ramdisk}/./first")]);
    // Its place is somebody else's until the next shift has begun.
    let taken = rig.ppu_ramdisk.path().join("first/601_601/x");
    std::fs::write(&taken, b"a user's own").unwrap();
    write(rig.source(0), "one/x", b"waits");
    let mut open = std::fs::File::create(rig.source(0).join("one/open")).unwrap();
    open.write_all(b"begun in the first").unwrap();
    wait_until("it waits", || {
        rig.status().unwrap().messages.iter().any(|told| told.message.code == Code::LandError)
    });
    start(&rig, &["-u", "602", "-d", &format!("0:/:{ramdisk}/./second")]);
    write(rig.source(0), "one/y", b"of the second");
    drop(open);
    let second = rig.ppu_ramdisk.path().join("second/602_602");
    wait_until("the second's have landed", || names(&second).len() == 2);
    rig.detectors[0].take().unwrap().kill();
    rig.start_detector(0);
    rig.ppu.take().unwrap().kill();
    rig.start_ppu();
    std::fs::remove_file(&taken).unwrap();
    let mut owner = None;
    wait_until("the first's has landed", || {
        // Held, because it leaves once it is stored: its shift is past.
        let Ok(mut file) = std::fs::File::open(&taken) else { return false };
        let meta = file.metadata().unwrap();
        owner = Some((meta.uid(), meta.gid()));
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        found == b"waits"
    });
    assert_eq!(owner, Some((601, 601)));
    settled(&rig, 3);
    let mut there = names(&second);
    there.sort();
    assert_eq!(there, [PathBuf::from("one/open"), PathBuf::from("one/y")]);
    assert_eq!(names(&rig.storage.path().join("data/first/601_601")), [PathBuf::from("x")]);
}

/// A detector that hangs when a shift begins is named, and whoever began it goes on: what is closed from then on is the new shift's, though the
/// detector hears of it later.
#[test]
fn a_detector_that_hangs_is_named_and_corrected() {
    if !is_root("a_detector_that_hangs_is_named_and_corrected") {
        return;
    }
    let rig = Rig::start(Options::default());
    write(rig.source(0), "old", b"old");
    settled(&rig, 1);
    let detector = rig.detectors[0].as_ref().unwrap();
    detector.signal(Signal::SIGSTOP);
    let started = start(&rig, &["-u", "500"]);
    assert_eq!(started.silent.len(), 1);
    assert!(started.silent[0].why.contains("no answer"), "{:?}", started.silent);
    for n in 0..20 {
        write(rig.source(0), format!("new/{n}"), &content(n, 3000));
    }
    detector.signal(Signal::SIGCONT);
    settled(&rig, 21);
    check_user(&rig, &first(), (UID, GID), ["old".to_owned()]);
    check_user(&rig, "500_500", (500, 500), (0..20).map(|n| format!("new/{n}")));
    assert_eq!(list(&rig)[1].detectors[0].word, Some(true));
}

/// A detector that is added to the configuration takes part in the shift that goes on; what was closed there before that shift began is
/// nobody's (SPEC 2.2), which is said, with what to do.
#[test]
fn a_detector_that_is_new_takes_part_in_the_current_shift() {
    if !is_root("a_detector_that_is_new_takes_part_in_the_current_shift") {
        return;
    }
    let mut rig = Rig::prepare(Options { detectors: 2, ..Options::default() });
    let both = std::fs::read_to_string(rig.ppu_config()).unwrap();
    let (second, end) = (both.find("[[detector]]\nid = \"1\"").unwrap(), both.find("[[storage]]").unwrap());
    std::fs::write(rig.ppu_config(), [&both[..second], &both[end..]].concat()).unwrap();
    (0..2).for_each(|detector| rig.start_detector(detector));
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(1), "early", b"of nobody");
    pass_a_while();
    start(&rig, &["-u", "650"]);
    pass_a_while();
    write(rig.source(0), "a", b"of user 650");
    write(rig.source(1), "b", b"of user 650, before it was configured");
    settled(&rig, 1);
    rig.ppu.take().unwrap().stop();
    std::fs::write(rig.ppu_config(), both).unwrap();
    rig.start_ppu();
    rig.wait_linked();
    write(rig.source(1), "c", b"of user 650, too");
    let second = |name: &str| rig.storage.path().join("data/d1/650_650").join(name);
    wait_until("both are stored", || second("b").exists() && second("c").exists());
    let shifts = list(&rig);
    assert_eq!(shifts.len(), 2, "it is the same shift");
    assert_eq!(shifts[1].detectors.iter().map(|place| place.id.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    wait_until("what nobody gets is said", || {
        let status = rig.status().unwrap();
        let said = |told: &ppu_uringd::model::status::Told| {
            told.message.code == Code::LandError && told.message.long.contains("took no part")
        };
        status.detectors[1].held == 1 && status.messages.iter().any(said)
    });
    // As it says.
    write(rig.source(1), "early", b"given to user 650");
    wait_until("it is stored", || second("early").exists());
    settled(&rig, 4);
    assert_eq!(rig.status().unwrap().detectors[1].held, 0);
}

/// Both daemons are killed around and between shifts; files wait for either. The current shift stays, whatever the configuration says by now.
#[test]
fn shifts_survive_kills_of_both() {
    if !is_root("shifts_survive_kills_of_both") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    let mut expected = Vec::new();
    for round in 0..4_u32 {
        let user = 200 + round;
        start(&rig, &["-u", &user.to_string()]);
        // Another user in the configuration begins no shift (SPEC 2.4).
        let config = std::fs::read_to_string(rig.ppu_config()).unwrap();
        std::fs::write(rig.ppu_config(), config.replace("uid = ", "uid = 1")).unwrap();
        if round % 2 == 0 {
            rig.ppu.take().unwrap().kill();
        }
        for n in 0..40 {
            write(rig.source(0), format!("{round}/{n}"), &content(n, 2000));
            if n == 20 && round > 0 {
                // Far enough from the beginning for times to tell what nobody has seen closed.
                pass_a_while();
                rig.detectors[0].take().unwrap().kill();
            }
        }
        if round > 0 {
            rig.start_detector(0);
        }
        if round % 2 == 0 {
            rig.start_ppu();
        }
        rig.wait_linked();
        pass_a_while();
        expected.push((user, (0..40).map(|n| format!("{round}/{n}")).collect::<Vec<_>>()));
    }
    settled(&rig, 160);
    for (user, files) in expected {
        check_user(&rig, &format!("{user}_{user}"), (user, user), files);
    }
    assert_eq!(list(&rig).len(), 5);
}

/// The same user comes back and writes the same names: the older shift's files stay what they are, on the storage under another name.
#[test]
fn the_same_names_come_back() {
    if !is_root("the_same_names_come_back") {
        return;
    }
    let rig = Rig::start(Options::default());
    for n in 0..30 {
        write(rig.source(0), format!("run/{n}"), &content(n, 4000));
    }
    // Written anew by the next user, to the byte: it is theirs, and lands with them.
    write(rig.source(0), "run/dark", &content(7, 500));
    settled(&rig, 31);
    start(&rig, &["-u", "300"]);
    write(rig.source(0), "run/other", b"other");
    write(rig.source(0), "run/dark", &content(7, 500));
    settled(&rig, 33);
    assert!(landing(&rig, "300_300").join("run/dark").exists());
    // Written under the first user's shift number two: the same owner, target and names.
    start(&rig, &[]);
    for n in 0..30 {
        write(rig.source(0), format!("run/{n}"), &content(1000 + n, 5000));
    }
    settled(&rig, 63);
    let (landed, kept) = (landing(&rig, &first()), stored(&rig, &first()));
    let old: Vec<_> = names(&kept).into_iter().filter(|name| name.to_string_lossy().contains(".~")).collect();
    assert_eq!(old.len(), 30, "{old:?}");
    for n in 0..30 {
        let (new, before) = (content(1000 + n, 5000), content(n, 4000));
        assert_eq!(std::fs::read(landed.join(format!("run/{n}"))).unwrap(), new);
        assert_eq!(std::fs::read(kept.join(format!("run/{n}"))).unwrap(), new);
        let aside =
            old.iter().find(|name| name.to_string_lossy().starts_with(&format!("run/{n}.~"))).unwrap();
        assert_eq!(std::fs::read(kept.join(aside)).unwrap(), before);
    }
    assert_eq!(rig.status().unwrap().lost(), 0);
}

/// A PPU that has lost its state does not know whose the waiting files are: nobody gets them, people are told, and closing them again gives
/// them to the current shift.
#[test]
fn a_file_of_an_unknown_shift_is_held() {
    if !is_root("a_file_of_an_unknown_shift_is_held") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    start(&rig, &["-u", "400"]);
    rig.ppu.take().unwrap().kill();
    write(rig.source(0), "held", b"of user 400");
    let state = rig.dir.path().join("ppu.state");
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    rig.start_ppu();
    rig.wait_linked();
    wait_until("people are told", || {
        let told = rig.status().unwrap().messages;
        told.iter().any(|told| told.message.code == Code::LandError && told.message.long.contains("held"))
    });
    assert_eq!(rig.status().unwrap().detectors[0].held, 1);
    write(rig.source(0), "new", b"of the new shift");
    wait_until("the new shift's file has landed", || landing(&rig, &first()).join("new").exists());
    let landed = |name: &str| Path::new(rig.ppu_ramdisk.path()).join("d0").join(first()).join(name);
    assert!(!landed("held").exists());
    assert!(rig.source(0).join("held").exists());
    write(rig.source(0), "held", b"given to the new shift");
    wait_until("it has landed", || landed("held").exists());
    settled(&rig, 2);
}

/// Nothing but the ctime has moved while the detector's daemon was away, and a shift has begun: a chmod, a link, a file that was put back
/// when it was about to be released. If its content is what has landed, nobody is bothered; else it is held.
#[test]
fn a_landed_file_whose_ctime_moved_is_compared() {
    if !is_root("a_landed_file_whose_ctime_moved_is_compared") {
        return;
    }
    let mut rig = Rig::start(Options::default());
    start(&rig, &["-u", "400"]);
    let (same, other) = (rig.source(0).join("same"), rig.source(0).join("other"));
    write(rig.source(0), "same", b"of user 400");
    write(rig.source(0), "other", b"of user 400");
    settled(&rig, 2);
    pass_a_while();
    start(&rig, &["-u", "500"]);
    pass_a_while();
    rig.detectors[0].take().unwrap().kill();
    std::fs::set_permissions(&same, PermissionsExt::from_mode(0o600)).unwrap();
    let written = std::fs::metadata(&other).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&other).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"OF", 0).unwrap();
    file.set_modified(written).unwrap();
    drop(file);
    rig.start_detector(0);
    rig.wait_linked();
    let held = || {
        let told =
            rig.status().unwrap().messages.into_iter().filter(|told| told.message.code == Code::LandError);
        told.map(|told| told.message.short).collect::<Vec<_>>()
    };
    wait_until("people are told", || held() == ["other"]);
    write(rig.source(0), "new", b"of user 500");
    wait_until("all but one have landed", || {
        let detector = &rig.status().unwrap().detectors[0];
        landing(&rig, "500_500").join("new").exists() && (detector.held, detector.backlog.files) == (1, 1)
    });
    assert_eq!(held(), ["other"]);
    assert_eq!(std::fs::read(stored(&rig, "400_400").join("other")).unwrap(), b"of user 400");
    assert!(!landing(&rig, "500_500").join("other").exists());
}

/// Longer than the bounds between which a beginning is known.
fn pass_a_while() {
    let began = std::time::Instant::now();
    wait_until("a while has passed", || began.elapsed() > std::time::Duration::from_millis(100));
}
