//! Reading one table of a file: each key is asked for by name, and whatever nobody asked for is unknown.
//!
//! Done by hand rather than by deriving deserializers because those stop at the first mistake; somebody who
//! edits a file at night wants all of them, with their lines.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::problem::Report;

/// One table, `[name]` or the top of the file.
pub(crate) struct Section<'r, 't> {
    report: &'r Report<'t>,
    table: &'r DeTable<'t>,
    name: &'static str,
    /// Byte offset of the header, for keys that are missing.
    at: usize,
    known: Vec<&'static str>,
}

/// A key's value and its place. `value` is `None` where the key is absent, or where it was refused (which
/// is reported already, so that later checks skip it).
pub(crate) struct Field<T> {
    pub(crate) value: Option<T>,
    pub(crate) absent: bool,
    /// Byte offset of the key, or of its section's header.
    pub(crate) at: usize,
    pub(crate) key: String,
}

impl<T: Default> Field<T> {
    /// For building the configuration: the default is never seen, because whatever was missing is a reported problem.
    pub(crate) fn take(self) -> T {
        self.value.unwrap_or_default()
    }
}

impl<'r, 't> Section<'r, 't> {
    pub(crate) fn top(report: &'r Report<'t>, table: &'r DeTable<'t>) -> Self {
        Self { report, table, name: "", at: 0, known: Vec::new() }
    }

    pub(crate) fn report(&self) -> &'r Report<'t> {
        self.report
    }

    /// Byte offset of this section's header.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// A key that may be absent.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let name = self.ask(key);
        let Some((spanned, value)) = self.table.get_key_value(key) else {
            return Field { value: None, absent: true, at: self.at, key: name };
        };
        let at = spanned.span().start;
        let value = parse(value.get_ref()).map_err(|reason| self.report.problem(at, &name, reason)).ok();
        Field { value, absent: false, at, key: name }
    }

    /// A key with a default.
    pub(crate) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let mut field = self.optional(key, parse);
        if field.absent {
            field.value = Some(default);
        }
        field
    }

    /// A key without a sane default; `example` shows what to write.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let field = self.optional(key, parse);
        if field.absent {
            self.report.problem(self.at, &field.key, format!("is missing, add `{key} = {example}`"));
        }
        field
    }

    /// The table `[key]`; an empty one where it is absent.
    pub(crate) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 't>) -> T) -> T {
        let name = self.ask(key);
        let empty = DeTable::new();
        let (table, at) = match self.table.get_key_value(key) {
            None => (&empty, self.at),
            Some((spanned, value)) => match value.get_ref() {
                DeValue::Table(table) => (table, spanned.span().start),
                other => {
                    let reason = format!("is {}, write it as a section `[{key}]`", a(other));
                    self.report.problem(spanned.span().start, name, reason);
                    (&empty, self.at)
                }
            },
        };
        let mut section = Section { report: self.report, table, name: key, at, known: Vec::new() };
        let config = read(&mut section);
        section.refuse_unknown();
        config
    }

    /// The tables `[[key]]`, in the order of the file.
    pub(crate) fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'_, 't>) -> T,
    ) -> Vec<T> {
        let name = self.ask(key);
        let Some((spanned, value)) = self.table.get_key_value(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            let reason = format!("is {}, write each one as a section `[[{key}]]`", a(value.get_ref()));
            self.report.problem(spanned.span().start, name, reason);
            return Vec::new();
        };
        let mut read_all = Vec::new();
        for item in items.iter() {
            let Range { start: at, .. } = item.span();
            let DeValue::Table(table) = item.get_ref() else {
                let reason = format!("holds {}, write each one as a section `[[{key}]]`", a(item.get_ref()));
                self.report.problem(at, &name, reason);
                continue;
            };
            let mut section = Section { report: self.report, table, name: key, at, known: Vec::new() };
            read_all.push(read(&mut section));
            section.refuse_unknown();
        }
        read_all
    }

    /// Reports every key that was not asked for.
    pub(crate) fn refuse_unknown(&self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let near = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(name, known), known))
                .filter(|(distance, known)| *distance <= known.len() / 3)
                .min();
            let advice = match near {
                Some((_, known)) => format!("did you mean `{known}`?"),
                None => "remove it (the shipped example names every key)".into(),
            };
            self.report.problem(
                key.span().start,
                self.full(&name.escape_debug().to_string()),
                format!("unknown key, {advice}"),
            );
        }
    }

    fn ask(&mut self, key: &'static str) -> String {
        self.known.push(key);
        let full = self.full(key);
        #[cfg(test)]
        self.report.schema.borrow_mut().insert(full.clone());
        full
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// What kind of value it is, for people.
pub(crate) fn a(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
