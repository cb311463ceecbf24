//! A disk of one megabyte, which can be full or read-only for root too; and waiting for what a thread will do.

#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "each test file uses its part of it")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Far more than anything takes; a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Unmounted when dropped.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and why is printed, where nothing may be mounted; in CI that fails.
    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let done = Command::new("mount").args(options).arg(folder.path()).output().unwrap();
        if done.status.success() {
            return Some(Self { folder });
        }
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "a tmpfs is needed, and cannot be mounted: {why}");
        println!("not run: a tmpfs is needed, and cannot be mounted: {why}");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn fill(&self) {
        // As much as there is room for: the error is what is wanted.
        assert!(fs::write(self.path().join("filler"), vec![0; 2 << 20]).is_err());
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    pub(crate) fn remount(&self, mode: &str) {
        // Refused while the last user is just about to close its files.
        wait_for("the file system to be remounted", || {
            let options = format!("remount,{mode}");
            Command::new("mount").args(["-o", &options]).arg(self.path()).output().unwrap().status.success()
        });
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a file may still be open on it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
