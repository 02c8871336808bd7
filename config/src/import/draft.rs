//! The new file in the making, and the report.

use std::fmt::Write;

use super::old_file::{Entry, OldFile};
use super::values::{size, string, whole};
use super::{Finding, Verdict};

/// A line of the new file.
struct Line {
    text: String,
    /// Behind it.
    comment: String,
    verdict: Verdict,
}

/// A table of the new file.
#[derive(Default)]
pub(super) struct Table {
    lines: Vec<Line>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Draft {
    findings: Vec<Finding>,
    pub(super) top: Table,
    pub(super) interfaces: Table,
    log: Table,
    pub(super) detectors: Vec<Table>,
    pub(super) storages: Vec<Table>,
    /// As it will be, if it is known.
    pub(super) ramdisk: Option<String>,
    logs: Logs,
}

/// What both files say of logging: one daemon has one log.
#[derive(Default)]
struct Logs {
    directories: Vec<String>,
    max_size: u64,
    max_number: u64,
}

/// Where a setting comes from: the place, and the key as it was written.
pub(super) struct Origin {
    pub(super) from: String,
    pub(super) key: String,
}

impl Origin {
    /// Of an entry, below a section's title if there is one.
    pub(super) fn new(old: &OldFile, title: Option<&str>, entry: &Entry) -> Self {
        let key = title.map_or(entry.key.clone(), |title| format!("{title}: {}", entry.key));
        Self { from: old.at(entry.line), key }
    }

    /// Of what no old file says.
    pub(super) fn new_key(key: &str) -> Self {
        Self { from: String::new(), key: key.to_owned() }
    }
}

impl Draft {
    /// Into the report alone.
    pub(super) fn say(&mut self, from: String, key: String, verdict: Verdict, what: impl Into<String>) {
        self.findings.push(Finding { from, key, verdict, what: what.into() });
    }

    /// `key = value` was said; `note` behind it, if there is something to know.
    pub(super) fn map(
        &mut self,
        table: impl FnOnce(&mut Self) -> &mut Table,
        origin: Origin,
        setting: &str,
        note: &str,
    ) {
        let Origin { from, key } = origin;
        let comment = if from.is_empty() { note.to_owned() } else { format!("{from}{}", after(note)) };
        table(self).lines.push(Line { text: setting.to_owned(), comment, verdict: Verdict::Mapped });
        self.say(from, key, Verdict::Mapped, format!("{setting}{}", after(note)));
    }

    /// A setting that somebody must look at; one that begins with `#` is only proposed.
    pub(super) fn decide(
        &mut self,
        table: impl FnOnce(&mut Self) -> &mut Table,
        origin: Origin,
        setting: &str,
        why: &str,
    ) {
        let Origin { from, key } = origin;
        let comment = if from.is_empty() { why.to_owned() } else { format!("{from}: {why}") };
        table(self).lines.push(Line { text: setting.to_owned(), comment, verdict: Verdict::Decide });
        self.say(from, key, Verdict::Decide, format!("{setting}: {why}"));
    }

    /// A value that cannot be one; the default is proposed.
    pub(super) fn refuse(
        &mut self,
        table: impl FnOnce(&mut Self) -> &mut Table,
        origin: Origin,
        default: &str,
        why: &str,
    ) {
        self.decide(
            table,
            origin,
            &format!("#{default}"),
            &format!("{why}; this default holds until you write another"),
        );
    }

    /// The keys on logging, which both files have.
    pub(super) fn take_logs(&mut self, old: &mut OldFile) {
        if let Some(entry) = old.take("logfile") {
            let origin = Origin::new(old, None, &entry);
            match entry.value.rsplit_once('/') {
                Some((directory, _)) if directory.starts_with('/') => {
                    self.logs.directories.push(directory.to_owned());
                    let what = format!(
                        "[log] file = {}: one daemon, one log, beside the old ones",
                        string(&log_file(directory))
                    );
                    self.say(origin.from, origin.key, Verdict::Mapped, what);
                }
                _ => self.say(
                    origin.from,
                    origin.key,
                    Verdict::Ignored,
                    "no absolute path; the log goes to standard error (systemd's journal)",
                ),
            }
        }
        if let Some(entry) = old.take("logfilemaxsize") {
            let origin = Origin::new(old, None, &entry);
            match size(&entry.value) {
                Ok(bytes) if (10_000..=1_000_000_000_000).contains(&bytes) => {
                    self.logs.max_size = self.logs.max_size.max(bytes);
                    self.say(
                        origin.from,
                        origin.key,
                        Verdict::Mapped,
                        format!("[log] max_size = {bytes} (of both files the larger)"),
                    );
                }
                _ => self.decide(
                    |draft| &mut draft.log,
                    origin,
                    "#max_size = \"10 MB\"",
                    "in which unit? Less than 10 kB makes no sense here; the default is 10 MB",
                ),
            }
        }
        if let Some(entry) = old.take("logfilemaxnumber") {
            let origin = Origin::new(old, None, &entry);
            match whole(&entry.value)
                .ok()
                .and_then(|number| u64::try_from(number).ok())
                .filter(|n| (1..=1000).contains(n))
            {
                Some(number) => {
                    self.logs.max_number = self.logs.max_number.max(number);
                    let what = format!(
                        "[log] max_number = {number}, the current one included (of both files the larger)"
                    );
                    self.say(origin.from, origin.key, Verdict::Mapped, what);
                }
                None => self.say(
                    origin.from,
                    origin.key,
                    Verdict::Ignored,
                    "not a number from 1 to 1000; the default is 5",
                ),
            }
        }
    }

    /// Puts together what both said of it.
    pub(super) fn logs(&mut self) {
        let Logs { directories, max_size, max_number } = std::mem::take(&mut self.logs);
        let mut line = |text: String| {
            self.log.lines.push(Line { text, comment: String::new(), verdict: Verdict::Mapped });
        };
        if let Some(directory) = directories.first() {
            line(format!("file = {}", string(&log_file(directory))));
        }
        if max_size > 0 {
            line(format!("max_size = {max_size}"));
        }
        if max_number > 0 {
            line(format!("max_number = {max_number}"));
        }
    }

    /// What the old files cannot say.
    pub(super) fn new_keys(&mut self) {
        self.decide(
            |draft| &mut draft.top,
            Origin::new_key("key_file"),
            "key_file = \"/etc/ppu-uringd/key\"",
            "is new: make it once with (umask 077; head -c 32 /dev/urandom | base64 > /etc/ppu-uringd/key) and copy it to every detector server",
        );
        if self.ramdisk.is_none() {
            self.decide(
                |draft| &mut draft.top,
                Origin::new_key("ramdisk"),
                "#ramdisk = \"/ramdisk\"",
                "is missing: where do images land on this machine?",
            );
        }
    }

    /// The file and the report.
    pub(super) fn finish(self, names: &[String]) -> (String, Vec<Finding>) {
        let mut toml = format!(
            "# Made by `ppu-uringd config import` from {}.\n\
             # Lines with DECIDE behind them need somebody's decision. The shipped ppu.toml explains every key, and those that are not named here.\n\
             # On every detector server `ppu-uringd detector` takes the place of the rsync daemon: see the shipped detector.toml.\n\n",
            names.join(" and ")
        );
        self.top.write(None, &mut toml);
        self.interfaces.write(Some("[interfaces]"), &mut toml);
        self.log.write(Some("[log]"), &mut toml);
        self.detectors.iter().for_each(|table| table.write(Some("[[detector]]"), &mut toml));
        self.storages.iter().for_each(|table| table.write(Some("[[storage]]"), &mut toml));
        (toml, self.findings)
    }
}

impl Table {
    fn write(&self, head: Option<&str>, toml: &mut String) {
        if self.lines.is_empty() {
            return;
        }
        // Writing to a string cannot fail.
        if let Some(head) = head {
            let _ = writeln!(toml, "\n{head}");
        }
        for Line { text, comment, verdict } in &self.lines {
            let comment = comment.as_str();
            let _ = match verdict {
                Verdict::Decide => writeln!(toml, "{text}  # DECIDE {comment}"),
                _ if comment.is_empty() => writeln!(toml, "{text}"),
                _ => writeln!(toml, "{text}  # {comment}"),
            };
        }
    }
}

fn log_file(directory: &str) -> String {
    format!("{directory}/ppu-uringd.log")
}

fn after(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}
