//! Measurements summed up by the minute, in memory; the store sums up minutes to hours.

use crate::quick::QuickMap;
use crate::records::{SampleRow, Spread};

pub(super) const MINUTE_SECONDS: i64 = 60;
/// Instances measured within one minute; more are not summed up.
const BUCKETS_MAX: usize = 10_000;

/// A minute of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Minute {
    pub(super) instance: String,
    /// Seconds since 1970 at which it began.
    pub(super) began: i64,
    pub(super) memory: Spread,
    pub(super) descriptors: Option<Spread>,
}

/// The minutes that are not over yet, one per instance.
#[derive(Debug, Default)]
pub(super) struct Rollups {
    buckets: QuickMap<String, Bucket>,
}

impl Rollups {
    /// Adds one measurement; returns the instance's last minute when this one begins the next.
    pub(super) fn add(&mut self, instance: &str, row: &SampleRow) -> Option<Minute> {
        let began = row.time.as_second().div_euclid(MINUTE_SECONDS) * MINUTE_SECONDS;
        let Some(bucket) = self.buckets.get_mut(instance) else {
            if self.buckets.len() < BUCKETS_MAX {
                self.buckets.insert(instance.to_owned(), Bucket::new(began, row));
            }
            return None;
        };
        if bucket.began == began {
            bucket.add(row);
            return None;
        }
        let before = std::mem::replace(bucket, Bucket::new(began, row));
        before.minute(instance)
    }

    /// Takes the minutes that began before this one: those of instances that are measured no more, too.
    pub(super) fn take_before(&mut self, now_seconds: i64) -> Vec<Minute> {
        let current = now_seconds.div_euclid(MINUTE_SECONDS) * MINUTE_SECONDS;
        let over = self.buckets.extract_if(|_, bucket| bucket.began != current);
        over.filter_map(|(instance, bucket)| bucket.minute(&instance)).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Minute> {
        self.buckets.drain().filter_map(|(instance, bucket)| bucket.minute(&instance)).collect()
    }
}

#[derive(Debug)]
struct Bucket {
    began: i64,
    memory: Sum,
    descriptors: Sum,
}

impl Bucket {
    fn new(began: i64, row: &SampleRow) -> Self {
        let mut bucket = Self { began, memory: Sum::default(), descriptors: Sum::default() };
        bucket.add(row);
        bucket
    }

    fn add(&mut self, row: &SampleRow) {
        self.memory.add(row.memory_bytes);
        if let Some(descriptors) = row.descriptors {
            self.descriptors.add(descriptors);
        }
    }

    fn minute(&self, instance: &str) -> Option<Minute> {
        Some(Minute {
            instance: instance.to_owned(),
            began: self.began,
            memory: self.memory.spread()?,
            descriptors: self.descriptors.spread(),
        })
    }
}

#[derive(Debug, Default)]
struct Sum {
    min: u64,
    max: u64,
    total: u128,
    count: u64,
}

impl Sum {
    fn add(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.total += u128::from(value);
        self.count += 1;
    }

    fn spread(&self) -> Option<Spread> {
        let avg = self.total.checked_div(u128::from(self.count))?;
        let avg = u64::try_from(avg).unwrap_or(u64::MAX);
        Some(Spread { min: self.min, avg, max: self.max, count: self.count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn row(second: i64, memory_bytes: u64, descriptors: Option<u64>) -> SampleRow {
        let time = Timestamp::from_second(second).unwrap();
        SampleRow { time, memory_bytes, charged_bytes: memory_bytes, descriptors }
    }

    #[test]
    fn a_minute_is_given_when_the_next_one_begins() {
        let mut rollups = Rollups::default();
        assert_eq!(rollups.add("a.1", &row(120, 10, None)), None);
        assert_eq!(rollups.add("a.1", &row(179, 30, Some(5))), None);
        let minute = rollups.add("a.1", &row(180, 99, None)).unwrap();
        assert_eq!((minute.began, minute.instance.as_str()), (120, "a.1"));
        assert_eq!(minute.memory, Spread { min: 10, avg: 20, max: 30, count: 2 });
        assert_eq!(minute.descriptors, Some(Spread { min: 5, avg: 5, max: 5, count: 1 }));
    }

    #[test]
    fn an_instance_that_is_measured_no_more_is_taken_at_the_minutes_end() {
        let mut rollups = Rollups::default();
        rollups.add("a.1", &row(120, 10, None));
        assert!(rollups.take_before(179).is_empty());
        assert_eq!(rollups.take_before(180).len(), 1);
        assert!(rollups.take_all().is_empty());
    }
}
