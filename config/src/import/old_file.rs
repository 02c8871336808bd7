//! The syntax of the old files, read liberally: what a program of 2012 took, and what somebody may have written since.
//!
//! ```text
//! uid = 500                 # a comment
//! [detectorID 1MF]          (or: detectorID 1MF, detectorID = "1MF", detectorID 1MF { ... }, <detectorID 1MF>)
//! remoteIP = "10.10.10.11"; (or: remoteIP: 10.10.10.11, remoteIP 10.10.10.11)
//! ```

use std::path::Path;

use super::Verdict;
use super::draft::Draft;

/// Which keys a file knows, without `_` and `-` and in lower case.
pub(super) struct Keys {
    /// What a section begins with: `detectorid`.
    pub(super) section: &'static str,
    /// Of the file.
    pub(super) global: &'static [&'static str],
    /// Of its sections.
    pub(super) local: &'static [&'static str],
}

/// A file; what is taken from it is no longer in it.
pub(super) struct OldFile {
    /// The last name of its path.
    pub(super) name: String,
    pub(super) global: Vec<Entry>,
    pub(super) sections: Vec<Section>,
    /// What was not understood.
    strange: Vec<Entry>,
}

/// A detector or a storage.
pub(super) struct Section {
    pub(super) id: String,
    pub(super) line: usize,
    pub(super) title: String,
    pub(super) entries: Vec<Entry>,
}

/// `key = value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As it is compared.
    plain: String,
    /// As it was written.
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

impl OldFile {
    pub(super) fn parse(path: &Path, text: &str, keys: &Keys) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let mut file =
            Self { name: tame(&name), global: Vec::new(), sections: Vec::new(), strange: Vec::new() };
        let mut place = Place::Global;
        for (index, line) in text.lines().enumerate() {
            for statement in statements(line) {
                place = file.statement(statement, index + 1, place, keys);
            }
        }
        file
    }

    fn statement(&mut self, statement: &str, line: usize, place: Place, keys: &Keys) -> Place {
        if statement == "}" || statement.starts_with("</") {
            return Place::Global;
        }
        let marked = statement.starts_with(['[', '<']);
        let inner = statement.trim_matches(['[', ']', '<', '>']).trim();
        let inner = if marked { inner } else { statement };
        let (key, value) = split(inner);
        let entry = Entry { plain: plain(key), key: tame(key), value: tame(value), line };
        if entry.plain == keys.section {
            if entry.value.is_empty() {
                self.strange.push(entry);
                return Place::Nowhere;
            }
            let title = format!("{} {}", entry.key, entry.value);
            self.sections.push(Section { id: entry.value, line, title, entries: Vec::new() });
            return Place::Section;
        }
        if marked {
            let known = ["general", "global", "globals", "default", "main", "furka", "grimsel"];
            if known.contains(&entry.plain.as_str()) {
                return Place::Global;
            }
            self.strange.push(Entry { key: tame(statement), ..entry });
            return Place::Nowhere;
        }
        let (local, global) = (keys.local.contains(&&*entry.plain), keys.global.contains(&&*entry.plain));
        match (place, self.sections.last_mut()) {
            (Place::Section, Some(section)) if local || !global => section.entries.push(entry),
            (Place::Nowhere, _) => self.strange.push(entry),
            _ => self.global.push(entry),
        }
        place
    }

    /// The value of a key of the file.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        take(&mut self.global, key)
    }

    /// Where an entry stands.
    pub(super) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }

    /// What nobody has taken is said to be ignored.
    pub(super) fn leftovers(self, draft: &mut Draft) {
        let licence = |entry: &Entry| entry.plain == "licensekey" || entry.plain == "licencekey";
        let global = self.global.iter().map(|entry| (String::new(), entry));
        let local = self
            .sections
            .iter()
            .flat_map(|section| section.entries.iter().map(|entry| (format!("{}: ", section.title), entry)));
        for (title, entry) in global.chain(local) {
            let what = match entry.plain.as_str() {
                _ if licence(entry) => "there is no licence",
                plain if plain.starts_with("singlethread") => "there is no single-thread mode",
                _ => "unknown key, or given again further down",
            };
            draft.say(self.at(entry.line), format!("{title}{}", entry.key), Verdict::Ignored, what);
        }
        for entry in &self.strange {
            draft.say(
                self.at(entry.line),
                entry.key.clone(),
                Verdict::Ignored,
                "not understood, or below a title that is not",
            );
        }
    }
}

impl Section {
    /// The value of a key of this section.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        take(&mut self.entries, key)
    }
}

#[derive(Clone, Copy)]
enum Place {
    Global,
    /// In the last one.
    Section,
    /// Below a title that nobody knows.
    Nowhere,
}

/// The last one counts, as in the old programs; the others stay for the report.
fn take(entries: &mut Vec<Entry>, key: &str) -> Option<Entry> {
    let at = entries.iter().rposition(|entry| entry.plain == key)?;
    Some(entries.remove(at))
}

/// `min_pause`, `minPause` and `minpause` are the same key.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Of a line, without its comment: what stands between `{`, `}` and `;`, outside of quotes. `}` stands for itself.
fn statements(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut begin = 0;
    let mut before = ' ';
    let mut end = line.len();
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '#' if before.is_whitespace() => {
                    end = at;
                    break;
                }
                // A comment, or the end of a statement that another may follow.
                ';' if line[begin..at].trim().is_empty() || !is_setting(&line[at + 1..]) => {
                    end = at;
                    break;
                }
                '{' | ';' => {
                    found.push(&line[begin..at]);
                    begin = at + 1;
                }
                '}' => {
                    found.push(&line[begin..at]);
                    found.push("}");
                    begin = at + 1;
                }
                _ => {}
            },
        }
        before = c;
    }
    found.push(&line[begin..end]);
    found.into_iter().map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// Looks like `key = value`.
fn is_setting(text: &str) -> bool {
    let key = text.split('=').next().unwrap_or("").trim();
    text.contains('=')
        && !key.is_empty()
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// `key = value`, `key: value`, `key value`.
fn split(statement: &str) -> (&str, &str) {
    let key_ends =
        statement.find(|c: char| c.is_whitespace() || matches!(c, '=' | ':')).unwrap_or(statement.len());
    let (key, rest) = statement.split_at(key_ends);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim();
    let unquoted = |quote: char| rest.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    (key, unquoted('"').or_else(|| unquoted('\'')).unwrap_or(rest))
}

/// Safe to print, and to stand in a comment.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys =
        Keys { section: "detectorid", global: &["uid", "target"], local: &["remoteip", "target"] };

    /// `uid=1 | 1MF: target=/a` and what was not understood.
    fn read(text: &str) -> (String, usize) {
        let file = OldFile::parse(Path::new("/etc/old.conf"), text, &KEYS);
        let entries = |entries: &[Entry]| {
            entries
                .iter()
                .map(|entry| format!("{}={}", entry.plain, entry.value))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let sections = file.sections.iter().map(|s| format!(" | {}: {}", s.id, entries(&s.entries)));
        (entries(&file.global) + &sections.collect::<String>(), file.strange.len())
    }

    #[test]
    fn the_same_in_many_ways() {
        let expected = ("uid=500 | 1MF: remoteip=10.0.0.1 target=/ramdisk/a b".to_owned(), 0);
        for text in [
            "uid = 500\n[detectorID 1MF]\nremoteIP = 10.0.0.1\ntarget = /ramdisk/a b\n",
            "UID=500 # whose\n\n[ detectorID \"1MF\" ]\r\n  remote_IP: 10.0.0.1\n  target: '/ramdisk/a b' # here\n",
            "; FURKA\nuid 500 ; whose\ndetectorID 1MF\nremoteIP 10.0.0.1\ntarget /ramdisk/a b\n",
            "uid=500;\ndetectorID = 1MF {\n remoteIP = \"10.0.0.1\";\n target = \"/ramdisk/a b\";\n}\n",
            "detectorID 1MF { remoteIP=10.0.0.1; target=\"/ramdisk/a b\" }\nuid = 500",
            "[general]\nuid = 500\n<detectorID 1MF>\nremoteIP 10.0.0.1\ntarget \"/ramdisk/a b\"\n</detectorID>\n",
            "[detectorID 1MF]\nremoteIP = 10.0.0.1\nuid = 500\ntarget = /ramdisk/a b\n",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_kept_for_the_report() {
        assert_eq!(read("[somewhere]\nuid = 1\n[detectorID]\ntarget = /x\n").1, 4);
        assert_eq!(read("nonsense\ntarget = /a#b\n").0, "nonsense= target=/a#b");
    }
}
