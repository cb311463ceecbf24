//! The query of a request: `rate=30MiB&for=5s`. Values are taken by name; what nobody took is refused.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

/// A query the caller has to change; never worth a retry as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("{key} is not a parameter here")]
    Unknown { key: String },
    #[error("{key}={value} is not {expected}")]
    Value { key: &'static str, value: String, expected: &'static str },
}

/// The parameters that were not taken yet. No value here needs percent-encoding, so none is decoded: an encoded
/// value fails as the number it is not.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    /// The value of `key`; where it is given twice, the first, and the second is refused by [`Query::finish`].
    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().position(|(name, _)| *name == key)?;
        Some(self.0.remove(found).1)
    }

    /// A size in bytes, such as `30MiB`.
    pub(super) fn size(&mut self, key: &'static str, default: ByteSize) -> Result<u64, QueryError> {
        let parsed = self.typed(key, "a size such as 30MiB", |value| value.parse::<ByteSize>().ok())?;
        Ok(parsed.unwrap_or(default).as_u64())
    }

    /// A length of time, such as `5s`.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Result<Duration, QueryError> {
        let parse = |value: &str| Duration::try_from(value.parse::<SignedDuration>().ok()?).ok();
        Ok(self.typed(key, "a duration such as 5s", parse)?.unwrap_or(default))
    }

    /// A whole number, at least 0.
    pub(super) fn count(&mut self, key: &'static str, default: u64) -> Result<u64, QueryError> {
        Ok(self.typed(key, "a whole number", |value| value.parse().ok())?.unwrap_or(default))
    }

    /// Whatever `parse` makes of the value of `key`; `None` where it is not given.
    pub(super) fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, QueryError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let refused = || QueryError::Value { key, value: value.to_owned(), expected };
        parse(value).map(Some).ok_or_else(refused)
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self) -> Result<(), QueryError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(QueryError::Unknown { key: (*key).to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_counts_are_read_in_their_units() {
        let mut query = Query::parse("rate=30MiB&for=1500ms&total=7");
        assert_eq!(query.size("rate", ByteSize::b(0)), Ok(30 << 20));
        assert_eq!(query.duration("for", Duration::ZERO), Ok(Duration::from_millis(1500)));
        assert_eq!(query.count("total", 0), Ok(7));
        assert_eq!(query.finish(), Ok(()));
    }

    #[test]
    fn what_is_not_given_takes_its_default() {
        let mut query = Query::parse("");
        assert_eq!(query.size("rate", ByteSize::mib(1)), Ok(1 << 20));
        assert_eq!(query.count("total", 9), Ok(9));
    }

    #[test]
    fn a_value_that_cannot_be_read_names_itself_and_what_would_do() {
        let error = Query::parse("for=-3s").duration("for", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "for=-3s is not a duration such as 5s");
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert_eq!(Query::parse("rat=1").finish().unwrap_err().to_string(), "rat is not a parameter here");
        let mut twice = Query::parse("total=1&total=2");
        assert_eq!(twice.count("total", 0), Ok(1));
        assert!(twice.finish().is_err());
    }
}
