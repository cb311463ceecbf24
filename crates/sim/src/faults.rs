//! What goes wrong, and when: a few kinds per seed, in clusters. Faults that come one at a time hardly ever meet in
//! the window where a supervisor errs; the same faults within one second do.

use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{Exit, Order, ServiceConfig, SpawnFailure};

use crate::process::Shape;
use crate::rng::Rng;

/// How an instance answers its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Slow(Duration),
    Refuses,
    Hangs,
    /// Refuses and passes by turns, each for this long.
    Flaps(Duration),
    /// The driver forgets to tell.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Leak {
        bytes_per_second: u64,
        shape: Shape,
        lasts: Duration,
    },
    FileLeak {
        per_second: u64,
        lasts: Duration,
    },
    Spike {
        height: Bytes,
        period: Duration,
        lasts: Duration,
    },
    Crash {
        exit: Exit,
    },
    CrashLoop {
        life: Duration,
        exit: Exit,
        lasts: Duration,
    },
    Hang,
    NeverBoots {
        lasts: Duration,
    },
    Answer {
        how: Answers,
        lasts: Duration,
    },
    /// `None`: the stop signal is ignored.
    Term {
        takes: Option<Duration>,
        lasts: Duration,
    },
    Stuck {
        lasts: Duration,
    },
    Orphans {
        stay: Option<Duration>,
        lasts: Duration,
    },
    OddExits {
        doubled: bool,
        unseen: bool,
        latency: Duration,
        lasts: Duration,
    },
    SpawnFails {
        failure: SpawnFailure,
        lasts: Duration,
    },
    SpawnSlow {
        takes: Duration,
        lasts: Duration,
    },
    SamplesFail {
        lasts: Duration,
    },
    SamplesLost {
        lasts: Duration,
    },
    EvidenceLost {
        lasts: Duration,
    },
    TrafficStuck {
        lasts: Duration,
    },
    Ordered {
        order: Order,
    },
    TwoOperators {
        first: Order,
        second: Order,
    },
    Reload,
    ClockStep {
        by: Duration,
    },
    /// The guard itself gets no processor for a while.
    Freeze {
        lasts: Duration,
    },
    /// Late news of instances that are gone.
    Stale,
    Pressure,
    /// Requests wait, says the front, whether they do or not.
    Stall,
}

/// The kinds, for drawing which of them a seed has.
const KINDS: u64 = 26;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) at: Instant,
    /// Index of the service that is hit.
    pub(crate) service: usize,
    pub(crate) fault: Fault,
}

/// All faults of a run, in no order.
pub(crate) fn plan(rng: &mut Rng, configs: &[ServiceConfig], window: Duration) -> Vec<Strike> {
    let kinds: Vec<u64> = (0..rng.between(2, 8)).map(|_| rng.between(0, KINDS - 1)).collect();
    let mut strikes = Vec::new();
    let window_millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    for _ in 0..rng.between(1, 4) {
        let start = rng.between(1000, window_millis.max(2000));
        let width = rng.pick(&[0, 5, 200, 2000, 15_000]);
        let victim = rng.pick(&indices(configs));
        for _ in 0..rng.between(2, 10) {
            let at = Instant::default() + rng.latency(start, start + width);
            let service = if rng.chance(80) { victim } else { rng.pick(&indices(configs)) };
            let kind = rng.pick(&kinds);
            strikes.push(Strike { at, service, fault: draw(rng, kind, &configs[service], window) });
        }
    }
    strikes
}

fn indices(configs: &[ServiceConfig]) -> Vec<usize> {
    (0..configs.len()).collect()
}

/// `kind` counts through the arms below.
fn draw(rng: &mut Rng, kind: u64, config: &ServiceConfig, window: Duration) -> Fault {
    let lasts = lasts(rng, window);
    match kind {
        0 | 1 => Fault::Leak {
            bytes_per_second: config.memory.hard.scaled(rng.pick(&[2, 8, 40, 150, 600]), 1000).0,
            shape: rng.pick(&[Shape::Linear, Shape::Linear, Shape::Quickening, Shape::Lumps]),
            lasts: if rng.chance(50) { window } else { lasts },
        },
        2 => Fault::FileLeak {
            per_second: config.descriptors.limit * rng.pick(&[5, 20, 100]) / 1000 + 1,
            lasts: if rng.chance(50) { window } else { lasts },
        },
        3 | 4 => Fault::Spike {
            height: config.memory.hard.scaled(rng.between(10, 100), 100),
            period: rng.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(700)]),
            lasts: rng.pick(&[Duration::from_millis(120), Duration::from_millis(900), lasts]),
        },
        5 => Fault::Crash { exit: exit(rng) },
        6 | 7 => Fault::CrashLoop { life: rng.millis(0, 4000), exit: exit(rng), lasts },
        8 => Fault::Hang,
        9 => Fault::NeverBoots { lasts },
        10..=12 => Fault::Answer { how: answers(rng, config), lasts },
        13 => Fault::Term {
            takes: rng.pick(&[None, Some(config.recovery.stop_grace * 3 / 4), Some(Duration::from_secs(20))]),
            lasts,
        },
        14 => Fault::Stuck { lasts },
        15 => Fault::Orphans { stay: orphans_stay(rng), lasts },
        16 => odd_exits(rng, lasts),
        other => draw_outside(rng, other, lasts),
    }
}

/// The faults of everything around the processes.
fn draw_outside(rng: &mut Rng, kind: u64, lasts: Duration) -> Fault {
    let order = |rng: &mut Rng| {
        rng.pick(&[Order::Start, Order::Stop, Order::Restart, Order::Recycle, Order::Recycle])
    };
    match kind {
        17 => Fault::SpawnFails {
            failure: rng.pick(&[SpawnFailure::Exhausted, SpawnFailure::AddressTaken, SpawnFailure::Refused]),
            lasts,
        },
        18 => Fault::SpawnSlow { takes: rng.millis(50, 3000), lasts },
        19 => rng.pick(&[Fault::SamplesFail { lasts }, Fault::SamplesLost { lasts }]),
        20 => rng.pick(&[Fault::EvidenceLost { lasts }, Fault::TrafficStuck { lasts }]),
        21 => Fault::Ordered { order: order(rng) },
        22 => Fault::TwoOperators { first: order(rng), second: order(rng) },
        23 => Fault::Reload,
        24 => {
            let by = rng.pick(&[Duration::from_secs(3), Duration::from_mins(2), Duration::from_hours(2)]);
            let freeze = Fault::Freeze { lasts: rng.millis(50, 5000) };
            rng.pick(&[Fault::ClockStep { by }, freeze])
        }
        _ => rng.pick(&[Fault::Stale, Fault::Pressure, Fault::Stall]),
    }
}

fn lasts(rng: &mut Rng, window: Duration) -> Duration {
    let most = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let high = rng.pick(&[300, 3000, 20_000, 90_000]);
    rng.millis(50, high.min(most).max(50))
}

fn orphans_stay(rng: &mut Rng) -> Option<Duration> {
    let short = rng.millis(1, 1000);
    rng.pick(&[None, None, Some(short)])
}

fn exit(rng: &mut Rng) -> Exit {
    rng.pick(&[
        Exit::Code(0),
        Exit::Code(1),
        Exit::Code(137),
        Exit::Signal(9),
        Exit::Signal(11),
        Exit::Unknown,
    ])
}

fn answers(rng: &mut Rng, config: &ServiceConfig) -> Answers {
    let health = &config.health;
    let slow = health.timeout + rng.latency(1, 50);
    let patience = (health.timeout * 3 / 2).max(health.interval);
    let slowest = patience.saturating_sub(Duration::from_millis(20)).max(slow);
    let flap = rng.millis(100, 4000);
    rng.pick(&[
        Answers::Slow(slow),
        Answers::Slow(slowest),
        Answers::Refuses,
        Answers::Hangs,
        Answers::Flaps(flap),
        Answers::Lost,
    ])
}

fn odd_exits(rng: &mut Rng, lasts: Duration) -> Fault {
    let unseen = rng.chance(30);
    Fault::OddExits { doubled: rng.chance(50), unseen, latency: rng.latency(0, 2500), lasts }
}
