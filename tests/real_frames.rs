//! Real PILATUS3 6M frames, where they are at hand: their own Content-MD5 must be right after landing and after storing.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::oracle::{check_all_stored, names};
use support::rig::{Options, Rig};
use support::{is_root, wait_until};

/// Beside the project, or where `PPU_FRAMES` says. Their licence does not allow them in the project.
fn frames() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let dir = std::env::var_os("PPU_FRAMES").map_or(beside, PathBuf::from);
    if dir.join("thau_3_2_0001.cbf.bz2").exists() {
        return Some(dir);
    }
    eprintln!("SKIPPED: no real frames at {} (set PPU_FRAMES)", dir.display());
    None
}

fn decompress(from: &Path, to: &Path) -> usize {
    let mut count = 0;
    for name in names(from) {
        let tool = match name.extension().and_then(|extension| extension.to_str()) {
            Some("bz2") => "import bz2, sys; sys.stdout.buffer.write(bz2.open(sys.argv[1]).read())",
            Some("gz") => "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())",
            _ => continue,
        };
        let output = Command::new("python3").args(["-c", tool]).arg(from.join(&name)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(to.join(name.file_stem().unwrap()), output.stdout).unwrap();
        count += 1;
    }
    count
}

/// Checks a CBF frame's binary section against the MD5 that the detector wrote into its header; false where it has none.
fn check_md5(path: &Path) -> bool {
    let script = "
import base64, hashlib, re, sys
data = open(sys.argv[1], 'rb').read()
head, mark, rest = data.partition(b'\\x0c\\x1a\\x04\\xd5')
digest = re.search(rb'Content-MD5: *(\\S+)', head)
size = re.search(rb'X-Binary-Size: *(\\d+)', head)
if not (mark and digest and size):
    sys.exit(3)
body = rest[:int(size.group(1))]
assert base64.b64encode(hashlib.md5(body).digest()) == digest.group(1), 'Content-MD5 differs'
";
    let output = Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
    match output.status.code() {
        Some(0) => true,
        Some(3) => false,
        _ => panic!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn real_frames_keep_their_md5() {
    if !is_root("real_frames_keep_their_md5") {
        return;
    }
    let Some(frames) = frames() else { return };
    let rig = Rig::start(Options::default());
    let count = decompress(&frames, rig.source(0));
    wait_until("every frame has landed", || names(&rig.landing(0)).len() == count);
    for place in [rig.landing(0), {
        check_all_stored(&rig);
        rig.stored(0)
    }] {
        let cbf = names(&place).into_iter().filter(|name| name.extension().is_some_and(|e| e == "cbf"));
        let checked = cbf.filter(|name| check_md5(&place.join(name))).count();
        assert!(checked >= 3, "only {checked} frames with a Content-MD5 in {}", place.display());
    }
}

#[test]
fn demo_replays_real_frames() {
    let Some(frames) = frames() else { return };
    let dir = tempfile::tempdir().unwrap();
    assert!(decompress(&frames, dir.path()) > 0);
    let output = Command::new(support::daemon::BINARY)
        .args(["demo", "--replay"])
        .arg(dir.path())
        .args(["--files", "60", "--rate", "30"])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
