//! Signals that are read like a file, for a loop that waits for everything in one place.
#![expect(unsafe_code, reason = "signal masks and signalfd have no safe form")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use crate::process::Signal;
use crate::{Error, Result};

/// Blocked for this thread, and for those that it starts from now on; they come out of the descriptor instead.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// To be called before there are other threads.
    pub fn take(wanted: &[Signal]) -> Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset writes the whole set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in wanted {
            // SAFETY: the set is initialised, and the number is a signal's.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal.as_raw()) };
        }
        // SAFETY: the set is initialised; no old one is asked for.
        let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
        if code != 0 {
            return Err(Error::call("block signals", Errno::from_raw_os_error(code)));
        }
        // SAFETY: -1 asks for a new descriptor, and the set is initialised.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::call("open a signalfd", std::io::Error::last_os_error()));
        }
        // SAFETY: the call has succeeded, and nobody else knows the number.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next one that has come, if any.
    pub fn next(&self) -> Option<Signal> {
        /// `struct signalfd_siginfo`: 128 bytes on every machine, the number first.
        const INFO_BYTES: usize = 128;
        let mut info = [0; INFO_BYTES];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut info)).ok()?;
        let number = info.get(..length.min(4))?.try_into().ok().map(i32::from_ne_bytes)?;
        Signal::from_named_raw(number)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
