//! Is there room for a database, before it is written: so that nobody else on that disk is left without.

use std::path::Path;

use rustix::fs::statvfs;

use crate::error::{Error, Result};
use crate::state::folder_of;

/// This part of a database's size stays free beside a copy that nobody waits for.
pub(crate) const SPARE: u64 = 4;

/// Refuses where the disk of `path` has less free than `bytes`, and `spare` beside them.
pub(crate) fn check(path: &Path, bytes: u64, spare: u64) -> Result<()> {
    let folder = folder_of(path);
    // A disk that does not tell is written to, and says so itself.
    let Ok(disk) = statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = bytes.saturating_add(spare);
    if needed <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (needed, free) = (mib(needed), free >> 20);
    let why = format!("a copy of the database needs {needed} MiB there, and {free} MiB are free");
    Err(Error::NoRoom { folder: folder.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_is_free_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        check(&path, 1, 1).unwrap();
        let told = check(&path, 1 << 60, u64::MAX).unwrap_err().to_string();
        assert!(
            told.contains("MiB are free") && told.contains(&folder.path().display().to_string()),
            "{told}"
        );
        check(Path::new("/nowhere/x.db"), u64::MAX, 0).unwrap();
    }
}
