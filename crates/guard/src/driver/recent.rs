//! The last measurements of an instance, for the evidence. Kept small, because there may be a thousand instances.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::records::SampleRow;

/// Measurements kept at full rate: at the fastest pace the last six seconds, far from the line two minutes.
const ROWS_MAX: usize = 120;
const KIB: u64 = 1024;
/// Stands for a measurement without them.
const NOT_COUNTED: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Packed>);

/// Half as large as the row itself: whole KiB, of which the kernel's own figures are made, and whole milliseconds.
#[derive(Clone, Copy, Debug)]
struct Packed {
    millis: i64,
    memory_kib: u32,
    charged_kib: u32,
    descriptors: u32,
}

impl Recent {
    pub(super) fn keep(&mut self, row: &SampleRow) {
        if self.0.len() == ROWS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Packed {
            millis: row.time.as_millisecond(),
            memory_kib: small(row.memory_bytes / KIB),
            charged_kib: small(row.charged_bytes / KIB),
            descriptors: row.descriptors.map_or(NOT_COUNTED, small),
        });
    }

    /// Oldest first.
    pub(super) fn rows(&self) -> Vec<SampleRow> {
        self.0.iter().filter_map(|packed| packed.row()).collect()
    }
}

impl Packed {
    fn row(self) -> Option<SampleRow> {
        Some(SampleRow {
            time: Timestamp::from_millisecond(self.millis).ok()?,
            memory_bytes: u64::from(self.memory_kib) * KIB,
            charged_bytes: u64::from(self.charged_kib) * KIB,
            descriptors: (self.descriptors != NOT_COUNTED).then(|| self.descriptors.into()),
        })
    }
}

/// Up to 4 TiB of KiB; what is more is shown as that.
fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX).min(NOT_COUNTED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(second: i64, descriptors: Option<u64>) -> SampleRow {
        let time = Timestamp::from_second(second).unwrap();
        SampleRow { time, memory_bytes: 300 << 20, charged_bytes: 5 << 40, descriptors }
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let mut recent = Recent::default();
        recent.keep(&row(7, None));
        recent.keep(&row(8, Some(34)));
        let rows = recent.rows();
        assert_eq!(
            (rows[0].time, rows[0].memory_bytes, rows[0].descriptors),
            (row(7, None).time, 300 << 20, None)
        );
        assert_eq!(rows[1].descriptors, Some(34));
        assert_eq!(
            rows[1].charged_bytes,
            u64::from(u32::MAX - 1) * KIB,
            "more than can be kept is still a lot"
        );
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut recent = Recent::default();
        (0..200).for_each(|second| recent.keep(&row(second, None)));
        let rows = recent.rows();
        assert_eq!((rows.len(), rows[0].time), (ROWS_MAX, row(80, None).time));
        assert_eq!(size_of::<Packed>() * 2, size_of::<SampleRow>());
    }
}
