//! Descriptors that were handed to this program by their numbers.
#![expect(unsafe_code, reason = "only the caller can know that a number is its own")]

use std::os::fd::{FromRawFd as _, OwnedFd};

/// Takes over a descriptor that was handed to this program by its number; `None` where it is not open. From here on it
/// is close-on-exec. To be called once for each number, at the start of the program.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: only asked whether it is open.
    let is_open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if !is_open {
        return None;
    }
    // SAFETY: it is open, and by the caller's word nobody else in this program has taken it over.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}
