//! When to renew, when to look again and how long to back off. Pure: time and luck are arguments.
//!
//! Times are unix seconds, since that is what certificates hold; `luck` is a number from 0 to 1, which spreads a fleet
//! that was started at one moment.

use std::time::Duration;

use instant_acme::ChallengeType;

use super::config::ChallengeKinds;

/// Lives shorter than this are renewed at their half, so that there is time left to fail in.
const SHORT_LIFE: i64 = 10 * 24 * 60 * 60;

/// A directory may not push a renewal later than this share of the life before its end.
const LAST_CALL_DIVISOR: i64 = 10;

/// The share of a life over which the renewals of a fleet are spread.
const SPREAD_DIVISOR: f64 = 50.0;

/// The longest that `Retry-After` is obeyed. Limits of Let's Encrypt are over within a week; longer would be a mistake
/// that stops renewals for good.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(7 * 24);

/// How often renewal information may be asked for, whatever the directory says (RFC 9773, 4.3).
const ASK_MIN: Duration = Duration::from_mins(1);
const ASK_MAX: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub not_before: i64,
    pub not_after: i64,
}

/// When the directory suggests to renew (RFC 9773).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

/// The moment to renew. `luck` belongs to the certificate: drawn again at each look it would come out ever earlier.
pub fn renew_at(life: Lifetime, window: Option<Window>, luck: f64) -> i64 {
    let length = life.not_after.saturating_sub(life.not_before).max(0);
    if let Some(window) = window.filter(|window| window.start < window.end) {
        let last_call = life.not_after.saturating_sub(length / LAST_CALL_DIVISOR);
        let width = window.end.saturating_sub(window.start);
        return window.start.saturating_add(share(width, luck)).min(last_call);
    }
    let left = if length < SHORT_LIFE { length / 2 } else { length / 3 };
    life.not_after.saturating_sub(left).saturating_sub(share(length, luck / SPREAD_DIVISOR))
}

/// How long to sleep until the next look: not past `renew_at`, nor past a jittered `check`.
pub fn next_look(now: i64, renew_at: i64, check: Duration, luck: f64) -> Duration {
    let until = u64::try_from(renew_at.saturating_sub(now)).unwrap_or(0);
    jittered(check, luck).min(Duration::from_secs(until))
}

/// The wait after the `failures`-th failure in a row: doubling from `min` to `max`, at least what the directory asks for.
pub fn backoff(
    failures: u32,
    min: Duration,
    max: Duration,
    retry_after: Option<Duration>,
    luck: f64,
) -> Duration {
    let doubled = min.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(31))).min(max);
    jittered(doubled, luck).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// When to ask for renewal information again. Who looks more often than each minute, at `check`, may ask as often.
pub fn ask_again(now: i64, retry_after: Duration, check: Duration) -> i64 {
    let wait = retry_after.clamp(ASK_MIN.min(check), ASK_MAX);
    now.saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX))
}

/// Which validation to try: the other one after each failure, since a port may be closed to the authority.
pub fn challenge(kinds: ChallengeKinds, failures: u32) -> ChallengeType {
    match (kinds.http_01, kinds.tls_alpn_01) {
        (true, true) if failures % 2 == 1 => ChallengeType::TlsAlpn01,
        (false, true) => ChallengeType::TlsAlpn01,
        (true, _) | (false, false) => ChallengeType::Http01,
    }
}

/// From 80 % to 100 % of `wait`.
fn jittered(wait: Duration, luck: f64) -> Duration {
    wait.mul_f64(0.8 + 0.2 * luck.clamp(0.0, 1.0))
}

/// `luck` of `seconds`.
fn share(seconds: i64, luck: f64) -> i64 {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let share = Duration::from_secs(seconds).mul_f64(luck.clamp(0.0, 1.0));
    i64::try_from(share.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 60 * 60;
    const DAY: i64 = 24 * HOUR;
    const MIN: Duration = Duration::from_mins(1);
    const MAX: Duration = Duration::from_hours(6);

    fn life(days: i64) -> Lifetime {
        Lifetime { not_before: 0, not_after: days * DAY }
    }

    #[test]
    fn ninety_days_are_renewed_with_a_third_left_and_a_short_life_at_its_half() {
        assert_eq!(renew_at(life(90), None, 0.0), 60 * DAY);
        assert_eq!(renew_at(life(90), None, 1.0), 60 * DAY - 90 * DAY / 50);
        assert_eq!(renew_at(life(6), None, 0.0), 3 * DAY);
        assert_eq!(renew_at(life(10), None, 0.0), 10 * DAY - 10 * DAY / 3);
    }

    #[test]
    fn the_directorys_window_counts_more_than_our_third() {
        let early = Window { start: 10 * DAY, end: 12 * DAY };
        assert_eq!(renew_at(life(90), Some(early), 0.0), 10 * DAY);
        assert_eq!(renew_at(life(90), Some(early), 0.5), 11 * DAY);
        assert_eq!(renew_at(life(90), Some(early), 1.0), 12 * DAY);
        let past = Window { start: -2 * DAY, end: -DAY };
        assert!(renew_at(life(90), Some(past), 0.7) < 0, "at once");
    }

    #[test]
    fn no_window_can_push_a_renewal_past_the_last_call() {
        let late = Window { start: 200 * DAY, end: 300 * DAY };
        assert_eq!(renew_at(life(90), Some(late), 0.0), 81 * DAY);
        let reversed = Window { start: 5 * DAY, end: DAY };
        assert_eq!(renew_at(life(90), Some(reversed), 0.0), 60 * DAY, "nonsense is ignored");
    }

    #[test]
    fn the_next_look_is_within_six_hours_and_not_past_the_renewal() {
        assert_eq!(next_look(0, 60 * DAY, MAX, 1.0), MAX);
        assert_eq!(next_look(0, 60 * DAY, MAX, 0.0), MAX.mul_f64(0.8));
        assert_eq!(next_look(0, HOUR, MAX, 1.0), Duration::from_hours(1));
        assert_eq!(next_look(10, 0, MAX, 1.0), Duration::ZERO, "due is due");
    }

    #[test]
    fn failures_double_the_wait_up_to_six_hours() {
        let wait = |failures| backoff(failures, MIN, MAX, None, 1.0);
        assert_eq!(wait(1), Duration::from_mins(1));
        assert_eq!(wait(2), Duration::from_mins(2));
        assert_eq!(wait(9), Duration::from_mins(256));
        assert_eq!(wait(10), MAX);
        assert_eq!(wait(u32::MAX), MAX);
        assert_eq!(backoff(1, MIN, MAX, None, 0.0), Duration::from_secs(48));
    }

    #[test]
    fn a_directory_that_asks_for_patience_gets_it_up_to_a_week() {
        let after = |wait| backoff(1, MIN, MAX, Some(wait), 1.0);
        assert_eq!(after(Duration::from_hours(30)), Duration::from_hours(30));
        assert_eq!(after(Duration::from_secs(1)), MIN);
        assert_eq!(after(Duration::MAX), RETRY_AFTER_MAX);
    }

    #[test]
    fn renewal_information_is_asked_for_between_each_minute_and_each_day() {
        assert_eq!(ask_again(0, Duration::ZERO, MAX), 60);
        assert_eq!(ask_again(0, Duration::from_hours(6), MAX), 6 * HOUR);
        assert_eq!(ask_again(0, Duration::MAX, MAX), DAY);
    }

    #[test]
    fn validations_take_turns_where_both_can_be_answered() {
        let kinds = |http_01, tls_alpn_01| ChallengeKinds { http_01, tls_alpn_01 };
        assert_eq!(challenge(kinds(true, true), 0), ChallengeType::Http01);
        assert_eq!(challenge(kinds(true, true), 1), ChallengeType::TlsAlpn01);
        assert_eq!(challenge(kinds(true, true), 2), ChallengeType::Http01);
        assert_eq!(challenge(kinds(false, true), 0), ChallengeType::TlsAlpn01);
        assert_eq!(challenge(kinds(true, false), 1), ChallengeType::Http01);
    }

    proptest! {
        #[test]
        fn a_renewal_always_leaves_time_to_fail_in(
            length in 10_i64..800 * DAY,
            start in any::<i64>(),
            width in 1_i64..400 * DAY,
            luck in 0.0_f64..=1.0,
            asked in any::<bool>(),
        ) {
            let life = Lifetime { not_before: 0, not_after: length };
            let window = asked.then(|| Window { start, end: start.saturating_add(width) });
            let at = renew_at(life, window, luck);
            prop_assert!(at <= length - length / LAST_CALL_DIVISOR);
        }

        #[test]
        fn a_wait_is_never_nothing_and_never_past_its_bounds(
            failures in 1_u32..10_000,
            luck in 0.0_f64..=1.0,
            asked in prop::option::of(0_u64..10_000_000),
        ) {
            let wait = backoff(failures, MIN, MAX, asked.map(Duration::from_secs), luck);
            prop_assert!(wait >= MIN.mul_f64(0.8) && wait <= RETRY_AFTER_MAX);
        }
    }
}
