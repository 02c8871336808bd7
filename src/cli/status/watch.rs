//! `status --watch`: a live screen.

mod screen;
mod source;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::source::Source;
use super::super::Failure;

/// How often a key, a signal or news is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Until `q`, Escape, Ctrl-C or a signal.
pub(super) fn run(socket: &Path, colour: bool) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "--watch needs a terminal; for scripts there is --watch --json, one JSON object a second"
                .to_owned(),
        ));
    }
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
            .map_err(Failure::failed)?;
    }
    let source = Source::start(socket.to_owned());
    with_terminal(|terminal| watch(terminal, &source, &signal, colour)).map_err(Failure::failed)?;
    match signal.load(Ordering::Relaxed) {
        0 => Ok(()),
        // Now that the terminal is as it was, end as if it had not been caught.
        number => signal_hook::low_level::emulate_default_handler(number as i32).map_err(Failure::failed),
    }
}

/// Takes the terminal for `show`, and gives it back as it was: also when that fails or panics.
fn with_terminal<T>(show: impl FnOnce(&mut DefaultTerminal) -> io::Result<T>) -> io::Result<T> {
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal);
    ratatui::try_restore()?;
    shown
}

fn watch(
    terminal: &mut DefaultTerminal,
    source: &Source,
    signal: &AtomicUsize,
    colour: bool,
) -> io::Result<()> {
    let mut draw = true;
    while signal.load(Ordering::Relaxed) == 0 {
        draw |= source.has_news();
        if std::mem::take(&mut draw) {
            let view = source.view();
            terminal.draw(|frame| screen::draw(frame, &view, colour, &jiff::tz::TimeZone::system()))?;
        }
        if is_closed_within(LOOK) {
            return Ok(());
        }
        if !event::poll(Duration::ZERO)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                let interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupt || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc) {
                    return Ok(());
                }
            }
            Event::Resize(..) => draw = true,
            _ => {}
        }
    }
    Ok(())
}

/// Waits for a key, at most that long. True: the terminal is no more (its window was closed). crossterm does not see that: it would read the
/// end of it again and again, and never come back.
fn is_closed_within(wait: Duration) -> bool {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    let closed = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    // A signal ends the wait, too.
    poll(&mut terminal, wait).is_ok_and(|ready| ready > 0)
        && terminal[0].revents().is_some_and(|seen| seen.intersects(closed))
}
