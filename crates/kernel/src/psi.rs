//! Pressure stall information: the kernel wakes us when work stalls for want of memory, CPU or I/O.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::{Error, Result};

/// Whose stalling counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// At least one task.
    Some,
    /// All tasks that are not idle, at the same time.
    Full,
}

/// Ready for `POLLPRI` when the stall time in a window passes the threshold, at most once a window. Disarmed by drop.
#[derive(Debug)]
pub struct Trigger {
    file: File,
}

impl Trigger {
    /// `path` is `/proc/pressure/memory` or a cgroup's `memory.pressure`. The kernel takes windows of 500 ms to 10 s;
    /// without `CAP_SYS_RESOURCE` only multiples of 2 s (from Linux 6.5), and none at all before that.
    /// `EOPNOTSUPP` where pressure is accounted for nowhere (`psi=0`).
    pub fn new(path: &Path, stalled: Stalled, stall: Duration, window: Duration) -> Result<Self> {
        let kind = match stalled {
            Stalled::Some => "some",
            Stalled::Full => "full",
        };
        // The kernel reads a C string, and the write must be one.
        let order = format!("{kind} {} {}\0", stall.as_micros(), window.as_micros());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| Error::file("open", path, error))?;
        file.write_all(order.as_bytes())
            .map_err(|error| Error::file("set a pressure trigger on", path, error))?;
        Ok(Self { file })
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// For event loops that still ask for it.
impl AsRawFd for Trigger {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_pressure_files_says_which_is_missing() {
        let path = Path::new("/nonexistent/memory.pressure");
        let error =
            Trigger::new(path, Stalled::Some, Duration::from_millis(50), Duration::from_secs(1)).unwrap_err();
        assert!(error.is_gone());
        assert!(error.to_string().contains("/nonexistent/memory.pressure"));
    }

    #[test]
    fn a_window_that_the_kernel_refuses_is_an_error_and_not_a_silent_trigger() {
        let path = Path::new("/proc/pressure/memory");
        let error =
            Trigger::new(path, Stalled::Some, Duration::from_secs(30), Duration::from_secs(20)).unwrap_err();
        assert!(error.errno().is_some(), "{error}");
    }
}
