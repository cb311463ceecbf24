//! One group: the walls around one instance.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::hierarchy::Bases;
use super::{MemoryUse, OomCounts, Version, kill, tree, v1, v2};
use crate::{Error, Result, text};

/// A group that exists. Dropping it leaves the group in place; see [`Group::remove`].
#[derive(Debug)]
pub struct Group {
    name: String,
    places: Bases,
    // Kept open, since they are read every second or more often for every instance.
    usage: OwnedFd,
    stat: OwnedFd,
    /// v1 keeps kernel memory in a file of its own.
    kernel: Option<OwnedFd>,
    /// How many are in it; without the pids controller nobody counts them.
    tasks: Option<OwnedFd>,
}

/// What a child needs to enter a group by itself, before `exec`. Descriptors only, so that they can be sent to the
/// process that spawns. All are close-on-exec.
#[derive(Debug, Default)]
pub struct Membership {
    /// v2: the folder, for `clone3(CLONE_INTO_CGROUP)`: the child is born in the group and no file is written.
    pub folder: Option<OwnedFd>,
    /// Files that move the single-threaded process which writes `0` into them.
    pub files: Vec<OwnedFd>,
}

impl Group {
    pub(super) fn open(name: &str, places: Bases) -> Result<Self> {
        let file = |name: &str| open(&places.memory.join(name), OFlags::RDONLY);
        let (usage, kernel) = match places.version {
            Version::V1 => (file("memory.usage_in_bytes")?, file("memory.kmem.usage_in_bytes").ok()),
            Version::V2 => (file("memory.current")?, None),
        };
        let stat = file("memory.stat")?;
        let counted = places.pids.as_deref().unwrap_or(&places.memory);
        let tasks = open(&counted.join("pids.current"), OFlags::RDONLY).ok();
        Ok(Self { name: name.to_owned(), places, usage, stat, kernel, tasks })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn version(&self) -> Version {
        self.places.version
    }

    /// The folder with the memory files.
    pub fn path(&self) -> &Path {
        &self.places.memory
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.places.memory.join(name)
    }

    /// The file for a [`crate::psi::Trigger`] on this group alone (v2 with PSI).
    pub fn pressure_file(&self) -> Option<PathBuf> {
        Some(self.file("memory.pressure")).filter(|path| path.exists())
    }

    /// Moves the wall. Below the present use v2 kills at once; v1 refuses with `EBUSY` what it cannot reclaim.
    pub fn set_wall(&self, bytes: u64) -> Result<()> {
        match self.places.version {
            Version::V1 => v1::set_wall(&self.places.memory, bytes),
            Version::V2 => v2::set_wall(&self.places.memory, bytes),
        }
    }

    /// Moves the limit on processes and threads, where the host has one to move. What runs already stays, also above it.
    pub fn set_tasks(&self, tasks: u32) -> Result<()> {
        let file = self.places.pids.as_deref().unwrap_or(&self.places.memory).join("pids.max");
        if file.exists() { v2::set_number(&file, u64::from(tasks)) } else { Ok(()) }
    }

    /// Sets or takes away the trip-wire and brake, `memory.high`. The group's processes are throttled above it.
    pub fn set_high(&self, bytes: Option<u64>) -> Result<()> {
        match self.places.version {
            Version::V1 => Err(Error::Unsupported { what: "memory.high", on: "cgroup v1" }),
            Version::V2 => v2::set_high(&self.places.memory, bytes),
        }
    }

    /// All that is charged to the group now, page cache included, in bytes. One `pread`, no allocation.
    pub fn usage_bytes(&self) -> Result<u64> {
        read_number(&self.usage).map_err(|error| self.failed("read the use of", error))?.ok_or_else(|| {
            Error::Malformed { path: self.places.memory.clone(), found: "no number of bytes used".to_owned() }
        })
    }

    /// Memory by kind. One or two `pread`s, no allocation.
    pub fn memory(&self) -> Result<MemoryUse> {
        let failed = |error| self.failed("read the memory.stat of", error);
        let mut buffer = [0; text::STAT_BYTES_MAX];
        let stat = text::pread(&self.stat, &mut buffer).map_err(failed)?;
        if stat.is_empty() {
            // Never a zero for a reading that failed.
            return Err(Error::Malformed { path: self.file("memory.stat"), found: String::new() });
        }
        let Some(kernel) = &self.kernel else {
            return Ok(match self.places.version {
                Version::V1 => MemoryUse::from_v1_stat(stat, 0),
                Version::V2 => MemoryUse::from_v2_stat(stat),
            });
        };
        let kernel_bytes = read_number(kernel).map_err(failed)?.unwrap_or(0);
        Ok(MemoryUse::from_v1_stat(stat, kernel_bytes))
    }

    /// Threads in the group and in groups nested in it, with those that ended and nobody has reaped. `None` where nobody
    /// counts them. One `pread`, no allocation.
    pub fn tasks(&self) -> Result<Option<u64>> {
        let Some(tasks) = &self.tasks else { return Ok(None) };
        read_number(tasks).map_err(|error| self.failed("count the tasks of", error))
    }

    /// What the kernel did to the group so far.
    pub fn oom(&self) -> Result<OomCounts> {
        match self.places.version {
            Version::V1 => self.oom_v1(),
            Version::V2 => {
                let all = text::read(&self.file("memory.events"))?;
                // From 5.2 on.
                let local = match text::read(&self.file("memory.events.local")) {
                    Ok(local) => local,
                    Err(error) if error.is_gone() => all.clone(),
                    Err(error) => return Err(error),
                };
                Ok(OomCounts::from_v2(local.as_bytes(), all.as_bytes()))
            }
        }
    }

    /// v1 counts a death in the group that the process was in, and nowhere above.
    fn oom_v1(&self) -> Result<OomCounts> {
        let mut kills = 0;
        for group in tree::with_nested(&self.places.memory)? {
            match text::read(&group.join("memory.oom_control")) {
                Ok(control) => {
                    let found = text::pairs(control.as_bytes()).find(|(key, _)| *key == b"oom_kill");
                    kills += found.map_or(0, |(_, count)| count);
                }
                Err(error) if error.is_gone() && group != self.places.memory => {}
                Err(error) => return Err(error),
            }
        }
        // With swap closed the counter of memory and swap is the one that says no, since it is asked first.
        let with_swap = self.file("memory.memsw.failcnt");
        let failed_with_swap = if with_swap.exists() { text::read_number(&with_swap)? } else { 0 };
        let failed = text::read_number(&self.file("memory.failcnt"))?;
        Ok(OomCounts::from_v1(kills, failed + failed_with_swap))
    }

    /// The kernel's own words about the group, for evidence. Files that this kernel does not have are left out.
    pub fn stat_text(&self) -> Result<String> {
        let names: &[&str] = match self.places.version {
            Version::V1 => &[
                "memory.usage_in_bytes",
                "memory.max_usage_in_bytes",
                "memory.limit_in_bytes",
                "memory.failcnt",
                "memory.memsw.failcnt",
                "memory.oom_control",
                "memory.kmem.usage_in_bytes",
                "memory.stat",
            ],
            Version::V2 => &[
                "memory.current",
                "memory.peak",
                "memory.high",
                "memory.max",
                "memory.swap.current",
                "memory.events",
                "memory.pressure",
                "pids.current",
                "memory.stat",
            ],
        };
        let mut all = String::new();
        for name in names {
            match text::read(&self.file(name)) {
                Ok(content) => _ = write!(all, "# {name}\n{}\n", content.trim_end()),
                Err(error) if error.is_gone() || error.errno() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Pids in the group and in groups nested in it, sorted.
    pub fn procs(&self) -> Result<Vec<i32>> {
        tree::processes(&self.places.memory)
    }

    /// Nobody is in the group or in a group nested in it. A group that does not exist is empty.
    pub fn is_empty(&self) -> Result<bool> {
        match self.places.version {
            Version::V1 => Ok(self.procs()?.is_empty()),
            Version::V2 => match text::read(&self.file("cgroup.events")) {
                Ok(events) => Ok(text::pairs(events.as_bytes()).any(|pair| pair == (b"populated", 0))),
                Err(error) if error.is_gone() => Ok(true),
                Err(error) => Err(error),
            },
        }
    }

    /// Kills what is in the group now and keeps it from forking away; returns how many were seen alive. Does not wait
    /// for them to end: to be called again until it returns 0. The group is of no use for new processes afterwards.
    pub fn kill_pass(&self) -> Result<usize> {
        kill::pass(&self.places)
    }

    /// [`Self::kill_pass`] until the group is empty. Blocks for at most `within`; [`Error::StillAlive`] after that, which
    /// a process in an uninterruptible wait can bring about.
    pub fn kill_all(&self, within: Duration) -> Result<()> {
        let mut left = 0;
        let emptied = text::wait_until(within, || {
            left = self.kill_pass()?;
            Ok(left == 0 && self.is_empty()?)
        })?;
        if emptied { Ok(()) } else { Err(Error::StillAlive { path: self.places.memory.clone(), left }) }
    }

    /// Removes the group and groups nested in it. Blocks for at most `within` while the kernel says that it is busy;
    /// [`Error::StillAlive`] if it still does. Removing what is gone is fine.
    pub fn remove(&self, within: Duration) -> Result<()> {
        let removed = text::wait_until(within, || {
            let mut all_gone = true;
            for folder in self.places.all() {
                all_gone &= tree::try_remove(folder)?;
            }
            Ok(all_gone)
        })?;
        if removed {
            return Ok(());
        }
        Err(Error::StillAlive { path: self.places.memory.clone(), left: self.procs()?.len() })
    }

    /// Opens what a child needs to enter the group.
    pub fn membership(&self) -> Result<Membership> {
        // A write of `0` to v1's `tasks` moves one thread and takes no global lock; the same write to `cgroup.procs`
        // moves the process and waits for an RCU grace period, 10 ms and more. After fork there is one thread.
        let (folder, name) = match self.places.version {
            Version::V1 => (None, "tasks"),
            Version::V2 => {
                let folder = open(&self.places.memory, OFlags::PATH | OFlags::DIRECTORY)?;
                (Some(folder), "cgroup.procs")
            }
        };
        let files =
            self.places.all().map(|place| open(&place.join(name), OFlags::WRONLY)).collect::<Result<_>>()?;
        Ok(Membership { folder, files })
    }

    fn failed(&self, verb: &'static str, error: rustix::io::Errno) -> Error {
        Error::file(verb, &self.places.memory, error)
    }
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::file("open", path, error))
}

fn read_number(file: &OwnedFd) -> rustix::io::Result<Option<u64>> {
    let mut buffer = [0; 32];
    Ok(text::number(text::pread(file, &mut buffer)?.trim_ascii()))
}
