//! How many seeds the simulator gets through, as CI runs it.

use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::Result;
use crate::shell;

const SEEDS: u32 = 10_000;
const SECONDS_MAX: f64 = 120.0;
const BUILD_LIMIT: Duration = Duration::from_mins(20);
const RUN_LIMIT: Duration = Duration::from_mins(20);
const TEST: [&str; 6] = ["test", "--release", "--package", "plimsoll-sim", "--test", "seeds"];

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let workspace = setting.workspace;
    shell::run(workspace.cargo(&TEST).arg("--no-run"), BUILD_LIMIT)?;
    let mut command = workspace.cargo(&TEST);
    command.args(["no_seed_breaks_a_rule", "--", "--exact"]).env("PLIMSOLL_SEEDS", SEEDS.to_string());
    let begun = Instant::now();
    shell::run(&mut command, RUN_LIMIT)?;
    let took = begun.elapsed();
    Ok(vec![
        Figure::times(&format!("{SEEDS} seeds"), &[took]).promised(SECONDS_MAX),
        Figure::rates("seeds", &[f64::from(SEEDS) / took.as_secs_f64()]),
    ])
}
