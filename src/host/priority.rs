//! Who goes first where processors are short.

use rustix::process::setpriority_process;

/// Of a thread; its nice value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// What an image waits for from its close to its name on the PPU. Not reading it on the detector, which is work, and may not take
    /// processors from the software that writes the images.
    Way = -10,
    /// Neither.
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

#[cfg(test)]
mod tests {
    use super::*;

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
