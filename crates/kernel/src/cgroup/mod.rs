//! One cgroup per instance: the wall around its memory, the count of its tasks, and a way to kill all of it.
//!
//! [`discover()`] finds a place where we may make groups and proves it by making one. [`Hierarchy::create`] makes a
//! group with its limits in force before anything is in it. The two versions of the kernel interface differ in
//! names, units of work and abilities; [`Facts`] says what the one at hand can do.

mod discover;
mod group;
mod hierarchy;
mod kill;
mod mounts;
mod room;
mod tree;
mod usage;
mod v1;
mod v2;

pub use discover::{Discovery, Refusal, discover, discover_with};
pub use group::{Group, Membership};
pub use hierarchy::Hierarchy;
pub use room::room;
pub use usage::{MemoryUse, OomCounts};

/// Whatever a kernel file says is read without a panic.
#[cfg(feature = "fuzz")]
pub(crate) fn fuzz(text: &[u8]) {
    let _ = MemoryUse::from_v2_stat(text).working_set();
    let _ = MemoryUse::from_v1_stat(text, u64::MAX).working_set();
    let counts = OomCounts::from_v2(text, text);
    let _ = counts.since(&OomCounts::from_v2(&text[text.len() / 2..], text));
    mounts::fuzz(&String::from_utf8_lossy(text));
}

/// Which kernel interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// As in `status`: `cgroup-v2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "cgroup-v1",
            Self::V2 => "cgroup-v2",
        }
    }
}

/// What is to be in force before the first process enters a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The wall: memory and, with it closed, swap of the whole group.
    pub wall_bytes: u64,
    /// Processes and threads; past it `fork` fails with `EAGAIN`.
    pub tasks_max: Option<u32>,
    /// When the kernel kills for the wall, it kills everything in the group. Only where [`Facts::group_kill`]; elsewhere
    /// the caller has to follow up with [`Group::kill_pass`] when the counts of [`Group::oom`] move.
    pub group_kill: bool,
}

/// What the kernel does for us on this host, as proved by the probe.
#[expect(clippy::struct_excessive_bools, reason = "independent abilities, each asked for by name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub version: Version,
    /// Nothing in a group can be swapped out, because swap is limited too or because the host has none.
    pub swap_closed: bool,
    /// `memory.oom.group` exists (v2, from 4.19).
    pub group_kill: bool,
    /// [`Limits::tasks_max`] can be enforced; [`Hierarchy::create`] refuses one where it cannot.
    pub tasks: bool,
    /// [`Group::set_high`] works (v2).
    pub high: bool,
    /// [`Group::kill_pass`] outruns a fork bomb: by `cgroup.kill`, or because forks can be stopped first.
    pub atomic_kill: bool,
}
