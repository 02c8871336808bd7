//! `pause` and `resume`: half of the daemon's work stands still while people do theirs.

use jiff::tz::TimeZone;
use ppu_uringd::model::half::{Half, Switched};
use ppu_uringd::serve::control::{Request, Response, query};

use super::Failure;
use super::control::Control;
use super::output;

/// Pause half of the work: `fetch` or `store`
///
///   fetch   images wait on their detectors; what is on its way still lands
///   store   images land on the ramdisk, and no copy to a storage begins; the few that
///           are under way (at most twice queue_depth for each storage) are finished
///
/// Nothing is lost and nothing is forgotten. A pause lasts until `ppu-uringd resume`,
/// also over restarts and shifts; `status` says so first of all, and so does a message
/// (PAUSED). Under a paused store the ramdisk fills up: what has no room any more waits
/// on its detector, so do not forget it.
///
/// Examples:
///   ppu-uringd pause fetch
///   ppu-uringd pause store
///
/// Exit codes: 0 = it is paused (also if it was already); 1 = the daemon did not answer
/// or refuses; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    switch: Switch,
}

/// Go on with what was paused: `fetch` or `store`
///
/// What has waited is caught up with, oldest first.
///
/// Examples:
///   ppu-uringd resume fetch
///   ppu-uringd resume store
///
/// Exit codes: 0 = it works (also if it was not paused); 1 = the daemon did not answer
/// or refuses; 2 = wrong usage or configuration.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    switch: Switch,
}

#[derive(clap::Args)]
struct Switch {
    #[command(flatten)]
    control: Control,

    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,

    /// fetch = detectors to ramdisk, store = ramdisk to storages
    #[arg(value_name = "fetch|store")]
    half: Half,
}

pub(super) fn pause(args: &PauseArgs) -> Result<(), Failure> {
    run(&args.switch, |half| Request::Pause { half })
}

pub(super) fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    run(&args.switch, |half| Request::Resume { half })
}

fn run(args: &Switch, request: impl FnOnce(Half) -> Request) -> Result<(), Failure> {
    let answer = query(&args.control.socket()?, &request(args.half)).map_err(Failure::failed)?;
    let switched = match answer {
        Response::Switched(switched) => switched,
        other => return Err(Failure::Failed(format!("the daemon answered something else: {other:?}"))),
    };
    if !switched.kept {
        output::note(
            "ppu-uringd: WARNING: it is so from now on, but the journal has not taken it yet: a restart might forget it. See `ppu-uringd status`",
        );
    }
    match args.json {
        true => output::object(&switched),
        false => output::line(&text(&switched, &TimeZone::system())),
    }
}

fn text(switched: &Switched, zone: &TimeZone) -> String {
    let Switched { half, since_ms, changed, .. } = *switched;
    match (since_ms, changed) {
        (Some(_), true) => {
            let effect = half.while_paused();
            format!(
                "{half} is paused: {effect}. It stays so, also over a restart, until `ppu-uringd resume {half}`"
            )
        }
        (Some(since_ms), false) => {
            let since = jiff::Timestamp::from_millisecond(since_ms).unwrap_or_default();
            let since = since.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S");
            format!("{half} was paused already, since {since}")
        }
        (None, true) => format!("{half} goes on"),
        (None, false) => format!("{half} was not paused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let said = |since_ms, changed| {
            text(&Switched { half: Half::Fetch, since_ms, changed, kept: true }, &TimeZone::UTC)
        };
        assert!(said(Some(0), true).starts_with("fetch is paused: images wait on their detectors;"));
        assert!(said(Some(0), true).ends_with("until `ppu-uringd resume fetch`"));
        assert_eq!(
            said(Some(1_785_542_399_000), false),
            "fetch was paused already, since 2026-07-31 23:59:59"
        );
        assert_eq!(said(None, true), "fetch goes on");
        assert_eq!(said(None, false), "fetch was not paused");
    }
}
