//! The real binary in a pseudo-terminal, and what it shows there.

use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use super::wait_until;

pub struct Terminal {
    child: Child,
    /// What the process sees.
    inside: OwnedFd,
    outside: std::fs::File,
    screen: Arc<Mutex<vt100::Parser>>,
    before: Termios,
}

impl Terminal {
    /// Runs `command` in a terminal of that size.
    pub fn start(command: &[&str], rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave: inside } = openpty(&size, None).unwrap();
        let before = tcgetattr(&inside).unwrap();
        let stdio = || Stdio::from(inside.try_clone().unwrap());
        // The terminal becomes the process's own, so that it hears of a new size.
        let mut setsid = Command::new("setsid");
        let child = setsid
            .arg("--ctty")
            .args(command)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let outside = std::fs::File::from(master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size_of(rows), size_of(columns), 0)));
        let (mut reader, shown) = (outside.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            // EIO is the end of a terminal.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, inside, outside, screen, before }
    }

    pub fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("the screen shows {text:?}"), || self.shown().contains(text));
    }

    pub fn press(&mut self, keys: &str) {
        self.outside.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(size_of(rows), size_of(columns));
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.outside, size).unwrap();
    }

    /// `setsid` has become the process, as it leads no group.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// It ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// As it was before.
    pub fn is_restored(&self) -> bool {
        let screen = self.screen.lock().unwrap();
        let screen = screen.screen();
        let same = tcgetattr(&self.inside).unwrap() == self.before;
        same && !screen.alternate_screen() && !screen.hide_cursor()
    }
}

fn size_of(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
