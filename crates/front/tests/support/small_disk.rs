//! A disk of one megabyte, which can be full for root too.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Unmounted when dropped.
pub(crate) struct SmallDisk {
    folder: TempDir,
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
        assert!(std::fs::write(self.path().join("filler"), vec![0; 2 << 20]).is_err());
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a task of the test may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
