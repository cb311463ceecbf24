//! Every draw of a run comes from here, so that a seed is the whole run.

use std::time::Duration;

/// SplitMix64: small, quick, and good enough to draw faults from.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring runs.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.next() % (from.len() as u64);
        from[usize::try_from(index).expect("an index of a slice fits")]
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// Microseconds, so that two things seldom fall on the very same instant by accident.
    pub(crate) fn latency(&mut self, low_millis: u64, high_millis: u64) -> Duration {
        Duration::from_micros(self.between(low_millis * 1000, high_millis * 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_another() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn both_ends_of_a_range_are_drawn() {
        let mut rng = Rng::new(1);
        let draws: Vec<u64> = (0..200).map(|_| rng.between(3, 5)).collect();
        assert!(draws.iter().all(|it| (3..=5).contains(it)));
        assert!(draws.contains(&3) && draws.contains(&5));
    }
}
