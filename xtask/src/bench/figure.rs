//! One measured figure, and the promise that it is held against.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::stats::Summary;

/// Of more samples only the summary is written down.
const SAMPLES_WRITTEN_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Figure {
    /// What was measured, as a reader of the table should understand it.
    pub(super) what: String,
    unit: Unit,
    samples: Vec<f64>,
    /// How it compares: to whom, the part says.
    ratio: Option<f64>,
    promise: Option<Promise>,
}

/// What is promised of a figure; times in seconds, all else in the unit of the samples.
#[derive(Debug, Clone, Copy)]
enum Promise {
    P99AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// What the samples count; times are kept in seconds.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Seconds,
    Bytes,
    BytesPerSecond,
    PerSecond,
    /// Of one core; 1 is all of it.
    Cores,
    Count,
}

impl Figure {
    pub(super) fn times(what: &str, samples: &[Duration]) -> Self {
        Self::new(what, Unit::Seconds, samples.iter().map(Duration::as_secs_f64).collect())
    }

    pub(super) fn bytes(what: &str, samples: &[u64]) -> Self {
        Self::new(what, Unit::Bytes, whole(samples))
    }

    pub(super) fn byte_rates(what: &str, per_second: &[f64]) -> Self {
        Self::new(what, Unit::BytesPerSecond, per_second.to_vec())
    }

    pub(super) fn rates(what: &str, per_second: &[f64]) -> Self {
        Self::new(what, Unit::PerSecond, per_second.to_vec())
    }

    pub(super) fn cores(what: &str, shares: &[f64]) -> Self {
        Self::new(what, Unit::Cores, shares.to_vec())
    }

    pub(super) fn counts(what: &str, samples: &[u64]) -> Self {
        Self::new(what, Unit::Count, whole(samples))
    }

    fn new(what: &str, unit: Unit, samples: Vec<f64>) -> Self {
        Self { what: what.to_owned(), unit, samples, ratio: None, promise: None }
    }

    /// Promised is that the p99 is at most this, in the unit of the samples.
    pub(super) fn promised(self, p99_max: f64) -> Self {
        Self { promise: Some(Promise::P99AtMost(p99_max)), ..self }
    }

    /// How it compares with another; `None` where that could not be measured.
    pub(super) fn compared(self, ratio: Option<f64>) -> Self {
        Self { ratio, ..self }
    }

    pub(super) fn promised_ratio_at_least(self, least: f64) -> Self {
        Self { promise: Some(Promise::RatioAtLeast(least)), ..self }
    }

    pub(super) fn promised_ratio_at_most(self, most: f64) -> Self {
        Self { promise: Some(Promise::RatioAtMost(most)), ..self }
    }

    /// A promise of which nothing was measured is not kept.
    pub(super) fn is_kept(&self) -> bool {
        match self.promise {
            None => true,
            Some(Promise::P99AtMost(most)) => self.summary().is_some_and(|summary| summary.p99 <= most),
            Some(Promise::RatioAtLeast(least)) => self.ratio.is_some_and(|ratio| ratio >= least),
            Some(Promise::RatioAtMost(most)) => self.ratio.is_some_and(|ratio| ratio <= most),
        }
    }

    pub(super) fn median(&self) -> Option<f64> {
        self.summary().map(|summary| summary.median)
    }

    pub(super) fn p99(&self) -> Option<f64> {
        self.summary().map(|summary| summary.p99)
    }

    pub(super) fn is_compared(&self) -> bool {
        self.ratio.is_some()
    }

    /// The cell of the ratio, for tables that have one.
    pub(super) fn ratio_cell(&self) -> String {
        self.ratio.map(|ratio| format!("{ratio:.2} x")).unwrap_or_default()
    }

    /// The cells of its row behind the part's name.
    pub(super) fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.what.clone()];
        match self.summary() {
            Some(Summary { count, median, p99, max }) => {
                cells.push(count.to_string());
                cells.extend([median, p99, max].map(|value| self.unit.show(value)));
            }
            None => cells.extend(["0", "-", "-", "-"].map(str::to_owned)),
        }
        cells.push(self.promise.map(|promise| self.verdict(promise)).unwrap_or_default());
        cells
    }

    fn verdict(&self, promise: Promise) -> String {
        let promised = match promise {
            Promise::P99AtMost(most) => self.unit.show(most),
            Promise::RatioAtLeast(least) => format!(">= {least:.2} x"),
            Promise::RatioAtMost(most) => format!("<= {most:.2} x"),
        };
        format!("{promised}, {}", if self.is_kept() { "kept" } else { "NOT KEPT" })
    }

    pub(super) fn json(&self, part: &str) -> Value {
        let summary = self.summary();
        let of = |pick: fn(Promise) -> Option<f64>| self.promise.and_then(pick);
        let samples = (self.samples.len() <= SAMPLES_WRITTEN_MAX).then_some(&self.samples);
        json!({
            "part": part,
            "what": self.what,
            "unit": self.unit.name(),
            "runs": self.samples.len(),
            "samples": samples,
            "median": summary.map(|summary| summary.median),
            "p99": summary.map(|summary| summary.p99),
            "max": summary.map(|summary| summary.max),
            "ratio": self.ratio,
            "promised_p99_max": of(|it| if let Promise::P99AtMost(most) = it { Some(most) } else { None }),
            "promised_ratio_min": of(|it| if let Promise::RatioAtLeast(least) = it { Some(least) } else { None }),
            "promised_ratio_max": of(|it| if let Promise::RatioAtMost(most) = it { Some(most) } else { None }),
            "kept": self.is_kept(),
        })
    }

    fn summary(&self) -> Option<Summary> {
        Summary::of(&self.samples)
    }
}

fn whole(samples: &[u64]) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which is 8 PiB")]
    samples.iter().map(|sample| *sample as f64).collect()
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes per second",
            Self::PerSecond => "per second",
            Self::Cores => "cores",
            Self::Count => "count",
        }
    }

    fn show(self, value: f64) -> String {
        const MIB: f64 = 1_048_576.0;
        const KIB: f64 = 1024.0;
        match self {
            Self::Seconds if value > 0.0 && value < 1e-4 => format!("{:.1} µs", value * 1e6),
            Self::Seconds if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes if value.abs() < MIB / 8.0 => format!("{:.2} KiB", value / KIB),
            Self::Bytes => format!("{:.2} MiB", value / MIB),
            Self::BytesPerSecond => format!("{:.2} MiB/s", value / MIB),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Cores => format!("{:.2} %", value * 1e2),
            Self::Count => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(millis: &[u64]) -> Figure {
        Figure::times("exit to exec", &millis.iter().map(|it| Duration::from_millis(*it)).collect::<Vec<_>>())
    }

    #[test]
    fn a_promise_is_kept_by_the_p99_and_never_by_nothing() {
        assert!(times(&[5, 20]).promised(0.020).is_kept());
        assert!(!times(&[5, 21]).promised(0.020).is_kept());
        assert!(!times(&[]).promised(0.020).is_kept());
        assert!(times(&[]).is_kept());
    }

    #[test]
    fn a_row_shows_units_and_the_verdict() {
        let cells = times(&[1, 2, 1500]).promised(0.020).cells();
        assert_eq!(cells, ["exit to exec", "3", "2.00 ms", "1.50 s", "1.50 s", "20.00 ms, NOT KEPT"]);
        assert_eq!(Figure::bytes("size", &[3 << 20]).cells()[2..], ["3.00 MiB", "3.00 MiB", "3.00 MiB", ""]);
    }

    #[test]
    fn a_ratio_is_held_against_its_own_bound_and_nothing_compared_is_not_kept() {
        let rate = |ratio| Figure::rates("rate", &[100.0]).compared(ratio).promised_ratio_at_least(0.9);
        assert!(rate(Some(0.9)).is_kept() && !rate(Some(0.89)).is_kept() && !rate(None).is_kept());
        let cost = Figure::times("cost", &[]).compared(Some(1.2)).promised_ratio_at_most(1.1);
        assert_eq!(cost.cells().last().map(String::as_str), Some("<= 1.10 x, NOT KEPT"));
        assert_eq!((cost.ratio_cell().as_str(), rate(None).ratio_cell().as_str()), ("1.20 x", ""));
    }

    #[test]
    fn small_times_and_sizes_are_shown_in_small_units() {
        let micros = Figure::times("cpu", &[Duration::from_nanos(18_600)]).cells();
        assert_eq!(
            (micros[2].as_str(), Figure::bytes("each", &[12_288]).cells()[2].as_str()),
            ("18.6 µs", "12.00 KiB")
        );
    }

    #[test]
    fn the_json_names_its_unit() {
        let json = Figure::bytes("size", &[10]).promised(9.0).json("start");
        assert_eq!(
            (&json["unit"], &json["p99"], &json["kept"]),
            (&json!("bytes"), &json!(10.0), &json!(false))
        );
    }
}
