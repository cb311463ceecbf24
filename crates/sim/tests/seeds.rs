//! Many seeds, no broken rule. `PLIMSOLL_SEEDS` says how many, `PLIMSOLL_FIRST_SEED` where to begin.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_sim::{Violation, replay_line, run, run_traced};

const SEEDS_DEFAULT: u64 = 2000;
/// So many failures are shown; the others are counted.
const SHOWN_MAX: usize = 25;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn break_rules(first: u64, count: u64) -> BTreeMap<u64, Violation> {
    let next = AtomicU64::new(first);
    let broken = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    if let Some(violation) = run(seed, None).violation {
                        broken.lock().expect("no thread panics while it holds this").insert(seed, violation);
                    }
                }
            });
        }
    });
    broken.into_inner().expect("no thread panics while it holds this")
}

#[test]
fn no_seed_breaks_a_rule() {
    let (first, count) = (number("PLIMSOLL_FIRST_SEED", 0), number("PLIMSOLL_SEEDS", SEEDS_DEFAULT));
    assert!(count > 0, "PLIMSOLL_SEEDS is 0: nothing would be tested");
    let broken = break_rules(first, count);
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
