//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::Checked;

/// One thing to correct: `FILE:LINE: KEY: reason, what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// Counted from 1; where a key is missing, the line of its section.
    pub line: usize,
    /// With its section: `log.level`.
    pub key: String,
    /// The reason and what to do, for people.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.key, self.reason)
    }
}

/// Why there is no configuration to use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// At least one problem; a line for each.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    pub(crate) fn one(file: &Path, line: usize, key: &str, reason: &str) -> Self {
        Self::Invalid(vec![Problem { file: file.into(), line, key: key.into(), reason: reason.into() }])
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects the problems of one file while it is read.
pub(crate) struct Report<'t> {
    text: &'t str,
    file: &'t Path,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    #[cfg(test)]
    pub(crate) schema: RefCell<std::collections::BTreeSet<String>>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(text: &'t str, file: &'t Path) -> Self {
        Self {
            text,
            file,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            #[cfg(test)]
            schema: RefCell::default(),
        }
    }

    /// `at` is a byte offset.
    pub(crate) fn problem(&self, at: usize, key: impl Into<String>, reason: impl Into<String>) {
        let problem = self.located(at, key.into(), reason.into());
        self.problems.borrow_mut().push(problem);
    }

    /// As [`Report::problem`], but the configuration can be used.
    pub(crate) fn warning(&self, at: usize, key: impl Into<String>, reason: impl Into<String>) {
        let warning = self.located(at, key.into(), reason.into());
        self.warnings.borrow_mut().push(warning);
    }

    /// `config`, unless there was a problem.
    pub(crate) fn finish<T>(self, config: T) -> Result<Checked<T>, ConfigError> {
        if self.problems.borrow().is_empty() {
            Ok(Checked { config, warnings: by_line(self.warnings) })
        } else {
            self.refuse()
        }
    }

    pub(crate) fn refuse<T>(self) -> Result<T, ConfigError> {
        Err(ConfigError::Invalid(by_line(self.problems)))
    }

    fn located(&self, at: usize, key: String, reason: String) -> Problem {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Problem { file: self.file.into(), line, key, reason }
    }
}

fn by_line(problems: RefCell<Vec<Problem>>) -> Vec<Problem> {
    let mut problems = problems.into_inner();
    problems.sort_by_key(|problem| problem.line);
    problems
}
