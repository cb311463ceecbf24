//! One measured figure, and the promise that it is held against.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::stats::Summary;

#[derive(Debug)]
pub(super) struct Figure {
    /// What was measured, as a reader of the table should understand it.
    pub(super) what: String,
    unit: Unit,
    samples: Vec<f64>,
    promise: Option<f64>,
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
        Self { what: what.to_owned(), unit, samples, promise: None }
    }

    /// Promised is that the p99 is at most this, in the unit of the samples.
    pub(super) fn promised(self, p99_max: f64) -> Self {
        Self { promise: Some(p99_max), ..self }
    }

    /// A promise of which nothing was measured is not kept.
    pub(super) fn is_kept(&self) -> bool {
        let p99 = self.summary().map(|summary| summary.p99);
        self.promise.is_none_or(|limit| p99.is_some_and(|p99| p99 <= limit))
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
        cells.push(match self.promise {
            Some(limit) if self.is_kept() => format!("{}, kept", self.unit.show(limit)),
            Some(limit) => format!("{}, NOT KEPT", self.unit.show(limit)),
            None => String::new(),
        });
        cells
    }

    pub(super) fn json(&self, part: &str) -> Value {
        let summary = self.summary();
        json!({
            "part": part,
            "what": self.what,
            "unit": self.unit.name(),
            "runs": self.samples.len(),
            "samples": self.samples,
            "median": summary.map(|summary| summary.median),
            "p99": summary.map(|summary| summary.p99),
            "max": summary.map(|summary| summary.max),
            "promised_p99_max": self.promise,
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
        match self {
            Self::Seconds if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
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
    fn the_json_names_its_unit() {
        let json = Figure::bytes("size", &[10]).promised(9.0).json("start");
        assert_eq!(
            (&json["unit"], &json["p99"], &json["kept"]),
            (&json!("bytes"), &json!(10.0), &json!(false))
        );
    }
}
