//! How long a certificate still lasts, and when to worry. Pure: time is an argument.

const DAY: i64 = 24 * 60 * 60;

/// Worry this long before the end, or in the last sixth of a short life.
const SOON: i64 = 14 * DAY;
/// Worry more this long before the end, or in the last twentieth of a short life.
const NEAR: i64 = 3 * DAY;

/// How near a certificate is to its end. Each is said once, when it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    #[default]
    Fine,
    Soon,
    Near,
    Over,
}

/// The stage at `now`; all in unix seconds.
pub(crate) fn stage(not_before: i64, not_after: i64, now: i64) -> Stage {
    let life = not_after.saturating_sub(not_before).max(0);
    let left = not_after.saturating_sub(now);
    if left <= 0 {
        Stage::Over
    } else if left <= NEAR.min(life / 20) {
        Stage::Near
    } else if left <= SOON.min(life / 6) {
        Stage::Soon
    } else {
        Stage::Fine
    }
}

/// Whole days until `not_after`, negative once it is over; both in unix seconds.
pub fn days_left(not_after: i64, now: i64) -> i64 {
    not_after.saturating_sub(now).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_worried_about_two_weeks_and_three_days_before_its_end() {
        let at = |left| stage(0, 365 * DAY, 365 * DAY - left);
        assert_eq!(at(15 * DAY), Stage::Fine);
        assert_eq!(at(14 * DAY), Stage::Soon);
        assert_eq!(at(3 * DAY), Stage::Near);
        assert_eq!(at(0), Stage::Over);
        assert_eq!(at(-DAY), Stage::Over);
    }

    #[test]
    fn six_days_are_not_worried_about_from_the_first_hour() {
        let at = |left| stage(0, 6 * DAY, 6 * DAY - left);
        assert_eq!(at(5 * DAY), Stage::Fine);
        assert_eq!(at(DAY), Stage::Soon);
        assert_eq!(at(DAY / 4), Stage::Near);
    }

    #[test]
    fn nonsense_dates_are_over_and_not_a_panic() {
        assert_eq!(stage(i64::MAX, i64::MIN, i64::MAX), Stage::Over);
        assert_eq!(stage(10, 0, 5), Stage::Over);
        assert_eq!(days_left(i64::MIN, i64::MAX), i64::MIN.div_euclid(DAY));
        assert_eq!(days_left(-1, 0), -1);
    }
}
