//! Finding a place for our groups, and proving that limits set there hold.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::hierarchy::{Bases, FOLDER, OWN_LEAF, check_name};
use super::mounts::{Place, Places};
use super::{Facts, Hierarchy, Limits, Version, kill, tree, v1, v2};
use crate::{Error, Result, Roots, text};

/// What was found, and why nothing better.
#[derive(Debug)]
pub struct Discovery {
    /// `None`: no kernel-side wall on this host.
    pub chosen: Option<Hierarchy>,
    /// What was tried first and did not work, best first.
    pub refusals: Vec<Refusal>,
}

/// A place that we may not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `cgroup v2 at /sys/fs/cgroup/…`
    pub what: String,
    pub why: String,
    /// What the operator can do about it.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.what, self.why, self.fix)
    }
}

/// Looks for a place, best first: our own delegated v2 group, the top of v2, our own v1 groups. `scope` keeps the
/// groups of guards apart that share a host: a name that is the same in every life of one guard.
///
/// A place is chosen only after a group was made there, every limit set and read back, and the group removed. In a
/// delegated v2 group this process moves into a leaf named `guard`, since a v2 group has either processes or groups.
pub fn discover(roots: &Roots, scope: &str) -> Discovery {
    discover_with(roots, scope, &[])
}

/// The same for a process that is not alone: these others of ours, by their pids, move along.
pub fn discover_with(roots: &Roots, scope: &str, companions: &[i32]) -> Discovery {
    let mut refusals = Vec::new();
    let places = match check_name(scope).and_then(|()| Places::read(roots)) {
        Ok(places) => places,
        Err(error) => {
            refusals.push(refused("cgroups", &error));
            return Discovery { chosen: None, refusals };
        }
    };
    let attempts: [Attempt; 3] = [own_v2, top_v2, own_v1];
    let chosen = attempts.into_iter().find_map(|attempt| {
        let found = attempt(&places, scope, companions).and_then(|bases| {
            let what = format!("{} at {}", words(bases.version), bases.memory.display());
            probe(roots, bases).map_err(|error| refused(&what, &error))
        });
        found.map_err(|refusal| refusals.push(refusal)).ok()
    });
    Discovery { chosen, refusals }
}

/// Init and a guard of a few services.
const PROTECTED_BYTES: &str = "33554432";

type Attempt = fn(&Places, &str, &[i32]) -> Result<Bases, Refusal>;

const fn words(version: Version) -> &'static str {
    match version {
        Version::V1 => "cgroup v1",
        Version::V2 => "cgroup v2",
    }
}

/// A delegated group (systemd's `Delegate=yes`, a container of our own): instances go into it, we into a leaf beside.
fn own_v2(places: &Places, _scope: &str, companions: &[i32]) -> Result<Bases, Refusal> {
    let Place { own, .. } = mounted_v2(places)?;
    let what = format!("own cgroup v2 group {}", own.display());
    let no = |error: Error| refused(&what, &error);
    if !own.join("cgroup.type").exists() {
        return Err(refusal(
            &what,
            "it is the root of the hierarchy",
            "nothing to fix: the next choice is for this",
        ));
    }
    let parent = own.parent().filter(|_| own.ends_with(OWN_LEAF));
    if let Some(parent) = parent.filter(|parent| v2::enable_controllers(parent).is_ok()) {
        return Ok(v2_bases(parent.to_owned()));
    }
    if !v2::has_memory(&own).map_err(no)? {
        return Err(no_memory_controller(&what));
    }
    settle(&own, companions).map_err(no)?;
    Ok(v2_bases(own))
}

/// Moves us into the leaf and opens the group for limits; undone if the second does not work.
fn settle(own: &Path, companions: &[i32]) -> Result<()> {
    let ours = std::process::id().cast_signed();
    let here = tree::processes_here(own)?;
    let others = here.iter().filter(|pid| **pid != ours && !companions.contains(pid)).count();
    if others > 0 {
        return Err(Error::Shared { path: own.to_owned(), others });
    }
    let leaf = own.join(OWN_LEAF);
    let made = tree::make(&leaf)?;
    let all = || companions.iter().copied().filter(|pid| here.contains(pid)).chain([ours]);
    let to = |folder: &Path, pid: i32| text::write(&folder.join("cgroup.procs"), &pid.to_string());
    let moved = all().try_for_each(|pid| to(&leaf, pid)).and_then(|()| v2::enable_controllers(own));
    if moved.is_err() {
        // Best effort: the error that matters is the one that brought us here.
        all().for_each(|pid| _ = to(own, pid));
        if made {
            let _ = tree::try_remove(&leaf);
        }
    } else {
        // What guards is not to be reclaimed from before what is guarded; a help where the group above allows it.
        let _ = text::write(&leaf.join("memory.min"), PROTECTED_BYTES);
    }
    moved
}

/// Root on a host: a folder of ours beside systemd's slices, with one for this guard in it.
fn top_v2(places: &Places, scope: &str, _companions: &[i32]) -> Result<Bases, Refusal> {
    let Place { top, .. } = mounted_v2(places)?;
    let what = format!("cgroup v2 at {}", top.display());
    let no = |error: Error| refused(&what, &error);
    if !v2::has_memory(&top).map_err(no)? {
        return Err(no_memory_controller(&what));
    }
    let shared = top.join(FOLDER);
    let base = shared.join(scope);
    let open = || {
        v2::enable_controllers(&top)?;
        tree::make(&shared)?;
        v2::enable_controllers(&shared)?;
        tree::make(&base)?;
        v2::enable_controllers(&base)
    };
    beside_others(open).map_err(no)?;
    Ok(v2_bases(base))
}

fn mounted_v2(places: &Places) -> Result<Place, Refusal> {
    places.v2().ok_or_else(|| {
        refusal(
            "cgroup v2",
            "it is not mounted",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2",
        )
    })
}

fn v2_bases(memory: PathBuf) -> Bases {
    Bases { version: Version::V2, memory, pids: None, freezer: None }
}

/// Under our own groups, so that limits set on us by others go on holding for what we start.
fn own_v1(places: &Places, scope: &str, _companions: &[i32]) -> Result<Bases, Refusal> {
    let what = "cgroup v1";
    let Some(memory) = places.v1("memory") else {
        return Err(refusal(
            what,
            "its memory controller is not mounted",
            "boot with cgroup_enable=memory, or use a host with cgroup v2",
        ));
    };
    let what = format!("{what} at {}", memory.own.display());
    let memory = folder_v1(&memory, scope).map_err(|error| refused(&what, &error))?;
    // Helpful, and not needed for the wall: `Facts` says what is missing.
    let optional = |controller| places.v1(controller).and_then(|place| folder_v1(&place, scope).ok());
    let pids = optional("pids");
    let freezer = if pids.is_none() { optional("freezer") } else { None };
    Ok(Bases { version: Version::V1, memory, pids, freezer })
}

fn folder_v1(place: &Place, scope: &str) -> Result<PathBuf> {
    let shared = place.own.join(FOLDER);
    let base = shared.join(scope);
    beside_others(|| tree::make(&shared).and_then(|_| tree::make(&base)))?;
    Ok(base)
}

/// A guard that ends removes the shared folder if it is empty, and that can be between two steps of ours.
fn beside_others<T>(mut make: impl FnMut() -> Result<T>) -> Result<T> {
    const TRIES_MAX: usize = 10;
    for _ in 1..TRIES_MAX {
        match make() {
            Err(error) if error.is_gone() => {}
            other => return other,
        }
    }
    make()
}

/// Makes a real group with real limits and takes it away again.
fn probe(roots: &Roots, bases: Bases) -> Result<Hierarchy> {
    const REMOVAL_MAX: Duration = Duration::from_millis(200);
    const WALL_BYTES: u64 = 64 << 20;
    let name = format!("probe.{}", std::process::id());
    let places = bases.group(&name);
    let facts = Facts {
        version: bases.version,
        swap_closed: false,
        group_kill: false,
        tasks: false,
        high: bases.version == Version::V2,
        atomic_kill: false,
    };
    let mut hierarchy = Hierarchy { bases, facts };
    let limits = Limits { wall_bytes: WALL_BYTES, tasks_max: None, group_kill: true };
    let group = hierarchy.create(&name, &limits)?;
    let memory = group.path();
    let tasks = places.pids.as_deref().unwrap_or(memory).join("pids.max");
    hierarchy.facts.tasks = tasks.exists() && v2::set_number(&tasks, 1).is_ok();
    hierarchy.facts.group_kill = memory.join("memory.oom.group").exists();
    hierarchy.facts.atomic_kill = kill::is_atomic(&places);
    hierarchy.facts.swap_closed = !host_swaps(roots)
        || match places.version {
            Version::V1 => v1::closes_swap(memory),
            Version::V2 => memory.join("memory.swap.max").exists(),
        };
    let joinable = group.membership().map(drop);
    group.remove(REMOVAL_MAX)?;
    joinable?;
    Ok(hierarchy)
}

/// `/proc/swaps` has a heading and a line for each. In doubt the host is taken to swap.
fn host_swaps(roots: &Roots) -> bool {
    text::read(&roots.proc.join("swaps")).map_or(true, |list| list.lines().count() > 1)
}

fn refusal(what: &str, why: &str, fix: &str) -> Refusal {
    Refusal { what: what.to_owned(), why: why.to_owned(), fix: fix.to_owned() }
}

fn no_memory_controller(what: &str) -> Refusal {
    refusal(
        what,
        "it has no memory controller",
        "delegate it (systemd: Delegate=yes), or boot without cgroup v1 controllers (cgroup_no_v1=all)",
    )
}

fn refused(what: &str, error: &Error) -> Refusal {
    refusal(what, &error.to_string(), fix_for(error))
}

fn fix_for(error: &Error) -> &'static str {
    if error.is(Errno::ROFS) {
        return "mount it writable (Docker: --cgroupns=private and a writable /sys/fs/cgroup)";
    }
    if error.is_denied() {
        return "run as root, or under systemd with Delegate=yes";
    }
    match error {
        Error::Shared { .. } => "start under systemd with Delegate=yes, or as a container's first process",
        Error::NotTaken { .. } => "this kernel accepts the limit and does not keep it: use another kernel",
        Error::File { .. }
        | Error::Process { .. }
        | Error::Call { .. }
        | Error::Gone { .. }
        | Error::Unsupported { .. }
        | Error::Malformed { .. }
        | Error::GroupName { .. }
        | Error::StillAlive { .. }
        | Error::NoSuchUser { .. }
        | Error::Held { .. } => "see the error",
    }
}
