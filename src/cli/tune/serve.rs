//! The detector's end of a measurement over the network: sends files of its own, as often as the PPU's end asks.

use std::net::{SocketAddr, TcpListener};

use ppu_config::{Checked, Detector, Level, Log};
use ppu_uringd::daemon::key;
use ppu_uringd::daemon::measured::{self, Settings};

use super::super::{Failure, logging, output::note, stop};
use super::Args;
use super::place::Place;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Checked { config, .. } = Detector::load(&args.config)?;
    let address = address(&config, args.listen)?;
    let stop = stop::on_signals()?;
    // Who is refused, and why.
    logging::init(&Log { file: None, level: Level::Warn, ..config.log.clone() })?;
    if measured::daemon_runs(&config) {
        note("WARNING  the detector's daemon runs: it disturbs the measurement, and is disturbed by it");
    }
    let key = key::load(config.key_file.as_deref()).map_err(Failure::failed)?.for_measuring();
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::Failed(format!("cannot listen on {address}: {error}; --listen takes another port"))
    })?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let place = Place::new(&config.ramdisk, args.size)?;
    note(&place.to_string());
    note(&format!(
        "listening on {address}. Now on the PPU, with this detector's id in ppu.toml:\n    \
         ppu-uringd tune --config /etc/ppu-uringd/ppu.toml --from ID{}\n\
         This ends with Ctrl-C, or {} s after the last measurement.",
        if Some(address.port()) == port(&config) { String::new() } else { format!(":{}", address.port()) },
        args.idle,
    ));
    let settings = Settings {
        config: &config,
        key,
        files: place.source(),
        state: place.own("state").map_err(Failure::failed)?,
        listener,
        idle: std::time::Duration::from_secs(args.idle),
        stop,
    };
    let ended = measured::run(settings, note).map_err(Failure::failed);
    place.remove()?;
    note(&format!("{}: the files are removed", ended?));
    Ok(())
}

/// Beside the daemon's own, so that a PPU's daemon never comes here.
fn address(config: &Detector, wished: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    let usage = |reason: String| Err(Failure::Usage(reason));
    let Some(address) = wished.or_else(|| port(config).map(|port| SocketAddr::new(config.listen.ip(), port)))
    else {
        return usage("there is no port after that of `listen`: choose one with --listen".to_owned());
    };
    if address.port() == config.listen.port() {
        return usage(format!("{address} is the daemon's own port, where its PPU calls: choose another one"));
    }
    if config.key_file.is_none() && !config.insecure && !address.ip().is_loopback() {
        return usage(format!(
            "{address} can be reached from other machines and there is no key_file: add one (on both machines)"
        ));
    }
    Ok(address)
}

/// Usually.
fn port(config: &Detector) -> Option<u16> {
    config.listen.port().checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_daemons_port_and_open_to_others_only_with_a_key() {
        let config = |listen: &str, key: bool| {
            let key = if key { "key_file = \"/k\"" } else { "" };
            let text = format!("listen = {listen:?}\nramdisk = \"/ramdisk\"\n{key}\n");
            Detector::parse(&text, std::path::Path::new("detector.toml")).unwrap().config
        };
        let address = |config: &Detector, wished: Option<&str>| {
            address(config, wished.map(|wished| wished.parse().unwrap()))
                .map(|address| address.to_string())
                .map_err(|_| ())
        };
        let open = config("0.0.0.0:49371", true);
        assert_eq!(address(&open, None), Ok("0.0.0.0:49372".to_owned()));
        assert_eq!(address(&open, Some("10.0.0.1:5000")), Ok("10.0.0.1:5000".to_owned()));
        assert_eq!(address(&open, Some("10.0.0.1:49371")), Err(()), "the PPU calls there");
        assert_eq!(address(&config("0.0.0.0:65535", true), None), Err(()));
        let closed = config("127.0.0.1:49371", false);
        assert_eq!(address(&closed, None), Ok("127.0.0.1:49372".to_owned()));
        assert_eq!(address(&closed, Some("0.0.0.0:49372")), Err(()), "no key");
    }
}
