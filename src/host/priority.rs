//! Who goes first where processors are short.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{Pid, gettid};
use ppu_uring::sys::set_real_time;
use rustix::process::setpriority_process;

/// Of a thread; its nice value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Neither on an image's way nor behind it.
    Usual = 0,
    /// Copying on, and taking away.
    Background = 10,
    /// Reading from a storage what has left the ramdisk.
    Later = 15,
    /// Reading again what is stored.
    Last = 19,
}

impl Priority {
    /// For the calling thread, and for those that it starts from now on. Refused without CAP_SYS_NICE, the thread is only slower, or
    /// less polite.
    pub fn take(self) {
        let _ = setpriority_process(None, self as i32);
    }
}

/// Its nice value.
const ON_THE_WAY: i32 = -10;

/// The calling thread does what an image waits for from its close to its name on the PPU: it goes before others. To be held until the thread ends.
#[derive(Debug)]
#[must_use]
pub struct OnTheWay {
    thread: Pid,
    /// Of this thread alone.
    stays: PhantomData<*const ()>,
}

impl OnTheWay {
    /// For the calling thread; the nice value also for those that it starts from now on. Refused as [`Priority::take`].
    pub fn take() -> Self {
        let _ = setpriority_process(None, ON_THE_WAY);
        Self::join()
    }

    /// For a thread that reads images on the detector. A backlog is work for it, which may not take processors from the software that writes
    /// images: its nice value stays as it is.
    pub fn read() -> Self {
        Self::join()
    }

    fn join() -> Self {
        let way = Self { thread: gettid(), stays: PhantomData };
        way.enter();
        way
    }

    /// The thread does something that takes too long to go before others.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.leave();
        let done = work();
        self.enter();
        done
    }

    fn enter(&self) {
        let mut way = way();
        way.threads.insert(self.thread.as_raw());
        if way.real_time {
            let _ = set_real_time(self.thread, true);
        }
    }

    fn leave(&self) {
        let mut way = way();
        way.threads.remove(&self.thread.as_raw());
        if way.real_time {
            let _ = set_real_time(self.thread, false);
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.leave();
    }
}

/// All threads of this process that are on the way run in real time from now on, or no more. Ahead of everything else a thread is not only
/// the next one, it interrupts: by nice values it waits until another's time slice is over, which takes milliseconds.
pub(super) fn real_time(on: bool) {
    let mut way = way();
    way.real_time = on;
    for thread in way.threads.iter().map(|thread| Pid::from_raw(*thread)) {
        // Refused, it is only slower.
        let _ = set_real_time(thread, on);
    }
}

#[derive(Default)]
struct Way {
    threads: BTreeSet<i32>,
    real_time: bool,
}

static WAY: Mutex<Way> = Mutex::new(Way { threads: BTreeSet::new(), real_time: false });

fn way() -> MutexGuard<'static, Way> {
    WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_on_the_way_goes_first_until_the_end() {
        if set_real_time(gettid(), true).and_then(|()| set_real_time(gettid(), false)).is_err() {
            eprintln!("SKIPPED: no thread may run in real time here");
            return;
        }
        let stat = |thread: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
            // proc_pid_stat(5): fields 19 and 41; the third is the first after the name.
            let field =
                |n: usize| stat.rsplit_once(") ").unwrap().1.split(' ').nth(n - 3).unwrap().to_owned();
            (field(19), field(41))
        };
        let (usual, first) = (("-10".to_owned(), "0".to_owned()), ("-10".to_owned(), "1".to_owned()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let early = OnTheWay::take();
                assert_eq!(stat(early.thread), usual);
                real_time(true);
                assert_eq!(stat(early.thread), first);
                let child = scope.spawn(|| stat(gettid())).join().unwrap();
                assert_eq!(child.1, "0", "it does not inherit that");
                assert_eq!(early.aside(|| stat(gettid())), usual);
                assert_eq!(stat(early.thread), first);
                drop(early);
                assert_eq!(stat(gettid()), usual);
                let late = OnTheWay::take();
                assert_eq!(stat(late.thread), first);
                real_time(false);
                assert_eq!(stat(late.thread), usual);
            });
        });
    }

    #[test]
    fn a_thread_alone_is_moved() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let moved = std::thread::spawn(move || {
            Priority::Background.take();
            nice()
        });
        assert_eq!(moved.join().unwrap(), 10);
        assert_eq!(nice(), before);
    }
}
