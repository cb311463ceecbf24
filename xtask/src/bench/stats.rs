//! Median, p99 and maximum of samples.

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Summary {
    /// `None` of no samples: there is nothing to say about them.
    pub(super) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        Some(Self { count: sorted.len(), median: percentile(&sorted, 50), p99: percentile(&sorted, 99), max })
    }
}

/// By nearest rank: the smallest sample that this share of all is not above. Of fewer than 100 samples the p99 is the
/// largest, so that no bad one is ever smoothed away.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_by_nearest_rank() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(
            Summary::of(&samples),
            Some(Summary { count: 200, median: 100.0, p99: 198.0, max: 200.0 })
        );
        assert_eq!(Summary::of(&[3.0, 1.0]), Some(Summary { count: 2, median: 1.0, p99: 3.0, max: 3.0 }));
        assert_eq!(Summary::of(&[]), None);
    }
}
