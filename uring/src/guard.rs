//! Reading a mapping whose file somebody may truncate: the kernel answers with SIGBUS, which kills, unless a handler puts zeros in the
//! place of the lost pages. (What Wayland does for memory that clients share with it.)

use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};

use libc::{c_int, c_void, siginfo_t};

thread_local! {
    /// Addresses that this thread reads under guard. Neither needs to be initialised or dropped, so that a handler may use them.
    static GUARDED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    static LOST: Cell<bool> = const { Cell::new(false) };
}

/// What handled SIGBUS before; `None`: the guard cannot be installed.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Installs the handler once; whether it is there.
pub(crate) fn install() -> bool {
    PREVIOUS
        .get_or_init(|| {
            // SAFETY: all zeros is a valid sigaction, without flags and with an empty mask.
            let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
                unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_sigbus as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            // On the alternate stack: a stack overflow must still reach the standard library's handler.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: the handler uses nothing that is unsafe in a handler: thread-locals without initialisers, mmap, sigaction.
            let installed = unsafe { libc::sigaction(libc::SIGBUS, &action, &mut previous) } == 0;
            installed.then_some(previous)
        })
        .is_some()
}

/// Runs `read`, which reads only mapped memory within `range`. False: pages of it were lost meanwhile, and zeros were read instead; all of the
/// rest of the range reads as zeros from now on.
pub(crate) fn guarded(range: Range<*const u8>, read: impl FnOnce()) -> bool {
    LOST.set(false);
    GUARDED.set((range.start as usize, range.end as usize));
    // The handler runs on this very thread: only the compiler could reorder.
    compiler_fence(Ordering::SeqCst);
    read();
    compiler_fence(Ordering::SeqCst);
    GUARDED.set((0, 0));
    !LOST.get()
}

extern "C" fn on_sigbus(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo, and SIGBUS carries an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let (start, end) = GUARDED.get();
    // Any other code is failing hardware.
    if code == libc::BUS_ADRERR && (start..end).contains(&address) && fill_with_zeros(address, end) {
        LOST.set(true);
    } else if let Some(Some(previous)) = PREVIOUS.get() {
        // Not ours: the access is repeated, and met by whoever was there before us.
        // SAFETY: `previous` is what sigaction itself reported.
        unsafe { libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()) };
    }
}

fn fill_with_zeros(address: usize, end: usize) -> bool {
    let start = address & !(crate::buf::PAGE_BYTES - 1);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let at = std::ptr::without_provenance_mut::<c_void>(start);
    // SAFETY: replaces pages of the very mapping that is being read under guard, which stays mapped, and readable, throughout.
    let mapped = unsafe { libc::mmap(at, end - start, libc::PROT_READ, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;

    #[test]
    fn lost_pages_read_as_zeros() {
        assert!(install());
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(64 << 10).unwrap();
        // SAFETY: read under guard only.
        let mapping = unsafe { MmapOptions::new().len(64 << 10).map(&file) }.unwrap();
        let sum = || mapping.iter().map(|&b| u64::from(b)).sum::<u64>();
        assert!(guarded(mapping.as_ptr_range(), || assert_eq!(sum(), 0)));
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 100], 5000).unwrap();
        assert!(guarded(mapping.as_ptr_range(), || assert_eq!(sum(), 100)));
        file.set_len(8192).unwrap();
        assert!(!guarded(mapping.as_ptr_range(), || assert_eq!(sum(), 100)));
        // Its pages are anonymous now, beyond the first two.
        file.set_len(64 << 10).unwrap();
        assert!(guarded(mapping.as_ptr_range(), || assert_eq!(sum(), 100)));
    }
}
