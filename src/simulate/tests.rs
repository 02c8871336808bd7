use std::os::unix::fs::MetadataExt;

use super::*;
use crate::model::file_version::Hash;

fn plan(target: &Path, images: Images, count: u64) -> Plan {
    Plan {
        target: target.into(),
        images,
        count: Some(count),
        rate: 0.0,
        finish: Finish::Mixed,
        manifest: None,
        shift: None,
        force: false,
    }
}

fn small() -> Images {
    Images::made(20_000, 3, 7)
}

fn records(path: &Path) -> Vec<Record> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_way_of_finishing_leaves_exactly_what_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("ramdisk");
    let manifest = dir.path().join("manifest.jsonl");
    let plan =
        Plan { manifest: Some(manifest.clone()), shift: Some("s".into()), ..plan(&target, small(), 8) };
    let mut heard = Vec::new();
    let summary = run(&plan, &AtomicBool::new(false), |closed| heard.push(closed.record)).unwrap();

    let written = records(&manifest);
    assert_eq!(written, heard);
    assert_eq!((summary.files, written.len()), (8, 8));
    for record in &written {
        let path = target.join(record.rel_path().unwrap().as_path());
        let (content, stat) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap());
        assert_eq!(record.size, content.len() as u64);
        assert_eq!(record.hash, Hash::of(&content).to_string());
        assert_eq!(record.mtime_ns, stat.mtime() * 1_000_000_000 + stat.mtime_nsec());
        assert_eq!(stat.nlink(), 1, "{}", record.path);
        assert_eq!(record.shift.as_deref(), Some("s"));
        assert_eq!(cbf::check(&content), Ok(cbf::Integrity::Proven));
    }
    let hashes: std::collections::HashSet<_> = written.iter().map(|record| &record.hash).collect();
    assert_eq!(hashes.len(), 8, "no two frames are equal");
    let images = Images::replayed_from(&target).unwrap();
    assert_eq!(images.replayed(), Some(8), "nothing else is left, no temporary names");
}

#[test]
fn a_target_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "precious").unwrap();
    let mut plan = plan(dir.path(), small(), 2);
    let refused = run(&plan, &AtomicBool::new(false), |_| {});
    assert!(matches!(refused, Err(SimulateError::NotEmpty(_))));
    plan.force = true;
    run(&plan, &AtomicBool::new(false), |_| {}).unwrap();
    // Once more: new runs beside the old ones.
    run(&plan, &AtomicBool::new(false), |_| {}).unwrap();
    assert_eq!(fs::read(dir.path().join("mine")).unwrap(), b"precious");
    assert_eq!(Images::replayed_from(dir.path()).unwrap().replayed(), Some(5));
}

#[test]
fn replay_keeps_names_and_contents_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let odd = std::ffi::OsStr::new("new\nline");
    fs::create_dir_all(from.join("a")).unwrap();
    fs::write(from.join("a").join(odd), "one").unwrap();
    fs::write(from.join("b"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", from.join("link")).unwrap();
    for finish in [Finish::Close, Finish::Rename, Finish::HardLink, Finish::Tmpfile] {
        let target = to.join(format!("{finish:?}"));
        let images = || Images::replayed_from(&from).unwrap();
        let plan = Plan { finish, force: true, ..plan(&target, images(), 4) };
        run(&plan, &AtomicBool::new(false), |_| {}).unwrap();
        assert_eq!(fs::read(target.join("a").join(odd)).unwrap(), b"one");
        assert_eq!(fs::read(target.join("b")).unwrap(), b"");
        assert_eq!(fs::read(target.join("pass_002/b")).unwrap(), b"");
        assert_eq!(Images::replayed_from(&target).unwrap().replayed(), Some(4));

        let again = run(&plan, &AtomicBool::new(false), |_| {}).unwrap_err().to_string();
        assert!(again.contains("File exists"), "{again}");
        assert_eq!(fs::read(target.join("a").join(odd)).unwrap(), b"one");
        assert_eq!(Images::replayed_from(&target).unwrap().replayed(), Some(4), "no temporary name is left");
    }
}

#[test]
fn nothing_to_replay_and_a_manifest_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Images::replayed_from(dir.path()), Err(SimulateError::NothingToReplay(_))));
    assert!(matches!(Images::replayed_from(&dir.path().join("no")), Err(SimulateError::Io { .. })));
    let target = dir.path().join("target");
    let plan = Plan { manifest: Some(target.join("m")), ..plan(&target, small(), 1) };
    let refused = run(&plan, &AtomicBool::new(false), |_| {});
    assert!(matches!(refused, Err(SimulateError::ManifestInTarget(_))));
}

#[test]
fn the_rate_is_kept_and_stop_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let plan = Plan { rate: 100.0, count: None, ..plan(&dir.path().join("t"), small(), 0) };
    let begin = Instant::now();
    let summary = run(&plan, &stop, |closed| {
        if closed.record.path.ends_with("_002_00002.cbf") {
            stop.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert_eq!(summary.files, 5);
    assert!(begin.elapsed() >= Duration::from_millis(40), "{:?}", begin.elapsed());
}
