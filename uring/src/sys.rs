//! System calls that neither rustix nor nix offers, or not safely.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use nix::unistd::Pid;

/// pwrite(2) from an address that no reference can be made to.
///
/// # Safety
/// `len` bytes at `from` belong to the caller, as far as they are mapped: pages that a truncation took away are reported as
/// EFAULT.
///
/// # Errors
/// Those of pwrite(2).
pub(crate) unsafe fn pwrite(to: impl AsFd, from: *const u8, len: usize, at: u64) -> io::Result<usize> {
    let at = i64::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the kernel only reads the bytes, and checks the address itself.
    let written = unsafe { libc::pwrite64(to.as_fd().as_raw_fd(), from.cast(), len, at) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// asm-generic/fcntl.h; the libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// Whether anybody holds `file` open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody.
    None,
    /// Somebody.
    Some,
    /// The file system has no leases, or the file is not ours.
    Unknown,
}

/// Probes for open writers of `file` (opened for reading only) by taking a read lease and giving it back at once. A writer that opens
/// it in between is let in without delay.
pub fn writers(file: impl AsFd) -> Writers {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: these take an int and touch no memory.
    let fcntl = |what: libc::c_int, value: libc::c_int| unsafe { libc::fcntl(fd, what, value) };
    // That writer's open makes the kernel send us a signal: SIGIO, which kills, unless we choose one that is ignored by default.
    if fcntl(F_SETSIG, libc::SIGWINCH) == 0 && fcntl(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
        return Writers::None;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Writers::Some,
        _ => Writers::Unknown,
    }
}

/// Whether somebody else has `file` open, or mapped: then its blocks do not come free with its last name. By a write lease, which is
/// granted to the only one who has it open, and given back at once. False where that is not known.
pub fn is_open_elsewhere(file: impl AsFd) -> bool {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: these take an int and touch no memory.
    let fcntl = |what: libc::c_int, value: libc::c_int| unsafe { libc::fcntl(fd, what, value) };
    // Somebody who opens it meanwhile makes the kernel send us a signal, as in `writers`.
    if fcntl(F_SETSIG, libc::SIGWINCH) == 0 && fcntl(libc::F_SETLEASE, libc::F_WRLCK) == 0 {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
        return false;
    }
    io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}

/// Page faults of this thread so far that took no reading from a disk; 0 where that is not told.
pub(crate) fn page_faults() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_THREAD)
        .map_or(0, |usage| u64::try_from(usage.minor_page_faults()).unwrap_or(0))
}

/// The signal that ends a blocked system call of one of our worker threads. SIGURG: ignored by default, left alone by debuggers
/// and C libraries, and of no other use as nobody sends out-of-band data.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Makes `interrupt` work: installs, once, a handler that does nothing, so that the signal ends system calls with EINTR.
pub(crate) fn allow_interrupts() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    extern "C" fn nothing(_: libc::c_int) {}
    INSTALLED
        .get_or_init(|| {
            // SAFETY: all zeros is a valid sigaction: no flags (so no SA_RESTART), an empty mask.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            // SAFETY: the handler does nothing, which is async-signal-safe.
            match unsafe { libc::sigaction(INTERRUPT, &action, std::ptr::null_mut()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
            }
        })
        .map_err(io::Error::from_raw_os_error)
}

/// Ends the system call in which a thread is blocked, if it is. Needs [`allow_interrupts`].
pub(crate) fn interrupt(thread: &std::thread::JoinHandle<()>) {
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: the handle is not joined, so the thread's id is valid even if it has ended.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), INTERRUPT) };
}

/// Moves a thread of this process to the lowest real-time priority (`SCHED_FIFO`, 1), or back to where it was: its nice value stays. What it starts
/// meanwhile does not inherit it.
///
/// # Errors
/// As sched_setscheduler(2) says: `EPERM` without CAP_SYS_NICE, or where the thread's group may not run in real time; `ESRCH`: it has ended.
pub fn set_real_time(thread: Pid, on: bool) -> io::Result<()> {
    let (policy, sched_priority) =
        if on { (libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, 1) } else { (libc::SCHED_OTHER, 0) };
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: `parameters` outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(thread.as_raw(), policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn writers_are_seen_and_never_harmed() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("x");
        let writer = File::create(&path).unwrap();
        assert_eq!(writers(File::open(&path).unwrap()), Writers::Some);
        drop(writer);
        assert_eq!(writers(File::open(&path).unwrap()), Writers::None);
        assert_eq!(writers(File::open("/dev/null").unwrap()), Writers::Unknown);

        // A shared mapping may be written to long after its descriptor was closed.
        std::fs::write(&path, b"x").unwrap();
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        // SAFETY: nobody changes the file's length meanwhile, and nothing is read through the mapping.
        let mapping = unsafe { memmap2::MmapMut::map_mut(&writer) }.unwrap();
        drop(writer);
        assert_eq!(writers(File::open(&path).unwrap()), Writers::Some);
        drop(mapping);
        assert_eq!(writers(File::open(&path).unwrap()), Writers::None);

        let this = File::open(&path).unwrap();
        assert!(!is_open_elsewhere(&this));
        let other = File::open(&path).unwrap();
        assert!(is_open_elsewhere(&this));
        // SAFETY: as above.
        let mapping = unsafe { memmap2::Mmap::map(&other) }.unwrap();
        drop(other);
        assert!(is_open_elsewhere(&this), "a mapping keeps it open");
        drop(mapping);
        std::fs::remove_file(&path).unwrap();
        assert!(!is_open_elsewhere(&this), "it has no name any more");
        std::fs::write(&path, b"x").unwrap();

        // A writer that opens during the probe: the signal must not end this process.
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                for _ in 0..20_000 {
                    File::options().write(true).open(&path).unwrap();
                }
            });
            while !opening.is_finished() {
                writers(File::open(&path).unwrap());
            }
        });
    }
}
