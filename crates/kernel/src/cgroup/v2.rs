//! Limits in the files of cgroup v2.

use std::path::Path;

use super::Limits;
use crate::{Error, Result, text};

/// Sets every limit and reads each one back.
pub(super) fn set_limits(folder: &Path, limits: &Limits) -> Result<()> {
    set_wall(folder, limits.wall_bytes)?;
    let swap = folder.join("memory.swap.max");
    if swap.exists() {
        set_number(&swap, 0)?;
    }
    let group_kill = folder.join("memory.oom.group");
    if group_kill.exists() {
        set_number(&group_kill, u64::from(limits.group_kill))?;
    }
    match limits.tasks_max {
        Some(tasks) => set_number(&folder.join("pids.max"), u64::from(tasks)),
        None => Ok(()),
    }
}

pub(super) fn set_wall(folder: &Path, bytes: u64) -> Result<()> {
    set_bytes(&folder.join("memory.max"), bytes)
}

/// `None` takes the trip-wire away.
pub(super) fn set_high(folder: &Path, bytes: Option<u64>) -> Result<()> {
    set_bytes(&folder.join("memory.high"), bytes.unwrap_or(u64::MAX))
}

/// The kernel counts pages: what it keeps is less than a page under what was asked for.
fn set_bytes(path: &Path, bytes: u64) -> Result<()> {
    write_limit(path, bytes)?;
    let found = text::read_number(path)?;
    taken(path, bytes, found, same_pages(bytes, found))
}

pub(super) fn same_pages(wanted: u64, found: u64) -> bool {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    // v1 shows "no limit" as the most pages that fit in a signed number, v2 as `max`.
    let unlimited = i64::MAX.unsigned_abs() - page;
    wanted.abs_diff(found) < page || (wanted >= unlimited && found >= unlimited)
}

pub(super) fn set_number(path: &Path, wanted: u64) -> Result<()> {
    write_limit(path, wanted)?;
    let found = text::read_number(path)?;
    taken(path, wanted, found, wanted == found)
}

fn write_limit(path: &Path, wanted: u64) -> Result<()> {
    if wanted == u64::MAX { text::write(path, "max") } else { text::write(path, &wanted.to_string()) }
}

pub(super) fn taken(path: &Path, wanted: u64, found: u64, is_taken: bool) -> Result<()> {
    if is_taken {
        return Ok(());
    }
    Err(Error::NotTaken { path: path.to_owned(), wanted, found: found.to_string() })
}

/// Lets the groups directly under `folder` have memory and, where there is such a controller, pids limits.
pub(super) fn enable_controllers(folder: &Path) -> Result<()> {
    let control = folder.join("cgroup.subtree_control");
    let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|one| one == name);
    let available = text::read(&folder.join("cgroup.controllers"))?;
    let enabled = text::read(&control)?;
    for controller in ["memory", "pids"] {
        if has(&available, controller) && !has(&enabled, controller) {
            text::write(&control, &format!("+{controller}"))?;
        }
    }
    let now = text::read(&control)?;
    if has(&now, "memory") { Ok(()) } else { Err(Error::Malformed { path: control, found: now }) }
}

pub(super) fn has_memory(folder: &Path) -> Result<bool> {
    let available = text::read(&folder.join("cgroup.controllers"))?;
    Ok(available.split_ascii_whitespace().any(|one| one == "memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_limit_that_reads_back_otherwise_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        // A plain file keeps the old tail ("100" over "999999" reads "100999"), as good as a kernel that ignores us.
        fs::write(folder.path().join("memory.max"), "999999").unwrap();
        let error = set_wall(folder.path(), 100).unwrap_err();
        assert!(matches!(error, Error::NotTaken { wanted: 100, .. }), "{error}");
    }

    #[test]
    fn rounding_to_pages_is_no_refusal() {
        assert!(same_pages(10_000, 8192));
        assert!(!same_pages(100_000, 8192));
        assert!(same_pages(u64::MAX, 9_223_372_036_854_771_712));
        assert!(!same_pages(u64::MAX, 1 << 40));
    }
}
