//! Many seeds, no broken rule. `PLIMSOLL_SEEDS` says how many, `PLIMSOLL_FIRST_SEED` where to begin.

mod common;

use std::collections::BTreeMap;

use common::{number, search};
use plimsoll_sim::{replay_line, run, run_traced};

const SEEDS_DEFAULT: u64 = 2000;
/// So many failures are shown; the others are counted.
const SHOWN_MAX: usize = 25;

#[test]
fn no_seed_breaks_a_rule() {
    let (first, count) = (number("PLIMSOLL_FIRST_SEED", 0), number("PLIMSOLL_SEEDS", SEEDS_DEFAULT));
    assert!(count > 0, "PLIMSOLL_SEEDS is 0: nothing would be tested");
    let broken = search(first..first + count, |seed| run(seed, None).violation);
    for (seed, violation) in broken.iter().take(SHOWN_MAX) {
        println!("seed {seed}: {} broke at {:?}: {}", violation.checker, violation.at, violation.what);
        println!("  {}", replay_line(*seed));
    }
    if let Some((seed, _)) = broken.first_key_value() {
        println!("\nthe end of seed {seed}:\n{}", run_traced(*seed, None).trace.join("\n"));
    }
    assert!(broken.is_empty(), "{} of {count} seeds broke a rule", broken.len());
}

/// Every kind of record there is. One that no seed leads to would be one that nothing here tests.
const KINDS: [&str; 32] = [
    "ordered",
    "configured",
    "starting",
    "started",
    "spawn_failed",
    "ready",
    "unready",
    "recycling",
    "draining",
    "stopping",
    "killing",
    "kill_late",
    "exited",
    "oom_kill",
    "recycled",
    "backing_off",
    "crash_loop",
    "handover_failed",
    "stopped",
    "over_line",
    "under_line",
    "trip_wire",
    "line_refused",
    "budget_spent",
    "sample_failed",
    "sampled_again",
    "probe_failed",
    "probe_late",
    "incident_opened",
    "incident_joined",
    "incident_closed",
    "anomaly",
];
const SEEDS_TO_TELL_ALL: u64 = 150;

#[test]
fn the_seeds_reach_every_kind_of_record() {
    let mut told: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS_TO_TELL_ALL {
        for (kind, count) in run_traced(seed, None).told {
            *told.entry(kind).or_default() += count;
        }
    }
    println!("{told:?}");
    let never: Vec<&str> = KINDS.into_iter().filter(|kind| !told.contains_key(kind)).collect();
    assert!(never.is_empty(), "never told in {SEEDS_TO_TELL_ALL} seeds: {never:?}");
    assert_eq!(told.len(), KINDS.len(), "a new kind of record belongs into the list");
}
