//! `furka_dectris.conf`: whose images they are, and where they come from.

use std::net::IpAddr;

use super::draft::{Draft, Origin, Table};
use super::old_file::{Entry, Keys, OldFile, Section};
use super::values::{pause, string, whole};

pub(super) const KEYS: Keys = Keys {
    section: "detectorid",
    global: &["logfile", "logfilemaxnumber", "logfilemaxsize", "uid", "gid", "usrdir", "licensekey"],
    local: &["remoteip", "source", "target", "minpause", "interrunpause"],
};

/// The largest number of a user or group.
const ID_MAX: i64 = u32::MAX as i64 - 1;

pub(super) fn import(old: Option<&mut OldFile>, draft: &mut Draft) {
    let Some(old) = old else {
        let why = "is missing: it is in furka_dectris.conf, which was not given";
        for setting in ["#uid = 500", "#gid = 500"] {
            draft.decide(top, Origin::new_key(&setting[1..4]), setting, why);
        }
        let why = "there is none: detectors are in furka_dectris.conf, which was not given. Add a section [[detector]] for each, with id, address and target";
        draft.decide(top, Origin::new_key("detector"), "#[[detector]]", why);
        return;
    };
    guess_ramdisk(old, draft);
    owner(old, draft, "uid", 1, "-u");
    owner(old, draft, "gid", 0, "-g");
    user_dir(old, draft);
    draft.take_logs(old);
    let mut sections = std::mem::take(&mut old.sections);
    for section in &mut sections {
        detector(old, section, draft);
    }
    if sections.is_empty() {
        draft.decide(top, Origin::new_key("detector"), "#[[detector]]", "there is no section detectorID: add a section [[detector]] for each, with id, address and target");
    }
    old.sections = sections;
}

/// Where grimsel's file does not say it: what all targets have in common.
fn guess_ramdisk(old: &OldFile, draft: &mut Draft) {
    if draft.ramdisk.is_some() {
        return;
    }
    let mut guesses: Vec<String> =
        old.sections.iter().filter_map(|section| guess(section.target()?)).collect();
    guesses.dedup();
    if let [guess] = &guesses[..] {
        draft.decide(
            top,
            Origin::new_key("ramdisk"),
            &format!("ramdisk = {}", string(guess)),
            "guessed from the targets: is that the mount point of the ramdisk?",
        );
        draft.ramdisk = Some(guess.clone());
    }
}

/// What comes before `/./`, or else the first name.
fn guess(target: &str) -> Option<String> {
    let below = target.strip_prefix('/')?;
    let root = match target.split_once("/./") {
        Some((root, _)) => root.to_owned(),
        None => format!("/{}", below.split('/').next()?),
    };
    (root.len() > 1 && is_plain(&root) && !root.split('/').any(|name| name == ".")).then_some(root)
}

fn owner(old: &mut OldFile, draft: &mut Draft, key: &str, least: i64, option: &str) {
    let proposal = format!("#{key} = 500");
    let Some(entry) = old.take(key) else {
        return draft.decide(
            top,
            Origin::new_key(key),
            &proposal,
            "is missing: whose are images until the first `shift start -u UID:GID`?",
        );
    };
    let origin = Origin::new(old, None, &entry);
    match whole(&entry.value) {
        Ok(number) if (least..=ID_MAX).contains(&number) => {
            draft.map(top, origin, &format!("{key} = {number}"), "");
        }
        Ok(_) => draft.decide(
            top,
            origin,
            &proposal,
            &format!("{} cannot be an image's {key}, write the user's", entry.value),
        ),
        Err(_) => {
            let why =
                format!("{:?} is not a number: write what `id {option} {}` says", entry.value, entry.value);
            draft.decide(top, origin, &proposal, &why);
        }
    }
}

fn user_dir(old: &mut OldFile, draft: &mut Draft) {
    let Some(entry) = old.take("usrdir") else { return };
    let origin = Origin::new(old, None, &entry);
    // `${UID}` is the same in a shell.
    let written = entry.value.replace("${UID}", "$UID").replace("${GID}", "$GID");
    let filled = written.replace("$UID", "0").replace("$GID", "0").replace("$SHIFT", "0");
    let clean = filled.trim_matches('/');
    let plain = clean.is_empty() || clean.split('/').all(|name| !matches!(name, "" | "." | ".."));
    let setting = format!("user_dir = {}", string(&written));
    match plain && !filled.contains(['$', '\u{fffd}']) {
        true => draft.map(top, origin, &setting, ""),
        false => draft.decide(
            top,
            origin,
            &format!("#{setting}"),
            "known are $UID, $GID and $SHIFT in a plain path; until you write one there is no user directory",
        ),
    }
}

fn detector(old: &OldFile, section: &mut Section, draft: &mut Draft) {
    let title = section.title.clone();
    draft.detectors.push(Table::default());
    let origin = |entry: &Entry| Origin::new(old, Some(&title), entry);
    let head = Origin { from: old.at(section.line), key: title.clone() };
    id(head, &section.id, draft, last);
    match section.take("remoteip") {
        None => draft.decide(
            last,
            Origin::new_key(&format!("{title}: remoteIP")),
            "#address = \"10.10.10.11\"",
            "is missing: where is this detector server?",
        ),
        Some(entry) => address(origin(&entry), &entry.value, draft),
    }
    if let Some(entry) = section.take("source") {
        source(origin(&entry), &entry.value, draft);
    }
    match section.take("target") {
        None => draft.decide(
            last,
            Origin::new_key(&format!("{title}: target")),
            "#target = \"/ramdisk/./1mf\"",
            "is missing: where do its images land?",
        ),
        Some(entry) => {
            let setting = format!("target = {}", string(&entry.value));
            let below = draft.ramdisk.as_deref().is_none_or(|ramdisk| is_below(&entry.value, ramdisk));
            match below && is_plain(&entry.value) {
                true => draft.map(last, origin(&entry), &setting, ""),
                false => {
                    draft.decide(last, origin(&entry), &setting, "must be a plain path below the ramdisk")
                }
            }
        }
    }
    for (key, new) in [("minpause", "min_pause_ms"), ("interrunpause", "interrun_pause_ms")] {
        let Some(entry) = section.take(key) else { continue };
        match pause(&entry.value) {
            Ok((ms, false)) => draft.map(last, origin(&entry), &format!("{new} = {ms}"), ""),
            Ok((ms, true)) => {
                draft.decide(
                    last,
                    origin(&entry),
                    &format!("{new} = {ms}"),
                    &format!("{} was taken for seconds", entry.value),
                );
            }
            Err(why) => draft.decide(last, origin(&entry), &format!("#{new} = 0"), &why),
        }
    }
}

fn address(origin: Origin, written: &str, draft: &mut Draft) {
    // rsync's ways to write a host: rsync://host:873/module, host::module.
    let host = written.split_once("://").map_or(written, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or("");
    let host = host.rsplit('@').next().unwrap_or("");
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None if host.parse::<IpAddr>().is_ok() => host,
        None => host.split(':').next().unwrap_or(""),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if bare.is_empty() || bare.len() > 255 || !bare.chars().all(plain) {
        return draft.decide(
            last,
            origin,
            "#address = \"10.10.10.11\"",
            &format!("{written:?} is no address"),
        );
    }
    let setting = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
    let port = crate::DETECTOR_PORT;
    let note = match bare == written {
        true => String::new(),
        false => format!("the old port and module do not matter: `ppu-uringd detector` listens on {port}"),
    };
    draft.map(last, origin, &format!("address = {}", string(&format!("{setting}:{port}"))), &note);
}

fn source(origin: Origin, written: &str, draft: &mut Draft) {
    let names = || written.split('/').filter(|name| !name.is_empty());
    let setting = format!("source = {}", string(if written.is_empty() { "/" } else { written }));
    match names().any(|name| matches!(name, "." | "..")) || written.contains('\u{fffd}') {
        false => draft.map(last, origin, &setting, ""),
        true => draft.decide(
            last,
            origin,
            &format!("#{setting}"),
            "write the plain path below the detector's ramdisk; until then all of it is fetched",
        ),
    }
}

/// Shared with the storages.
pub(super) fn id(origin: Origin, written: &str, draft: &mut Draft, table: fn(&mut Draft) -> &mut Table) {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | '\u{fffd}');
    let mut id: String = written.chars().map(|c| if bad(c) { '_' } else { c }).collect();
    while id.len() > 64 {
        id.pop();
    }
    let setting = format!("id = {}", string(&id));
    match id == written {
        true => draft.map(table, origin, &setting, ""),
        false => draft.decide(
            table,
            origin,
            &setting,
            "the old name cannot be one: a space, ':' or '/' in it, or too long",
        ),
    }
}

impl Section {
    fn target(&self) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.key.eq_ignore_ascii_case("target"))
            .map(|entry| &*entry.value)
    }
}

/// Absolute, without `..`.
pub(super) fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|name| name == "..") && !path.contains('\u{fffd}')
}

/// By name.
pub(super) fn is_below(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn top(draft: &mut Draft) -> &mut Table {
    &mut draft.top
}

fn last(draft: &mut Draft) -> &mut Table {
    if draft.detectors.is_empty() {
        draft.detectors.push(Table::default());
    }
    let at = draft.detectors.len() - 1;
    &mut draft.detectors[at]
}
