//! What both versions of cgroups promise, run on whichever the test binary is about.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

use std::time::Duration;

use plimsoll_kernel::cgroup::{Limits, Version, discover};
use plimsoll_kernel::{Error, Exit, Roots, procfs};

use crate::common::{MIB, PATIENCE, Place, role, role_in_shell, shell, start, until, walled};

const KILLED: Exit = Exit::Signal { number: 9, core_dumped: false };

pub(crate) fn over_the_wall_is_death_and_the_counts_say_so(place: &Place) {
    let group = place.group("svc.1", &walled(48));
    let before = group.oom().unwrap();
    let mut child = role(Some(&group), "hold 200");
    assert_eq!(child.exits(), KILLED);
    let change = group.oom().unwrap().since(&before);
    assert!(change.oom_kill >= 1, "{change:?}");
    assert!(change.oom >= 1, "{change:?}");
    if group.version() == Version::V2 {
        assert!(change.max >= 1, "{change:?}");
    }
}

pub(crate) fn under_the_wall_is_life_and_counts_stand_still(place: &Place) {
    let group = place.group("svc.1", &walled(128));
    let mut child = role(Some(&group), "hold 32");
    child.prints("holding");
    let counts = group.oom().unwrap();
    assert_eq!((counts.oom, counts.oom_kill), (0, 0), "{counts:?}");
    let (memory, usage) = (group.memory().unwrap(), group.usage_bytes().unwrap());
    assert!((32 * MIB..64 * MIB).contains(&memory.working_set()), "{memory:?}");
    assert!((32 * MIB..128 * MIB).contains(&usage), "{usage}");
    assert!(group.stat_text().unwrap().contains("# memory.stat\n"));
}

/// A shell with a bystander runs the process that is too big. Says whether the shell outlived it.
fn shell_outlives_the_big_one(place: &Place, group_kill: bool) -> bool {
    let group = place.group("svc.1", &Limits { group_kill, ..walled(48) });
    let script = format!("sleep 1000 & {}; echo still here; wait", role_in_shell("hold 200"));
    let mut child = shell(Some(&group), &script);
    until("a death in the group", || group.oom().unwrap().oom_kill > 0);
    let mut survived = false;
    until("the group to be empty or the shell to go on", || {
        survived = !group.is_empty().unwrap() && group.oom().unwrap().oom_group_kill == 0 && !group_kill;
        survived || child.has_exited()
    });
    if survived {
        child.prints("still here");
    } else {
        assert_eq!(child.exits(), KILLED);
        until("the bystander to be gone as well", || group.is_empty().unwrap());
    }
    group.kill_all(PATIENCE).unwrap();
    child.exits();
    group.remove(PATIENCE).unwrap();
    survived
}

pub(crate) fn the_kernel_kills_the_group_only_when_told(place: &Place) {
    assert!(shell_outlives_the_big_one(place, false));
    if place.hierarchy.facts().group_kill {
        assert!(!shell_outlives_the_big_one(place, true));
    }
}

pub(crate) fn the_wall_moves_both_ways(place: &Place) {
    let group = place.group("svc.1", &walled(64));
    group.set_wall(256 * MIB).unwrap();
    let mut child = role(Some(&group), "hold 100");
    child.prints("holding");
    group.set_wall(128 * MIB).unwrap();
    assert!(!child.has_exited());
    group.set_wall(u64::MAX).unwrap();
}

/// Wherever a process goes by forking, it is in the group: also one that was forked before its parent did anything else.
pub(crate) fn a_child_and_its_daemons_are_in_the_group_from_the_start(place: &Place) {
    let group = place.group("svc.1", &walled(64));
    let script = "cat /proc/self/cgroup; ( (cat /proc/self/cgroup; echo end) & ); exit 0";
    let mut child = shell(Some(&group), script);
    let printed = child.prints_all().to_owned();
    assert!(printed.ends_with("end\n"), "{printed}");
    let memberships = printed.matches(&format!("{}/svc.1", place.scope)).count();
    let own_leaf = printed.matches("/svc.1").count();
    assert!(memberships >= 2 || own_leaf >= 2, "{printed}");
    child.exits();
    until("the group to be empty", || group.is_empty().unwrap());
}

pub(crate) fn a_process_alone_has_as_many_threads_as_its_group_has_tasks(place: &Place) {
    let roots = Roots::default();
    let group = place.group("svc.1", &walled(64));
    assert_eq!(group.tasks().unwrap(), Some(0));
    let mut alone = role(Some(&group), "hold 1");
    alone.prints("holding");
    let threads = procfs::thread_count(&roots, alone.pid()).unwrap();
    assert_eq!(threads, procfs::threads(&roots, alone.pid(), 100).unwrap().len() as u64);
    assert_eq!(group.tasks().unwrap(), Some(threads));
    let _other = start(Some(&group), &["sleep", "1000"]);
    assert_eq!(group.tasks().unwrap(), Some(threads + 1));
}

pub(crate) fn killing_reaches_daemons_that_ignore_everything(place: &Place) {
    let group = place.group("svc.1", &walled(64));
    let script =
        "trap '' TERM HUP INT; ( (trap '' TERM HUP; echo up; while :; do sleep 1000; done) & ); sleep 1000";
    let mut child = shell(Some(&group), script);
    child.prints("up");
    until("all of them to be there", || group.procs().unwrap().len() >= 3);
    assert!(group.procs().unwrap().contains(&child.pid()));
    assert!(!group.is_empty().unwrap());
    group.kill_all(PATIENCE).unwrap();
    assert!(group.procs().unwrap().is_empty());
    assert_eq!(child.exits(), KILLED);
    assert_eq!(group.kill_pass().unwrap(), 0);
    group.remove(PATIENCE).unwrap();
    group.remove(Duration::ZERO).unwrap();
}

pub(crate) fn killing_outruns_a_fork_bomb(place: &Place) {
    const TASKS_MAX: u32 = 60;
    assert!(place.hierarchy.facts().atomic_kill);
    let group = place.group("svc.1", &Limits { tasks_max: Some(TASKS_MAX), ..walled(256) });
    let mut bomb = role(Some(&group), "bomb");
    // Every one has two threads; the last place may be too small for a whole one.
    let tasks = || group.tasks().unwrap().unwrap();
    until("the bomb to fill its limit", || tasks() + 2 > TASKS_MAX.into());
    assert!(tasks() <= TASKS_MAX.into());
    group.kill_all(PATIENCE).unwrap();
    bomb.exits();
    assert!(group.is_empty().unwrap());
    group.remove(PATIENCE).unwrap();
}

pub(crate) fn a_group_is_found_again_in_the_next_life(place: &Place) {
    let group = place.group("svc.12", &walled(64));
    let child = start(Some(&group), &["sleep", "1000"]);
    let next_life = discover(&Roots::default(), &place.scope).chosen.unwrap();
    assert_eq!(next_life.path(), place.hierarchy.path());
    assert_eq!(next_life.existing().unwrap(), ["svc.12"]);
    let found = next_life.open("svc.12").unwrap();
    assert_eq!(found.procs().unwrap(), [child.pid()]);
    let error = next_life.create("svc.12", &walled(64)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBUSY), "{error}");
    assert_eq!(found.procs().unwrap(), [child.pid()], "a refusal must not touch what is there");
    assert!(next_life.open("svc.13").unwrap_err().is_gone());
}

pub(crate) fn an_empty_leftover_is_taken_over_with_fresh_counts(place: &Place) {
    let group = place.group("svc.1", &walled(48));
    assert_eq!(role(Some(&group), "hold 200").exits(), KILLED);
    until("the group to be empty", || group.is_empty().unwrap());
    std::fs::create_dir(group.path().join("nested")).unwrap();
    let fresh = place.group("svc.1", &walled(48));
    assert_eq!(fresh.oom().unwrap().oom_kill, 0);
    std::fs::create_dir(fresh.path().join("nested")).unwrap();
    fresh.remove(PATIENCE).unwrap();
    assert!(!fresh.path().exists());
}

pub(crate) fn what_cannot_be_removed_is_said_to_be_busy(place: &Place) {
    let group = place.group("svc.1", &walled(48));
    let _child = start(Some(&group), &["sleep", "1000"]);
    let error = group.remove(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, Error::StillAlive { left: 1, .. }), "{error}");
    assert!(error.is_retryable());
}

pub(crate) fn names_that_would_leave_the_folder_are_refused(place: &Place) {
    for name in ["..", "a/b", "", "guard"] {
        assert!(matches!(place.hierarchy.create(name, &walled(48)), Err(Error::GroupName { .. })), "{name}");
    }
}
