//! What each route of each service carries: counts, latency, bytes. Bounded, however many paths there are.

use std::collections::HashMap;
use std::time::Duration;

use plimsoll_core::ServiceId;

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
pub(crate) struct Finished<'a> {
    pub(crate) service: ServiceId,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) held: bool,
    pub(crate) replayed: bool,
    pub(crate) cut_off: bool,
    pub(crate) took: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    routes: HashMap<(ServiceId, u64), RouteStats>,
    patterns: HashMap<ServiceId, usize>,
}

impl Stats {
    pub(crate) fn count(&mut self, finished: &Finished<'_>) {
        let key = (finished.service, pattern::hash(finished.method, finished.path));
        if let Some(route) = self.routes.get_mut(&key) {
            route.add(finished);
            return;
        }
        let known = self.patterns.entry(finished.service).or_default();
        let (key, method, pattern) = if *known < PATTERNS_MAX {
            *known += 1;
            (key, finished.method.to_owned(), pattern::of(finished.path))
        } else {
            ((finished.service, 0), "*".to_owned(), OTHERS.to_owned())
        };
        let route =
            self.routes.entry(key).or_insert_with(|| RouteStats::new(finished.service, method, pattern));
        route.add(finished);
    }

    pub(crate) fn add_to(&self, all: &mut HashMap<(ServiceId, u64), RouteStats>) {
        for (key, route) in &self.routes {
            match all.get_mut(key) {
                Some(sum) => sum.merge(route),
                None => {
                    all.insert(*key, route.clone());
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

    fn add(&mut self, finished: &Finished<'_>) {
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

    fn finished(path: &str, took_ms: u64) -> Finished<'_> {
        Finished {
            service: ServiceId(0),
            method: "GET",
            path,
            status: 200,
            request_bytes: 1,
            response_bytes: 10,
            held: false,
            replayed: false,
            cut_off: false,
            took: Duration::from_millis(took_ms),
        }
    }

    #[test]
    fn requests_of_one_pattern_are_counted_together() {
        let mut stats = Stats::default();
        for id in 0..100 {
            stats.count(&finished(&format!("/reports/{id}"), if id < 99 { 4 } else { 400 }));
        }
        let mut all = HashMap::new();
        stats.add_to(&mut all);
        stats.add_to(&mut all);
        assert_eq!(all.len(), 1);
        let route = all.values().next().expect("one route");
        assert_eq!((route.pattern.as_str(), route.requests, route.statuses[1]), ("/reports/:id", 200, 200));
        assert_eq!(route.latency_within_ms(990), Some(5));
        assert_eq!(route.latency_within_ms(1000), Some(500));
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
            stats.count(&finished(&format!("/{}", word(n)), 1));
        }
        assert_eq!(stats.routes.len(), PATTERNS_MAX + 1);
        let total: u64 = stats.routes.values().map(|route| route.requests).sum();
        assert_eq!(total, 5_000);
    }
}
