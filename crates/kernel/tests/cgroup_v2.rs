//! cgroup v2 on the real kernel, as root: run in a virtual machine that mounts nothing else.

mod common;
mod contract;

use std::fs;
use std::time::Duration;

use common::{MIB, PATIENCE, Place, role, role_with, shell, start, until, walled};
use plimsoll_kernel::cgroup::{Limits, Version};
use plimsoll_kernel::notify::{Drained, GroupEvents, Signal};
use plimsoll_kernel::psi::{Stalled, Trigger};
use plimsoll_kernel::{Error, Roots, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn place() -> Option<Place> {
    Place::of(Version::V2)
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            if let Some(place) = place() {
                contract::$name(&place);
            }
        })*
    };
}

contract!(
    over_the_wall_is_death_and_the_counts_say_so,
    under_the_wall_is_life_and_counts_stand_still,
    the_kernel_kills_the_group_only_when_told,
    the_wall_moves_both_ways,
    a_child_and_its_daemons_are_in_the_group_from_the_start,
    killing_reaches_daemons_that_ignore_everything,
    killing_outruns_a_fork_bomb,
    a_process_alone_has_as_many_threads_as_its_group_has_tasks,
    a_group_is_found_again_in_the_next_life,
    an_empty_leftover_is_taken_over_with_fresh_counts,
    what_cannot_be_removed_is_said_to_be_busy,
    names_that_would_leave_the_folder_are_refused,
);

#[test]
fn the_host_gives_us_every_ability() {
    let Some(place) = place() else { return };
    let facts = *place.hierarchy.facts();
    assert!(
        facts.swap_closed && facts.group_kill && facts.tasks && facts.high && facts.atomic_kill,
        "{facts:?}"
    );
}

#[test]
fn swap_is_closed_with_the_wall() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let swap = group.path().join("memory.swap.max");
    if swap.exists() {
        assert_eq!(fs::read_to_string(swap).unwrap().trim(), "0");
    }
}

#[test]
fn the_trip_wire_rings_and_can_be_taken_away() {
    let Some(place) = place() else { return };
    let (one, other) = (place.group("svc.1", &walled(256)), place.group("svc.2", &walled(256)));
    let events = GroupEvents::new().unwrap();
    let (first, _second) = (events.add(&one).unwrap(), events.add(&other).unwrap());
    one.set_high(Some(24 * MIB)).unwrap();
    let mut small = role(Some(&other), "hold 8");
    small.prints("holding");
    assert_eq!(events.drain().unwrap().moved, []);
    let mut big = role(Some(&one), "hold 64");
    until("the trip-wire to ring", || events.drain().unwrap().moved == [first]);
    assert!(one.oom().unwrap().high > 0);
    assert_eq!(one.oom().unwrap().oom_kill, 0);
    one.set_high(None).unwrap();
    big.prints("holding");
}

#[test]
fn a_watch_can_be_taken_back_after_its_group_is_gone() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let events = GroupEvents::new().unwrap();
    let watch = events.add(&group).unwrap();
    group.remove(PATIENCE).unwrap();
    events.remove(watch).unwrap();
    events.remove(watch).unwrap();
    assert_eq!(events.drain().unwrap(), Drained::default());
    assert_ne!(events.add(&place.group("svc.2", &walled(48))).unwrap(), watch);
}

#[test]
fn an_event_comes_with_a_death_at_the_wall() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let events = GroupEvents::new().unwrap();
    let watch = events.add(&group).unwrap();
    let mut child = role(Some(&group), "hold 200");
    until("an event", || events.drain().unwrap().moved == [watch]);
    child.exits();
    assert!(group.oom().unwrap().oom_kill >= 1);
}

#[test]
fn one_group_kill_is_one_however_many_died() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let script = format!("sleep 1000 & sleep 1000 & {}; wait", common::role_in_shell("hold 200"));
    shell(Some(&group), &script).exits();
    until("the group to be empty", || group.is_empty().unwrap());
    let counts = group.oom().unwrap();
    // The count of group kills exists from 5.17 on; deaths are counted one by one.
    assert!(counts.oom_kill >= 2, "{counts:?}");
    assert!(counts.oom_group_kill <= 1, "{counts:?}");
}

#[test]
fn stalling_at_the_brake_is_felt_as_pressure() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(256));
    let Some(path) = group.pressure_file() else { panic!("boot with psi=1") };
    let (stall, window) = (Duration::from_millis(50), Duration::from_secs(1));
    let trigger = Trigger::new(&path, Stalled::Some, stall, window).unwrap();
    group.set_high(Some(16 * MIB)).unwrap();
    let _child = role(Some(&group), "hold 64");
    let mut wanted = [PollFd::new(&trigger, PollFlags::PRI)];
    let deadline = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut wanted, Some(&deadline)), Ok(1));
    assert!(wanted[0].revents().contains(PollFlags::PRI), "{:?}", wanted[0].revents());
}

#[test]
fn eventfds_belong_to_the_other_version() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    assert!(matches!(Signal::at_usage(&group, MIB), Err(Error::Unsupported { .. })));
}

#[test]
fn a_fork_past_the_limit_fails_and_says_so() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &Limits { tasks_max: Some(1), ..walled(48) });
    let mut child = shell(Some(&group), "sleep 1000 & wait");
    child.prints("ork");
    child.exits();
}

/// Without the folder, as on kernels that cannot clone into a group: by writing to a file.
#[test]
fn a_child_can_join_by_the_file_too() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let child = common::start_with(Some(&group), &["sleep", "1000"], |command| command.join.folder = None);
    assert_eq!(group.procs().unwrap(), [child.pid()]);
    let membership = process::cgroup_of(&Roots::default(), child.pid()).unwrap();
    assert!(membership[0].path.ends_with("/svc.1"), "{membership:?}");
    drop(start(Some(&group), &["sleep", "1000"]));
}

/// As under systemd's `Delegate=yes`, or in a container of our own.
#[test]
fn a_guard_alone_in_its_group_makes_way_for_its_instances_and_finds_them_again() {
    let Some(place) = place() else { return };
    let delegated = place.group("delegated.1", &walled(512));
    let mut first = role(Some(&delegated), "discover elsewhere");
    let chosen = format!("chosen {}\n", delegated.path().display());
    let printed = first.prints("own group ").to_owned();
    assert!(printed.contains(&chosen), "{printed}");
    let membership = process::cgroup_of(&Roots::default(), first.pid()).unwrap();
    assert!(membership[0].path.ends_with("/delegated.1/guard"), "{membership:?}");
    // Its successor is started where it was.
    let leaf = fs::File::options().write(true).open(delegated.path().join("guard/cgroup.procs")).unwrap();
    let mut next = role_with(None, "discover elsewhere", |command| command.join.files.push(leaf.into()));
    let printed = next.prints("own group ").to_owned();
    assert!(printed.contains(&chosen), "{printed}");
}

#[test]
fn a_group_shared_with_others_is_refused_with_the_reason() {
    let Some(place) = place() else { return };
    let shared = place.group("shared.1", &walled(512));
    let _other = start(Some(&shared), &["sleep", "1000"]);
    let mut guard = role(Some(&shared), "discover elsewhere");
    let printed = guard.prints("own group ").to_owned();
    assert!(
        printed.contains("1 other processes are in it; start under systemd with Delegate=yes"),
        "{printed}"
    );
    assert!(printed.contains("/plimsoll/elsewhere\n"), "the next choice is the top: {printed}");
    assert!(!shared.path().join("guard").exists());
}
