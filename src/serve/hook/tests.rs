use std::path::Path;

use super::*;
use crate::model::file_version::{Hash, VersionId};
use crate::model::shift::ShiftId;

fn event(number: u64, shift: i64) -> Arc<FileEvent> {
    Arc::new(FileEvent {
        number,
        version: VersionId(number),
        path: format!("/ramdisk/{number}.cbf").into_bytes().into(),
        detector: "1MF".into(),
        storage: None,
        shift: ShiftId(shift),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: 1,
        hash: Hash::of(b"a"),
        mtime_ns: 1,
        at_ms: 1,
    })
}

fn run(command: String, timeout: Duration) -> Result<(), String> {
    let ending = Arc::new(AtomicBool::new(false));
    Batch { run: command.into(), events: vec![event(1, 0), event(2, 0)], timeout, ending }.run()
}

const LONG: Duration = Duration::from_secs(60);

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn a_batch_is_of_one_shift() {
    let mut waiting: VecDeque<_> = [event(1, 5), event(2, 5), event(3, 5), event(4, 6), event(5, 5)].into();
    let numbers = |batch: Vec<Arc<FileEvent>>| batch.iter().map(|event| event.number).collect::<Vec<_>>();
    assert_eq!(numbers(next_batch(&mut waiting, 2)), [1, 2]);
    assert_eq!(numbers(next_batch(&mut waiting, 2)), [3]);
    assert_eq!(numbers(next_batch(&mut waiting, 2)), [4]);
    assert_eq!(numbers(next_batch(&mut waiting, 2)), [5]);
}

#[test]
fn events_on_standard_input_and_nothing_else_around() {
    let dir = tempfile::tempdir().unwrap();
    let out = quoted(&dir.path().join("out"));
    run(
        format!("cat > {out}; env | sort >> {out}; pwd >> {out}; umask >> {out}; ulimit -S -n >> {out}"),
        LONG,
    )
    .unwrap();
    let out = std::fs::read_to_string(dir.path().join("out")).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with(
        r#"{"v":1,"visible":{"number":1,"version":1,"path":"/ramdisk/1.cbf","detector":"1MF","shift_ms":0"#
    ));
    assert!(lines[1].contains("/ramdisk/2.cbf"));
    let rest = &lines[2..];
    assert!(
        rest.contains(&"PPU_URINGD_FILES=2") && rest.contains(&"PPU_URINGD_SHIFT=19700101-000000"),
        "{out}"
    );
    assert!(rest.contains(&"/") && rest.contains(&"1024"), "{out}");
    assert!(!rest.iter().any(|line| line.starts_with("HOME=") || line.starts_with("CARGO")), "{out}");
}

#[test]
fn failures_are_said() {
    let error = run("echo oh no >&2; exit 3".to_owned(), LONG).unwrap_err();
    assert!(error.contains("failed: exit status: 3"), "{error}");
    let error = run("kill -9 $$".to_owned(), LONG).unwrap_err();
    assert!(error.contains("failed: signal: 9"), "{error}");
}

#[test]
fn much_on_standard_error_stops_nobody() {
    run("i=0; while [ $i -lt 2000 ]; do printf '%01000d\\n' $i >&2; i=$((i+1)); done".to_owned(), LONG)
        .unwrap();
}

#[test]
fn its_time_is_bounded_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, pid) = (dir.path().join("fifo"), dir.path().join("pid"));
    let (fifo, pid_file) = (quoted(&fifo), quoted(&pid));
    let endless = format!("mkfifo {fifo}; cat {fifo} & echo $! > {pid_file}; wait");
    let error = run(endless, Duration::from_millis(500)).unwrap_err();
    assert!(error.contains("was killed: it took longer than 0.5 s"), "{error}");
    is_gone(&pid);

    // What it leaves behind when it ends is ended, too.
    run(format!("cat {fifo} & echo $! > {pid_file}"), LONG).unwrap();
    is_gone(&pid);
}

fn is_gone(pid: &Path) {
    let pid = std::fs::read_to_string(pid).unwrap();
    let start = std::time::Instant::now();
    loop {
        // A zombie, until whoever adopted it looks after it.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        if stat.map_or(true, |stat| stat.contains(") Z ")) {
            return;
        }
        assert!(start.elapsed() < LONG);
        thread::yield_now();
    }
}

#[test]
fn the_end_of_the_daemon_is_its_end() {
    let ending = Arc::new(AtomicBool::new(false));
    let dir = tempfile::tempdir().unwrap();
    let (fifo, begun) = (quoted(&dir.path().join("fifo")), dir.path().join("begun"));
    let run = format!("trap '' TERM; mkfifo {fifo}; echo > {}; read x < {fifo}", quoted(&begun));
    let batch =
        Batch { run: run.into(), events: vec![event(1, 0)], timeout: LONG, ending: Arc::clone(&ending) };
    let running = thread::spawn(move || batch.run());
    while !begun.exists() {
        thread::yield_now();
    }
    ending.store(true, Ordering::Relaxed);
    let error = running.join().unwrap().unwrap_err();
    assert!(error.contains("was killed: this daemon ends"), "{error}");
}
