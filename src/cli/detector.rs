//! `ppu-uringd detector`: the detector server's half.

use std::path::PathBuf;

use ppu_config::{Checked, Detector};

use super::{Failure, logging};

/// Watch this detector server's ramdisk and send closed files to the PPU.
///
/// Runs in the foreground until SIGTERM or SIGINT. May be stopped, killed and restarted at any time: what the PPU
/// does not have yet, and only that, is sent then. Removes nothing.
///
/// Example:
///
///   ppu-uringd config check --config /etc/ppu-uringd/detector.toml
///   ppu-uringd detector --config /etc/ppu-uringd/detector.toml
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// detector.toml; the shipped config/detector.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when the process that started this one ends; for `demo`
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, warnings } = Detector::load(&args.config)?;
    logging::init(&config.log)?;
    if args.exit_with_parent {
        super::exit_with_parent()?;
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    ppu_uringd::daemon::detector::run(config).map_err(Failure::failed)
}
