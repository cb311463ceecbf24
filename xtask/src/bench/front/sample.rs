//! One sample of a race, with what it cost the proxy and how much of the machine others took meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use crate::bench::front::proxy::Proxy;
use crate::bench::guard::proc;
use crate::error::{Error, Result};

/// `USER_HZ`, the same on every Linux that we run on.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Requests, or bytes where a body is what is measured.
    pub(super) per_second: f64,
    pub(super) cpu_each: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Cores that were busy with something else.
    pub(super) foreign: f64,
}

/// What a run of a generator achieved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Achieved {
    pub(super) done: u64,
    pub(super) took: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// Runs the generator against the proxy.
pub(super) fn take(
    proxy: &Proxy,
    upstream: u32,
    generate: impl FnOnce() -> Result<Achieved>,
) -> Result<Sample> {
    let (begun, busy, ours) = (Instant::now(), machine_busy()?, ours(proxy, upstream));
    let cpu = proxy.cpu_time();
    let achieved = generate()?;
    let cpu = proxy.cpu_time().saturating_sub(cpu);
    let ours = self::ours(proxy, upstream).saturating_sub(ours);
    let foreign = machine_busy()?.saturating_sub(busy).saturating_sub(ours);
    if achieved.done == 0 {
        return Err(Error::Check(format!("{} answered nothing", proxy.kind.name())));
    }
    let done = u32::try_from(achieved.done).unwrap_or(u32::MAX);
    Ok(Sample {
        per_second: f64::from(done) / achieved.took.as_secs_f64(),
        cpu_each: cpu / done,
        p50: achieved.p50,
        p99: achieved.p99,
        foreign: foreign.as_secs_f64() / begun.elapsed().as_secs_f64(),
    })
}

/// Processor time of all that takes part.
fn ours(proxy: &Proxy, upstream: u32) -> Duration {
    let own = proc::cpu_time(std::process::id()).unwrap_or_default();
    let ended = proc::ended_children_cpu_time(std::process::id()).unwrap_or_default();
    proxy.tree_cpu_time() + proc::tree_cpu_time(upstream) + own + ended
}

/// Time that all cores were at work, and time that the machine's neighbours took.
fn machine_busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").map_err(Error::file("read", "/proc/stat"))?;
    let ticks = busy_ticks(&text).ok_or_else(|| Error::Check("/proc/stat has no line `cpu`".into()))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// user, nice, system, irq, softirq and steal of the first line. Interrupts are counted here because processes are
/// billed for those that come while they run, which over loopback is nearly all of them.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    Some(fields.get(..3)?.iter().chain(fields.get(5..8)?).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_and_waiting() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 500 16 32 8 0 0\ncpu0 1 1 1"), Some(63));
        assert_eq!(busy_ticks(""), None);
    }
}
