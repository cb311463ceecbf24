//! A memory group of cgroup v1 with a limit, as a container has one around it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::until;

static MADE: AtomicU32 = AtomicU32::new(0);

/// Removed when dropped, once it is empty.
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this host has no v1 memory group that may be made.
    pub fn with_limit(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = groups.lines().find_map(|line| line.split_once(":memory:"))?.1.to_owned();
        let base = Path::new("/sys/fs/cgroup/memory").join(own.trim_start_matches('/'));
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let group = Self(base.join(format!("plimsoll-test-{}-{number}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.file("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn take_in(&self, pid: i32) {
        fs::write(self.file("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Processes in it that the kernel killed for want of memory.
    pub fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.file("memory.oom_control")).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let gone = || fs::remove_dir(&self.0).is_ok() || !self.0.exists();
        if std::thread::panicking() {
            gone();
        } else {
            until("the group is empty", gone);
        }
    }
}
