//! What being backed up costs the application, and what it costs the machine.

use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::Result;

use super::agent::{Agent, Kind, Tools};
use super::ground::Ground;
use super::writer::{self, Written};

const DATABASE_BYTES: u64 = 40 << 20;
const RATE: u32 = 300;
const SECONDS: u32 = 12;
const KINDS: [Kind; 4] = [Kind::Nobody, Kind::Vault, Kind::Litestream, Kind::Backups];
/// Twice what the log is pressed at.
const WAL_MAX: f64 = 8.0 * 1024.0 * 1024.0;
const TRUNCATE_MAX: f64 = 0.5;
const RSS_MAX: f64 = 32.0 * 1024.0 * 1024.0;

#[derive(Default)]
pub(super) struct Series {
    written: Vec<Written>,
    cores: Vec<f64>,
    resident: Vec<u64>,
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    Ok(figures(&measured(setting, KINDS, (RATE, SECONDS))?))
}

/// Of each kind in turn, at so many commits a second, for so many seconds.
pub(super) fn measured<const N: usize>(
    setting: &Setting<'_>,
    kinds: [Kind; N],
    pace: (u32, u32),
) -> Result<[Series; N]> {
    let tools = Tools::ready(setting)?;
    let mut all = std::array::from_fn(|_| Series::default());
    for _ in 0..setting.runs.min(5) {
        for (kind, series) in kinds.into_iter().zip(&mut all) {
            once(&tools, kind, pace, series)?;
        }
    }
    Ok(all)
}

fn once(tools: &Tools, kind: Kind, pace: (u32, u32), series: &mut Series) -> Result<()> {
    let ground = Ground::new(DATABASE_BYTES)?;
    let mut agent = Agent::start(tools, kind, &ground)?;
    let before = agent.footprint()?;
    let began = Instant::now();
    let writer = writer::start(&ground.database(), pace.0, pace.1)?;
    let written = writer::wait(writer)?;
    let after = agent.footprint()?;
    let took = began.elapsed();
    agent.end();
    series.written.push(written);
    series.cores.push(after.processor.saturating_sub(before.processor).as_secs_f64() / took.as_secs_f64());
    series.resident.push(after.resident_bytes);
    Ok(())
}

impl Series {
    pub(super) fn times(&self, of: fn(&Written) -> f64) -> Vec<Duration> {
        self.written.iter().map(|it| Duration::from_secs_f64(of(it))).collect()
    }

    pub(super) fn counts(&self, of: fn(&Written) -> u64) -> Vec<u64> {
        self.written.iter().map(of).collect()
    }
}

fn figures(all: &[Series; 4]) -> Vec<Figure> {
    let median = |samples: &[Duration]| {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(0.0, Duration::as_secs_f64)
    };
    let mut figures = Vec::new();
    for (kind, series) in KINDS.into_iter().zip(all) {
        let name = kind.name();
        let of = |what: &str| format!("{what}, {name}");
        let ratio = |of: fn(&Written) -> f64| {
            let nobody = median(&all[0].times(of));
            (nobody > 0.0).then(|| median(&series.times(of)) / nobody)
        };
        let p50 = Figure::times(&of("commit p50"), &series.times(|it| it.p50)).compared(ratio(|it| it.p50));
        let p99 = Figure::times(&of("commit p99"), &series.times(|it| it.p99)).compared(ratio(|it| it.p99));
        let longest = Figure::times(&of("longest commit"), &series.times(|it| it.max));
        let wal = Figure::bytes(&of("WAL peak"), &series.counts(|it| it.wal_peak));
        let truncate = Figure::times(&of("wal_checkpoint(TRUNCATE)"), &series.times(|it| it.truncate));
        let busy = Figure::counts(&of("TRUNCATE refused as busy"), &series.counts(|it| it.busy));
        let cores = Figure::cores(&of("processor time"), &series.cores);
        let resident = Figure::bytes(&of("resident memory"), &series.resident);
        figures.extend(if kind == Kind::Vault {
            let theirs = middle(&all[2].cores);
            let cores = cores.compared((theirs > 0.0).then(|| middle(&series.cores) / theirs));
            vec![
                p50.promised_ratio_at_most(1.1),
                p99.promised_ratio_at_most(1.5),
                longest.promised(0.1),
                wal.promised(WAL_MAX),
                truncate.promised(TRUNCATE_MAX),
                busy.promised(0.0),
                cores.promised_ratio_at_most(0.5),
                resident.promised(RSS_MAX),
            ]
        } else {
            vec![p50, p99, longest, wal, truncate, busy, cores, resident]
        });
    }
    let short = all.iter().flat_map(|it| &it.written).map(|it| it.commits).min().unwrap_or(0);
    figures.push(Figure::counts("commits of the slowest run", &[short]));
    figures
}

fn middle(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
