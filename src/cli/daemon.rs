//! What `detector` and `ppu` share: configuration, logging, the last word.

use std::fmt::Display;
use std::path::PathBuf;

use ppu_config::{Log, Problem};

use super::{Failure, logging};

#[derive(clap::Args)]
pub(super) struct Common {
    /// Configuration; the shipped example explains every key
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// What comes before the daemon itself.
pub(super) fn prepare(common: &Common, log: &Log, warnings: &[Problem]) -> Result<(), Failure> {
    if common.exit_with_parent {
        let signal = rustix::process::Signal::TERM;
        rustix::process::set_parent_process_death_signal(Some(signal)).map_err(Failure::failed)?;
    }
    logging::init(log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Standard error gets the reason as from every command; a log file, where there is one, as well.
pub(super) fn fatal(log: &Log, error: &dyn Display) -> Failure {
    if log.file.is_some() {
        tracing::error!("{error}");
    }
    Failure::failed(error)
}
