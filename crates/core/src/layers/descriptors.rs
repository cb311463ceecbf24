//! Layer 3: descriptors. Their count against the limit, before EMFILE turns up as an unrelated error.

use core::time::Duration;

use crate::cause::Urgency;
use crate::config::DescriptorConfig;
use crate::units::Instant;

/// Counting costs a look at every process, so far from the limit it is done less often than measuring memory.
const INTERVAL_FAR: Duration = Duration::from_secs(5);
const INTERVAL_NEAR: Duration = Duration::from_millis(100);
/// A leak that nobody has seen yet may be this fast, per second.
const LEAK_UNSEEN: u64 = 500;
/// So many looks are wanted on the way to the line, at the pace that is known or feared.
const LOOKS: u64 = 4;
/// From here on accept and open fail any moment: thousandths of the limit.
const BRINK: u64 = 980;
/// A slope over less time than this is noise.
const SLOPE_SPAN_MIN: Duration = Duration::from_millis(200);
/// The base of the slope moves on when it is older than this.
const SLOPE_WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    latest: Option<(Instant, u64)>,
    base: Option<(Instant, u64)>,
    next_base: Option<(Instant, u64)>,
}

impl Descriptors {
    pub(crate) fn latest(&self) -> Option<u64> {
        self.latest.map(|(_, count)| count)
    }

    pub(crate) fn observe(&mut self, now: Instant, count: u64) {
        self.latest = Some((now, count));
        let point = (now, count);
        if self.base.is_none_or(|(at, _)| now.since(at) > SLOPE_WINDOW) {
            self.base = self.next_base.replace(point).or(Some(point));
        }
    }

    /// Descriptors gained per second, over up to the last twenty; 0 when they fall or when too little is known.
    pub(crate) fn slope_per_second(&self) -> u64 {
        let (Some((now, count)), Some((at, base))) = (self.latest, self.base) else { return 0 };
        let span = now.since(at);
        if span < SLOPE_SPAN_MIN {
            return 0;
        }
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        count.saturating_sub(base).saturating_mul(1000) / millis
    }

    /// Gentle at the share; urgent at the brink, or where the limit would be met before a drain and a stop are done.
    pub(crate) fn verdict(&self, config: &DescriptorConfig, stop_time: Duration) -> Option<Urgency> {
        let count = self.latest()?;
        if count < config.recycle.of(config.limit) {
            return None;
        }
        let gained = self.slope_per_second().saturating_mul(stop_time.as_secs());
        let brink = config.limit.saturating_mul(BRINK) / 1000;
        Some(if count + gained >= brink { Urgency::Urgent } else { Urgency::Gentle })
    }

    /// Whether this sample should count descriptors too.
    pub(crate) fn is_due(&self, now: Instant, config: &DescriptorConfig) -> bool {
        let Some((at, count)) = self.latest else { return true };
        now.since(at) >= interval(count, config, self.slope_per_second())
    }

    /// An upper bound for the pace of samples while descriptors near their line.
    pub(crate) fn pace(&self, config: &DescriptorConfig) -> Option<Duration> {
        let (_, count) = self.latest?;
        let pace = interval(count, config, self.slope_per_second());
        (pace < INTERVAL_FAR).then_some(pace)
    }
}

fn interval(count: u64, config: &DescriptorConfig, slope_per_second: u64) -> Duration {
    let room = config.recycle.of(config.limit).saturating_sub(count);
    let pace = slope_per_second.max(LEAK_UNSEEN).saturating_mul(LOOKS);
    Duration::from_millis(room.saturating_mul(1000) / pace).clamp(INTERVAL_NEAR, INTERVAL_FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    fn after(counts: &[(u64, u64)]) -> Option<Urgency> {
        let mut descriptors = Descriptors::default();
        for (millis, count) in counts {
            descriptors.observe(at(*millis), *count);
        }
        descriptors.verdict(&DescriptorConfig::default(), Duration::from_secs(10))
    }

    #[test]
    fn below_the_share_nothing_happens() {
        assert_eq!(after(&[(0, 7371)]), None);
    }

    #[test]
    fn a_slow_leak_over_the_share_recycles_gently() {
        assert_eq!(after(&[(0, 7370), (1000, 7373)]), Some(Urgency::Gentle));
    }

    #[test]
    fn a_fast_leak_over_the_share_is_urgent() {
        assert_eq!(after(&[(0, 7000), (1000, 7400)]), Some(Urgency::Urgent));
        assert_eq!(after(&[(0, 8100)]), Some(Urgency::Urgent));
    }

    #[test]
    fn counting_is_rare_far_away_and_frequent_near_the_share() {
        let config = DescriptorConfig::default();
        let mut descriptors = Descriptors::default();
        assert!(descriptors.is_due(at(0), &config));
        descriptors.observe(at(0), 34);
        assert!(!descriptors.is_due(at(3000), &config));
        assert!(descriptors.is_due(at(4000), &config));
        descriptors.observe(at(60_000), 7300);
        assert!(descriptors.is_due(at(60_100), &config));
    }

    #[test]
    fn a_small_limit_is_looked_at_more_often_than_a_large_one() {
        let small = DescriptorConfig { limit: 256, ..DescriptorConfig::default() };
        assert_eq!(interval(13, &small, 0), Duration::from_millis(108));
        assert_eq!(interval(13, &DescriptorConfig { limit: 65_536, ..small }, 0), INTERVAL_FAR);
    }
}
