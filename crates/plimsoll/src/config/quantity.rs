//! Sizes and durations as people write them: `"256MiB"`, `"1m30s"`. A number without its unit is refused.

use std::time::Duration;

use plimsoll_core::units::Bytes;

/// Longest unit first where one is the beginning of another.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];
const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// No deadline of a guard is longer; it keeps every sum of durations far from overflow.
const SPAN_MAX: Duration = Duration::from_hours(365 * 24);

pub(super) const SIZE_UNITS: &str =
    "units are KiB, MiB, GiB, TiB (powers of 1024) and kB, MB, GB, TB (of 1000)";
pub(super) const SPAN_UNITS: &str = "units are ms, s, m, h and d, as in \"250ms\", \"30s\" or \"1m30s\"";

/// What is wrong with a quantity, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Refused {
    fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: hint.into() }
    }
}

/// Reads a size such as `"256MiB"`, `"1.5 GiB"` or `"10MB"`.
pub(super) fn size(text: &str) -> Result<Bytes, Refused> {
    let written = text.trim();
    let (number, unit) = split(written);
    let unknown = |hint: String| Refused::new(format!("\"{text}\" is not a size"), hint);
    if number.is_empty() {
        return Err(unknown(format!("write a number and a unit, as in \"256MiB\"; {SIZE_UNITS}")));
    }
    let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err(match size_meant(unit) {
            Some(meant) => unknown(format!("write \"{number}{meant}\"; {SIZE_UNITS}")),
            None => unknown(SIZE_UNITS.to_owned()),
        });
    };
    match scaled(number, *factor) {
        Some(0) => Err(Refused::new(format!("\"{text}\" is no size at all"), "write a size above zero")),
        Some(count) => Ok(Bytes(count)),
        None => Err(unknown("write a number such as 256 or 1.5, with its unit".to_owned())),
    }
}

/// `M`, `m`, `Mi`, `mb`: which unit was meant. Powers of 1024, unless the unit says otherwise.
fn size_meant(unit: &str) -> Option<&'static str> {
    let lower = unit.to_lowercase();
    let binary = || SIZES.iter().find(|(name, _)| name.to_lowercase().starts_with(&lower));
    let exact = SIZES.iter().find(|(name, _)| name.to_lowercase() == lower);
    match lower.as_str() {
        "" => Some("MiB"),
        "byte" | "bytes" => Some("B"),
        _ => exact.or_else(binary).map(|(name, _)| *name),
    }
}

/// Reads a duration such as `"250ms"`, `"30s"` or `"1m30s"`; zero is for the caller to judge.
pub(super) fn span(text: &str) -> Result<Duration, Refused> {
    let refused = |hint: String| Refused::new(format!("\"{text}\" is not a duration"), hint);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refused(SPAN_UNITS.to_owned()));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = split(rest);
        let letters = tail.find(|letter: char| !letter.is_alphabetic()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(letters);
        let known = SPANS.iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = known.filter(|_| !number.is_empty()) else {
            return Err(refused(span_meant(number, unit)));
        };
        let part = scaled(number, *factor).and_then(|part| total.checked_add(part));
        total = part.ok_or_else(|| refused("write at most \"365d\"".to_owned()))?;
        rest = after.trim_start();
    }
    let span = Duration::from_millis(total);
    if span > SPAN_MAX { Err(refused("write at most \"365d\"".to_owned())) } else { Ok(span) }
}

fn span_meant(number: &str, unit: &str) -> String {
    let meant = match unit.to_lowercase().as_str() {
        "" | "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        "msec" | "millis" | "milliseconds" => "ms",
        _ => return SPAN_UNITS.to_owned(),
    };
    if number.is_empty() { SPAN_UNITS.to_owned() } else { format!("write \"{number}{meant}\"; {SPAN_UNITS}") }
}

/// The number at the front, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `number x factor`, exactly, rounded down; `None` for two points, no digits or an overflow.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.len() > 9 {
        return None;
    }
    let tens = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let parts = part.parse::<u128>().ok()? * u128::from(factor) / tens;
    let total = whole.parse::<u128>().ok()?.checked_mul(u128::from(factor))?.checked_add(parts)?;
    u64::try_from(total).ok()
}

/// `size` as [`size`] reads it back, in the largest unit that divides it.
pub fn size_text(size: Bytes) -> String {
    let divides = |(_, factor): &&(&str, u64)| size.0 != 0 && size.0.is_multiple_of(*factor);
    let largest = SIZES.iter().filter(divides).max_by_key(|(_, factor)| *factor);
    let (name, factor) = largest.copied().unwrap_or(("B", 1));
    format!("{}{name}", size.0 / factor)
}

/// `span` as [`span`] reads it back.
pub fn span_text(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let divides = |(_, factor): &&(&str, u64)| millis != 0 && millis.is_multiple_of(*factor);
    let (name, factor) = SPANS.iter().rfind(divides).copied().unwrap_or(("s", 1_000));
    format!("{}{name}", millis / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("256MB", 256_000_000),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("10kB", 10_000),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_almost_right_is_told_how() {
        for (text, meant) in [
            ("256", "\"256MiB\""),
            ("256M", "\"256MiB\""),
            ("256m", "\"256MiB\""),
            ("256Mi", "\"256MiB\""),
            ("256mb", "\"256MB\""),
            ("256mib", "\"256MiB\""),
            ("1g", "\"1GiB\""),
            ("64K", "\"64KiB\""),
        ] {
            let refused = size(text).expect_err(text);
            assert!(refused.hint.starts_with(&format!("write {meant}")), "{text}: {}", refused.hint);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "MiB", "-1MiB", "1.MiB", ".5MiB", "1.2.3MiB", "0MiB", "0.1B", "99999999999TiB", "30s"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_exactly() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("5m", 300_000),
            ("1m30s", 90_000),
            ("1h 30m", 5_400_000),
            ("24h", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_almost_right_is_told_how() {
        for (text, meant) in
            [("30", "\"30s\""), ("30 sec", "\"30s\""), ("5min", "\"5m\""), ("2hours", "\"2h\"")]
        {
            let refused = span(text).expect_err(text);
            assert!(refused.hint.starts_with(&format!("write {meant}")), "{text}: {}", refused.hint);
        }
        for text in ["", "s", "5MiB", "-1s", "1y", "366d", "9999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_quantity_never_panics(text in ".{0,20}") {
            let _ = (size(&text), span(&text));
        }

        #[test]
        fn a_size_is_written_so_that_it_reads_back(bytes in 1..=u64::MAX) {
            prop_assert_eq!(size(&size_text(Bytes(bytes))), Ok(Bytes(bytes)));
        }

        #[test]
        fn a_duration_is_written_so_that_it_reads_back(millis in 0..=31_536_000_000_u64) {
            let given = Duration::from_millis(millis);
            prop_assert_eq!(span(&span_text(given)), Ok(given));
        }
    }
}
