//! `detector`: the command line of the detector's daemon.

use ppu_config::{Checked, Detector};

use super::Failure;
use super::daemon::{self, Common};

/// Run the detector's half: serve the images of its ramdisk to the PPU
///
/// Runs on the detector server, in the foreground, until SIGTERM or Ctrl-C. Notices
/// every file that is closed below `ramdisk`, and waits on TCP port 49371 for the
/// PPU, which connects to it. Survives restarts of both sides without operator
/// action.
///
/// Example:
///   ppu-uringd config check --config /etc/ppu-uringd/detector.toml
///   ppu-uringd detector --config /etc/ppu-uringd/detector.toml
///
/// The log goes to standard error, or to the file that [log] names; the environment
/// variable RUST_LOG=debug comes before its level.
///
/// Exit codes: 0 = ended as asked; 1 = failed, for instance because the port is
/// taken; 2 = the configuration is wrong, nothing was started.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, warnings } = Detector::load(&args.common.config)?;
    daemon::prepare(&args.common, &config.log, &warnings)?;
    let log = config.log.clone();
    ppu_uringd::daemon::detector::run(config).map_err(|error| daemon::fatal(&log, &error))
}
