//! `grimsel_dectris.conf`: the ramdisk, the storages, and how others ask.

use super::draft::{Draft, Origin, Table};
use super::furka::{id, is_below, is_plain};
use super::old_file::{Entry, Keys, OldFile, Section};
use super::values::{flag, ratio, string, whole};

pub(super) const KEYS: Keys = Keys {
    section: "storageid",
    global: &[
        "logfile",
        "logfilemaxnumber",
        "logfilemaxsize",
        "target",
        "ramdiskmountpoint",
        "licensekey",
        "createlinks",
        "preserveuid",
        "preservegid",
        "statusport",
        "messageport",
        "historymaxentries",
        "fillstatelimit",
    ],
    local: &["type", "target", "ncopyprocesses", "mountpoint"],
};

/// Eviction ends there unless the old limit is lower still.
const LOW: f64 = 0.70;
/// Of a limit below [`LOW`].
const LOW_BELOW_LIMIT: f64 = 0.10;
/// Reported as ALMOST_OVERFLOW unless the old limit is higher.
const ALMOST: f64 = 0.95;
const DEPTH_MAX: i64 = 256;
const DEPTH_ABOVE: i64 = DEPTH_MAX + 1;
const HISTORY_MAX: i64 = 1_000_000;
const HISTORY_ABOVE: i64 = HISTORY_MAX + 1;

pub(super) fn import(old: Option<&mut OldFile>, draft: &mut Draft) {
    let Some(old) = old else {
        let why = "there is none: storages are in grimsel_dectris.conf, which was not given. Add exactly one [[storage]] with kind = \"internal\", and others";
        return draft.decide(top, Origin::new_key("storage"), "#[[storage]]", why);
    };
    if let Some(entry) = old.take("ramdiskmountpoint") {
        let origin = Origin::new(old, None, &entry);
        let setting = format!("ramdisk = {}", string(&entry.value));
        match is_plain(&entry.value) && !entry.value.contains("/./") {
            true => {
                draft.ramdisk = Some(entry.value);
                draft.map(top, origin, &setting, "");
            }
            false => draft.say(origin.from, origin.key, super::Verdict::Ignored, "no absolute path"),
        }
    }
    for (plain, key) in
        [("createlinks", "create_links"), ("preserveuid", "preserve_uid"), ("preservegid", "preserve_gid")]
    {
        let Some(entry) = old.take(plain) else { continue };
        let origin = Origin::new(old, None, &entry);
        match flag(&entry.value) {
            Ok(value) => draft.map(top, origin, &format!("{key} = {value}"), ""),
            Err(why) => draft.refuse(top, origin, &format!("{key} = true"), &why),
        }
    }
    fill_state(old, draft);
    history(old, draft);
    ports(old, draft);
    draft.take_logs(old);
    let inherited = old.take("target");
    let mut sections = std::mem::take(&mut old.sections);
    for section in &mut sections {
        storage(old, section, inherited.as_ref(), draft);
    }
    if let Some(entry) = inherited {
        let origin = Origin::new(old, None, &entry);
        let what = "of every storage that has none of its own";
        draft.say(origin.from, origin.key, super::Verdict::Mapped, what);
    }
    if sections.is_empty() {
        let why =
            "there is no section storageID: add exactly one [[storage]] with kind = \"internal\", and others";
        draft.decide(top, Origin::new_key("storage"), "#[[storage]]", why);
    }
    old.sections = sections;
}

/// Three marks came of one.
fn fill_state(old: &mut OldFile, draft: &mut Draft) {
    let Some(entry) = old.take("fillstatelimit") else { return };
    let origin = Origin::new(old, None, &entry);
    let limit = match ratio(&entry.value) {
        Ok(limit) => limit,
        Err(why) => return draft.refuse(top, origin, "fillstate_limit = 0.8", &why),
    };
    draft.map(
        top,
        origin,
        &format!("fillstate_limit = {limit}"),
        if entry.value == limit.to_string() { "" } else { "a ratio now, no percentage" },
    );
    if limit <= LOW {
        let low = ((limit - LOW_BELOW_LIMIT).max(limit / 2.0) * 1000.0).floor() / 1000.0;
        let why = "is new: eviction goes on down to here, which must be below the limit";
        draft.map(top, Origin::new_key("fillstate_low"), &format!("fillstate_low = {low}"), why);
    }
    if limit > ALMOST {
        let why = "is new: reported as ALMOST_OVERFLOW; not below the limit";
        draft.map(top, Origin::new_key("almost_overflow"), &format!("almost_overflow = {limit}"), why);
    }
}

fn history(old: &mut OldFile, draft: &mut Draft) {
    let Some(entry) = old.take("historymaxentries") else { return };
    let origin = Origin::new(old, None, &entry);
    let (number, note) = match whole(&entry.value) {
        Ok(number @ 1..=HISTORY_MAX) => (Ok(number.to_string()), ""),
        Ok(-1 | HISTORY_ABOVE..) => (Ok(HISTORY_MAX.to_string()), "the most there is"),
        Ok(_) => (Err(format!("{} shifts cannot be remembered", entry.value)), ""),
        Err(why) => (Err(why), ""),
    };
    match number {
        Ok(number) => draft.map(top, origin, &format!("history_max_entries = {number}"), note),
        Err(why) => draft.refuse(top, origin, "history_max_entries = 100", &why),
    }
}

/// The old program listened on every address, and so does the new one then, until somebody decides otherwise.
fn ports(old: &mut OldFile, draft: &mut Draft) {
    let note = "every address, as before; \"127.0.0.1:…\" for this machine alone";
    for (plain, key, port) in [("statusport", "status", 47199), ("messageport", "messages", 47198)] {
        let (origin, written) = match old.take(plain) {
            Some(entry) => (Origin::new(old, None, &entry), Some(entry.value)),
            None => (Origin::new_key(&format!("{key} port")), None),
        };
        let setting = |port: i64| format!("{key} = \"0.0.0.0:{port}\"");
        match written.as_deref().map(whole) {
            None => draft.map(interfaces, origin, &setting(port), note),
            Some(Ok(port @ 1..=65_535)) => draft.map(interfaces, origin, &setting(port), note),
            Some(_) => {
                let why = format!("{:?} is no port; this is the usual one", written.unwrap_or_default());
                draft.decide(interfaces, origin, &setting(port), &why);
            }
        }
    }
}

fn storage(old: &OldFile, section: &mut Section, inherited: Option<&Entry>, draft: &mut Draft) {
    let title = section.title.clone();
    draft.storages.push(Table::default());
    let origin = |entry: &Entry| Origin::new(old, Some(&title), entry);
    id(Origin { from: old.at(section.line), key: title.clone() }, &section.id, draft, last);

    let kinds = ["internal", "external", "optional"];
    let known = |written: &str| kinds.into_iter().find(|kind| written.eq_ignore_ascii_case(kind));
    let kind = match section.take("type") {
        Some(entry) => {
            let kind = known(&entry.value);
            match kind {
                Some(kind) => draft.map(last, origin(&entry), &format!("kind = \"{kind}\""), ""),
                None => draft.decide(
                    last,
                    origin(&entry),
                    "#kind = \"optional\"",
                    "neither INTERNAL, EXTERNAL nor OPTIONAL",
                ),
            }
            kind
        }
        None => {
            let kind = known(&section.id);
            let key = Origin::new_key(&format!("{title}: type"));
            match kind {
                Some(kind) => draft.decide(last, key, &format!("kind = \"{kind}\""), "taken from its name"),
                None => draft.decide(
                    last,
                    key,
                    "#kind = \"internal\"",
                    "is missing: \"internal\" (exactly one), \"external\" (at most one) or \"optional\"?",
                ),
            }
            kind
        }
    };
    let target = target(old, section, inherited, draft);
    mount_point(old, section, kind, target.as_deref(), draft);
    if let Some(entry) = section.take("ncopyprocesses") {
        let origin = origin(&entry);
        match whole(&entry.value) {
            Ok(depth @ 1..=DEPTH_MAX) => draft.map(last, origin, &format!("queue_depth = {depth}"), ""),
            Ok(DEPTH_ABOVE..) => {
                draft.map(last, origin, &format!("queue_depth = {DEPTH_MAX}"), "the most there is")
            }
            _ => {
                let why = format!("{:?} copies at a time cannot be", entry.value);
                draft.refuse(last, origin, "queue_depth = 8", &why);
            }
        }
    }
}

fn target(
    old: &OldFile,
    section: &mut Section,
    inherited: Option<&Entry>,
    draft: &mut Draft,
) -> Option<String> {
    let own = section.take("target");
    let Some(entry) = own.as_ref().or(inherited) else {
        let origin = Origin::new_key(&format!("{}: target", section.title));
        draft.decide(
            last,
            origin,
            "#target = \"/data\"",
            "is missing, here and for all storages: where do copies go?",
        );
        return None;
    };
    let origin = Origin::new(old, Some(&section.title), entry);
    let note = if own.is_some() { "" } else { "inherited" };
    let setting = format!("target = {}", string(&entry.value));
    let inside = draft.ramdisk.as_deref().is_some_and(|ramdisk| is_below(&entry.value, ramdisk));
    if !is_plain(&entry.value) || entry.value.split('/').any(|name| name == ".") {
        draft.decide(last, origin, &format!("#{setting}"), "write an absolute path without '.' and '..'");
        return None;
    }
    match inside {
        false => draft.map(last, origin, &setting, note),
        true => draft.decide(last, origin, &setting, "is inside the ramdisk, a storage is a disk"),
    }
    Some(entry.value.clone())
}

/// It counted for the internal storage only (SPEC 5.7).
fn mount_point(
    old: &OldFile,
    section: &mut Section,
    kind: Option<&str>,
    target: Option<&str>,
    draft: &mut Draft,
) {
    let missing = "is not given: if this disk can be unmounted, give its mountpoint; a target on the root file system is refused without \
                   allow_root_fs = true";
    let Some(entry) = section.take("mountpoint") else {
        let key = Origin::new_key(&format!("{}: mountpoint", section.title));
        let proposal = format!("#mountpoint = {}", string(target.unwrap_or("/data")));
        return draft.decide(last, key, &proposal, missing);
    };
    let origin = Origin::new(old, Some(&section.title), &entry);
    let setting = format!("mountpoint = {}", string(&entry.value));
    let fits = is_plain(&entry.value) && target.is_none_or(|target| is_below(target, &entry.value));
    if !fits {
        draft.decide(last, origin, &format!("#{setting}"), "the target is not below it");
    } else if kind == Some("internal") {
        draft.map(last, origin, &setting, "");
    } else {
        let why = "had no effect before: only INTERNAL was checked. Remove the # to have this storage written only while it is mounted (recommended)";
        draft.decide(last, origin, &format!("#{setting}"), why);
    }
}

fn top(draft: &mut Draft) -> &mut Table {
    &mut draft.top
}

fn interfaces(draft: &mut Draft) -> &mut Table {
    &mut draft.interfaces
}

fn last(draft: &mut Draft) -> &mut Table {
    if draft.storages.is_empty() {
        draft.storages.push(Table::default());
    }
    let at = draft.storages.len() - 1;
    &mut draft.storages[at]
}
