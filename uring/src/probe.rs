//! Whether this host lets us use io_uring; if not, why, and what to do about it.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::engine::EngineError;

/// What the ring engine submits.
const NEEDED: &[(u8, &str)] = &[
    (opcode::Splice::CODE, "SPLICE"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Read::CODE, "READ"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Whether `ring` can do all that we need.
pub(crate) fn check(ring: &IoUring) -> Result<(), EngineError> {
    let params = ring.params();
    // NODROP (5.5): no completion is ever lost. EXT_ARG (5.11): waiting with a time-out.
    if !params.is_feature_nodrop() || !params.is_feature_ext_arg() {
        return Err(EngineError::TooOld("its rings lack NODROP or EXT_ARG".into()));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|e| EngineError::TooOld(format!("no probe: {e}")))?;
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|&(_, name)| name).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(EngineError::TooOld(format!("missing: {}", missing.join(", "))))
    }
}

/// Why io_uring_setup(2) failed.
pub(crate) fn explain(error: io::Error) -> EngineError {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    explain_with(error, sysctl.as_deref().map(str::trim))
}

fn explain_with(error: io::Error, sysctl: Option<&str>) -> EngineError {
    match (error.raw_os_error(), sysctl) {
        (Some(libc::EPERM), Some("2")) => EngineError::Disabled,
        (Some(libc::EPERM), Some("1")) => EngineError::Restricted,
        (Some(libc::EPERM | libc::EACCES), _) => EngineError::Forbidden(error),
        // The sysctl is younger than io_uring itself: where it exists, the kernel has io_uring and a filter hides it.
        (Some(libc::ENOSYS), Some(_)) => EngineError::Forbidden(error),
        (Some(libc::ENOSYS), None) => {
            EngineError::TooOld("no io_uring_setup(2), or a seccomp filter hides it".into())
        }
        (Some(libc::ENOMEM), _) => EngineError::NoMemory,
        _ => EngineError::Setup(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_cause_and_cure() {
        let check = |errno, sysctl, words: &[&str]| {
            let text = explain_with(io::Error::from_raw_os_error(errno), sysctl).to_string();
            for word in words {
                assert!(text.contains(word), "{errno} {sysctl:?}: {text}");
            }
        };
        check(
            libc::EPERM,
            Some("2"),
            &["kernel.io_uring_disabled = 2", "sysctl -w kernel.io_uring_disabled=0"],
        );
        check(libc::EPERM, Some("1"), &["kernel.io_uring_disabled = 1", "io_uring_group"]);
        check(libc::EPERM, Some("0"), &["seccomp", "container", "engine = \"syscall\""]);
        check(libc::EPERM, None, &["seccomp"]);
        check(libc::EACCES, Some("0"), &["SELinux"]);
        check(libc::ENOSYS, Some("0"), &["seccomp"]);
        check(libc::ENOSYS, None, &["too old", "5.11"]);
        check(libc::ENOMEM, Some("0"), &["memlock"]);
        check(libc::EMFILE, Some("0"), &["Too many open files"]);
    }
}
