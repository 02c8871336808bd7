//! What the values of a `ppu.toml` must have to do with each other (SPEC 6).

use std::path::PathBuf;

use super::{LinkFields, StorageFields, StorageKind};
use crate::detector::{log_outside_ramdisk, outside_ramdisk};
use crate::paths::{overlap, split_target};
use crate::problem::Report;
use crate::section::Field;
use crate::value::Log;

/// The keys that have something to do with each other.
pub(super) struct Fields {
    pub(super) state_dir: Field<PathBuf>,
    pub(super) ramdisk: Field<PathBuf>,
    pub(super) gid: Field<u32>,
    pub(super) fillstate_limit: Field<f64>,
    pub(super) fillstate_low: Field<f64>,
    pub(super) almost_overflow: Field<f64>,
    pub(super) key_file: Field<PathBuf>,
    pub(super) insecure: Field<bool>,
    pub(super) detectors: Vec<LinkFields>,
    pub(super) storages: Vec<StorageFields>,
}

pub(super) fn check(report: &Report<'_>, fields: &Fields, log: &Log) {
    outside_ramdisk(report, &fields.ramdisk, &fields.state_dir);
    log_outside_ramdisk(report, fields.ramdisk.at, &fields.ramdisk, log);
    if fields.gid.value == Some(0) {
        report.warning(fields.gid.at, &fields.gid.key, "images will belong to the group root");
    }
    marks(report, fields);
    links(report, fields);
    targets(report, fields);
    storage_kinds(report, &fields.storages);
    storage_places(report, fields);
}

/// `fillstate_low < fillstate_limit <= almost_overflow`.
fn marks(report: &Report<'_>, fields: &Fields) {
    let Some(limit) = fields.fillstate_limit.value else { return };
    if let Some(low) = fields.fillstate_low.value.filter(|low| *low >= limit) {
        let (at, key) = place_of(&fields.fillstate_low, &fields.fillstate_limit);
        let reason = format!(
            "fillstate_low {low} must be below fillstate_limit {limit}: eviction runs from the limit down to low"
        );
        report.problem(at, key, reason);
    }
    if let Some(almost) = fields.almost_overflow.value.filter(|almost| *almost < limit) {
        let (at, key) = place_of(&fields.almost_overflow, &fields.fillstate_limit);
        let reason = format!(
            "almost_overflow {almost} must not be below fillstate_limit {limit}: it warns when eviction does not keep up"
        );
        report.problem(at, key, reason);
    }
}

/// Where to point: at the first that was written.
fn place_of<T>(first: &Field<T>, second: &Field<T>) -> (usize, String) {
    let field = if first.absent { second } else { first };
    (field.at, field.key.clone())
}

fn links(report: &Report<'_>, fields: &Fields) {
    if fields.detectors.is_empty() {
        report.problem(
            0,
            "detector",
            "there is none, add a section [[detector]] with id, address and target",
        );
    }
    let keyless = fields.key_file.absent && fields.insecure.value == Some(false);
    for (index, link) in fields.detectors.iter().enumerate() {
        let before = &fields.detectors[..index];
        unique(report, &link.id, before.iter().map(|other| &other.id), "give each detector its own");
        unique(
            report,
            &link.address,
            before.iter().map(|other| &other.address),
            "a detector server serves one session, use one section with several sources' common directory",
        );
        if let Some(address) = link.address.value.as_ref().filter(|a| keyless && !a.is_loopback()) {
            let reason = format!(
                "{address} is another machine and there is no key_file: add one (on both machines), or set insecure = true"
            );
            report.problem(link.address.at, &link.address.key, reason);
        }
    }
}

/// Two detectors that land in each other's directories would overwrite each other's files.
fn targets(report: &Report<'_>, fields: &Fields) {
    let Some(ramdisk) = &fields.ramdisk.value else { return };
    let mut seen: Vec<(&str, PathBuf, PathBuf)> = Vec::new();
    for link in &fields.detectors {
        let (field, id) = (&link.target, link.id.value.as_deref().unwrap_or("?"));
        let Some(target) = &field.value else { continue };
        let (directory, replicated) = match split_target(ramdisk, target) {
            Ok(split) => split,
            Err(reason) => {
                report.problem(field.at, &field.key, reason);
                continue;
            }
        };
        for (other, taken, taken_replica) in &seen {
            if overlap(&directory, taken) {
                let reason = format!(
                    "{} and detector {other}'s {} are the same or inside each other, give each detector its own directory",
                    directory.display(),
                    taken.display()
                );
                report.problem(field.at, &field.key, reason);
            } else if overlap(&replicated, taken_replica) {
                let reason = format!(
                    "is stored below the same directory as detector {other}'s: a name that both use fails for the second; \
                     put '/./' before the part that tells them apart"
                );
                report.warning(field.at, &field.key, reason);
            }
        }
        seen.push((id, directory, replicated));
    }
}

fn storage_kinds(report: &Report<'_>, storages: &[StorageFields]) {
    // A kind that could not be read may have been meant as the missing one: it is reported already.
    let unread = storages.iter().any(|storage| storage.kind.value.is_none());
    let of = |kind| storages.iter().filter(move |storage| storage.kind.value == Some(kind));
    if of(StorageKind::Internal).next().is_none() && !unread {
        let reason = "none is internal, give exactly one [[storage]] kind = \"internal\"";
        report.problem(storages.first().map_or(0, |storage| storage.at), "storage", reason);
    }
    for (kind, word) in [(StorageKind::Internal, "internal"), (StorageKind::External, "external")] {
        for second in of(kind).skip(1) {
            let reason = format!("a second {word} storage, keep one and make the others \"optional\"");
            report.problem(second.kind.at, &second.kind.key, reason);
        }
    }
}

fn storage_places(report: &Report<'_>, fields: &Fields) {
    for (index, storage) in fields.storages.iter().enumerate() {
        let before = &fields.storages[..index];
        unique(report, &storage.id, before.iter().map(|other| &other.id), "give each storage its own");
        if storage.allow_root_fs.value == Some(true) && storage.mountpoint.value.is_some() {
            let reason = "has no effect beside mountpoint, remove one of them";
            report.warning(storage.allow_root_fs.at, &storage.allow_root_fs.key, reason);
        }
        if let (Some(first), Some(most)) = (storage.retry_pause.value, storage.retry_pause_max.value)
            && first > most
        {
            let (at, key) = place_of(&storage.retry_pause_max, &storage.retry_pause);
            report.problem(at, key, "retry_pause_max_ms must not be below retry_pause_ms");
        }
        let field = &storage.target;
        let Some(target) = &field.value else { continue };
        if let Some(mountpoint) = storage.mountpoint.value.as_ref().filter(|at| !target.starts_with(at)) {
            let reason = format!(
                "{} is not below its mountpoint {}, correct one of them",
                target.display(),
                mountpoint.display()
            );
            report.problem(field.at, &field.key, reason);
        }
        if let Some(ramdisk) = fields.ramdisk.value.as_ref().filter(|ramdisk| target.starts_with(ramdisk)) {
            let reason = format!("is inside the ramdisk {}, a storage is a disk", ramdisk.display());
            report.problem(field.at, &field.key, reason);
        }
        for other in before {
            if let Some(taken) = other.target.value.as_ref().filter(|taken| overlap(target, taken)) {
                let reason = format!(
                    "{} and storage {}'s {} are the same or inside each other, so they are not two copies; give each its own directory",
                    target.display(),
                    other.id.value.as_deref().unwrap_or("?"),
                    taken.display()
                );
                report.problem(field.at, &field.key, reason);
            }
        }
    }
}

fn unique<'f, T: PartialEq + std::fmt::Display + 'f>(
    report: &Report<'_>,
    field: &Field<T>,
    mut before: impl Iterator<Item = &'f Field<T>>,
    advice: &str,
) {
    if let Some(value) = &field.value
        && before.any(|other| other.value.as_ref() == Some(value))
    {
        report.problem(field.at, &field.key, format!("{value} is given twice, {advice}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Ppu;

    const GOOD: &str = r#"ramdisk = "/ramdisk"
uid = 500
gid = 501
insecure = true
[[detector]]
id = "a"
address = "det-a"
target = "/ramdisk/./a"
[[storage]]
id = "int"
kind = "internal"
target = "/data"
"#;

    /// The problems of GOOD with `old` replaced by `new`, as `LINE: KEY`.
    fn problems(old: &str, new: &str) -> Vec<String> {
        assert!(GOOD.contains(old), "{old}");
        match Ppu::parse(&GOOD.replace(old, new), Path::new("x")) {
            Ok(_) => Vec::new(),
            Err(error) => error
                .to_string()
                .lines()
                .map(|line| line.splitn(4, ':').skip(1).take(2).collect::<Vec<_>>().join(":"))
                .collect(),
        }
    }

    fn check(old: &str, new: &str, expected: &[&str]) {
        assert_eq!(problems(old, new), expected, "{old:?} -> {new:?}");
    }

    #[test]
    fn a_good_file_passes() {
        let checked = Ppu::parse(GOOD, Path::new("x")).unwrap();
        assert_eq!(checked.warnings, []);
        assert_eq!(checked.config.detectors[0].address.to_string(), "det-a:49371");
        assert_eq!(checked.config.interfaces.intake_roots, [Path::new("/ramdisk")]);
    }

    #[test]
    fn impossible_values_are_refused_with_their_line() {
        check("uid = 500", "uid = 0", &["2: uid"]);
        check("uid = 500", "uid = -1", &["2: uid"]);
        check("uid = 500", "uid = \"\"", &["2: uid"]);
        check("uid = 500", "uid = 4294967295", &["2: uid"]);
        check("uid = 500\n", "", &["1: uid"]);
        check("gid = 501", "gid = 1.5", &["3: gid"]);
        check("insecure = true\n", "", &["6: detector.address"]);
        check("insecure = true", "fillstate_low = 0.8", &["4: fillstate_low", "7: detector.address"]);
        check("gid = 501", "gid = 501\nfillstate_limit = 80", &["4: fillstate_limit"]);
        check("gid = 501", "gid = 501\nfillstate_limit = nan", &["4: fillstate_limit"]);
        check("gid = 501", "gid = 501\nstate_dir = \"/ramdisk/x\"", &["4: state_dir"]);
        check("gid = 501", "gid = 501\nuser_dir = \"../$UID\"", &["4: user_dir"]);
        check("gid = 501", "gid = 501\nuser_dir = \"$USER\"", &["4: user_dir"]);
        check("gid = 501", "gid = 501\nuser_dri = \"\"", &["4: user_dri"]);
        check("id = \"a\"", "id = \"\"", &["6: detector.id"]);
        check("id = \"a\"", "id = \"a:b\"", &["6: detector.id"]);
        check("id = \"a\"", "id = \"a\"\nstreams = 17", &["7: detector.streams"]);
        check("id = \"a\"", "id = \"a\"\nmin_pause_ms = -1", &["7: detector.min_pause_ms"]);
        check("\"/ramdisk/./a\"", "\"/data/a\"", &["8: detector.target"]);
        check("\"/ramdisk/./a\"", "\"/ramdisk/../etc\"", &["8: detector.target"]);
        check("\"/ramdisk/./a\"", "\"/ramdisk/./a/./b\"", &["8: detector.target"]);
        check("\"/data\"", "\"/ramdisk/store\"", &["12: storage.target"]);
        check("\"/data\"", "\"data\"", &["12: storage.target"]);
        check("\"/data\"", "\"/data\"\nmountpoint = \"/mnt\"", &["12: storage.target"]);
        check("\"/data\"", "\"/data\"\nqueue_depth = 0", &["13: storage.queue_depth"]);
        check("\"internal\"", "\"optional\"", &["9: storage"]);
        check("\"internal\"", "\"Internal\"", &["11: storage.kind"]);
        check(&GOOD[GOOD.find("[[storage]]").unwrap()..], "", &["1: storage"]);
    }

    #[test]
    fn all_problems_at_once_in_the_order_of_the_file() {
        check("uid = 500\ngid = 501\n", "uid = 0\ngid = -2\nnoise = 1\n", &["2: uid", "3: gid", "4: noise"]);
    }

    #[test]
    fn two_detectors() {
        let second = |id: &str, address: &str, target: &str| {
            format!(
                "[[detector]]\nid = \"{id}\"\naddress = \"{address}\"\ntarget = \"{target}\"\n[[storage]]"
            )
        };
        let check = |id: &str, address: &str, target: &str, expected: &[&str]| {
            check("[[storage]]", &second(id, address, target), expected);
        };
        check("b", "det-b", "/ramdisk/./b", &[]);
        check("a", "det-b", "/ramdisk/./b", &["10: detector.id"]);
        check("b", "det-a:49371", "/ramdisk/./b", &["11: detector.address"]);
        check("b", "det-b", "/ramdisk/a", &["12: detector.target"]);
        check("b", "det-b", "/ramdisk/a/b", &["12: detector.target"]);
        check("b", "det-b", "/ramdisk", &["12: detector.target"]);
        check("b", "det-b", "/ramdisk/ab", &[]);
    }

    #[test]
    fn a_shared_replica_root_is_a_warning() {
        let text = GOOD.replace("/ramdisk/./a", "/ramdisk/a").replace(
            "[[storage]]",
            "[[detector]]\nid = \"b\"\naddress = \"det-b\"\ntarget = \"/ramdisk/b\"\n[[storage]]",
        );
        let warnings = Ppu::parse(&text, Path::new("x")).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert_eq!((warnings[0].line, warnings[0].key.as_str()), (12, "detector.target"));
    }

    #[test]
    fn two_storages() {
        let check = |kind: &str, target: &str, expected: &[&str]| {
            let second =
                format!("[[storage]]\nid = \"two\"\nkind = \"{kind}\"\ntarget = \"{target}\"\n[[storage]]");
            check("[[storage]]", &second, expected);
        };
        check("external", "/ext", &[]);
        check("internal", "/ext", &["15: storage.kind"]);
        check("optional", "/data/sub", &["16: storage.target"]);
        check("optional", "/data", &["16: storage.target"]);
    }

    #[test]
    fn targets_are_cleaned() {
        let target = |written: &str| {
            let text = GOOD.replace("/ramdisk/./a", written);
            Ppu::parse(&text, Path::new("x")).unwrap().config.detectors[0].target.display().to_string()
        };
        assert_eq!(target("/ramdisk/./a"), "/ramdisk/./a");
        assert_eq!(target("/ramdisk//x/./a//b/"), "/ramdisk/x/./a/b");
        assert_eq!(target("/ramdisk/x/."), "/ramdisk/x");
    }
}
