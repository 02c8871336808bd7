//! `ppu-uringd ppu`: the processing server's half.

use std::path::PathBuf;

use ppu_config::{Checked, Ppu};

use super::{Failure, logging};

/// Land the detectors' images on this PPU's ramdisk, verified, and copy them to its storages.
///
/// Runs in the foreground until SIGTERM or SIGINT. May be stopped, killed and restarted at any time; it resumes by
/// itself. `ppu-uringd status` tells how things are.
///
/// Example:
///
///   mount -t tmpfs -o huge=within_size,size=64G tmpfs /ramdisk
///   ppu-uringd config check --config /etc/ppu-uringd/ppu.toml
///   ppu-uringd ppu --config /etc/ppu-uringd/ppu.toml
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// ppu.toml; the shipped config/ppu.toml explains every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when the process that started this one ends; for `demo`
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, warnings } = Ppu::load(&args.config)?;
    logging::init(&config.log)?;
    if args.exit_with_parent {
        super::exit_with_parent()?;
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    ppu_uringd::daemon::ppu::run(config).map_err(Failure::failed)
}
