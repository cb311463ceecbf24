//! A file system in memory that is full, or read-only, when a test wants it so. Mounting takes root.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub struct MemoryDisk(PathBuf);

impl MemoryDisk {
    /// `None` where mounting is not permitted; in CI that is a failure.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "plimsoll-test"])
            .arg(at)
            .output()
            .is_ok_and(|it| it.status.success());
        if !mounted {
            super::not_run("mounting a tmpfs, which takes root");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// `size=64m`, `ro`, `rw`. Read-only it can become only while nothing there is open for writing.
    pub fn remount(&self, option: &str) {
        let began = Instant::now();
        loop {
            let mut command = Command::new("mount");
            let done = command.args(["-o", &format!("remount,{option}")]).arg(&self.0).output().unwrap();
            if done.status.success() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{option}: {done:?}");
        }
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
