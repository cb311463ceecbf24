//! init as a process of its own, with guards made for a test.
//!
//! `PLIMSOLL_STARTS` says how many starts the soak makes (10,000; a million nightly).
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a guard made for a test says when all was as it should be.
const FINE: Option<i32> = Some(42);
const PATIENCE: Duration = Duration::from_secs(100);

const EXE: &str = env!("CARGO_BIN_EXE_plimsoll-init-puppet");

/// init with guards of this kind, to its end.
fn ended(kind: &str) -> Option<i32> {
    ended_by(Command::new(EXE), kind)
}

/// The same with a newer program that its guard asks for.
fn ended_with_newer(kind: &str) -> Option<i32> {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer");
    std::fs::copy(EXE, &newer).unwrap();
    let mut command = Command::new(EXE);
    command.env("PLIMSOLL_NEWER", newer);
    ended_by(command, kind)
}

fn ended_by(mut command: Command, kind: &str) -> Option<i32> {
    let mut init = command.args(["run-init", kind]).process_group(0).spawn().unwrap();
    let starts = std::env::var("PLIMSOLL_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let until = Instant::now() + PATIENCE.max(Duration::from_millis(10 * starts));
    loop {
        if let Some(status) = init.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > until {
            init.kill().unwrap();
            init.wait().unwrap();
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn after_ten_thousand_starts_and_ends_init_is_as_small_as_before() {
    assert_eq!(ended("soak"), FINE);
}

#[test]
fn a_guard_that_speaks_another_protocol_is_refused_and_the_exit_code_is_its_own() {
    assert_eq!(ended("foreign"), FINE);
}

#[test]
fn what_is_not_understood_costs_the_guard_and_not_the_children() {
    assert_eq!(ended("nonsense"), FINE);
}

#[test]
fn an_end_that_no_guard_heard_of_is_told_to_the_next_one() {
    assert_eq!(ended("deserter"), FINE);
}

#[test]
fn a_guard_that_completes_no_cycle_is_replaced_although_it_answers() {
    assert_eq!(ended("mute"), FINE);
}

#[test]
fn the_goodbye_of_a_guard_that_did_not_listen_to_the_end_is_heard() {
    assert_eq!(ended("inattentive"), FINE);
}

#[test]
fn a_pid_that_somebody_else_has_by_now_is_not_taken_for_the_child() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "not run, and CI runs everything: it needs root");
        return;
    }
    let mut alone = Command::new("unshare");
    alone.args(["--pid", "--fork", "--kill-child", "--mount-proc", EXE]);
    assert_eq!(ended_by(alone, "reuse"), FINE);
}

#[test]
fn where_no_guard_is_able_to_stop_everything_init_does_and_says_so_by_its_exit_code() {
    assert_eq!(ended("hopeless"), Some(0));
}

#[test]
fn a_new_version_that_is_silent_is_given_up_and_the_present_one_goes_on() {
    assert_eq!(ended_with_newer("upgrade-silent"), FINE);
}

#[test]
fn after_a_new_version_that_dies_while_it_takes_over_the_old_one_is_started_again() {
    assert_eq!(ended_with_newer("upgrade-dies-taking"), FINE);
}

#[test]
fn after_a_new_version_that_dies_as_soon_as_it_guards_the_old_one_is_started_again() {
    assert_eq!(ended_with_newer("upgrade-dies-young"), FINE);
}

#[test]
fn where_the_old_guard_dies_while_it_lets_go_the_new_version_takes_over() {
    assert_eq!(ended_with_newer("upgrade-orphaned"), FINE);
}

#[test]
fn an_end_asked_for_in_the_middle_of_an_upgrade_reaches_whoever_guards_after_it() {
    assert_eq!(ended_with_newer("upgrade-ends"), FINE);
}

#[test]
fn an_end_asked_for_before_the_old_guard_lets_go_is_carried_out_by_it() {
    assert_eq!(ended_with_newer("upgrade-stays"), FINE);
}

#[test]
fn a_new_version_is_not_reduced_because_the_old_one_is() {
    assert_eq!(ended_with_newer("upgrade-cures"), FINE);
}
