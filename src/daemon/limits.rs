//! What the system allows this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Every client costs a descriptor, and the usual limit of 1,024 is there for programs that use select(2). Returns what is allowed now.
pub(super) fn raise_descriptor_limit() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!("cannot ask how many files may be open: {error}");
            return 1024;
        }
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
            soft
        }
    }
}
