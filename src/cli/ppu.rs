//! `ppu`: the command line of the PPU's daemon.

use ppu_config::{Checked, Ppu};

use super::Failure;
use super::daemon::{self, Common};

/// Run the PPU's half: fetch images to the ramdisk, verify them, store them
///
/// Runs on the PPU, in the foreground, until SIGTERM or Ctrl-C. Connects to every
/// detector of its configuration, lands each image complete and verified on the
/// ramdisk, and copies it to the storages. Resumes after crashes and reboots by
/// itself. `ppu-uringd status` shows how things are.
///
/// Example:
///   mount -t tmpfs -o huge=within_size,size=64G tmpfs /ramdisk
///   ppu-uringd config check --config /etc/ppu-uringd/ppu.toml
///   ppu-uringd ppu --config /etc/ppu-uringd/ppu.toml
///
/// The log goes to standard error, or to the file that [log] names; the environment
/// variable RUST_LOG=debug comes before its level.
///
/// Exit codes: 0 = ended as asked; 1 = failed, for instance because another daemon
/// has the state directory; 2 = the configuration is wrong, nothing was started.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, warnings } = Ppu::load(&args.common.config)?;
    daemon::prepare(&args.common, &config.log, &warnings)?;
    let log = config.log.clone();
    ppu_uringd::daemon::ppu::run(config).map_err(|error| daemon::fatal(&log, &error))
}
