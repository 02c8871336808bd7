//! systemd's journal reads standard error; a priority in front of a line is what `journalctl -p warning` goes by.

use std::io::{self, Write};
use std::os::fd::AsFd;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Standard error is connected to the journal: systemd says so by the device and inode of what it has put there.
pub(super) fn is_there() -> bool {
    let Ok(said) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| said == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes lines with their priority to standard error.
pub(super) struct Journald;

/// One line's.
pub(super) struct Line(&'static str);

impl<'a> MakeWriter<'a> for Journald {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(priority(Level::INFO))
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line(priority(*meta.level()))
    }
}

impl Write for Line {
    /// A line comes whole, and goes out whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&[self.0.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// As syslog(3) numbers them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}
