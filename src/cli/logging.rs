//! Where log lines go: standard error, or a file with its own rotation (SPEC 5.6).

use std::io::{self, IsTerminal};
use std::sync::Mutex;

use ppu_config::{Level, Log};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::Failure;
use super::journald::{self, Journald};
use super::log_file::LogFile;

/// Sets up logging for the whole process. `RUST_LOG` comes before the configured level.
pub(super) fn init(log: &Log) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .map_err(|error| Failure::Usage(format!("RUST_LOG={directives:?}: {error}")))?,
        _ => EnvFilter::new(directives(log.level)),
    };
    let builder = fmt().with_env_filter(filter).with_target(false);
    let installed = match &log.file {
        None if journald::is_there() => {
            // Which has a clock of its own.
            builder.with_writer(Journald).with_ansi(false).without_time().try_init()
        }
        None => {
            let ansi = io::stderr().is_terminal();
            builder.with_writer(io::stderr).with_ansi(ansi).try_init()
        }
        Some(path) => {
            let file = LogFile::open(path, log.max_size, log.max_number)
                .map_err(|error| Failure::Failed(format!("log.file {}: {error}", path.display())))?;
            builder.with_writer(Mutex::new(file)).with_ansi(false).try_init()
        }
    };
    installed.map_err(|error| Failure::Failed(format!("logging: {error}")))
}

/// The configured level for our own crates; of others only what needs attention.
fn directives(level: Level) -> String {
    let others = if level == Level::Error { "error" } else { "warn" };
    let ours = level.as_str();
    format!("{others},ppu_uringd={ours},ppu_uring={ours}")
}
