//! A program that writes without a pause, as an import does: how far its log grows, and how long it is held.

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::Result;

use super::agent::Kind;
use super::cost::measured;

/// More than any program commits in a second.
const RATE: u32 = 1_000_000;
const SECONDS: u32 = 8;
const KINDS: [Kind; 3] = [Kind::Nobody, Kind::Vault, Kind::Litestream];
const LONGEST_MAX: f64 = 0.25;
const WAL_MAX: f64 = 48.0 * 1024.0 * 1024.0;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let all = measured(setting, KINDS, (RATE, SECONDS))?;
    let figures = KINDS.into_iter().zip(&all).flat_map(|(kind, series)| {
        let of = |what: &str| format!("{what}, {}", kind.name());
        let commits = Figure::counts(&of("commits without a pause"), &series.counts(|it| it.commits));
        let longest = Figure::times(&of("longest of them"), &series.times(|it| it.max));
        let wal = Figure::bytes(&of("WAL peak meanwhile"), &series.counts(|it| it.wal_peak));
        if kind == Kind::Vault {
            [commits, longest.promised(LONGEST_MAX), wal.promised(WAL_MAX)]
        } else {
            [commits, longest, wal]
        }
    });
    Ok(figures.collect())
}
