//! A simulator that lets a planted bug pass proves nothing. `PLIMSOLL_MUTANT_SEEDS` says how long each is looked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use plimsoll_core::Planted;
use plimsoll_sim::{Violation, run};

const SEEDS_MAX_DEFAULT: u64 = 3000;

type Catch = Option<(u64, Violation)>;

/// The first seed in which some checker notices the bug.
fn hunt(bug: Planted, seeds_max: u64) -> Catch {
    (0..seeds_max).find_map(|seed| run(seed, Some(bug)).violation.map(|violation| (seed, violation)))
}

/// All of them, as many at a time as there are processors; the answers are in the order of `Planted::ALL`.
fn hunt_all(seeds_max: u64) -> Vec<Catch> {
    let next = AtomicUsize::new(0);
    let caught = Mutex::new(vec![None; Planted::ALL.len()]);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, bug)) = take(&next) {
                    let catch = hunt(bug, seeds_max);
                    caught.lock().expect("no thread panics while it holds this")[index] = catch;
                }
            });
        }
    });
    caught.into_inner().expect("no thread panics while it holds this")
}

fn take(next: &AtomicUsize) -> Option<(usize, Planted)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Planted::ALL.get(index).map(|bug| (index, *bug))
}

#[test]
fn every_planted_bug_is_caught() {
    let given = std::env::var("PLIMSOLL_MUTANT_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds_max = given.unwrap_or(SEEDS_MAX_DEFAULT);
    println!("{:<24}{:>6}  {:<12}what it saw", "planted bug", "seeds", "checker");
    let mut missed = Vec::new();
    for (bug, catch) in Planted::ALL.into_iter().zip(hunt_all(seeds_max)) {
        let name = format!("{bug:?}");
        match catch {
            Some((seed, violation)) => {
                println!("{name:<24}{:>6}  {:<12}{}", seed + 1, violation.checker, violation.what);
            }
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not caught within {seeds_max} seeds: {missed:?}");
}
