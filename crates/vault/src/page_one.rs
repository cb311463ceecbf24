//! The first page of a database: what it says about the whole.
//!
//! Shapes from <https://sqlite.org/fileformat2.html#the_database_header>.

use serde::{Deserialize, Serialize};

use crate::sqlite_version::SqliteVersion;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 100;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Versions of the formats for writing and reading that stand for a write-ahead log.
const FORMAT_WAL: [u8; 2] = [2, 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageOne {
    pub page_bytes: u32,
    pub is_wal: bool,
    /// Counted up with every change of the schema.
    pub schema_cookie: u32,
    pub user_version: u32,
    /// Pages without content. They jump when a lot is deleted.
    pub free_pages: u32,
    /// Pages in all; 0 where an old version of SQLite did not say.
    pub pages: u32,
    /// 3040001 for 3.40.1; 0 where it is not known.
    pub version_number: u32,
}

impl PageOne {
    /// `None`: this is not the beginning of a database.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if &bytes[..16] != MAGIC {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let page_bytes = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size if size.is_power_of_two() && size >= 512 => u32::from(size),
            _ => return None,
        };
        // Both are only valid when the last to write was a version that keeps them.
        let is_current = word(24) == word(92);
        Some(Self {
            page_bytes,
            is_wal: bytes[18..20] == FORMAT_WAL,
            schema_cookie: word(40),
            user_version: word(60),
            free_pages: word(36),
            pages: if is_current { word(28) } else { 0 },
            version_number: word(96),
        })
    }

    /// Who wrote it last.
    pub fn version(&self) -> Option<SqliteVersion> {
        SqliteVersion::from_number(self.version_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_database_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA page_size=8192; PRAGMA journal_mode=wal; PRAGMA user_version=7; CREATE TABLE t(a);",
        )
        .unwrap();
        drop(db);
        let one = PageOne::parse(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((one.page_bytes, one.is_wal, one.user_version, one.pages), (8192, true, 7, 2));
        assert_eq!(one.version().unwrap().to_string(), rusqlite::version());
    }

    #[test]
    fn what_is_no_database_is_told_apart() {
        assert_eq!(PageOne::parse(&[0; 100]), None);
        assert_eq!(PageOne::parse(b"SQLite format 3\0"), None);
    }
}
