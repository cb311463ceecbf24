//! Reading the ledger: by the guard, and straight from the file when no guard runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params_from_iter};
use serde::de::DeserializeOwned;

use super::error::LedgerError;
use super::schema::{self, Found};
use super::store::unsigned;
use crate::records::{EventRecord, IncidentRecord, SampleRollup, Spread};

/// Rows that one question gives at most.
pub const ROWS_MAX: usize = 10_000;
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How finely measurements are kept: minutes for a week, hours for a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Minute,
    Hour,
}

/// A ledger that is only read, as the command line does when no guard answers.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// Opens the ledger for reading, while a guard writes it or when none runs. Nothing in it is changed.
pub fn read_only(path: &Path) -> Result<Reader, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing { path: path.to_owned() });
    }
    let failed = |source| LedgerError::sqlite("open", path, source);
    let connection = open_for_reading(path).map_err(failed)?;
    match schema::inspect(&connection).map_err(failed)? {
        // An empty one has never been written: there is nothing to read, and that is an answer.
        Found::Ours { .. } => Ok(Reader { connection, path: path.to_owned() }),
        Found::Empty => Err(LedgerError::Missing { path: path.to_owned() }),
        Found::Newer { version } => {
            Err(LedgerError::Newer { path: path.to_owned(), found: version, known: schema::version() })
        }
        Found::Foreign => Err(LedgerError::Foreign { path: path.to_owned() }),
    }
}

/// In a folder where nothing may be written SQLite cannot share memory with a writer; then there is none, and the
/// file is read as it lies.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    match schema::inspect(&connection) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) => {
            let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        }
        Ok(_) | Err(_) => Ok(connection),
    }
}

/// Everywhere: the newest `limit` of what matches, oldest first.
impl Reader {
    pub fn events(
        &self,
        service: Option<&str>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<EventRecord>, LedgerError> {
        events(&self.connection, service, since, limit).map_err(|source| self.failed(source))
    }

    /// Without evidence; [`Reader::incident`] has it.
    pub fn incidents(&self, service: Option<&str>, limit: usize) -> Result<Vec<IncidentRecord>, LedgerError> {
        incidents(&self.connection, service, limit).map_err(|source| self.failed(source))
    }

    pub fn incident(&self, id: u64) -> Result<Option<IncidentRecord>, LedgerError> {
        incident(&self.connection, id).map_err(|source| self.failed(source))
    }

    pub fn samples(
        &self,
        instance: &str,
        span: Span,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<SampleRollup>, LedgerError> {
        samples(&self.connection, instance, span, since, limit).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::sqlite("read", &self.path, source)
    }
}

pub(super) fn events(
    connection: &Connection,
    service: Option<&str>,
    since: Option<Timestamp>,
    limit: usize,
) -> rusqlite::Result<Vec<EventRecord>> {
    let mut query = Query::new("SELECT record FROM events");
    query.filter("service = ?", service.map(str::to_owned));
    query.filter("time_ms >= ?", since.map(Timestamp::as_millisecond));
    Ok(query
        .newest(connection, limit, |row| row.get::<_, String>(0))?
        .iter()
        .filter_map(|it| parsed(it))
        .collect())
}

pub(super) fn incidents(
    connection: &Connection,
    service: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<IncidentRecord>> {
    let mut query = Query::new("SELECT record FROM incidents");
    query.filter("service = ?", service.map(str::to_owned));
    Ok(query
        .newest(connection, limit, |row| row.get::<_, String>(0))?
        .iter()
        .filter_map(|it| parsed(it))
        .collect())
}

pub(super) fn incident(connection: &Connection, id: u64) -> rusqlite::Result<Option<IncidentRecord>> {
    // A number past what SQLite can hold was never given to an incident.
    let Ok(id) = i64::try_from(id) else { return Ok(None) };
    let mut select = connection.prepare_cached("SELECT record, evidence FROM incidents WHERE id = ?")?;
    let found = select
        .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))
        .optional()?;
    Ok(found.and_then(|(record, evidence)| {
        let mut incident: IncidentRecord = parsed(&record)?;
        incident.evidence = evidence.as_deref().and_then(parsed);
        Some(incident)
    }))
}

pub(super) fn samples(
    connection: &Connection,
    instance: &str,
    span: Span,
    since: Option<Timestamp>,
    limit: usize,
) -> rusqlite::Result<Vec<SampleRollup>> {
    let columns = "SELECT began, memory_min, memory_avg, memory_max, memory_count,
        descriptors_min, descriptors_avg, descriptors_max, descriptors_count FROM";
    let (table, span_seconds) = match span {
        Span::Minute => ("samples_1m", 60),
        Span::Hour => ("samples_1h", 3600),
    };
    let mut query = Query::new(&format!("{columns} {table}"));
    query.filter("instance = ?", Some(instance.to_owned()));
    query.filter("began >= ?", since.map(Timestamp::as_second));
    query.newest(connection, limit, |row| {
        Ok(SampleRollup {
            time: Timestamp::from_second(row.get(0)?).unwrap_or(Timestamp::UNIX_EPOCH),
            span_seconds,
            instance: instance.to_owned(),
            memory_bytes: spread(row, 1)?,
            descriptors: match row.get::<_, i64>(8)? {
                0 => None,
                _ => Some(spread(row, 5)?),
            },
        })
    })
}

fn spread(row: &Row<'_>, first: usize) -> rusqlite::Result<Spread> {
    Ok(Spread {
        min: unsigned(row.get(first)?),
        avg: unsigned(row.get(first + 1)?),
        max: unsigned(row.get(first + 2)?),
        count: unsigned(row.get(first + 3)?),
    })
}

/// A row that cannot be read, because it is damaged or from another time, does not hide the others.
fn parsed<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// A question about one table, newest first.
struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    fn new(select: &str) -> Self {
        Self { sql: select.to_owned(), values: Vec::new() }
    }

    fn filter(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.sql.push_str(if self.values.is_empty() { " WHERE " } else { " AND " });
            self.sql.push_str(condition);
            self.values.push(value.into());
        }
    }

    fn newest<T>(
        mut self,
        connection: &Connection,
        limit: usize,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.sql.push_str(" ORDER BY id DESC LIMIT ?");
        self.values.push(Value::Integer(i64::try_from(limit.min(ROWS_MAX)).unwrap_or(i64::MAX)));
        let mut select = connection.prepare_cached(&self.sql)?;
        let rows = select.query_map(params_from_iter(self.values), read)?;
        let mut found = rows.collect::<rusqlite::Result<Vec<T>>>()?;
        found.reverse();
        Ok(found)
    }
}
