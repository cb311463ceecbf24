//! Limits in the files of cgroup v1.

use std::path::Path;

use super::{Limits, v2};
use crate::{Error, Result, text};

const LIMIT: &str = "memory.limit_in_bytes";
const LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

/// The folders of one group in the hierarchies that we use.
pub(super) fn set_limits(memory: &Path, pids: Option<&Path>, limits: &Limits) -> Result<()> {
    account_nested_groups(memory)?;
    set_wall(memory, limits.wall_bytes)?;
    let swappiness = memory.join("memory.swappiness");
    if swappiness.exists() {
        v2::set_number(&swappiness, 0)?;
    }
    match (limits.tasks_max, pids) {
        (Some(tasks), Some(pids)) => v2::set_number(&pids.join("pids.max"), u64::from(tasks)),
        (Some(_), None) => {
            Err(Error::Unsupported { what: "a limit on tasks", on: "cgroup v1 without a pids hierarchy" })
        }
        (None, _) => Ok(()),
    }
}

/// Without it, groups that the service nests in its own would not count: the wall would have a door. Always on from
/// 5.11; before that it can be switched on while the group has no children.
fn account_nested_groups(memory: &Path) -> Result<()> {
    let switch = memory.join("memory.use_hierarchy");
    if !switch.exists() || text::read_number(&switch)? == 1 {
        return Ok(());
    }
    v2::set_number(&switch, 1)
}

/// Memory alone must never be more than memory with swap, so that the order depends on the direction.
pub(super) fn set_wall(memory: &Path, bytes: u64) -> Result<()> {
    let (limit, with_swap) = (memory.join(LIMIT), memory.join(LIMIT_WITH_SWAP));
    if !with_swap.exists() {
        return set_bytes(&limit, bytes);
    }
    let order = if bytes > text::read_number(&limit)? { [&with_swap, &limit] } else { [&limit, &with_swap] };
    order.into_iter().try_for_each(|path| set_bytes(path, bytes))
}

fn set_bytes(path: &Path, bytes: u64) -> Result<()> {
    if bytes == u64::MAX {
        text::write(path, "-1")?;
    } else {
        text::write(path, &bytes.to_string())?;
    }
    let found = text::read_number(path)?;
    v2::taken(path, bytes, found, v2::same_pages(bytes, found))
}

pub(super) fn closes_swap(memory: &Path) -> bool {
    memory.join(LIMIT_WITH_SWAP).exists()
}
