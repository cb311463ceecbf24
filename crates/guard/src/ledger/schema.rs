//! The ledger's tables, and how an older ledger becomes today's.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// `PLIM`: tells a ledger from any other database.
const APPLICATION_ID: i32 = 0x504c_494d;

/// Step N takes a ledger from version N to N + 1. A step that has been released is never changed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        service TEXT NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX events_by_service ON events (service, id);
    CREATE TABLE incidents (
        id INTEGER PRIMARY KEY,
        opened_ms INTEGER NOT NULL,
        service TEXT NOT NULL,
        record TEXT NOT NULL,
        evidence TEXT
    );
    CREATE INDEX incidents_by_service ON incidents (service, id);
    CREATE TABLE samples_1m (
        id INTEGER PRIMARY KEY,
        began INTEGER NOT NULL,
        instance TEXT NOT NULL,
        memory_min INTEGER NOT NULL,
        memory_avg INTEGER NOT NULL,
        memory_max INTEGER NOT NULL,
        memory_count INTEGER NOT NULL,
        descriptors_min INTEGER,
        descriptors_avg INTEGER,
        descriptors_max INTEGER,
        descriptors_count INTEGER NOT NULL,
        UNIQUE (instance, began)
    );
    CREATE TABLE samples_1h (
        id INTEGER PRIMARY KEY,
        began INTEGER NOT NULL,
        instance TEXT NOT NULL,
        memory_min INTEGER NOT NULL,
        memory_avg INTEGER NOT NULL,
        memory_max INTEGER NOT NULL,
        memory_count INTEGER NOT NULL,
        descriptors_min INTEGER,
        descriptors_avg INTEGER,
        descriptors_max INTEGER,
        descriptors_count INTEGER NOT NULL,
        UNIQUE (instance, began)
    );
    CREATE TABLE counters (
        name TEXT PRIMARY KEY,
        next INTEGER NOT NULL
    ) WITHOUT ROWID;
"];

/// Whose database this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Ours { version: i64 },
    Empty,
    Newer { version: i64 },
    Foreign,
}

/// The version that this plimsoll writes.
pub(super) fn version() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}

/// Only reads.
pub(super) fn inspect(connection: &Connection) -> rusqlite::Result<Found> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let found = number("user_version")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    Ok(match (number("application_id")?, tables) {
        (0, 0) => Found::Empty,
        (id, _) if id != i64::from(APPLICATION_ID) => Found::Foreign,
        _ if found > version() => Found::Newer { version: found },
        _ => Found::Ours { version: found },
    })
}

/// Brings a ledger of ours, or an empty one, up to [`version`], in one transaction.
pub(super) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let todo = MIGRATIONS.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default();
    if todo.is_empty() {
        return Ok(());
    }
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    for step in todo {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", version())?;
    transaction.commit()
}
