//! What each route of each service carries: counts, latency, bytes. Bounded, however many paths there are.

use std::collections::HashMap;
use std::time::Duration;

use plimsoll_core::ServiceId;

use crate::hash::QuickMap;
use crate::pattern::{self, PATTERNS_MAX};

/// Upper bounds of the latency histogram's buckets, in milliseconds; one more bucket is without a bound.
pub const BUCKETS_MS: [u32; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];
/// What all patterns past the bound are counted under.
const OTHERS: &str = "(others)";

/// One route pattern of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStats {
    pub service: ServiceId,
    pub method: String,
    /// `/reports/:id`
    pub pattern: String,
    pub requests: u64,
    /// Begun and not ended yet.
    pub in_flight: u64,
    /// By the answer's class: 1xx to 5xx.
    pub statuses: [u64; 5],
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Held before they were sent.
    pub held: u64,
    pub replayed: u64,
    /// Cut off before the answer's end.
    pub cut_off: u64,
    /// From the head's arrival to the answer's end, holding included; see [`BUCKETS_MS`].
    pub latency: [u64; BUCKETS_MS.len() + 1],
    /// Sum of the latencies, in microseconds.
    pub latency_sum_us: u64,
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) held: bool,
    pub(crate) replayed: bool,
    pub(crate) cut_off: bool,
    pub(crate) took: Duration,
}

/// The route that a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteKey(usize);

#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// With the hash of its pattern; 0 for what all others are counted under.
    routes: Vec<(u64, RouteStats)>,
    known: QuickMap<(ServiceId, u64), RouteKey>,
    patterns: HashMap<ServiceId, usize>,
}

impl Stats {
    /// A request begins.
    pub(crate) fn begin(&mut self, service: ServiceId, method: &str, path: &str) -> RouteKey {
        let hash = pattern::hash(method, path);
        let key = match self.known.get(&(service, hash)) {
            Some(key) => *key,
            None => self.learn(service, hash, method, path),
        };
        self.routes[key.0].1.in_flight += 1;
        key
    }

    fn learn(&mut self, service: ServiceId, hash: u64, method: &str, path: &str) -> RouteKey {
        let patterns = self.patterns.entry(service).or_default();
        let (hash, method, pattern) = if *patterns < PATTERNS_MAX {
            *patterns += 1;
            (hash, method.to_owned(), pattern::of(path))
        } else {
            (0, "*".to_owned(), OTHERS.to_owned())
        };
        let routes = &mut self.routes;
        *self.known.entry((service, hash)).or_insert_with(|| {
            routes.push((hash, RouteStats::new(service, method, pattern)));
            RouteKey(routes.len() - 1)
        })
    }

    /// It has ended.
    pub(crate) fn count(&mut self, key: RouteKey, finished: &Finished) {
        if let Some((_, route)) = self.routes.get_mut(key.0) {
            route.in_flight = route.in_flight.saturating_sub(1);
            route.add(finished);
        }
    }

    pub(crate) fn add_to(&self, all: &mut HashMap<(ServiceId, u64), RouteStats>) {
        for (hash, route) in &self.routes {
            match all.get_mut(&(route.service, *hash)) {
                Some(sum) => sum.merge(route),
                None => {
                    all.insert((route.service, *hash), route.clone());
                }
            }
        }
    }
}

impl RouteStats {
    fn new(service: ServiceId, method: String, pattern: String) -> Self {
        Self {
            service,
            method,
            pattern,
            requests: 0,
            in_flight: 0,
            statuses: [0; 5],
            request_bytes: 0,
            response_bytes: 0,
            held: 0,
            replayed: 0,
            cut_off: 0,
            latency: [0; BUCKETS_MS.len() + 1],
            latency_sum_us: 0,
        }
    }

    fn add(&mut self, finished: &Finished) {
        self.requests += 1;
        if let Some(class) = usize::from(finished.status / 100).checked_sub(1)
            && let Some(count) = self.statuses.get_mut(class)
        {
            *count += 1;
        }
        self.request_bytes += finished.request_bytes;
        self.response_bytes += finished.response_bytes;
        self.held += u64::from(finished.held);
        self.replayed += u64::from(finished.replayed);
        self.cut_off += u64::from(finished.cut_off);
        let micros = finished.took.as_micros();
        let bucket = BUCKETS_MS.iter().position(|bound| micros <= u128::from(*bound) * 1000);
        self.latency[bucket.unwrap_or(BUCKETS_MS.len())] += 1;
        self.latency_sum_us += u64::try_from(micros).unwrap_or(u64::MAX);
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.in_flight += other.in_flight;
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.held += other.held;
        self.replayed += other.replayed;
        self.cut_off += other.cut_off;
        self.latency_sum_us += other.latency_sum_us;
        for (sum, part) in self.statuses.iter_mut().zip(other.statuses) {
            *sum += part;
        }
        for (sum, part) in self.latency.iter_mut().zip(other.latency) {
            *sum += part;
        }
    }

    /// The bucket bound that this share of the requests stays within, in milliseconds; `None` past the last.
    pub fn latency_within_ms(&self, per_mille: u64) -> Option<u32> {
        let wanted = (self.requests * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (bound, count) in BUCKETS_MS.iter().zip(self.latency) {
            seen += count;
            if seen >= wanted {
                return Some(*bound);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(stats: &mut Stats, path: &str, took_ms: u64) {
        let key = stats.begin(ServiceId(0), "GET", path);
        let finished = Finished {
            status: 200,
            request_bytes: 1,
            response_bytes: 10,
            held: false,
            replayed: false,
            cut_off: false,
            took: Duration::from_millis(took_ms),
        };
        stats.count(key, &finished);
    }

    fn sum(stats: &[&Stats]) -> Vec<RouteStats> {
        let mut all = HashMap::new();
        for part in stats {
            part.add_to(&mut all);
        }
        all.into_values().collect()
    }

    #[test]
    fn requests_of_one_pattern_are_counted_together() {
        let mut stats = Stats::default();
        for id in 0..100 {
            served(&mut stats, &format!("/reports/{id}"), if id < 99 { 4 } else { 400 });
        }
        let [route] = &sum(&[&stats, &stats])[..] else { panic!("one route") };
        assert_eq!((route.pattern.as_str(), route.requests, route.statuses[1]), ("/reports/:id", 200, 200));
        assert_eq!(route.latency_within_ms(990), Some(5));
        assert_eq!(route.latency_within_ms(1000), Some(500));
    }

    #[test]
    fn what_has_begun_and_not_ended_is_in_flight() {
        let mut stats = Stats::default();
        served(&mut stats, "/reports/1", 1);
        stats.begin(ServiceId(0), "GET", "/reports/2");
        let [route] = &sum(&[&stats])[..] else { panic!("one route") };
        assert_eq!((route.in_flight, route.requests), (1, 1));
    }

    #[test]
    fn a_client_that_makes_up_paths_costs_a_bounded_number_of_them() {
        let mut stats = Stats::default();
        let word = |mut n: u32| {
            let mut text = String::from("w");
            for _ in 0..6 {
                text.push(char::from(b'g' + u8::try_from(n % 16).unwrap_or(0)));
                n /= 16;
            }
            text
        };
        for n in 0..5_000 {
            served(&mut stats, &format!("/{}", word(n)), 1);
        }
        assert_eq!((stats.routes.len(), stats.known.len()), (PATTERNS_MAX + 1, PATTERNS_MAX + 1));
        assert_eq!(sum(&[&stats]).iter().map(|route| route.requests).sum::<u64>(), 5_000);
    }
}
