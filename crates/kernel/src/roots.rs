//! Where the kernel's filesystems are. Parameters and not constants, so that tests can put fake trees in their place.

use std::path::{Path, PathBuf};

/// The mount points of procfs and of the cgroup filesystems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    pub proc: PathBuf,
    /// Only cgroup mounts at or under this folder are looked at.
    pub cgroup: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), cgroup: PathBuf::from("/sys/fs/cgroup") }
    }
}

impl Roots {
    pub(crate) fn of_process(&self, pid: i32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    pub(crate) fn process_file(&self, pid: i32, name: impl AsRef<Path>) -> PathBuf {
        let mut path = self.of_process(pid);
        path.push(name);
        path
    }
}
