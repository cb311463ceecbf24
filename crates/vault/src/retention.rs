//! Which snapshots are kept: the newest of each of the last days, weeks and months that have one.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::names::{Millis, SegmentName, SnapshotName};

const DAY_MS: u64 = 86_400_000;
/// The first of January 1970 was a Thursday; weeks begin on Monday.
const DAYS_BEFORE_MONDAY: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
}

/// The number of the period in which a time is.
type Period = fn(Millis) -> u64;

/// The snapshots that stay: the newest, the newest good one, the newest of each period, and all that any transaction of
/// the last `history` is restored from.
pub fn kept(
    snapshots: &[SnapshotName],
    is_good: impl Fn(&SnapshotName) -> bool,
    keep: Keep,
    history: Duration,
    now: Millis,
) -> BTreeSet<SnapshotName> {
    let mut newest_first = snapshots.to_vec();
    newest_first.sort_unstable_by(|one, two| two.cmp(one));
    let mut kept = BTreeSet::new();
    kept.extend(newest_first.first());
    kept.extend(newest_first.iter().find(|it| is_good(it)));
    let periods: [(u32, Period); 3] = [(keep.daily, day), (keep.weekly, week), (keep.monthly, month)];
    for (count, period) in periods {
        let mut seen = BTreeSet::new();
        for snapshot in &newest_first {
            if seen.len() < count as usize && seen.insert(period(snapshot.time)) {
                kept.insert(*snapshot);
            }
        }
    }
    kept.extend(since(&newest_first, history, now));
    kept
}

/// Those within `history`, and the last one before it: what its first moment is restored from.
fn since(newest_first: &[SnapshotName], history: Duration, now: Millis) -> &[SnapshotName] {
    let begin = begin(history, now);
    let within = newest_first.iter().take_while(|it| it.time >= begin).count();
    &newest_first[..newest_first.len().min(within + 1)]
}

fn begin(history: Duration, now: Millis) -> Millis {
    Millis(now.0.saturating_sub(u64::try_from(history.as_millis()).unwrap_or(u64::MAX)))
}

/// Segments that no kept moment needs any more: they end before the snapshot from which the first moment of `history`
/// is restored.
pub fn outlived<'a>(
    segments: &'a [SegmentName],
    snapshots: &BTreeSet<SnapshotName>,
    history: Duration,
    now: Millis,
) -> Vec<&'a SegmentName> {
    let begin = begin(history, now);
    let Some(base) = snapshots.iter().filter(|it| it.time < begin).max() else { return Vec::new() };
    // The clock may have stood wrong: by their transactions too nothing within `history` begins before it.
    let within = snapshots.iter().filter(|it| it.time >= begin).map(|it| it.tx);
    let floor = within.chain([base.tx]).min().unwrap_or(base.tx);
    segments.iter().filter(|it| it.last <= floor && it.time < begin).collect()
}

fn day(time: Millis) -> u64 {
    time.0 / DAY_MS
}

fn week(time: Millis) -> u64 {
    (day(time) + DAYS_BEFORE_MONDAY) / 7
}

fn month(time: Millis) -> u64 {
    let date = jiff::tz::Offset::UTC.to_datetime(time.timestamp()).date();
    let [year, month] = [date.year(), i16::from(date.month())].map(|it| u64::try_from(it).unwrap_or(0));
    year * 12 + month
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{Hash, Part};
    use crate::position::{Epoch, Tx};

    const EPOCH: Epoch = Epoch { number: 1, nonce: 1 };
    const KEEP: Keep = Keep { daily: 7, weekly: 4, monthly: 12 };
    const HOUR_MS: u64 = 3_600_000;
    const HISTORY: Duration = Duration::from_hours(24);

    fn at(hour: u64) -> SnapshotName {
        SnapshotName { time: Millis(hour * HOUR_MS), epoch: EPOCH, tx: Tx(hour), hash: Hash::of(b"") }
    }

    fn kept_of(hours: &[u64], now: u64) -> Vec<u64> {
        let all: Vec<_> = hours.iter().map(|hour| at(*hour)).collect();
        let kept = kept(&all, |_| false, KEEP, Duration::ZERO, Millis(now * HOUR_MS));
        kept.iter().map(|it| it.tx.0).collect()
    }

    #[test]
    fn a_year_of_daily_snapshots_leaves_days_weeks_and_months() {
        // 2024-01-01 to 2024-12-31, each at 03:00.
        let first = 19_723 * 24 + 3;
        let hours: Vec<u64> = (0..366).map(|day| first + day * 24).collect();
        let kept = kept_of(&hours, first + 366 * 24);
        let days: Vec<u64> = kept.iter().map(|hour| (hour - first) / 24).collect();
        // Last days of the months, Sundays, and the last seven days.
        assert_eq!(
            days,
            [30, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 349, 356, 359, 360, 361, 362, 363, 364, 365]
        );
    }

    #[test]
    fn of_two_on_one_day_the_newer_stays() {
        assert_eq!(kept_of(&[1, 5, 25, 30], 40), [5, 30]);
    }

    #[test]
    fn the_newest_good_one_stays_however_old() {
        let all: Vec<_> = (0..40).map(|day| at(day * 24)).collect();
        let keep = Keep { daily: 1, weekly: 0, monthly: 0 };
        let kept = kept(&all, |it| it.tx.0 == 48, keep, Duration::ZERO, Millis(1000 * HOUR_MS));
        assert_eq!(kept.iter().map(|it| it.tx.0).collect::<Vec<_>>(), [48, 39 * 24]);
    }

    proptest! {
        #[test]
        fn every_moment_of_the_history_keeps_what_it_is_restored_from(
            hours in proptest::collection::btree_set(0..500_u64, 1..40),
            now in 500..600_u64,
        ) {
            let all: Vec<_> = hours.iter().map(|hour| at(*hour)).collect();
            let now = Millis(now * HOUR_MS);
            let kept = kept(&all, |_| false, Keep { daily: 0, weekly: 0, monthly: 0 }, HISTORY, now);
            let segments: Vec<_> = (0..500)
                .map(|hour| SegmentName {
                    epoch: EPOCH, first: Tx(hour), last: Tx(hour), time: Millis(hour * HOUR_MS),
                    part: Part::WHOLE, bridge: None, hash: Hash::of(b""),
                })
                .collect();
            let gone: BTreeSet<u64> = outlived(&segments, &kept, HISTORY, now).iter().map(|it| it.last.0).collect();
            for moment in (now.0 / HOUR_MS - 24)..500 {
                let Some(base) = all.iter().filter(|it| it.tx.0 <= moment).max() else { continue };
                prop_assert!(kept.contains(base));
                prop_assert!((base.tx.0 + 1..=moment).all(|tx| !gone.contains(&tx)));
            }
        }
    }
}
