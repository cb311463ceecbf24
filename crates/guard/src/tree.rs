//! An instance's processes where there is no cgroup to ask: its main process's descendants, and whatever carries the
//! instance's name in its environment because it detached itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plimsoll_kernel::Roots;
use plimsoll_kernel::process::{self, Identity, Signal, Stat};

use crate::driver::{GUARD_VARIABLE, INSTANCE_VARIABLE};

/// Kill passes go on for this long at most; the head asks again.
const KILL_FOR: Duration = Duration::from_millis(500);

/// Main process and descendants: cheap, and enough for measuring.
pub(crate) fn family(roots: &Roots, main: Option<Identity>) -> Vec<i32> {
    let Some(main) = main else { return Vec::new() };
    let below = process::descendants(roots, main.pid).unwrap_or_default();
    let mut pids: Vec<i32> = below.iter().map(|stat| stat.pid).collect();
    if main.is_alive(roots) {
        pids.push(main.pid);
    }
    pids
}

/// Everything of the instance, detached children too: looks at every process of the host.
pub(crate) fn members(roots: &Roots, main: Option<Identity>, name: &str) -> Vec<i32> {
    let mut pids: BTreeSet<i32> = family(roots, main).into_iter().collect();
    let named = |stat: &Stat| {
        process::environ_has(roots, stat.pid, INSTANCE_VARIABLE, name).unwrap_or(false) && !stat.has_ended()
    };
    pids.extend(everybody(roots).filter(named).map(|stat| stat.pid));
    pids.into_iter().collect()
}

/// Kills until nothing is left or time is up.
pub(crate) fn kill_all(roots: &Roots, main: Option<Identity>, name: &str) {
    let until = Instant::now() + KILL_FOR;
    loop {
        let pids = members(roots, main, name);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            kill(roots, pid);
        }
        if Instant::now() >= until {
            return;
        }
        std::thread::yield_now();
    }
}

/// Ends what an earlier life of this guard left running, and says how many processes that was.
/// Instances of these names are spared.
pub(crate) fn end_leftovers(roots: &Roots, scope: &str, kept: &[String]) -> usize {
    let spared = |stat: &Stat| {
        let is =
            |name: &String| process::environ_has(roots, stat.pid, INSTANCE_VARIABLE, name).unwrap_or(false);
        kept.iter().any(is)
    };
    let named = |stat: &Stat| {
        process::environ_has(roots, stat.pid, GUARD_VARIABLE, scope).unwrap_or(false) && !stat.has_ended()
    };
    let left = everybody(roots).filter(|stat| named(stat) && !spared(stat));
    let pids: Vec<i32> = left.map(|stat| stat.pid).collect();
    for pid in &pids {
        kill(roots, *pid);
    }
    pids.len()
}

/// Ends a check command together with what it started in its own session.
pub(crate) fn kill_session(roots: &Roots, leader: Identity) {
    let session = everybody(roots).filter(|stat| stat.session == leader.pid && !stat.has_ended());
    let pids: Vec<i32> = session.map(|stat| stat.pid).collect();
    for pid in pids {
        kill(roots, pid);
    }
}

fn kill(roots: &Roots, pid: i32) {
    if let Ok(identity) = Identity::of(roots, pid) {
        // Gone meanwhile, or not ours to kill: the next look tells.
        let _ = process::signal(roots, identity, Signal::KILL);
    }
}

fn everybody(roots: &Roots) -> impl Iterator<Item = Stat> {
    process::all(roots).ok().into_iter().flatten()
}
