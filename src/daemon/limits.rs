//! What the system allows this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many descriptors as may be had: those who only watch must not take what landing and storing need. Shells allow 1024 by
/// default, for the sake of programs that use select(2).
pub(super) fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!("cannot raise the number of descriptors from {current:?} to {maximum:?}: {error}");
    }
}
