//! How fast the front is beside nginx and HAProxy: one worker each on one core, generator and upstream on the other,
//! the binary as it is released. A ratio is to the better of the two.

use std::time::Duration;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::ground::{self, Ground};
use crate::bench::front::proxy::{Kind, Proxy};
use crate::bench::front::race::{self, Lane};
use crate::bench::front::sample::{self, Achieved, Sample};
use crate::bench::front::upstream::Upstream;
use crate::bench::front::{body, handshakes, wrk};
use crate::error::{Error, Result};

const SAMPLE_SECONDS: u32 = 2;
/// A sample lasts; so many fewer are enough.
const RUNS_PER_SAMPLE: u32 = 5;
const P99_RATIO_MAX: f64 = 1.5;
/// Of a small answer over keep-alive: the other side of its rate.
const COST_RATIO_MAX: f64 = 1.0 / 0.9;
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    KeepAlive,
    NewConnections,
    TlsKeepAlive,
    NewTlsConnections,
    LargeBody,
}

const CASES: [Case; 5] =
    [Case::KeepAlive, Case::NewConnections, Case::TlsKeepAlive, Case::NewTlsConnections, Case::LargeBody];

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "small answers, keep-alive",
            Self::NewConnections => "a connection per request",
            Self::TlsKeepAlive => "small answers, TLS, keep-alive",
            Self::NewTlsConnections => "a TLS connection per request",
            Self::LargeBody => "a body of 1 GiB",
        }
    }

    /// Promised is at least this much of the better peer's rate.
    fn rate_ratio_min(self) -> f64 {
        match self {
            Self::KeepAlive | Self::NewConnections | Self::TlsKeepAlive | Self::LargeBody => 0.9,
            Self::NewTlsConnections => 0.7,
        }
    }

    fn is_for(self, proxy: &Proxy) -> bool {
        match self {
            Self::KeepAlive | Self::NewConnections | Self::LargeBody => true,
            Self::TlsKeepAlive | Self::NewTlsConnections => proxy.has_https(),
        }
    }

    pub(super) fn take(self, proxy: &Proxy, upstream: &Upstream) -> Result<Sample> {
        let lasts = Duration::from_secs(u64::from(SAMPLE_SECONDS));
        let plain = format!("http://127.0.0.1:{}/", proxy.http);
        sample::take(proxy, upstream.pid(), || match self {
            Self::KeepAlive => by_wrk(proxy, &plain, false),
            Self::NewConnections => by_wrk(proxy, &plain, true),
            Self::TlsKeepAlive => by_wrk(proxy, &format!("https://127.0.0.1:{}/", proxy.https), false),
            Self::NewTlsConnections => handshakes::run(proxy.https, lasts),
            Self::LargeBody => body::run(proxy.http),
        })
    }
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    ground::bring(&["nginx", "haproxy", "wrk"])?;
    let ground = Ground::new(setting)?;
    let upstream = Upstream::start(&ground)?;
    let start = |kind| Proxy::start(setting, kind, &ground, upstream.port);
    let proxies: Vec<Proxy> = Kind::chosen(setting).into_iter().map(start).collect::<Result<_>>()?;
    let count = samples(setting);
    let mut figures = Vec::new();
    for case in CASES {
        println!("  {} …", case.name());
        let (able, unable): (Vec<&Proxy>, Vec<&Proxy>) = proxies.iter().partition(|proxy| case.is_for(proxy));
        let mut lanes = race::run(&able, count, |proxy| case.take(proxy, &upstream))?;
        // Of them nothing is measured, and so what is promised is not kept.
        lanes.extend(unable.into_iter().map(|proxy| Lane {
            kind: proxy.kind,
            samples: Vec::new(),
            disturbed: 0,
        }));
        figures.extend(figures_of(case, &lanes));
    }
    Ok(figures)
}

/// A sample of each, by nobody measured.
pub(in crate::bench) fn train(setting: &Setting<'_>) -> Result<()> {
    ground::bring(&["nginx", "wrk"])?;
    let ground = Ground::new(setting)?;
    let upstream = Upstream::start(&ground)?;
    let proxy = Proxy::start(setting, Kind::Plimsoll, &ground, upstream.port)?;
    CASES.into_iter().try_for_each(|case| case.take(&proxy, &upstream).map(drop))
}

pub(super) fn samples(setting: &Setting<'_>) -> usize {
    usize::try_from(setting.runs.div_ceil(RUNS_PER_SAMPLE)).unwrap_or(1)
}

/// Processor time for a small answer over keep-alive; promised is at most so much of the others'.
pub(super) fn costs(lanes: &[Lane], most: f64) -> Vec<Figure> {
    let figure = |lane: &Lane| cost(Case::KeepAlive, lane);
    rows(lanes, figure, f64::min, |figure| figure.promised_ratio_at_most(most))
}

fn by_wrk(proxy: &Proxy, url: &str, anew: bool) -> Result<Achieved> {
    let said = wrk::run(url, SAMPLE_SECONDS, anew)?;
    if said.failed > 0 {
        let name = proxy.kind.name();
        return Err(Error::Check(format!("{name} failed {} of {} requests", said.failed, said.requests)));
    }
    Ok(Achieved { done: said.requests, took: said.took, p50: said.p50, p99: said.p99 })
}

fn figures_of(case: Case, lanes: &[Lane]) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(rows(
        lanes,
        |lane| rate(case, lane),
        f64::max,
        |figure| figure.promised_ratio_at_least(case.rate_ratio_min()),
    ));
    figures.extend(rows(
        lanes,
        |lane| cost(case, lane),
        f64::min,
        |figure| match case {
            Case::KeepAlive => figure.promised_ratio_at_most(COST_RATIO_MAX),
            Case::NewConnections | Case::TlsKeepAlive | Case::NewTlsConnections | Case::LargeBody => figure,
        },
    ));
    // Of a body it would be its whole time over again.
    if case != Case::LargeBody {
        figures.extend(rows(lanes, |lane| times(case, lane, "p50", |it| it.p50), f64::min, |figure| figure));
        figures.extend(rows(
            lanes,
            |lane| times(case, lane, "p99", |it| it.p99),
            f64::min,
            |figure| figure.promised_ratio_at_most(P99_RATIO_MAX),
        ));
    }
    let foreign = |lane: &Lane| lane.samples.iter().map(|sample| sample.foreign).collect::<Vec<_>>();
    let disturbed: usize = lanes.iter().map(|lane| lane.disturbed).sum();
    let what = format!("{}: taken by others, {disturbed} samples over the limit", case.name());
    figures.push(Figure::cores(&what, &lanes.iter().flat_map(foreign).collect::<Vec<_>>()));
    figures
}

/// A row for each proxy, compared with the better of the others; what is promised is ours.
fn rows(
    lanes: &[Lane],
    figure: impl Fn(&Lane) -> Figure,
    better: fn(f64, f64) -> f64,
    promise: impl Fn(Figure) -> Figure,
) -> Vec<Figure> {
    let others = lanes.iter().filter(|lane| lane.kind != Kind::Plimsoll);
    let best = others.filter_map(|lane| figure(lane).median()).reduce(better);
    let row = |lane: &Lane| {
        let row = figure(lane);
        let ratio = row.median().zip(best).map(|(median, best)| median / best);
        let row = row.compared(ratio);
        // Measured alone by `--only`, it is compared with nobody.
        let is_race = lanes.len() > 1;
        if lane.kind == Kind::Plimsoll && is_race { promise(row) } else { row }
    };
    lanes.iter().map(row).collect()
}

fn rate(case: Case, lane: &Lane) -> Figure {
    let rates: Vec<f64> = lane.samples.iter().map(|sample| sample.per_second).collect();
    let name = format!("{}, {}", case.name(), lane.kind.name());
    match case {
        Case::LargeBody => {
            Figure::byte_rates(&name, &rates.iter().map(|rate| rate * MIB).collect::<Vec<_>>())
        }
        Case::KeepAlive | Case::NewConnections | Case::TlsKeepAlive | Case::NewTlsConnections => {
            Figure::rates(&name, &rates)
        }
    }
}

fn cost(case: Case, lane: &Lane) -> Figure {
    let each = if case == Case::LargeBody { "MiB" } else { "request" };
    times(case, lane, &format!("processor time per {each}"), |sample| sample.cpu_each)
}

fn times(case: Case, lane: &Lane, what: &str, of: fn(&Sample) -> Duration) -> Figure {
    let name = format!("{}, {}: {what}", case.name(), lane.kind.name());
    Figure::times(&name, &lane.samples.iter().map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(kind: Kind, per_second: f64, p99_millis: u64) -> Lane {
        let time = Duration::from_millis(p99_millis);
        let sample = Sample { per_second, cpu_each: time, p50: time, p99: time, foreign: 0.0 };
        Lane { kind, samples: vec![sample], disturbed: 0 }
    }

    #[test]
    fn a_ratio_is_to_the_better_peer_and_only_ours_is_promised() {
        let lanes =
            [lane(Kind::Nginx, 100.0, 4), lane(Kind::Haproxy, 80.0, 2), lane(Kind::Plimsoll, 89.0, 3)];
        let figures = figures_of(Case::KeepAlive, &lanes);
        let of = |what: &str| {
            let figure =
                figures.iter().find(|figure| figure.what == format!("small answers, keep-alive, {what}"));
            (figure.unwrap().ratio_cell(), figure.unwrap().is_kept())
        };
        assert_eq!(of("plimsoll"), ("0.89 x".into(), false));
        assert_eq!(of("HAProxy"), ("0.80 x".into(), true));
        assert_eq!(of("plimsoll: p99"), ("1.50 x".into(), true));
        assert_eq!(of("nginx: p99"), ("2.00 x".into(), true));
    }
}
