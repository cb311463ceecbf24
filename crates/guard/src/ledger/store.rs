//! The ledger's file: opening it, setting a broken one aside, writing a batch.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, MAIN_DB, OpenFlags, Statement, Transaction, TransactionBehavior, params};

use super::error::LedgerError;
use super::numbers::Numbers;
use super::pending::Pending;
use super::read::open_for_reading;
use super::rollup::Minute;
use super::schema::{self, Found};
use crate::records::{EventRecord, IncidentRecord};

/// A reader from outside can hold the file for a moment, not longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// In KiB. SQLite's own default of 2 MiB is a seventh of what the whole guard may use.
const CACHE_KIB: i64 = 512;
/// The write-ahead log is cut back to this after a checkpoint.
const JOURNAL_BYTES_MAX: i64 = 4 << 20;
/// Broken ledgers kept beside the new one; a disk that goes on breaking them must not fill up.
const ASIDE_MAX: usize = 3;
const ASIDE_INFIX: &str = ".corrupt-";
const INCIDENT_COUNTER: &str = "incident";
const INSTANCE_COUNTER: &str = "instance:";

#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the ledger, or begins one. A file of another kind or of a newer version is left as it is.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let failed = |verb| move |source| LedgerError::sqlite(verb, path, source);
        if create(path)? {
            let reader = open_for_reading(path).map_err(failed("open"))?;
            version_of(path, &reader)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed("open"))?;
        if connection.is_readonly(MAIN_DB).map_err(failed("open"))? {
            return Err(LedgerError::ReadOnly { path: path.to_owned() });
        }
        prepare(&connection).map_err(failed("set up"))?;
        let version = version_of(path, &connection)?;
        schema::migrate(&mut connection, version).map_err(failed("bring up to date"))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Writes all of it or nothing.
    pub(super) fn write(&mut self, batch: &Pending, numbers: &Numbers) -> Result<(), LedgerError> {
        let path = &self.path;
        write(&mut self.connection, batch, numbers)
            .map_err(|source| LedgerError::sqlite("write", path, source))
    }

    pub(super) fn numbers(&self) -> Result<Numbers, LedgerError> {
        numbers(&self.connection).map_err(|source| LedgerError::sqlite("read", &self.path, source))
    }
}

/// Whether there was something there. The file is made for its owner alone: output of services can end up in it.
fn create(path: &Path) -> Result<bool, LedgerError> {
    let failed = |verb| {
        let path = path.to_owned();
        move |source| LedgerError::Io { verb, path, source }
    };
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
            }
            OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed("create"))?;
            Ok(false)
        }
        Err(error) => Err(failed("look at")(error)),
    }
}

fn version_of(path: &Path, connection: &Connection) -> Result<i64, LedgerError> {
    match schema::inspect(connection).map_err(|source| LedgerError::sqlite("read", path, source))? {
        Found::Ours { version } => Ok(version),
        Found::Empty => Ok(0),
        Found::Newer { version } => {
            Err(LedgerError::Newer { path: path.to_owned(), found: version, known: schema::version() })
        }
        Found::Foreign => Err(LedgerError::Foreign { path: path.to_owned() }),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A file system without shared memory answers with another mode, and that works as well.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // Over a crash of the guard nothing is lost; over a power cut the last moment may be.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_BYTES_MAX, |_| Ok(()))
}

fn write(connection: &mut Connection, batch: &Pending, numbers: &Numbers) -> rusqlite::Result<()> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    write_events(&transaction, &batch.events)?;
    write_incidents(&transaction, batch.incidents.values())?;
    write_minutes(&transaction, &batch.minutes)?;
    if batch.numbers {
        write_numbers(&transaction, numbers)?;
    }
    transaction.commit()
}

fn write_events<'a>(
    transaction: &Transaction<'_>,
    events: impl IntoIterator<Item = &'a EventRecord>,
) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO events (time_ms, service, record) VALUES (?, ?, ?)")?;
    for event in events {
        insert.execute(params![event.time.as_millisecond(), event.service, json(event)?])?;
    }
    Ok(())
}

/// Evidence lies in a column of its own, so that listings need not read it, and stays when a later record has none.
fn write_incidents<'a>(
    transaction: &Transaction<'_>,
    incidents: impl IntoIterator<Item = &'a IncidentRecord>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO incidents (id, opened_ms, service, record, evidence) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET opened_ms = excluded.opened_ms, service = excluded.service,
             record = excluded.record, evidence = coalesce(excluded.evidence, evidence)",
    )?;
    for incident in incidents {
        let evidence = incident.evidence.as_ref().map(json).transpose()?;
        let bare = IncidentRecord { evidence: None, ..incident.clone() };
        insert.execute(params![
            signed(incident.id),
            incident.opened.as_millisecond(),
            incident.service,
            json(&bare)?,
            evidence
        ])?;
    }
    Ok(())
}

/// A minute that a restart of the guard cut in two is put together again.
fn write_minutes<'a>(
    transaction: &Transaction<'_>,
    minutes: impl IntoIterator<Item = &'a Minute>,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO samples_1m (began, instance, memory_min, memory_avg, memory_max, memory_count,
             descriptors_min, descriptors_avg, descriptors_max, descriptors_count)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (instance, began) DO UPDATE SET
             memory_min = min(memory_min, excluded.memory_min),
             memory_avg = (memory_avg * memory_count + excluded.memory_avg * excluded.memory_count)
                 / (memory_count + excluded.memory_count),
             memory_max = max(memory_max, excluded.memory_max),
             memory_count = memory_count + excluded.memory_count,
             descriptors_min = min(coalesce(descriptors_min, excluded.descriptors_min),
                 coalesce(excluded.descriptors_min, descriptors_min)),
             descriptors_avg = (coalesce(descriptors_avg, 0) * descriptors_count
                 + coalesce(excluded.descriptors_avg, 0) * excluded.descriptors_count)
                 / nullif(descriptors_count + excluded.descriptors_count, 0),
             descriptors_max = max(coalesce(descriptors_max, excluded.descriptors_max),
                 coalesce(excluded.descriptors_max, descriptors_max)),
             descriptors_count = descriptors_count + excluded.descriptors_count",
    )?;
    for minute in minutes {
        write_minute(&mut insert, minute)?;
    }
    Ok(())
}

fn write_minute(insert: &mut Statement<'_>, minute: &Minute) -> rusqlite::Result<()> {
    let (memory, descriptors) = (minute.memory, minute.descriptors);
    insert.execute(params![
        minute.began,
        minute.instance,
        signed(memory.min),
        signed(memory.avg),
        signed(memory.max),
        signed(memory.count),
        descriptors.map(|it| signed(it.min)),
        descriptors.map(|it| signed(it.avg)),
        descriptors.map(|it| signed(it.max)),
        descriptors.map_or(0, |it| signed(it.count)),
    ])?;
    Ok(())
}

fn write_numbers(transaction: &Transaction<'_>, numbers: &Numbers) -> rusqlite::Result<()> {
    let mut raise = transaction.prepare_cached(
        "INSERT INTO counters (name, next) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET next = max(next, excluded.next)",
    )?;
    raise.execute(params![INCIDENT_COUNTER, signed(numbers.incident)])?;
    raise.execute(params![INSTANCE_COUNTER, signed(numbers.instance_first)])?;
    for (service, next) in &numbers.instances {
        raise.execute(params![format!("{INSTANCE_COUNTER}{service}"), signed(*next)])?;
    }
    Ok(())
}

fn numbers(connection: &Connection) -> rusqlite::Result<Numbers> {
    let mut numbers = Numbers::new();
    let mut select = connection.prepare("SELECT name, next FROM counters")?;
    let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, unsigned(row.get(1)?))))?;
    for row in rows {
        let (name, next) = row?;
        match name.strip_prefix(INSTANCE_COUNTER) {
            Some("") => numbers.instance_first = next,
            Some(service) => _ = numbers.raise_instance(service, next),
            None if name == INCIDENT_COUNTER => numbers.incident = next,
            None => {}
        }
    }
    Ok(numbers)
}

/// The numbers of a ledger that cannot be written, or is about to be set aside; `None` when it is too broken for that.
pub(super) fn salvage_numbers(path: &Path) -> Option<Numbers> {
    numbers(&open_for_reading(path).ok()?).ok()
}

/// SQLite counts to 2^63 only.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is stored is never negative; what is read after damage might be.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn json(record: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Moves a broken ledger out of the way with what belongs to it, and says where to.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, LedgerError> {
    let aside = with_suffix(path, &format!("{ASIDE_INFIX}{}", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
    fs::rename(path, &aside).map_err(|source| LedgerError::Io {
        verb: "set aside the broken",
        path: path.to_owned(),
        source,
    })?;
    // The log can hold what the main file lacks; the shared memory is nothing without its process.
    let _ = fs::rename(with_suffix(path, "-wal"), with_suffix(&aside, "-wal"));
    let _ = fs::remove_file(with_suffix(path, "-shm"));
    forget_oldest(path);
    Ok(aside)
}

fn forget_oldest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|it| it.to_str())) else {
        return;
    };
    let prefix = format!("{name}{ASIDE_INFIX}");
    let Ok(entries) = fs::read_dir(folder) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut aside: Vec<String> = names
        .filter(|it| it.starts_with(&prefix) && !it.ends_with("-wal") && !it.ends_with("-shm"))
        .collect();
    aside.sort_unstable();
    let over = aside.len().saturating_sub(ASIDE_MAX);
    for name in aside.drain(..over) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.join(format!("{name}{suffix}")));
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
