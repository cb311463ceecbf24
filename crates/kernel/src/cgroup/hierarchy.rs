//! A place where we may make groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Facts, Group, Limits, Version, tree, v1, v2};
use crate::{Error, Result};

/// Folders in which the group of each instance is made. On v1 one in each hierarchy that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub(super) bases: Bases,
    pub(super) facts: Facts,
}

/// The same place in each hierarchy. On v2 there is one hierarchy, and `memory` is it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bases {
    pub(super) version: Version,
    pub(super) memory: PathBuf,
    pub(super) pids: Option<PathBuf>,
    /// v1, and only without pids: it is the second-best way to stop a fork bomb, and each hierarchy more costs time
    /// in every spawn.
    pub(super) freezer: Option<PathBuf>,
}

impl Bases {
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.memory.as_path()).chain(self.pids.as_deref()).chain(self.freezer.as_deref())
    }

    pub(super) fn group(&self, name: &str) -> Self {
        let join = |base: &Option<PathBuf>| base.as_ref().map(|base| base.join(name));
        Self {
            version: self.version,
            memory: self.memory.join(name),
            pids: join(&self.pids),
            freezer: join(&self.freezer),
        }
    }

    pub(super) fn set_limits(&self, limits: &Limits) -> Result<()> {
        match self.version {
            Version::V1 => v1::set_limits(&self.memory, self.pids.as_deref(), limits),
            Version::V2 => v2::set_limits(&self.memory, limits),
        }
    }
}

impl Hierarchy {
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The folder, as an operator would look for it.
    pub fn path(&self) -> &Path {
        &self.bases.memory
    }

    /// Makes the group `name` (an instance: `reports.7`) with every limit set and read back. A group of that name that
    /// is empty is taken over; one with processes in it is an error (`EBUSY`).
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group> {
        check_name(name)?;
        let places = self.bases.group(name);
        let group = make(&places).and_then(|()| {
            places.set_limits(limits)?;
            Group::open(name, places.clone())
        });
        if group.is_err() {
            // Nothing was put in it; what cannot be removed now is listed by `existing` in the next life.
            for folder in places.all() {
                let _ = tree::try_remove(folder);
            }
        }
        group
    }

    /// Opens a group left by an earlier life, with whatever limits it has.
    pub fn open(&self, name: &str) -> Result<Group> {
        check_name(name)?;
        Group::open(name, self.bases.group(name))
    }

    /// Names of the groups here, whoever made them, sorted. Our own group on v2 (`guard`) is not one of them.
    pub fn existing(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for base in self.bases.all() {
            names.extend(tree::children(base)?.iter().filter_map(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .filter(|name| *name != OWN_LEAF)
                    .map(str::to_owned)
            }));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Tidies up behind a guard that will not come back: removes our folders where nothing is left in them.
    pub fn remove_if_empty(&self) {
        for base in self.bases.all() {
            let scope_is_gone = fs::remove_dir(base).is_ok();
            if let Some(parent) = base.parent().filter(|_| scope_is_gone)
                && parent.file_name().is_some_and(|name| name == FOLDER)
            {
                // Fails, as it should, while another guard has its groups there.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Under the top of a hierarchy, or under our own group on v1.
pub(super) const FOLDER: &str = "plimsoll";

/// Where we put ourselves on v2, whose groups have either processes or groups in them.
pub(super) const OWN_LEAF: &str = "guard";

fn make(places: &Bases) -> Result<()> {
    const LEFTOVER_REMOVAL_MAX: Duration = Duration::from_millis(100);
    for folder in places.all() {
        if tree::make(folder)? {
            continue;
        }
        // A fresh folder and not the old one: counters start at zero, and no old limit stays behind.
        let removed = crate::text::wait_until(LEFTOVER_REMOVAL_MAX, || tree::try_remove(folder))?;
        if !removed || !tree::make(folder)? {
            return Err(Error::file("make", folder, rustix::io::Errno::BUSY));
        }
    }
    Ok(())
}

pub(super) fn check_name(name: &str) -> Result<()> {
    const LENGTH_MAX: usize = 200;
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_taken = name == OWN_LEAF || name.starts_with('.');
    if !name.is_empty() && name.len() <= LENGTH_MAX && !is_taken && name.bytes().all(is_fine) {
        return Ok(());
    }
    Err(Error::GroupName { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["reports.7", "a-b_c.12", "x"] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "../x", "a/b", "a b", ".hidden", "guard", "ü", "a\n"] {
            assert!(matches!(check_name(name), Err(Error::GroupName { .. })), "{name:?}");
        }
    }
}
