//! What a snapshot says about itself: its pages, and what was in the database at that position, as the live one told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{Hash, Millis};
use crate::position::Position;

pub const FORMAT: u32 = 1;

/// An object among the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub hash: Hash,
    /// As stored.
    pub bytes: u64,
}

/// Never encrypted: without the key it can still be said what must be kept, and whether it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The vault's own name.
    pub vault: String,
    /// The database's file name, for people.
    pub database: String,
    pub time: Millis,
    pub position: Position,
    pub page_bytes: u32,
    pub pages: u32,
    /// Pages in each chunk but the last.
    pub chunk_pages: u32,
    pub chunks: Vec<Object>,
    /// Where the [`Facts`] are.
    pub facts: Object,
    pub is_encrypted: bool,
    /// The program that took it.
    pub program: String,
}

impl Manifest {
    /// Every object that it needs.
    pub fn objects(&self) -> BTreeSet<Hash> {
        self.chunks.iter().chain([&self.facts]).map(|it| it.hash).collect()
    }

    pub fn database_bytes(&self) -> u64 {
        u64::from(self.pages) * u64::from(self.page_bytes)
    }

    /// As stored, all of it.
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().chain([&self.facts]).fold(0, |sum, it| sum.saturating_add(it.bytes))
    }
}

/// What was in the database. Encrypted where the rest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub contents: Contents,
    /// blake3 over the pages of each chunk, before compression.
    pub raw: Vec<Hash>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub tables: Vec<Table>,
    pub schema: String,
    pub schema_objects: u64,
    pub user_version: i64,
    pub application_id: i64,
    /// Rows that refer to nothing. The live database may have some already.
    pub foreign_key_violations: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub rows: u64,
    /// blake3 over the values of all rows, in their order.
    pub hash: String,
}

impl Contents {
    /// One hash for all of it.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&text).to_hex().to_string()
    }

    pub fn rows(&self) -> u64 {
        self.tables.iter().fold(0, |sum, it| sum.saturating_add(it.rows))
    }

    /// In what `self`, which was restored, is not what `wanted` says; empty when it is.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let names: BTreeSet<&str> =
            self.tables.iter().chain(&wanted.tables).map(|it| it.name.as_str()).collect();
        for name in names {
            let of = |contents: &'_ Self| contents.tables.iter().find(|it| it.name == name).cloned();
            match (of(self), of(wanted)) {
                (Some(is), Some(was)) if is.rows != was.rows => {
                    found.push(format!("table {name} has {} rows instead of {}", is.rows, was.rows));
                }
                (Some(is), Some(was)) if is.hash != was.hash => {
                    found.push(format!("table {name} has other contents than when it was copied"));
                }
                (Some(_), None) => found.push(format!("table {name} should not be there")),
                (None, Some(_)) => found.push(format!("table {name} is missing")),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        if self.schema != wanted.schema {
            found.push("the schema is another".to_owned());
        }
        let numbers = [
            ("user_version", self.user_version, wanted.user_version),
            ("application_id", self.application_id, wanted.application_id),
        ];
        for (name, is, was) in numbers.into_iter().filter(|(_, is, was)| is != was) {
            found.push(format!("{name} is {is} instead of {was}"));
        }
        if self.foreign_key_violations != wanted.foreign_key_violations {
            found.push(format!(
                "{} rows refer to nothing, {} did when it was copied",
                self.foreign_key_violations, wanted.foreign_key_violations
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(tables: &[(&str, u64, &str)]) -> Contents {
        let table = |(name, rows, hash): &(&str, u64, &str)| Table {
            name: (*name).to_owned(),
            rows: *rows,
            hash: (*hash).to_owned(),
        };
        Contents { tables: tables.iter().map(table).collect(), ..Contents::default() }
    }

    #[test]
    fn every_difference_is_named() {
        let was = contents(&[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]);
        let is = Contents { user_version: 3, ..contents(&[("a", 1, "x"), ("b", 1, "y"), ("d", 3, "z")]) };
        assert_eq!(
            is.differences(&was),
            [
                "table b has 1 rows instead of 2",
                "table c is missing",
                "table d should not be there",
                "user_version is 3 instead of 0"
            ]
        );
        assert!(was.differences(&was).is_empty());
        assert_eq!(contents(&[("a", 1, "y")]).differences(&contents(&[("a", 1, "x")])).len(), 1);
    }
}
