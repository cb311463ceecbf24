//! A folder with a database in it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::shell;

use super::writer::python;

const FILL: &str = r#"
import sqlite3, sys, os
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=wal")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB, at REAL)")
db.execute("CREATE INDEX t_at ON t(at)")
left = int(sys.argv[2])
while left > 0:
    db.execute("BEGIN")
    db.executemany("INSERT INTO t(body, at) VALUES (randomblob(900), 0)", [()] * 2000)
    db.execute("COMMIT")
    left -= 2000 * 1024
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"#;

pub(super) struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// With about so many bytes in it.
    pub(super) fn new(bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("plimsoll-bench-vault-")
            .tempdir()
            .map_err(Error::file("make", Path::new("a temporary folder")))?;
        let ground = Self { folder };
        shell::output(python(FILL).arg(ground.database()).arg(bytes.to_string()))?;
        Ok(ground)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path("app.db")
    }

    /// A restored database, and what may lie beside it.
    pub(super) fn clear(&self, name: &str) {
        for suffix in ["", "-journal", "-wal", "-shm", ".tmp", ".tmp-wal", ".tmp-shm"] {
            let _ = std::fs::remove_file(self.path(&format!("{name}{suffix}")));
        }
    }
}
