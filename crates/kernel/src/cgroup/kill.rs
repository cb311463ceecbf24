//! Killing everything in a group, also what forks while it is being killed.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, kill_process};

use super::hierarchy::Bases;
use super::{Version, tree, v2};
use crate::{Result, process, text};

/// Kills what is there now; returns how many were seen alive.
pub(super) fn pass(places: &Bases) -> Result<usize> {
    let seen = processes(places)?;
    if seen.is_empty() {
        return Ok(0);
    }
    let done = match brake(places) {
        Brake::KillFile => text::write(&places.memory.join("cgroup.kill"), "1"),
        Brake::NoForks => stop_forks(places).and_then(|()| signal_all(places)),
        Brake::Freezer => frozen(places, || signal_all(places)),
        Brake::None => signal_all(places),
    };
    match done {
        // Somebody else removed the group under us, which it only lets happen when it is empty.
        Err(error) if error.is_gone() => Ok(0),
        other => other.map(|()| seen.len()),
    }
}

pub(super) fn is_atomic(places: &Bases) -> bool {
    match brake(places) {
        Brake::KillFile | Brake::NoForks | Brake::Freezer => true,
        Brake::None => false,
    }
}

/// How a fork bomb is kept from outrunning the killing, best first.
enum Brake {
    /// v2 from 5.14: the kernel does all of it in one step.
    KillFile,
    /// `pids.max` of 0: every `fork` fails from now on, and what has slipped through is found by the next pass.
    NoForks,
    /// Nobody runs while the list is read and worked off.
    Freezer,
    None,
}

fn brake(places: &Bases) -> Brake {
    let is_v2_with = |name: &str| places.version == Version::V2 && places.memory.join(name).exists();
    if is_v2_with("cgroup.kill") {
        Brake::KillFile
    } else if places.pids.is_some() || is_v2_with("pids.max") {
        Brake::NoForks
    } else if places.freezer.is_some() || is_v2_with("cgroup.freeze") {
        Brake::Freezer
    } else {
        Brake::None
    }
}

fn stop_forks(places: &Bases) -> Result<()> {
    let folder = places.pids.as_deref().unwrap_or(&places.memory);
    v2::set_number(&folder.join("pids.max"), 0)
}

fn signal_all(places: &Bases) -> Result<()> {
    for pid in processes(places)? {
        // The pid was in the group a moment ago, and nobody reaps our descendants but the thread that runs this or
        // a parent inside the group that is being killed too: it cannot belong to somebody else yet.
        let pid = process::existing(pid)?;
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(crate::Error::process("kill", pid.as_raw_nonzero().get(), error)),
        }
    }
    Ok(())
}

/// v1 lists by hierarchy: a process that left one of them is still in the others.
fn processes(places: &Bases) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for folder in places.all() {
        pids.extend(tree::processes(folder)?);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn frozen(places: &Bases, work: impl FnOnce() -> Result<()>) -> Result<()> {
    const FREEZE_MAX: Duration = Duration::from_millis(50);
    let (file, freeze, thaw) = match &places.freezer {
        Some(folder) => (folder.join("freezer.state"), "FROZEN", "THAWED"),
        None => (places.memory.join("cgroup.freeze"), "1", "0"),
    };
    text::write(&file, freeze)?;
    // A process in an uninterruptible wait never freezes; the others do, and that is what the wait is for.
    let waited = text::wait_until(FREEZE_MAX, || is_frozen(places, &file));
    let done = work();
    // Thawed in any case: on v1 the frozen do not even die.
    text::write(&file, thaw)?;
    waited.and(done)
}

fn is_frozen(places: &Bases, file: &Path) -> Result<bool> {
    if places.freezer.is_some() {
        return Ok(text::read(file)?.trim() == "FROZEN");
    }
    let events = text::read(&places.memory.join("cgroup.events"))?;
    Ok(text::pairs(events.as_bytes()).any(|pair| pair == (b"frozen", 1)))
}
