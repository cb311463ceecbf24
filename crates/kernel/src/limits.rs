//! `RLIMIT_NOFILE`, our own and another process's.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::{Error, Result, Roots, process};

/// How many descriptors a process may have open. `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// What is enforced now.
    pub soft: Option<u64>,
    /// How far an unprivileged process may raise it.
    pub hard: Option<u64>,
}

impl From<Rlimit> for DescriptorLimit {
    fn from(limit: Rlimit) -> Self {
        Self { soft: limit.current, hard: limit.maximum }
    }
}

pub fn own_descriptors() -> DescriptorLimit {
    getrlimit(Resource::Nofile).into()
}

/// The highest limit that a child of ours can be given: our own hard one, and with `CAP_SYS_RESOURCE`, which root of a
/// container or of a confined unit may lack, what `fs.nr_open` allows.
pub fn most_descriptors(roots: &Roots) -> u64 {
    let may_raise = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    let own = || own_descriptors().hard.unwrap_or(u64::MAX);
    if !may_raise {
        return own();
    }
    let told = fs::read_to_string(roots.proc.join("sys/fs/nr_open"));
    told.ok().and_then(|it| it.trim().parse().ok()).unwrap_or_else(own)
}

/// Raises our own soft limit to the hard one, which needs no privilege. Returns the limit now in force.
pub fn raise_own_descriptors() -> Result<DescriptorLimit> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| Error::call("raise our own descriptor limit", error))?;
    Ok(own_descriptors())
}

/// Sets soft and hard limit of a running process and returns what it had. Needs its user or `CAP_SYS_RESOURCE`.
pub fn set_descriptors(pid: i32, limit: u64) -> Result<DescriptorLimit> {
    let target = process::existing(pid)?;
    prlimit(Some(target), Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })
        .map(DescriptorLimit::from)
        .map_err(|error| Error::process("set the descriptor limit of", pid, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_brings_the_soft_limit_to_the_hard_one() {
        let raised = raise_own_descriptors().unwrap();
        assert_eq!(raised.soft, raised.hard);
    }

    #[test]
    fn a_pid_that_cannot_be_is_gone() {
        assert!(matches!(set_descriptors(-1, 10), Err(Error::Gone { pid: -1 })));
        assert!(matches!(set_descriptors(0, 10), Err(Error::Gone { pid: 0 })));
    }
}
