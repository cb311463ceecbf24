//! One seed, to be read: `PLIMSOLL_SEED=123 cargo test -p plimsoll-sim replay -- --nocapture`.

use plimsoll_sim::{replay_line, run_traced};

#[test]
fn replay_of_one_seed_breaks_no_rule() {
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let outcome = run_traced(seed, None);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("seed {seed}: {} steps, hash {:016x}", outcome.steps, outcome.hash);
    assert_eq!(outcome.violation, None, "\nagain: {}", replay_line(seed));
}
