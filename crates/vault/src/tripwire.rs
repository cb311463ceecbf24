//! Signs that a database was harmed: by a deploy that put an old copy in its place, by a statement without its WHERE.
//!
//! A wire that is touched changes nothing of what is copied. It is told at once, with the last good point in time.

use std::time::Duration;

use crate::manifest::Contents;
use crate::names::Millis;
use crate::page_one::PageOne;

/// A change of the schema this long after a snapshot that somebody asked for was announced by it.
pub const ANNOUNCED_FOR: Duration = Duration::from_mins(15);
/// A database of fewer pages shrinks by little.
const PAGES_MIN: u32 = 32;
/// A table of fewer rows loses few.
const ROWS_MIN: u64 = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Another file has its name.
    Replaced,
    /// Nothing has its name.
    Gone,
    /// Its file was written by something else than SQLite.
    Overwritten {
        pages: usize,
    },
    Shrank {
        from: u32,
        to: u32,
    },
    /// Pages that lost their content since the last snapshot.
    Emptied {
        pages: u32,
        of: u32,
    },
    Vanished {
        table: String,
        rows: u64,
    },
    Fell {
        table: String,
        from: u64,
        to: u64,
    },
    Schema,
    UserVersion {
        from: u32,
        to: u32,
    },
}

impl Alarm {
    /// The kind of record.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Replaced => "vault_replaced",
            Self::Gone => "vault_gone",
            Self::Overwritten { .. } => "vault_overwritten",
            Self::Shrank { .. } => "vault_shrank",
            Self::Emptied { .. } => "vault_emptied",
            Self::Vanished { .. } => "vault_table_vanished",
            Self::Fell { .. } => "vault_rows_fell",
            Self::Schema | Self::UserVersion { .. } => "vault_schema",
        }
    }

    /// A change of the schema is what a deploy is for; what it may have cost has alarms of its own.
    pub fn is_page(&self) -> bool {
        !matches!(self, Self::Schema)
    }

    pub fn in_words(&self) -> String {
        match self {
            Self::Replaced => "the database's file was replaced by another while in use".to_owned(),
            Self::Gone => "the database's file is gone".to_owned(),
            Self::Overwritten { pages: 1 } => {
                "the database's file was written by something else than SQLite: its first page is none that was committed"
                    .to_owned()
            }
            Self::Overwritten { pages } => {
                format!("the database's file was written by something else than SQLite: {pages} pages are none that were committed")
            }
            Self::Shrank { from, to } => format!("the database shrank from {from} pages to {to}"),
            Self::Emptied { pages, of } => format!("{pages} of {of} pages lost what was in them"),
            Self::Vanished { table, rows } => format!("table {table} vanished; it had {rows} rows"),
            Self::Fell { table, from, to } => format!("table {table} fell from {from} rows to {to}"),
            Self::Schema => "the schema changed".to_owned(),
            Self::UserVersion { from, to } => format!("user_version changed from {from} to {to}"),
        }
    }
}

/// What the wires compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub one: PageOne,
    /// The most pages since the last alarm.
    pub pages: u32,
    /// Free pages at the last alarm or snapshot.
    pub free_pages: u32,
}

impl Before {
    pub fn new(one: PageOne, pages: u32) -> Self {
        Self { one, pages, free_pages: one.free_pages }
    }

    /// A transaction changed the first page, and the database has `pages` pages after it.
    pub fn changed(&mut self, one: PageOne, pages: u32) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        if self.pages >= PAGES_MIN && pages < self.pages / 2 {
            alarms.push(Alarm::Shrank { from: self.pages, to: pages });
            self.pages = pages;
        }
        let freed = one.free_pages.saturating_sub(self.free_pages);
        if pages >= PAGES_MIN && freed >= pages / 4 {
            alarms.push(Alarm::Emptied { pages: freed, of: pages });
            self.free_pages = one.free_pages;
        }
        if one.schema_cookie != self.one.schema_cookie {
            alarms.push(Alarm::Schema);
        }
        if one.user_version != self.one.user_version {
            alarms.push(Alarm::UserVersion { from: self.one.user_version, to: one.user_version });
        }
        self.one = one;
        self.pages = self.pages.max(pages);
        self.free_pages = self.free_pages.min(one.free_pages);
        alarms
    }
}

/// What is missing compared with the last snapshot.
pub fn lost(before: &Contents, now: &[(String, u64)]) -> Vec<Alarm> {
    let compare = |table: &crate::manifest::Table| {
        let is = now.iter().find(|(name, _)| *name == table.name).map(|(_, rows)| *rows);
        match is {
            None => Some(Alarm::Vanished { table: table.name.clone(), rows: table.rows }),
            Some(rows) if table.rows >= ROWS_MIN && rows < table.rows / 2 => {
                Some(Alarm::Fell { table: table.name.clone(), from: table.rows, to: rows })
            }
            Some(_) => None,
        }
    };
    let own = |it: &&crate::manifest::Table| !it.name.starts_with("sqlite_");
    before.tables.iter().filter(own).filter_map(compare).collect()
}

/// Did somebody say that something would change?
pub fn is_announced(announced: Option<Millis>, now: Millis) -> bool {
    announced.is_some_and(|at| now >= at && now.since(at) <= ANNOUNCED_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Table;

    const ONE: PageOne = PageOne {
        page_bytes: 4096,
        is_wal: true,
        schema_cookie: 3,
        user_version: 1,
        free_pages: 0,
        pages: 1000,
        version_number: 3_040_001,
    };

    #[test]
    fn what_harms_touches_a_wire_once_and_what_grows_none() {
        let mut before = Before::new(ONE, 1000);
        assert!(before.changed(ONE, 2000).is_empty());
        assert_eq!(before.changed(ONE, 900), [Alarm::Shrank { from: 2000, to: 900 }]);
        assert!(before.changed(ONE, 890).is_empty());
        let emptied = PageOne { free_pages: 300, ..ONE };
        assert_eq!(before.changed(emptied, 900), [Alarm::Emptied { pages: 300, of: 900 }]);
        assert!(before.changed(emptied, 900).is_empty());
        let migrated = PageOne { schema_cookie: 4, user_version: 2, ..emptied };
        assert_eq!(before.changed(migrated, 900), [Alarm::Schema, Alarm::UserVersion { from: 1, to: 2 }]);
    }

    #[test]
    fn tables_that_are_missing_or_lost_most_of_their_rows_are_named() {
        let table = |name: &str, rows| Table { name: name.to_owned(), rows, hash: String::new() };
        let before = Contents {
            tables: vec![
                table("a", 100),
                table("b", 100),
                table("c", 100),
                table("few", 5),
                table("sqlite_stat1", 9),
            ],
            ..Contents::default()
        };
        let now = [("a", 49), ("b", 60), ("few", 0)].map(|(name, rows)| (name.to_owned(), rows));
        assert_eq!(
            lost(&before, &now),
            [
                Alarm::Fell { table: "a".to_owned(), from: 100, to: 49 },
                Alarm::Vanished { table: "c".to_owned(), rows: 100 }
            ]
        );
    }

    #[test]
    fn an_announcement_holds_for_a_while() {
        let at = Some(Millis(1_000_000));
        assert!(is_announced(at, Millis(1_000_001)) && !is_announced(None, Millis(5)));
        assert!(!is_announced(at, Millis(1_000_000 + 15 * 60_000 + 1)) && !is_announced(at, Millis(999_999)));
    }
}
