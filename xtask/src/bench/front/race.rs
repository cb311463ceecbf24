//! Proxies against each other: short samples in an order drawn by lot, and those thrown away that others disturbed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bench::front::proxy::{Kind, Proxy};
use crate::bench::front::sample::Sample;
use crate::error::Result;

/// More of a core than this taken by others, and a sample does not count.
const FOREIGN_CORES_MAX: f64 = 0.25;
/// On a machine that is never quiet the least disturbed of this many times as many samples count.
const PATIENCE: usize = 3;
/// The core of a moment ago may still be busy with the sample before.
const BREATH: Duration = Duration::from_millis(100);

/// All samples of one proxy that count.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample>,
    /// How many of them were disturbed all the same.
    pub(super) disturbed: usize,
}

/// So many samples of each proxy.
pub(super) fn run(
    proxies: &[&Proxy],
    count: usize,
    mut take: impl FnMut(&Proxy) -> Result<Sample>,
) -> Result<Vec<Lane>> {
    let mut lot = Lot::new();
    let mut taken: Vec<Vec<Sample>> = proxies.iter().map(|_| Vec::new()).collect();
    // The first of each warms caches and pools up, and does not count.
    for proxy in proxies {
        take(proxy)?;
    }
    for _ in 0..count * PATIENCE {
        let mut waiting: Vec<usize> =
            (0..proxies.len()).filter(|&lane| clean(&taken[lane]) < count).collect();
        if waiting.is_empty() {
            break;
        }
        lot.shuffle(&mut waiting);
        for lane in waiting {
            std::thread::sleep(BREATH);
            taken[lane].push(take(proxies[lane])?);
        }
    }
    let lanes = proxies.iter().zip(taken);
    Ok(lanes.map(|(proxy, samples)| best(proxy.kind, samples, count)).collect())
}

fn clean(samples: &[Sample]) -> usize {
    samples.iter().filter(|sample| sample.foreign <= FOREIGN_CORES_MAX).count()
}

/// The least disturbed of all: by how much others took, and never by how well they went.
fn best(kind: Kind, mut samples: Vec<Sample>, count: usize) -> Lane {
    samples.sort_by(|a, b| a.foreign.total_cmp(&b.foreign));
    samples.truncate(count);
    let disturbed = samples.len() - clean(&samples);
    Lane { kind, samples, disturbed }
}

/// Draws an order; good enough for that.
struct Lot(u64);

impl Lot {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_secs() ^ u64::from(since.subsec_nanos()) << 20 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle(&mut self, items: &mut [usize]) {
        for end in (1..items.len()).rev() {
            let place = self.next() % (end as u64 + 1);
            items.swap(end, usize::try_from(place).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(per_second: f64, foreign: f64) -> Sample {
        let zero = Duration::ZERO;
        Sample { per_second, cpu_each: zero, p50: zero, p99: zero, foreign }
    }

    #[test]
    fn the_least_disturbed_count_and_the_rest_is_told() {
        let samples = vec![sample(9.0, 0.9), sample(1.0, 0.1), sample(5.0, 0.3), sample(2.0, 0.2)];
        let lane = best(Kind::Nginx, samples, 3);
        assert_eq!(lane.samples.iter().map(|it| it.per_second).collect::<Vec<_>>(), [1.0, 2.0, 5.0]);
        assert_eq!(lane.disturbed, 1);
    }

    #[test]
    fn an_order_drawn_by_lot_loses_nobody() {
        let mut items: Vec<usize> = (0..20).collect();
        Lot(7).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
