//! The guard is killed at every step: never two writers, never an orphan, never a lost instance.
//! `PLIMSOLL_DEATH_SEEDS` says how many seeds have it die now and then, `PLIMSOLL_DEATH_FIRST` which is the first of them,
//! and `PLIMSOLL_DEATH_EVERY` how many have it die at every step.

mod common;

use std::collections::BTreeMap;

use common::{number, search};
use plimsoll_core::Planted;
use plimsoll_sim::{Deaths, Outcome, run, run_with_deaths};

/// Seeds in which it dies again and again.
const SEEDS_DEFAULT: u64 = 600;
/// Seeds that are run once for each of their steps, of those with so few that this takes seconds.
const EVERY_DEFAULT: usize = 3;
const STEPS_MAX: u64 = 1500;
/// So many failures are shown; the others are counted.
const SHOWN_MAX: usize = 25;
const MUTANT_SEEDS: u64 = 60;
const OFTEN: [u64; 3] = [2, 20, 150];

/// Runs `play` for every number below `count`, on all processors; those that broke a rule.
fn broken(count: u64, play: impl Fn(u64) -> Outcome + Sync) -> BTreeMap<u64, Outcome> {
    search(0..count, |index| Some(play(index)).filter(|outcome| outcome.violation.is_some()))
}

#[expect(clippy::print_stdout, reason = "a failed schedule is read in the output of its test")]
fn assert_whole(broken: &BTreeMap<u64, Outcome>, replay: impl Fn(u64) -> Outcome) {
    for (index, outcome) in broken.iter().take(SHOWN_MAX) {
        println!("{index} (seed {}): {:?}", outcome.seed, outcome.violation);
    }
    if let Some((index, _)) = broken.first_key_value() {
        println!("\nthe end of {index}:\n{}", replay(*index).trace.join("\n"));
    }
    assert!(broken.is_empty(), "{} broke a rule", broken.len());
}

#[test]
fn a_guard_that_dies_again_and_again_loses_nobody() {
    let first = number("PLIMSOLL_DEATH_FIRST", 0);
    let count = number("PLIMSOLL_DEATH_SEEDS", SEEDS_DEFAULT);
    let often = |seed: u64| Deaths::Often(OFTEN[usize::try_from(seed % 3).expect("small")]);
    let play = |index, traced| run_with_deaths(first + index, None, often(first + index), traced);
    assert_whole(&broken(count, |index| play(index, false)), |index| play(index, true));
}

#[test]
fn killed_at_every_step_of_a_schedule_the_guard_loses_nobody() {
    let wanted = number("PLIMSOLL_DEATH_EVERY", EVERY_DEFAULT as u64);
    let all = (0..).map(|seed| (seed, run(seed, None).steps)).filter(|(_, steps)| *steps <= STEPS_MAX);
    for (seed, steps) in all.take(usize::try_from(wanted).expect("few")) {
        let play = |step| run_with_deaths(seed, None, Deaths::At(step + 1), false);
        assert_whole(&broken(steps, play), |step| run_with_deaths(seed, None, Deaths::At(step + 1), true));
    }
}

#[test]
fn every_bug_planted_in_taking_over_is_caught() {
    for bug in Planted::OF_ADOPTION {
        let caught =
            broken(MUTANT_SEEDS, |seed| run_with_deaths(seed, Some(bug), Deaths::Often(OFTEN[1]), false));
        let (seed, outcome) = caught.first_key_value().unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?}: seed {seed}, {:?}", outcome.violation);
    }
}
