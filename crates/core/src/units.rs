//! Units as types, so that a size is never taken for a time and a share never for a count.

use core::fmt;
use core::ops::{Add, Mul, Sub};
use core::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    pub const ZERO: Self = Self(0);

    pub const fn mib(count: u64) -> Self {
        Self(count * MIB)
    }

    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * numerator / denominator`, without overflow on the way.
    #[must_use]
    pub fn scaled(self, numerator: u64, denominator: u64) -> Self {
        let wide = u128::from(self.0) * u128::from(numerator) / u128::from(denominator.max(1));
        Self(u64::try_from(wide).unwrap_or(u64::MAX))
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

/// Binary units with at most one decimal, as `check` and `status` show them: `300 MiB`, `1.5 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            count if count >= GIB => (GIB, "GiB"),
            count if count >= MIB => (MIB, "MiB"),
            count if count >= KIB => (KIB, "KiB"),
            count => return write!(out, "{count} B"),
        };
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        match tenths % 10 {
            0 => write!(out, "{} {name}", tenths / 10),
            tenth => write!(out, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

/// A growth rate in bytes per second; negative when memory falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesPerSecond(pub i64);

impl BytesPerSecond {
    pub const fn is_growth(self) -> bool {
        self.0 > 0
    }

    /// What this rate adds over `span`; nothing when it is not growth.
    pub fn over(self, span: Duration) -> Bytes {
        let rate = u128::from(self.0.max(0).unsigned_abs());
        Bytes(u64::try_from(rate * span.as_millis() / 1000).unwrap_or(u64::MAX))
    }
}

/// A part of a whole in thousandths, so that the head needs no floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

impl Share {
    /// `None` unless 0 < thousandths <= 1000.
    pub const fn per_mille(thousandths: u16) -> Option<Self> {
        if thousandths == 0 || thousandths > 1000 { None } else { Some(Self(thousandths)) }
    }

    pub const fn thousandths(self) -> u16 {
        self.0
    }

    pub fn of(self, count: u64) -> u64 {
        u64::try_from(u128::from(count) * u128::from(self.0) / 1000).unwrap_or(u64::MAX)
    }
}

/// A point on the driver's monotonic clock, in nanoseconds since an arbitrary start. The head never asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Zero when `earlier` is later: a clock that steps back never makes a time negative.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The last point of a grid of `step` at or before this one, so that many sleepers wake together and nobody late.
    #[must_use]
    pub fn aligned_down(self, step: Duration) -> Self {
        let step = nanos(step).max(1);
        Self(self.0 / step * step)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Mul<u64> for Bytes {
    type Output = Self;
    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sizes_are_shown_in_binary_units_with_one_decimal_at_most() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes::mib(300).to_string(), "300 MiB");
        assert_eq!(Bytes::mib(1536).to_string(), "1.5 GiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "17179869183.9 GiB");
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Bytes(1) - Bytes(2), Bytes::ZERO);
        assert_eq!(Bytes(u64::MAX) + Bytes(1), Bytes(u64::MAX));
        assert_eq!(Instant(u64::MAX) + Duration::from_secs(1), Instant(u64::MAX));
        assert_eq!(Instant(1).since(Instant(5)), Duration::ZERO);
    }

    #[test]
    fn a_grid_point_stays_where_it_is() {
        let step = Duration::from_nanos(100);
        assert_eq!(Instant(200).aligned_down(step), Instant(200));
        assert_eq!(Instant(299).aligned_down(step), Instant(200));
    }

    #[test]
    fn a_share_is_over_nothing_and_at_most_the_whole() {
        assert!(Share::per_mille(0).is_none());
        assert!(Share::per_mille(1001).is_none());
        assert_eq!(Share::per_mille(900).map(|share| share.of(8192)), Some(7372));
    }
}
