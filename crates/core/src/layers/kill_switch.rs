//! Layer 4: the line. Three axes (level, persistence, slope) and a pace of looking that quickens as the line nears.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::hard_wall;
use crate::cause::{Axis, Urgency};
use crate::config::MemoryConfig;
use crate::planted::{Plant, Planted};
use crate::units::{Bytes, BytesPerSecond, Instant};

/// Far from the line.
pub const INTERVAL_FAR: Duration = Duration::from_secs(1);
/// At three quarters of the line.
pub const INTERVAL_MIDDLE: Duration = Duration::from_millis(250);
/// Within an eighth of the line.
pub const INTERVAL_NEAR: Duration = Duration::from_millis(100);
/// About to cross the line.
pub const INTERVAL_CLOSING: Duration = Duration::from_millis(10);
/// Over the line.
pub const INTERVAL_OVER: Duration = Duration::from_millis(50);
/// After a failed measurement.
const INTERVAL_BLIND: Duration = Duration::from_millis(250);
/// How far back "the present slope" looks.
const SLOPE_WINDOW: Duration = Duration::from_secs(1);
/// An older sample than this says nothing about the present.
const SLOPE_STALE: Duration = Duration::from_secs(3);
/// Closer than this, two samples measure the clock rather than the growth.
const SLOPE_SPAN_MIN: Duration = Duration::from_millis(20);
const HISTORY_MAX: usize = 32;

/// What the samples call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) axis: Axis,
    pub(crate) urgency: Urgency,
    pub(crate) slope: BytesPerSecond,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Armed,
    /// The service needs more than the line just to run: acting on it would recycle for ever.
    Refused {
        baseline: Bytes,
    },
}

/// How an observation moved the instance against its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossing {
    None,
    Over,
    Under,
}

#[derive(Debug)]
pub(crate) struct KillSwitch {
    line: Line,
    /// What the instance used once it was ready.
    baseline: Option<Bytes>,
    history: VecDeque<(Instant, Bytes)>,
    over_since: Option<Instant>,
    /// Failed measurements in a row.
    failures: u32,
}

impl KillSwitch {
    pub(crate) fn new() -> Self {
        Self { line: Line::Armed, baseline: None, history: VecDeque::new(), over_since: None, failures: 0 }
    }

    pub(crate) fn line(&self) -> Line {
        self.line
    }

    pub(crate) fn latest(&self) -> Option<Bytes> {
        self.history.back().map(|(_, level)| *level)
    }

    /// Takes one measurement. `Crossing` is for the record; [`Self::verdict`] decides.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        level: Bytes,
        memory: &MemoryConfig,
        plant: Plant,
    ) -> Crossing {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((now, level));
        match (level > memory.recycle, self.over_since) {
            (true, None) => {
                self.over_since = Some(now);
                Crossing::Over
            }
            (false, Some(_)) if !plant.has(Planted::SpikeIsForEver) => {
                self.over_since = None;
                Crossing::Under
            }
            (true | false, _) => Crossing::None,
        }
    }

    /// What the latest measurement calls for. `stop_time` is how long a drain and a stop may take.
    pub(crate) fn verdict(
        &self,
        now: Instant,
        memory: &MemoryConfig,
        stop_time: Duration,
        plant: Plant,
    ) -> Option<Verdict> {
        let level = self.latest()?;
        let slope = self.slope(now);
        let near = hard_wall::near(memory);
        if level >= near {
            let urgency = if plant.has(Planted::DrainAtTheWall) { Urgency::Gentle } else { Urgency::Hard };
            return Some(Verdict { axis: Axis::Level, urgency, slope });
        }
        if self.line != Line::Armed {
            return None;
        }
        let since = self.over_since?;
        let outruns = slope.is_growth() && level + slope.over(stop_time) >= near;
        if outruns && self.is_rising() && level > memory.recycle && !plant.has(Planted::SlopeIgnored) {
            return Some(Verdict { axis: Axis::Slope, urgency: Urgency::Urgent, slope });
        }
        (now.since(since) >= memory.persistence).then_some(Verdict {
            axis: Axis::Persistence,
            urgency: Urgency::Gentle,
            slope,
        })
    }

    /// Growth over the last second, or since the last sample where that is longer ago.
    pub(crate) fn slope(&self, now: Instant) -> BytesPerSecond {
        let Some((last_at, last)) = self.history.back().copied() else { return BytesPerSecond(0) };
        let mut base = None;
        for (at, level) in self.history.iter().rev().skip(1) {
            let age = last_at.since(*at);
            if age > SLOPE_WINDOW && base.is_some() {
                break;
            }
            if age > SLOPE_STALE {
                break;
            }
            base = Some((*at, *level));
        }
        match base {
            Some((at, level)) if last_at.since(at) >= SLOPE_SPAN_MIN && now.since(last_at) < SLOPE_STALE => {
                rate(level, last, last_at.since(at))
            }
            Some(_) | None => BytesPerSecond(0),
        }
    }

    /// The boot baseline, taken once the instance is ready. True when the line was refused for it.
    pub(crate) fn settle_baseline(&mut self, baseline: Bytes, memory: &MemoryConfig) -> bool {
        self.baseline = Some(baseline);
        let refused = baseline > memory.recycle;
        self.line = if refused { Line::Refused { baseline } } else { Line::Armed };
        refused
    }

    pub(crate) fn baseline(&self) -> Option<Bytes> {
        self.baseline
    }

    /// New settings: forget what was decided under the old ones, but not what the instance needs just to run. True
    /// when the new line is refused for it.
    pub(crate) fn rearm(&mut self, memory: &MemoryConfig) -> bool {
        self.over_since = None;
        self.line = Line::Armed;
        self.baseline.is_some_and(|baseline| self.settle_baseline(baseline, memory))
    }

    /// A bug for the simulator: the line stands wherever it is drawn.
    pub(crate) fn accept_any_line(&mut self) {
        self.baseline = None;
        self.line = Line::Armed;
    }

    /// Counts a failed measurement and says how many there were in a row.
    pub(crate) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// True when measurements had failed until now.
    pub(crate) fn recovered(&mut self) -> bool {
        core::mem::take(&mut self.failures) > 0
    }

    /// When to look next. `wake_ups` says whether the kernel would tell us in between.
    pub(crate) fn interval(&self, now: Instant, memory: &MemoryConfig, wake_ups: bool) -> Duration {
        let pace = self.pace(now, memory, wake_ups);
        // Blind is no reason to look less often than the last level called for.
        if self.failures > 0 { pace.min(INTERVAL_BLIND) } else { pace }
    }

    fn pace(&self, now: Instant, memory: &MemoryConfig, wake_ups: bool) -> Duration {
        let far = if wake_ups { INTERVAL_FAR } else { INTERVAL_MIDDLE };
        let Some(level) = self.latest() else { return INTERVAL_NEAR };
        // With the line refused only the wall is left to watch for.
        let line = match self.line {
            Line::Armed => memory.recycle,
            Line::Refused { .. } => hard_wall::near(memory),
        };
        if level > line {
            return INTERVAL_OVER;
        }
        let step = if level >= line.scaled(7, 8) {
            INTERVAL_NEAR
        } else if level >= line.scaled(3, 4) {
            INTERVAL_MIDDLE
        } else {
            far
        };
        let slope = self.slope(now);
        if !slope.is_growth() {
            return step;
        }
        let until_line =
            Duration::from_millis((line - level).0.saturating_mul(1000) / slope.0.unsigned_abs());
        // The kernel's wake-up counts page cache too and so comes before the crossing: what it shows to be growing must
        // not go unseen for a tenth of a second then.
        (until_line / 4).clamp(INTERVAL_CLOSING, step)
    }

    fn is_rising(&self) -> bool {
        let mut latest = self.history.iter().rev();
        match (latest.next(), latest.next()) {
            (Some((_, last)), Some((_, before))) => last > before,
            (Some(_) | None, _) => false,
        }
    }
}

fn rate(from: Bytes, to: Bytes, span: Duration) -> BytesPerSecond {
    let change = i128::from(to.0) - i128::from(from.0);
    let micros = i128::try_from(span.as_micros()).unwrap_or(i128::MAX).max(1);
    let saturated = if change < 0 { i64::MIN } else { i64::MAX };
    BytesPerSecond(i64::try_from(change * 1_000_000 / micros).unwrap_or(saturated))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP_TIME: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    /// Feeds (millisecond, MiB) samples and returns the verdict after the last.
    fn after(samples: &[(u64, u64)]) -> Option<Verdict> {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        for (millis, mib) in samples {
            switch.observe(at(*millis), Bytes::mib(*mib), &memory, Plant::default());
        }
        switch.verdict(at(samples[samples.len() - 1].0), &memory, STOP_TIME, Plant::default())
    }

    #[test]
    fn a_short_visit_over_the_line_is_left_alone() {
        assert_eq!(after(&[(0, 290), (1000, 302), (2000, 302), (4000, 302)]), None);
        assert_eq!(after(&[(0, 305), (4000, 305), (4500, 290), (5500, 301)]), None);
    }

    #[test]
    fn staying_over_the_line_is_a_gentle_recycle() {
        let verdict = after(&[(0, 302), (2500, 302), (5000, 302)]).map(|it| (it.axis, it.urgency));
        assert_eq!(verdict, Some((Axis::Persistence, Urgency::Gentle)));
    }

    #[test]
    fn growth_that_would_outrun_the_stop_is_urgent() {
        let verdict = after(&[(0, 85), (1000, 310)]).map(|it| (it.axis, it.urgency));
        assert_eq!(verdict, Some((Axis::Slope, Urgency::Urgent)));
    }

    #[test]
    fn growth_that_leaves_time_to_stop_waits_for_persistence() {
        assert_eq!(after(&[(0, 298), (1000, 302)]), None);
    }

    #[test]
    fn near_the_wall_there_is_no_time_left() {
        let verdict = after(&[(0, 480)]).map(|it| (it.axis, it.urgency));
        assert_eq!(verdict, Some((Axis::Level, Urgency::Hard)));
    }

    #[test]
    fn a_refused_line_is_not_watched_as_if_it_were_crossed() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        switch.observe(at(0), Bytes::mib(320), &memory, Plant::default());
        assert_eq!(switch.interval(at(0), &memory, true), INTERVAL_OVER);
        switch.settle_baseline(Bytes::mib(320), &memory);
        assert_eq!(switch.interval(at(0), &memory, true), INTERVAL_FAR);
    }

    #[test]
    fn new_settings_do_not_forget_what_the_service_needs_just_to_run() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        assert!(!switch.rearm(&memory), "nothing is known yet");
        switch.settle_baseline(Bytes::mib(320), &memory);
        assert!(switch.rearm(&memory));
        let higher = MemoryConfig::with_defaults(None, Some(Bytes::mib(1024)), None);
        assert!(!switch.rearm(&higher));
        assert_eq!(switch.line(), Line::Armed);
    }

    #[test]
    fn a_failed_measurement_never_slows_the_watch_down() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        switch.observe(at(0), Bytes::mib(100), &memory, Plant::default());
        switch.failed();
        assert_eq!(switch.interval(at(0), &memory, true), INTERVAL_BLIND);
        switch.observe(at(10), Bytes::mib(301), &memory, Plant::default());
        switch.failed();
        assert_eq!(switch.interval(at(10), &memory, true), INTERVAL_OVER);
    }

    #[test]
    fn a_refused_line_still_leaves_the_wall_guarded() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        assert!(switch.settle_baseline(Bytes::mib(320), &memory));
        switch.observe(at(0), Bytes::mib(320), &memory, Plant::default());
        switch.observe(at(9000), Bytes::mib(320), &memory, Plant::default());
        assert_eq!(switch.verdict(at(9000), &memory, STOP_TIME, Plant::default()), None);
        switch.observe(at(9100), Bytes::mib(490), &memory, Plant::default());
        let verdict = switch.verdict(at(9100), &memory, STOP_TIME, Plant::default());
        assert_eq!(verdict.map(|it| it.axis), Some(Axis::Level));
    }

    #[test]
    fn looking_quickens_as_the_line_nears() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        let mut pace = |millis, mib| {
            switch.observe(at(millis), Bytes::mib(mib), &memory, Plant::default());
            switch.interval(at(millis), &memory, true)
        };
        assert_eq!(pace(0, 85), INTERVAL_FAR);
        assert_eq!(pace(10_000, 230), INTERVAL_MIDDLE);
        assert_eq!(pace(20_000, 280), INTERVAL_NEAR);
        assert_eq!(pace(30_000, 301), INTERVAL_OVER);
    }

    #[test]
    fn a_steep_slope_quickens_it_from_afar() {
        let memory = MemoryConfig::default();
        let mut switch = KillSwitch::new();
        switch.observe(at(0), Bytes::mib(50), &memory, Plant::default());
        switch.observe(at(1000), Bytes::mib(150), &memory, Plant::default());
        assert_eq!(switch.interval(at(1000), &memory, true), Duration::from_millis(375));
    }
}
