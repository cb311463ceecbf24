//! What a seed makes of services: settings within what `check` would accept, and what their processes are like.

use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant, Share};
use plimsoll_core::{
    DescriptorConfig, Handover, HealthConfig, MemoryConfig, RecoveryConfig, ServiceConfig, layers,
};

use crate::rng::Rng;

/// How quick a service's settings are. Most are brisk, so that much happens in little time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tempo {
    Brisk,
    Ordinary,
    /// The defaults of the product.
    Default,
}

/// What a service's processes have in common, faults aside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Build {
    pub(crate) base: Bytes,
    pub(crate) cache: Bytes,
    pub(crate) files: u64,
    pub(crate) boot: Duration,
    pub(crate) term: Duration,
    /// Something carries its traffic, and counts it.
    pub(crate) has_front: bool,
    /// Each process has a child of its own, which may outlive it.
    pub(crate) children: u32,
}

pub(crate) fn tempo(rng: &mut Rng) -> Tempo {
    match rng.between(0, 9) {
        0 => Tempo::Default,
        1..=3 => Tempo::Ordinary,
        4.. => Tempo::Brisk,
    }
}

pub(crate) fn config(rng: &mut Rng, name: &str, tempo: Tempo) -> ServiceConfig {
    let hard = Bytes::mib(rng.pick(&[64, 128, 512, 512, 1024]));
    ServiceConfig {
        name: name.into(),
        replicas: rng.pick(&[1, 1, 1, 2, 3]),
        memory: memory(rng, hard, tempo),
        descriptors: descriptors(rng),
        recovery: recovery(rng, tempo),
        health: health(rng, tempo),
    }
}

/// New settings for a service that runs; the wall stays, since processes were born inside it.
pub(crate) fn reconfig(rng: &mut Rng, before: &ServiceConfig, build: &Build, tempo: Tempo) -> ServiceConfig {
    let mut after = before.clone();
    match rng.between(0, 5) {
        0 => {
            let memory = memory(rng, before.memory.hard, tempo);
            // Nothing can run that needs to be near the wall just to start.
            if layers::hard_wall::near(&memory) > build.base.scaled(105, 100) {
                after.memory = memory;
            }
        }
        1 => after.descriptors = descriptors(rng),
        2 => after.recovery = recovery(rng, tempo),
        3 => {
            // Processes were drawn to boot within the old start period.
            let health = health(rng, tempo);
            let start_period = health.start_period.max(before.health.start_period);
            after.health = HealthConfig { probed: before.health.probed, start_period, ..health };
        }
        4 => after.replicas = rng.pick(&[1, 2, 3]),
        // The same again, which must change nothing that matters.
        5.. => {}
    }
    after
}

fn memory(rng: &mut Rng, hard: Bytes, tempo: Tempo) -> MemoryConfig {
    let recycle = hard.scaled(rng.between(50, 80), 100);
    let persistence = match tempo {
        Tempo::Brisk => rng.millis(0, 3000),
        Tempo::Ordinary => rng.millis(1000, 8000),
        Tempo::Default => plimsoll_core::PERSISTENCE_DEFAULT,
    };
    MemoryConfig {
        persistence,
        group_kill: rng.chance(70),
        kernel_wakes_us: rng.chance(70),
        ..MemoryConfig::with_defaults(None, Some(hard), Some(recycle))
    }
}

fn descriptors(rng: &mut Rng) -> DescriptorConfig {
    let limit = rng.pick(&[256, 1024, 8192]);
    let recycle = u16::try_from(rng.between(500, 950)).ok().and_then(Share::per_mille);
    DescriptorConfig { limit, recycle: recycle.expect("drawn between 0 and 1000") }
}

fn recovery(rng: &mut Rng, tempo: Tempo) -> RecoveryConfig {
    let handover = rng.pick(&[Handover::Hold, Handover::Hold, Handover::Overlap, Handover::Standby]);
    let recycles_per_hour = rng.pick(&[1, 2, 4, 12, 60]);
    let (drain, stop_grace, backoff_max) = match tempo {
        Tempo::Brisk => (rng.millis(0, 3000), rng.millis(50, 2000), rng.millis(500, 4000)),
        Tempo::Ordinary => (rng.millis(1000, 8000), rng.millis(1000, 5000), rng.millis(2000, 10_000)),
        Tempo::Default => {
            return RecoveryConfig { handover, recycles_per_hour, ..RecoveryConfig::default() };
        }
    };
    RecoveryConfig { handover, drain, stop_grace, backoff_max, recycles_per_hour }
}

fn health(rng: &mut Rng, tempo: Tempo) -> HealthConfig {
    let probed = rng.chance(85);
    let retries = u32::try_from(rng.between(1, 4)).expect("a small number");
    match tempo {
        Tempo::Brisk => HealthConfig {
            probed,
            interval: rng.millis(200, 2000),
            timeout: rng.millis(100, 1000),
            retries,
            start_period: rng.millis(500, 4000),
            hang: rng.millis(100, 1000),
        },
        Tempo::Ordinary => HealthConfig {
            probed,
            interval: rng.millis(2000, 10_000),
            timeout: rng.millis(500, 5000),
            retries,
            start_period: rng.millis(3000, 15_000),
            hang: rng.millis(500, 3000),
        },
        Tempo::Default => HealthConfig { probed, ..HealthConfig::default() },
    }
}

/// When requests come to a service: in bursts, most of them about when something goes wrong, and one after all that.
pub(crate) fn arrivals(
    rng: &mut Rng,
    strikes: &[Instant],
    window: Duration,
    heal: Instant,
    storms: bool,
) -> Vec<Instant> {
    let window_millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let mut arrivals = Vec::new();
    let mut burst = |rng: &mut Rng, start: Instant| {
        let width = rng.pick(&[0, 20, 500, 3000]);
        let count = if storms { rng.pick(&[40, 1200]) } else { rng.pick(&[3, 10, 20, 40]) };
        for _ in 0..count {
            arrivals.push(start + rng.latency(0, width));
        }
    };
    for _ in 0..rng.between(2, 6) {
        let near = !strikes.is_empty() && rng.chance(70);
        let start = if near { rng.pick(strikes) } else { Instant::default() + rng.latency(0, window_millis) };
        // Some are in flight when it happens, some come into it.
        let before = Instant(start.0.saturating_sub(1_000_000 * rng.pick(&[0, 5, 300])));
        burst(rng, before);
    }
    let after = rng.latency(0, 5000);
    burst(rng, heal + after);
    arrivals
}

pub(crate) fn build(rng: &mut Rng, config: &ServiceConfig) -> Build {
    let memory = &config.memory;
    let near = layers::hard_wall::near(memory);
    // Some services need more than their line just to run; the line must then be refused.
    let base = if rng.chance(8) {
        memory.recycle + (near - memory.recycle).scaled(rng.between(10, 60), 100)
    } else {
        memory.recycle.scaled(rng.between(15, 85), 100)
    };
    let start_millis = u64::try_from(config.health.start_period.as_millis()).unwrap_or(u64::MAX);
    Build {
        base,
        cache: if rng.chance(50) { Bytes::ZERO } else { memory.hard.scaled(rng.between(0, 30), 100) },
        files: rng.between(10, 100),
        boot: rng.latency(5, start_millis / 3),
        term: rng.latency(1, 40),
        has_front: rng.chance(60),
        children: u32::from(rng.chance(30)),
    }
}
