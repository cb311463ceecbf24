//! The reports, in SQLite.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

/// How long a statement waits for another writer. Short, because the one thread waits with it.
const BUSY_WAIT: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS reports (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        request_key TEXT,
        created_ms INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
    );
    CREATE INDEX IF NOT EXISTS reports_by_request_key ON reports (request_key);
";

const COLUMNS: &str = "id, title, body, request_key, created_ms";

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    pub(super) title: String,
    pub(super) body: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) id: i64,
    pub(super) title: String,
    pub(super) body: String,
    /// The request's own name for itself; two rows with the same one are a request that was carried out twice.
    pub(super) request_key: Option<String>,
    /// Milliseconds since 1970, by the database's clock.
    pub(super) created_ms: i64,
}

/// How many rows there are, and how many of them repeat an earlier row's request key.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) reports: i64,
    pub(super) duplicates: i64,
}

/// The store. It does not refuse repeated request keys: tests count them.
#[derive(Debug)]
pub(super) struct Reports {
    connection: Connection,
}

impl Reports {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A crash of the process loses nothing with NORMAL; only a crash of the machine may.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection })
    }

    pub(super) fn add(&self, draft: &Draft, request_key: Option<&str>) -> rusqlite::Result<i64> {
        let insert = "INSERT INTO reports (title, body, request_key) VALUES (?1, ?2, ?3)";
        self.connection.execute(insert, params![draft.title, draft.body, request_key])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(super) fn get(&self, id: i64) -> rusqlite::Result<Option<Report>> {
        let select = format!("SELECT {COLUMNS} FROM reports WHERE id = ?1");
        self.connection.query_row(&select, [id], report).optional()
    }

    /// The newest `limit` reports of those with an id under `before`, newest first.
    pub(super) fn newest(&self, limit: u32, before: i64) -> rusqlite::Result<Vec<Report>> {
        let select = format!("SELECT {COLUMNS} FROM reports WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        self.connection.prepare(&select)?.query_map(params![before, limit], report)?.collect()
    }

    /// Reads a page, so that a database that cannot be read is noticed.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        self.connection.query_row("SELECT count(*) FROM (SELECT 1 FROM reports LIMIT 1)", [], |_| Ok(()))
    }

    pub(super) fn tally(&self) -> rusqlite::Result<Tally> {
        let select = "SELECT count(*), count(request_key) - count(DISTINCT request_key) FROM reports";
        self.connection
            .query_row(select, [], |row| Ok(Tally { reports: row.get(0)?, duplicates: row.get(1)? }))
    }
}

fn report(row: &Row<'_>) -> rusqlite::Result<Report> {
    Ok(Report {
        id: row.get(0)?,
        title: row.get(1)?,
        body: row.get(2)?,
        request_key: row.get(3)?,
        created_ms: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Reports) {
        let folder = tempfile::tempdir().unwrap();
        let reports = Reports::open(&folder.path().join("reports.db")).unwrap();
        (folder, reports)
    }

    fn draft(title: &str) -> Draft {
        Draft { title: title.to_owned(), body: "text".to_owned() }
    }

    #[test]
    fn a_report_comes_back_as_it_was_given() {
        let (_folder, reports) = store();
        let id = reports.add(&draft("first"), Some("key-1")).unwrap();
        let report = reports.get(id).unwrap().unwrap();
        assert_eq!((report.title.as_str(), report.body.as_str()), ("first", "text"));
        assert_eq!(report.request_key.as_deref(), Some("key-1"));
        assert!(report.created_ms > 0);
        assert_eq!(reports.get(id + 1).unwrap(), None);
    }

    #[test]
    fn the_newest_come_first_and_no_more_than_asked() {
        let (_folder, reports) = store();
        for title in ["a", "b", "c"] {
            reports.add(&draft(title), None).unwrap();
        }
        let titles = |limit, before| {
            let newest = reports.newest(limit, before).unwrap();
            newest.into_iter().map(|report| report.title).collect::<Vec<_>>()
        };
        assert_eq!(titles(2, i64::MAX), ["c", "b"]);
        assert_eq!(titles(2, 2), ["a"]);
        assert!(titles(0, i64::MAX).is_empty());
    }

    #[test]
    fn a_request_carried_out_twice_is_counted_as_a_duplicate() {
        let (_folder, reports) = store();
        for key in [Some("x"), Some("y"), Some("x"), None, None] {
            reports.add(&draft("r"), key).unwrap();
        }
        assert_eq!(reports.tally().unwrap(), Tally { reports: 5, duplicates: 1 });
    }

    #[test]
    fn reports_outlive_the_process_that_wrote_them() {
        let (folder, reports) = store();
        let id = reports.add(&draft("kept"), None).unwrap();
        drop(reports);
        let again = Reports::open(&folder.path().join("reports.db")).unwrap();
        assert_eq!(again.get(id).unwrap().unwrap().title, "kept");
    }

    #[test]
    fn two_processes_may_have_the_database_open() {
        let (folder, old) = store();
        let new = Reports::open(&folder.path().join("reports.db")).unwrap();
        old.add(&draft("old"), None).unwrap();
        new.add(&draft("new"), None).unwrap();
        assert_eq!(old.tally().unwrap().reports, 2);
    }

    #[test]
    fn a_database_that_lost_its_table_fails_the_check() {
        let (_folder, reports) = store();
        reports.check().unwrap();
        reports.connection.execute_batch("DROP TABLE reports").unwrap();
        assert!(reports.check().is_err());
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports.db");
        std::fs::write(
            &path,
            "a text file, and long enough not to be taken for an empty database".repeat(20),
        )
        .unwrap();
        assert!(Reports::open(&path).is_err());
    }
}
