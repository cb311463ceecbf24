//! Layer 6: probes. Starting, readiness and liveness are three questions; busy is not hung.

use core::time::Duration;

use crate::config::HealthConfig;
use crate::event::ProbeOutcome;
use crate::planted::{Plant, Planted};
use crate::units::Instant;

/// While starting, the first looks come quickly, since every look late is time dark.
const START_INTERVAL_FIRST: Duration = Duration::from_millis(10);
const START_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// A start probe's interval is this part of the time spent starting, so a slow boot is not pestered.
const START_INTERVAL_PART: u32 = 20;
/// A probe that the driver never answers is given up on this long after its patience.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// The probe that confirms a stall waits for three quarters of `hang`: with the defaults a hang is found after 2 s,
/// confirmed after 3.5 s, and over within the 5 s that are promised.
const CONFIRM_PARTS: u32 = 3;
const CONFIRM_OF: u32 = 4;
/// Failures in a row that make an instance unready; `retries` of them end it.
const UNREADY_AFTER: u32 = 2;

/// What is asked of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) timeout: Duration,
    pub(crate) patience: Duration,
}

/// What an outcome means for an instance that is past starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// Slow, and alive.
    Busy {
        took: Duration,
    },
    Failing {
        failures: u32,
        unready: bool,
    },
    /// `retries` failures in a row.
    Dead {
        failures: u32,
    },
    /// A stall that a probe confirmed.
    Hung,
    /// It could not be asked: what was known before still stands.
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Prober {
    asked: Option<Instant>,
    failures: u32,
    /// The outstanding probe was asked because of a stall.
    confirming: bool,
}

impl Prober {
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether the outstanding probe is there to confirm a stall.
    pub(crate) fn is_confirming(&self) -> bool {
        self.asked.is_some() && self.confirming
    }

    /// The probe to send now, and the deadline after which it counts as lost.
    pub(crate) fn ask(&mut self, now: Instant, health: &HealthConfig, starting: bool) -> (Probe, Duration) {
        self.asked = Some(now);
        let half_more = health.timeout + health.timeout / 2;
        let patience = if starting { health.timeout } else { half_more.max(health.interval) };
        (Probe { timeout: health.timeout, patience }, patience + LOST_AFTER)
    }

    /// A stall was reported: ask at once, with less patience than `hang`, since that much has passed already.
    pub(crate) fn confirm(&mut self, now: Instant, health: &HealthConfig) -> (Probe, Duration) {
        self.asked = Some(now);
        self.confirming = true;
        let patience = health.hang * CONFIRM_PARTS / CONFIRM_OF;
        (Probe { timeout: patience, patience }, patience + LOST_AFTER)
    }

    /// An answer while starting: true when it is the first good one.
    pub(crate) fn started(&mut self, outcome: ProbeOutcome) -> bool {
        self.asked = None;
        self.confirming = false;
        matches!(outcome, ProbeOutcome::Passed { .. } | ProbeOutcome::Late { .. })
    }

    pub(crate) fn judge(&mut self, outcome: ProbeOutcome, health: &HealthConfig, plant: Plant) -> Health {
        self.asked = None;
        let confirming = core::mem::take(&mut self.confirming);
        match outcome {
            ProbeOutcome::Passed { .. } => {
                self.failures = 0;
                Health::Well
            }
            ProbeOutcome::Late { took } if !plant.has(Planted::LateIsDead) => {
                self.failures = 0;
                Health::Busy { took }
            }
            ProbeOutcome::NotAsked => Health::Unknown,
            ProbeOutcome::Unanswered if confirming => Health::Hung,
            ProbeOutcome::Late { .. } | ProbeOutcome::Refused | ProbeOutcome::Unanswered => {
                self.failures += 1;
                let failures = self.failures;
                if failures >= health.retries {
                    Health::Dead { failures }
                } else {
                    Health::Failing { failures, unready: failures >= UNREADY_AFTER }
                }
            }
        }
    }

    /// When to ask next, counted from the last question, so that patience does not stretch the interval.
    pub(crate) fn next(asked: Option<Instant>, now: Instant, health: &HealthConfig) -> Instant {
        let due = asked.unwrap_or(now) + health.interval;
        due.max(now)
    }

    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.asked
    }
}

/// The pause between two looks at an instance that has been starting for `since`.
pub(crate) fn start_interval(since: Duration, health: &HealthConfig) -> Duration {
    let cap = START_INTERVAL_MAX.min(health.interval);
    (since / START_INTERVAL_PART).clamp(START_INTERVAL_FIRST.min(cap), cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_all(outcomes: &[ProbeOutcome]) -> Health {
        let mut prober = Prober::default();
        let health = HealthConfig::default();
        let mut last = Health::Well;
        for outcome in outcomes {
            last = prober.judge(*outcome, &health, Plant::default());
        }
        last
    }

    const LATE: ProbeOutcome = ProbeOutcome::Late { took: Duration::from_secs(12) };
    const PASSED: ProbeOutcome = ProbeOutcome::Passed { took: Duration::from_millis(2) };

    #[test]
    fn an_answer_that_comes_late_is_a_sign_of_life() {
        let slow = judge_all(&[ProbeOutcome::Unanswered, ProbeOutcome::Unanswered, LATE]);
        assert_eq!(slow, Health::Busy { took: Duration::from_secs(12) });
    }

    #[test]
    fn three_failures_in_a_row_end_it_and_a_pass_starts_over() {
        let refused = ProbeOutcome::Refused;
        assert_eq!(judge_all(&[refused, refused, refused]), Health::Dead { failures: 3 });
        assert_eq!(
            judge_all(&[refused, refused, PASSED, refused]),
            Health::Failing { failures: 1, unready: false }
        );
    }

    #[test]
    fn a_question_that_could_not_be_put_changes_nothing() {
        let (refused, not_asked) = (ProbeOutcome::Refused, ProbeOutcome::NotAsked);
        assert_eq!(judge_all(&[refused, refused, not_asked]), Health::Unknown);
        assert_eq!(judge_all(&[refused, refused, not_asked, refused]), Health::Dead { failures: 3 });
    }

    #[test]
    fn a_stall_is_a_hang_only_when_a_probe_confirms_it() {
        let health = HealthConfig::default();
        let mut prober = Prober::default();
        prober.confirm(Instant(0), &health);
        assert_eq!(prober.judge(ProbeOutcome::Unanswered, &health, Plant::default()), Health::Hung);
        prober.confirm(Instant(0), &health);
        assert_eq!(prober.judge(PASSED, &health, Plant::default()), Health::Well);
    }

    #[test]
    fn starting_is_looked_at_quickly_first_and_seldom_later() {
        let health = HealthConfig::default();
        assert_eq!(start_interval(Duration::ZERO, &health), START_INTERVAL_FIRST);
        assert_eq!(start_interval(Duration::from_secs(4), &health), Duration::from_millis(200));
        assert_eq!(start_interval(Duration::from_mins(1), &health), START_INTERVAL_MAX);
    }

    #[test]
    fn patience_reaches_to_the_next_probe() {
        let (probe, lost) = Prober::default().ask(Instant(0), &HealthConfig::default(), false);
        assert_eq!(probe.patience, Duration::from_secs(30));
        assert!(lost > probe.patience);
    }
}
