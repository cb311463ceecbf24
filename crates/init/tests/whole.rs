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

/// init with guards of this kind, to its end.
fn ended(kind: &str) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll-init-puppet"));
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
