//! What this process is before it does anything.

use plimsoll_kernel::process::Signal;
use plimsoll_kernel::{self as kernel, Signals};

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
