//! A group's folder and the groups that its processes nested in it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::{Error, Result, text};

/// A service may nest groups of its own; deeper than this nobody does, and a walk has to end.
const DEPTH_MAX: usize = 16;

/// The folder and all groups below it, parents first. Groups that vanish on the way are left out.
pub(super) fn with_nested(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let mut level = 0..1;
    for _ in 0..DEPTH_MAX {
        let next = found.len();
        for at in level {
            let below = children(&found[at])?;
            found.extend(below);
        }
        level = next..found.len();
        if level.is_empty() {
            break;
        }
    }
    Ok(found)
}

pub(super) fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    if has_none_below(folder) {
        return Ok(Vec::new());
    }
    let failed = |error: io::Error| Error::file("list", folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => break,
            Err(error) => return Err(failed(error)),
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A folder's links are its name, its own `.` and the `..` of each folder in it, and cgroupfs keeps to that. One look
/// instead of a listing of the forty files that each group has; in doubt (some file systems always say 1) it is listed.
fn has_none_below(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.is_dir() && found.nlink() == 2)
}

/// Pids in the group and its nested ones. Empty when the group does not exist.
pub(super) fn processes(folder: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for group in with_nested(folder)? {
        pids.extend(processes_here(&group)?);
    }
    // v1 says that the list is neither sorted nor free of duplicates.
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Pids in the group itself. Empty when it does not exist.
pub(super) fn processes_here(group: &Path) -> Result<Vec<i32>> {
    let path = group.join("cgroup.procs");
    match text::read_bytes(&path, u64::MAX) {
        Ok(list) => Ok(list.split(|byte| *byte == b'\n').filter_map(pid_of).collect()),
        Err(error) => match Errno::from_io_error(&error) {
            // A threaded group (EOPNOTSUPP) has its processes listed by its domain.
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(Vec::new()),
            _ => Err(Error::file("read", path, error)),
        },
    }
}

/// 0 stands for a process outside of our pid namespace: nobody that we could signal.
fn pid_of(line: &[u8]) -> Option<i32> {
    i32::try_from(text::number(line)?).ok().filter(|pid| *pid > 0)
}

/// One attempt to remove the group and what is nested in it, deepest first. `Ok(false)` while something is in it.
pub(super) fn try_remove(folder: &Path) -> Result<bool> {
    for group in with_nested(folder)?.iter().rev() {
        match fs::remove_dir(group) {
            Ok(()) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NODEV) => {}
                Some(Errno::BUSY | Errno::NOTEMPTY) => return Ok(false),
                _ => return Err(Error::file("remove", group, error)),
            },
        }
    }
    Ok(true)
}

/// Makes a group unless it is there; says whether it made it.
pub(super) fn make(folder: &Path) -> Result<bool> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::file("make", folder, error)),
    }
}
