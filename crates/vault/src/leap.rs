//! The read mark that is always held: the next reader opens before the last one closes.
//!
//! SQLite begins the log again only once all of it is in the database's file and no reader needs it. A reader opened at
//! a moment when all up to there was copied keeps whatever comes after it in the log. Opened when everything already
//! is in the file, it lets the log begin again, once: what is then written to it cannot go into the file.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::database::Database;
use crate::error::{Error, Result};

/// So long others are waited for, and so often it is looked whether they are done.
const LOCK_WITHIN: Duration = Duration::from_millis(50);
const LOCK_EVERY: Duration = Duration::from_micros(500);

/// Lets a reader begin: a transaction is one only once it has read.
const READ: &str = "SELECT 1 FROM sqlite_schema LIMIT 1";

/// A connection inside of a read transaction.
#[derive(Debug)]
pub struct Reader {
    pub(crate) connection: Connection,
    database: Database,
}

impl Reader {
    pub fn begin(database: &Database, connection: Connection) -> Result<Self> {
        let begin = || {
            step(&connection, "BEGIN")?;
            step(&connection, READ)
        };
        begin().map_err(Error::database(&database.path))?;
        Ok(Self { connection, database: database.clone() })
    }

    /// Ends the transaction; the connection can be used again.
    pub fn end(self) -> Result<Connection> {
        step(&self.connection, "ROLLBACK").map_err(Error::database(&self.database.path))?;
        Ok(self.connection)
    }
}

/// Runs a statement that is needed again soon. Of its rows only that there are some matters.
fn step(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.query([])?.next().map(drop)
}

/// Two connections that take turns; one that counts what is committed and holds nothing; one for the write lock.
#[derive(Debug)]
pub struct Leap {
    database: Database,
    held: Option<Reader>,
    spare: Option<Connection>,
    pub(crate) counter: Connection,
    locker: Connection,
}

impl Leap {
    /// Holds a mark from here on.
    pub fn begin(database: &Database) -> Result<Self> {
        let held = Reader::begin(database, database.connect()?)?;
        Ok(Self {
            database: database.clone(),
            held: Some(held),
            spare: Some(database.connect()?),
            counter: database.connect()?,
            locker: database.connect()?,
        })
    }

    /// The next reader opens, and only then the last one closes.
    pub fn leap(&mut self) -> Result<()> {
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => self.database.connect()?,
        };
        let next = Reader::begin(&self.database, spare)?;
        let last = self.held.replace(next);
        // A connection that cannot end its transaction is closed, which ends it.
        self.spare = last.and_then(|last| last.end().ok());
        Ok(())
    }

    /// Nobody writes between these two. A moment between two transactions is waited for, which somebody who writes
    /// without a pause leaves too; false where there was none.
    pub fn lock(&self) -> Result<bool> {
        let locked = soon(|| match self.locker.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => Ok(Some(())),
            Err(error) if is_busy(&error) => Ok(None),
            Err(error) => Err(error),
        });
        Ok(locked.map_err(Error::database(&self.database.path))?.is_some())
    }

    /// Writes what is marked into the database's file. Only with the write lock: a commit that begins the log again at
    /// the same moment corrupts it with versions of SQLite that have a bug there. False where a reader stood in its way.
    /// A checkpoint that somebody else is at is waited for; `None` where it takes long.
    pub fn checkpoint(&self) -> Result<Option<bool>> {
        let done = soon(|| {
            self.counter.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                let is_busy = row.get::<_, i64>(0)? != 0;
                Ok((!is_busy).then_some(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
            })
        });
        done.map_err(Error::database(&self.database.path))
    }

    pub fn unlock(&self) -> Result<()> {
        self.locker.execute_batch("ROLLBACK").map_err(Error::database(&self.database.path))
    }
}

/// Asks again while others are in the way; `None` where they still are when the time is over.
fn soon<T>(ask: impl Fn() -> rusqlite::Result<Option<T>>) -> rusqlite::Result<Option<T>> {
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match ask()? {
            None if Instant::now() < deadline => std::thread::park_timeout(LOCK_EVERY),
            answer => return Ok(answer),
        }
    }
}

pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_somebody_else_is_at_is_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let leap = Leap::begin(&Database::find(&path).unwrap()).unwrap();
        assert!(leap.lock().unwrap());
        std::thread::scope(|threads| {
            // It has the lock for checkpoints, and waits for the one for writing, which is ours.
            let theirs = threads.spawn(move || {
                app.busy_timeout(Duration::from_mins(1)).unwrap();
                let full = || app.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get::<_, i64>(0));
                while full().unwrap() != 0 {}
            });
            while leap.checkpoint().unwrap().is_some() {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            leap.unlock().unwrap();
            theirs.join().unwrap();
        });
        assert!(leap.lock().unwrap());
        assert_eq!(leap.checkpoint().unwrap(), Some(true));
    }
}
