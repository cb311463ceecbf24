//! For `plimsoll-fuzz`: what of this crate reads text and has no way in from outside.

use std::path::Path;

use crate::{cgroup, users};

/// Any content of `memory.stat`, `memory.events`, `mountinfo` and `cgroup`.
pub fn cgroup_files(text: &[u8]) {
    cgroup::fuzz(text);
}

/// Any `/etc/passwd` and `/etc/group`.
pub fn user_files(passwd: &Path, group: &Path, user: &str) {
    if let Ok(ids) = users::resolve_in(passwd, group, user, None) {
        assert!(ids.groups.contains(&ids.gid), "{user}'s own group is missing: {ids:?}");
    }
}
