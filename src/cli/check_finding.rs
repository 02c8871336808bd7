//! What a check of a configuration has found; the same for people and for scripts.

use std::fmt;

use ppu_config::{ConfigError, Problem};
use serde::Serialize;

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CheckFinding {
    pub(super) level: Level,
    /// Of the file, where it is about the file.
    line: Option<usize>,
    /// With its section; `host` where it is about the machine alone.
    key: String,
    /// And what to do; for people.
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Error,
}

impl CheckFinding {
    /// About the machine.
    pub(super) fn new(level: Level, key: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self { level, line: None, key: key.to_string(), what: what.to_string() }
    }

    /// About the file.
    pub(super) fn of_problem(level: Level, problem: &Problem) -> Self {
        let Problem { line, key, reason, .. } = problem;
        Self { level, line: Some(*line), key: key.clone(), what: reason.clone() }
    }

    /// Why there is no configuration to use.
    pub(super) fn of_error(error: &ConfigError) -> Vec<Self> {
        match error {
            ConfigError::Read { .. } => vec![Self::new(Level::Error, "file", error)],
            ConfigError::Invalid(problems) => {
                problems.iter().map(|problem| Self::of_problem(Level::Error, problem)).collect()
            }
        }
    }
}

/// Of one about the machine.
impl fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{word:<7}  {}: {}", self.key, self.what)
    }
}
