//! A seed is the whole run: without that a failing one could not be seen again.

use plimsoll_sim::{run, run_traced};

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_another() {
    for seed in 0..40 {
        let (first, second) = (run_traced(seed, None), run_traced(seed, None));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.hash, run_traced(seed + 1000, None).hash, "seed {seed}");
    }
}

#[test]
fn keeping_a_trace_changes_nothing() {
    for seed in 0..40 {
        let (plain, traced) = (run(seed, None), run_traced(seed, None));
        assert_eq!((plain.steps, plain.violation), (traced.steps, traced.violation), "seed {seed}");
    }
}
