//! Times as the records have them: `2026-11-23T20:00:00.123Z`, always three digits, so that they also sort as text.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de};

/// The time in the records' form. Parts of a millisecond are cut off.
pub fn text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

pub fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*time))
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    parse(&String::deserialize(from)?)
}

fn parse<E: de::Error>(text: &str) -> Result<Timestamp, E> {
    text.parse().map_err(E::custom)
}

/// The same for a time that may not have come yet.
pub mod option {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, parse, text};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&text(*time)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| parse(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_always_has_three_digits_of_a_second() {
        assert_eq!(text(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        assert_eq!(text("2026-11-23T20:00:00.9999Z".parse().unwrap()), "2026-11-23T20:00:00.999Z");
    }
}
