//! How much output a service may store: a steady rate, with room for a burst.

use std::time::{Duration, Instant};

/// Once dry, nothing is let through for this long: a gap then is one gap, and what follows it is whole lines in a row.
const DRY_FOR: Duration = Duration::from_secs(1);

/// Bytes per second, and how many more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) bytes_per_second: u64,
    pub(super) burst_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Bucket {
    bytes: u64,
    filled: Instant,
    dry_until: Option<Instant>,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { bytes: rate.burst_bytes, filled: now, dry_until: None }
    }

    /// Whether so many bytes may pass.
    pub(super) fn admit(&mut self, rate: Rate, now: Instant, bytes: u64) -> bool {
        self.fill(rate, now);
        if self.dry_until.is_some_and(|until| now < until) {
            return false;
        }
        self.dry_until = None;
        let left = self.bytes.checked_sub(bytes);
        if left.is_none() {
            self.dry_until = Some(now + DRY_FOR);
        }
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    /// Time too short for a whole byte is left for the next call.
    fn fill(&mut self, rate: Rate, now: Instant) {
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        let gained = u64::try_from(nanos.saturating_mul(u128::from(rate.bytes_per_second)) / 1_000_000_000)
            .unwrap_or(u64::MAX);
        if gained > 0 {
            self.bytes = self.bytes.saturating_add(gained).min(rate.burst_bytes);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { bytes_per_second: 1000, burst_bytes: 3000 };

    #[test]
    fn a_burst_passes_then_nothing_for_a_second_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        assert!(bucket.admit(RATE, start, 3000));
        let later = start + Duration::from_millis(500);
        assert!(!bucket.admit(RATE, later, 501));
        assert!(!bucket.admit(RATE, later + Duration::from_millis(900), 1), "dry for a whole second");
        let wet = later + DRY_FOR;
        assert!(bucket.admit(RATE, wet, 1500));
        assert!(!bucket.admit(RATE, wet, 1));
    }

    #[test]
    fn rest_fills_it_up_to_a_burst_and_no_further() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        assert!(bucket.admit(RATE, start, 3000));
        let rested = start + Duration::from_hours(1);
        assert!(bucket.admit(RATE, rested, 3000));
        assert!(!bucket.admit(RATE, rested, 1));
    }

    #[test]
    fn many_small_waits_add_up() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        assert!(bucket.admit(RATE, start, 3000));
        for micros in 1..=2000 {
            bucket.fill(RATE, start + Duration::from_micros(micros));
        }
        assert!(bucket.admit(RATE, start + Duration::from_millis(2), 2));
    }
}
