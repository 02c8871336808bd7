//! Which daemon a command speaks to.

use std::path::PathBuf;

use ppu_config::Ppu;
use ppu_uringd::serve::control::DEFAULT_CONTROL_SOCKET;

use super::Failure;

#[derive(clap::Args)]
pub(super) struct Control {
    /// The daemon's control socket [default: /run/ppu-uringd/control.sock]
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    control: Option<PathBuf>,

    /// ppu.toml: find the control socket there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Control {
    pub(super) fn socket(&self) -> Result<PathBuf, Failure> {
        Ok(match (&self.control, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(file)) => Ppu::load(file)?.config.interfaces.control,
            (None, None) => DEFAULT_CONTROL_SOCKET.into(),
        })
    }
}
