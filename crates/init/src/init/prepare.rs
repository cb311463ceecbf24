//! What this process is before it does anything.

use std::os::fd::OwnedFd;

use plimsoll_kernel::process::Signal;
use plimsoll_kernel::{self as kernel, Signals};

/// So that nothing put at [`LINK_FD`](super::LINK_FD) can take its place.
const BINARY_FD_MIN: i32 = 8;

/// Signals, orphans, and a place at the end of the kernel's list when memory is short.
pub(super) fn process() -> Result<Signals, String> {
    let wanted = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
    let signals = Signals::take(&wanted).map_err(|error| error.to_string())?;
    kernel::become_subreaper().map_err(|error| error.to_string())?;
    // A descriptor for each instance: what the operator allows is used.
    let _ = kernel::limits::raise_own_descriptors();
    let _ = rustix::thread::set_name(c"plimsoll-init");
    // Only root may, and it is a help and not a need.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    Ok(signals)
}

/// The same file where no number that is promised to somebody is in its way.
pub(super) fn high(fd: &OwnedFd) -> Result<OwnedFd, String> {
    rustix::io::fcntl_dupfd_cloexec(fd, BINARY_FD_MIN)
        .map_err(|error| format!("keep the program open: {error}"))
}
