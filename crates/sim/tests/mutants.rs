//! A simulator that lets a planted bug pass proves nothing. `PLIMSOLL_MUTANT_SEEDS` says how long each is looked for.

mod common;

use common::{number, search};
use plimsoll_core::Planted;
use plimsoll_sim::{Violation, run};

const SEEDS_MAX_DEFAULT: u64 = 3000;

/// The first seed in which some checker notices the bug.
fn hunt(bug: Planted, seeds_max: u64) -> Option<(u64, Violation)> {
    (0..seeds_max).find_map(|seed| run(seed, Some(bug)).violation.map(|violation| (seed, violation)))
}

#[test]
fn every_planted_bug_is_caught() {
    let seeds_max = number("PLIMSOLL_MUTANT_SEEDS", SEEDS_MAX_DEFAULT);
    let bug = |index: u64| usize::try_from(index).ok().and_then(|index| Planted::ALL.get(index).copied());
    let mut caught = search(0..Planted::ALL.len() as u64, |index| hunt(bug(index)?, seeds_max));
    println!("{:<24}{:>6}  {:<12}what it saw", "planted bug", "seeds", "checker");
    let mut missed = Vec::new();
    for (index, bug) in (0..).zip(Planted::ALL) {
        let name = format!("{bug:?}");
        match caught.remove(&index) {
            Some((seed, violation)) => {
                println!("{name:<24}{:>6}  {:<12}{}", seed + 1, violation.checker, violation.what);
            }
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not caught within {seeds_max} seeds: {missed:?}");
}
