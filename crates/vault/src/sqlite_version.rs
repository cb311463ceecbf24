//! The version of SQLite that wrote a database last, and whether it has the bug of the log that is begun again.
//!
//! A checkpoint that races a commit which begins the log again can corrupt the database: 3.7.0 to 3.51.2, mended in
//! 3.51.3, 3.50.7 and 3.44.6. <https://sqlite.org/wal.html#walresetbug>

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SqliteVersion(u32);

impl SqliteVersion {
    /// As in the header of a database: 3040001 for 3.40.1; 0 is none.
    pub fn from_number(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// As it is written: `3.40.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|it| it.parse::<u32>().ok());
        let [major, minor, patch] = [numbers.next()??, numbers.next()??, numbers.next()??];
        Some(Self(major * 1_000_000 + minor * 1000 + patch))
    }

    /// Can a checkpoint at the wrong moment corrupt what it writes?
    pub fn has_reset_bug(self) -> bool {
        let is_mended = matches!(self.0, 3_044_006..3_045_000 | 3_050_007..3_051_000);
        (3_007_000..3_051_003).contains(&self.0) && !is_mended
    }
}

impl fmt::Display for SqliteVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.0 / 1_000_000, self.0 / 1000 % 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bug_is_in_the_versions_that_have_it() {
        for number in [3_007_000, 3_040_001, 3_044_005, 3_045_000, 3_050_006, 3_051_000, 3_051_002] {
            assert!(SqliteVersion(number).has_reset_bug(), "{}", SqliteVersion(number));
        }
        for number in [3_006_023, 3_044_006, 3_050_007, 3_051_003, 3_054_001] {
            assert!(!SqliteVersion(number).has_reset_bug(), "{}", SqliteVersion(number));
        }
        assert_eq!(SqliteVersion(3_040_001).to_string(), "3.40.1");
        assert_eq!(SqliteVersion::from_number(0), None);
        assert_eq!(SqliteVersion::parse("3.40.1"), Some(SqliteVersion(3_040_001)));
        assert_eq!(SqliteVersion::parse("3.40"), None);
    }

    #[test]
    fn ours_does_not_have_it() {
        let ours = u32::try_from(rusqlite::version_number()).unwrap();
        assert!(!SqliteVersion(ours).has_reset_bug());
    }
}
