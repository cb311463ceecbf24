//! What is in a database, as it answers itself: rows and a hash of their values for each table, the schema, and what
//! refers to nothing. Asked of the live database when it is copied, and of the copy when it is restored.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use crate::manifest::{Contents, Table};

/// Bytes gathered before they are hashed.
const GATHER_BYTES: usize = 64 * 1024;

/// Reads everything once. `each` is called after some rows with how many were read so far, and ends it by saying false.
pub fn read(connection: &Connection, each: &mut dyn FnMut(u64) -> bool) -> Result<Contents> {
    let (schema, schema_objects) = schema(connection)?;
    let mut contents = Contents {
        schema,
        schema_objects,
        user_version: number(connection, "PRAGMA user_version")?,
        application_id: number(connection, "PRAGMA application_id")?,
        ..Contents::default()
    };
    let mut before = 0;
    for name in tables(connection)? {
        let table = table(connection, &name, &mut |rows| each(before + rows))?;
        before += table.rows;
        contents.tables.push(table);
    }
    let violations = number(connection, "SELECT count(*) FROM pragma_foreign_key_check");
    // A key that names a table which is not there cannot be checked, here and there alike.
    contents.foreign_key_violations = violations.map_or(0, |it| u64::try_from(it).unwrap_or(0));
    Ok(contents)
}

/// Only how many rows each table has: quick, and enough to see that something went missing.
pub fn count(connection: &Connection) -> Result<Vec<(String, u64)>> {
    let counted = |name: String| {
        let rows = number(connection, &format!("SELECT count(*) FROM {}", quoted(&name))).unwrap_or(0);
        (name, u64::try_from(rows).unwrap_or(0))
    };
    Ok(tables(connection)?.into_iter().map(counted).collect())
}

/// The names of all tables that hold rows. What virtual tables hold is in tables of their own.
pub fn tables(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn schema(connection: &Connection) -> Result<(String, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name, sql")?;
    let objects = hash_rows(&mut statement, &mut hasher, &mut |_| true)?;
    Ok((hasher.finalize().to_hex().to_string(), objects))
}

/// In the order in which they are stored, by rowid or primary key: nothing has to be sorted.
fn table(connection: &Connection, name: &str, each: &mut dyn FnMut(u64) -> bool) -> Result<Table> {
    let mut hasher = blake3::Hasher::new();
    let rows = connection
        .prepare(&format!("SELECT * FROM {} NOT INDEXED", quoted(name)))
        .and_then(|mut statement| hash_rows(&mut statement, &mut hasher, each));
    match rows {
        Ok(rows) => Ok(Table { name: name.to_owned(), rows, hash: hasher.finalize().to_hex().to_string() }),
        Err(error @ rusqlite::Error::SqliteFailure(..)) if is_ours(&error) => Err(error),
        // Such as a generated column by a function that only the application has.
        Err(error) => Ok(Table { name: name.to_owned(), rows: 0, hash: format!("cannot be read: {error}") }),
    }
}

/// Not something that the schema says, but the file or our own end.
fn is_ours(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::SystemIoFailure
                | ErrorCode::OperationInterrupted
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
                | ErrorCode::CannotOpen
        )
    )
}

fn hash_rows(
    statement: &mut rusqlite::Statement<'_>,
    hasher: &mut blake3::Hasher,
    each: &mut dyn FnMut(u64) -> bool,
) -> Result<u64> {
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut gathered = Vec::with_capacity(GATHER_BYTES * 2);
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            gather(row.get_ref(column)?, &mut gathered);
        }
        gathered.push(b'\n');
        count += 1;
        if gathered.len() >= GATHER_BYTES {
            hasher.update(&gathered);
            gathered.clear();
            if !each(count) {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                return Err(rusqlite::Error::SqliteFailure(code, Some("it was ended".to_owned())));
            }
        }
    }
    hasher.update(&gathered);
    Ok(count)
}

/// A value so that no two different ones look alike: its kind, its length, its bytes.
fn gather(value: ValueRef<'_>, into: &mut Vec<u8>) {
    match value {
        ValueRef::Null => into.push(b'n'),
        ValueRef::Integer(number) => {
            into.push(b'i');
            into.extend(number.to_le_bytes());
        }
        ValueRef::Real(number) => {
            into.push(b'r');
            into.extend(number.to_bits().to_le_bytes());
        }
        ValueRef::Text(bytes) => with_length(b't', bytes, into),
        ValueRef::Blob(bytes) => with_length(b'b', bytes, into),
    }
}

fn with_length(kind: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(kind);
    into.extend((bytes.len() as u64).to_le_bytes());
    into.extend(bytes);
}

fn number(connection: &Connection, sql: &str) -> Result<i64> {
    connection.query_row(sql, [], |row| row.get(0))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(sql: &str) -> Contents {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(sql).unwrap();
        read(&db, &mut |_| true).unwrap()
    }

    #[test]
    fn the_same_rows_hash_alike_and_any_other_value_does_not() {
        let table = "CREATE TABLE \"a \"\" b\"(x, y); INSERT INTO \"a \"\" b\" VALUES ";
        let one = contents(&format!("{table} (1, 'ab'), (2, x'00')"));
        assert_eq!(one, contents(&format!("{table} (1, 'ab'), (2, x'00')")));
        for other in [
            "(1, 'ab')",
            "(1, 'ab'), (2, NULL)",
            "(1, 'a'), (2, x'00')",
            "('1', 'ab'), (2, x'00')",
            "(1.0, 'ab'), (2, x'00')",
            "(2, x'00'), (1, 'ab')",
        ] {
            let two = contents(&format!("{table} {other}"));
            assert_ne!(one.tables, two.tables, "{other}");
            assert_ne!(one.hash(), two.hash());
        }
    }

    #[test]
    fn all_kinds_of_tables_are_read_and_what_refers_to_nothing_is_counted() {
        let found = contents(
            "PRAGMA foreign_keys=off; CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT);
             CREATE TABLE c(p REFERENCES p(id)); INSERT INTO c VALUES (7), (8);
             CREATE TABLE w(a PRIMARY KEY) WITHOUT ROWID; INSERT INTO w VALUES ('x');
             CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES ('hello');
             CREATE TABLE g(a, b AS (a * 2)); INSERT INTO g VALUES (1); PRAGMA user_version=5;",
        );
        let rows = |name: &str| found.tables.iter().find(|it| it.name == name).map(|it| it.rows);
        assert_eq!(
            (rows("c"), rows("w"), rows("g"), rows("f"), rows("f_content")),
            (Some(2), Some(1), Some(1), None, Some(1))
        );
        assert_eq!((found.foreign_key_violations, found.user_version), (2, 5));
        assert!(rows("sqlite_sequence").is_some());
    }
}
