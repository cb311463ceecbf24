//! cgroup v1 on the real kernel: a host that mounts the memory and pids controllers on v1, as root.

mod common;
mod contract;

use std::fs;

use common::{MIB, PATIENCE, Place, role, shell, start, until, walled};
use plimsoll_kernel::cgroup::{Limits, Version};
use plimsoll_kernel::notify::{GroupEvents, Signal};
use plimsoll_kernel::{Error, Roots};

fn place() -> Option<Place> {
    Place::of(Version::V1)
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
fn swap_is_closed_with_the_wall() {
    let Some(place) = place() else { return };
    assert!(place.hierarchy.facts().swap_closed);
    let group = place.group("svc.1", &walled(48));
    let with_swap = group.path().join("memory.memsw.limit_in_bytes");
    if with_swap.exists() {
        assert_eq!(fs::read_to_string(with_swap).unwrap().trim(), (48 * MIB).to_string());
    }
    assert_eq!(fs::read_to_string(group.path().join("memory.swappiness")).unwrap().trim(), "0");
}

#[test]
fn a_threshold_rings_when_the_use_crosses_it_and_not_before() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(256));
    let signal = Signal::at_usage(&group, 64 * MIB).unwrap();
    let mut small = role(Some(&group), "hold 16");
    small.prints("holding");
    assert_eq!(signal.drain().unwrap(), 0);
    let mut big = role(Some(&group), "hold 80");
    big.prints("holding");
    until("the threshold to ring", || signal.drain().unwrap() > 0);
}

#[test]
fn running_into_the_wall_rings_at_once() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let signal = Signal::on_oom(&group).unwrap();
    assert_eq!(signal.drain().unwrap(), 0);
    role(Some(&group), "hold 200").exits();
    until("the out-of-memory eventfd to ring", || signal.drain().unwrap() > 0);
}

#[test]
fn deaths_in_nested_groups_count() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(48));
    let nested = group.path().join("nested");
    let script = format!(
        "mkdir {0} && (echo 0 > {0}/cgroup.procs; exec env {1})",
        nested.display(),
        common::role_in_shell("hold 200")
    );
    shell(Some(&group), &script).exits();
    assert!(group.oom().unwrap().oom_kill >= 1);
    assert!(group.procs().unwrap().is_empty());
}

#[test]
fn page_cache_is_in_the_use_and_not_in_the_working_set() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("big");
    let group = place.group("svc.1", &walled(256));
    let script =
        format!("dd if=/dev/zero of={} bs=1048576 count=64 2>&1; echo written; sleep 1000", file.display());
    let mut child = shell(Some(&group), &script);
    child.prints("written");
    let memory = group.memory().unwrap();
    assert!(memory.file_bytes >= 60 * MIB, "{memory:?}");
    assert!(memory.working_set() < 32 * MIB, "{memory:?}");
    assert!(group.usage_bytes().unwrap() >= 60 * MIB);
}

#[test]
fn what_v1_cannot_do_is_refused_by_name() {
    let Some(place) = place() else { return };
    let facts = *place.hierarchy.facts();
    assert!(!facts.high && !facts.group_kill);
    let group = place.group("svc.1", &walled(48));
    assert!(matches!(group.set_high(Some(MIB)), Err(Error::Unsupported { .. })));
    assert!(matches!(GroupEvents::new().unwrap().add(&group), Err(Error::Unsupported { .. })));
    assert_eq!(group.pressure_file(), None);
}

#[test]
fn a_wall_below_what_is_in_use_is_refused_and_the_old_one_stays() {
    let Some(place) = place() else { return };
    let group = place.group("svc.1", &walled(256));
    let mut child = role(Some(&group), "hold 100");
    child.prints("holding");
    assert!(group.set_wall(32 * MIB).unwrap_err().is_retryable());
    assert!(!child.has_exited());
    assert!(group.stat_text().unwrap().contains(&format!("{}", 256 * MIB)));
}

#[test]
fn tasks_are_limited_before_the_program_runs() {
    let Some(place) = place() else { return };
    let limits = Limits { tasks_max: Some(1), ..walled(48) };
    let group = place.group("svc.1", &limits);
    let mut child = shell(Some(&group), "sleep 1000 & wait");
    child.prints("ork");
    child.exits();
    let plain = place.group("svc.2", &walled(48));
    drop(start(Some(&plain), &["sleep", "1000"]));
    plain.kill_all(PATIENCE).unwrap();
}

/// On a host that has no pids controller, or does not let us have it.
#[test]
fn without_pids_the_freezer_keeps_a_group_still_while_it_is_killed() {
    if place().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path();
    fs::create_dir(proc.join("self")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let without_pids: Vec<&str> = mounts.lines().filter(|line| !line.ends_with("pids")).collect();
    fs::write(proc.join("self/mountinfo"), without_pids.join("\n")).unwrap();
    fs::copy("/proc/self/cgroup", proc.join("self/cgroup")).unwrap();
    fs::write(proc.join("swaps"), "Filename Type Size Used Priority\n/dev/swap partition 1 0 -2\n").unwrap();
    let place = Place::find_in(&Roots { proc: proc.to_owned(), ..Roots::default() }).unwrap();
    let facts = *place.hierarchy.facts();
    assert!(facts.atomic_kill && !facts.tasks, "{facts:?}");
    let limits = Limits { tasks_max: Some(10), ..walled(48) };
    assert!(matches!(place.hierarchy.create("svc.1", &limits), Err(Error::Unsupported { .. })));
    assert_eq!(place.hierarchy.existing().unwrap(), [""; 0], "what was refused leaves nothing behind");
    contract::killing_reaches_daemons_that_ignore_everything(&place);
}
