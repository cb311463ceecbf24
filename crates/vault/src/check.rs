//! Is a file a sound database, and is in it what should be?

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::contents;
use crate::error::{Error, Result};
use crate::manifest::Contents;
use crate::progress::{Phase, Progress};

/// Faults of one file that are told.
const FAULTS_MAX: u32 = 10;

/// Opens a copy that nobody else has: no locks, no log, nothing written beside it.
pub fn open(path: &Path) -> Result<Connection> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::Unfit { path: path.to_owned(), why: "its path is not UTF-8".to_owned() })?;
    let quoted = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file:{quoted}?immutable=1"), flags).map_err(Error::database(path))
}

/// Every page, every index, every constraint, by SQLite itself.
pub fn integrity(path: &Path) -> Result<()> {
    let connection = open(path)?;
    let failed = Error::database(path);
    let mut statement =
        connection.prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})")).map_err(&failed)?;
    let told: Vec<String> =
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)?;
    if told == ["ok"] {
        return Ok(());
    }
    Err(Error::NotEqual(told.into_iter().map(|it| format!("integrity_check: {it}")).collect()))
}

pub fn contents_of(path: &Path, rows: u64, progress: &dyn Progress) -> Result<Contents> {
    let connection = open(path)?;
    let mut each = |read: u64| {
        progress.at(Phase::Contents, read, rows.max(read));
        true
    };
    contents::read(&connection, &mut each).map_err(Error::database(path))
}

/// Both at once, on a thread each; what was found to be in it.
pub fn whole(path: &Path, wanted: Option<&Contents>, progress: &dyn Progress) -> Result<Contents> {
    let rows = wanted.map_or(0, Contents::rows);
    progress.at(Phase::Integrity, 0, 1);
    let (sound, found) = std::thread::scope(|scope| {
        let sound = scope.spawn(|| integrity(path));
        let found = contents_of(path, rows, progress);
        (sound.join(), found)
    });
    sound.map_err(|_| Error::Ended("the check ended by a fault of its own"))??;
    progress.at(Phase::Integrity, 1, 1);
    let found = found?;
    equal(&found, wanted)?;
    Ok(found)
}

pub fn equal(found: &Contents, wanted: Option<&Contents>) -> Result<()> {
    let differences = wanted.map(|wanted| found.differences(wanted)).unwrap_or_default();
    if differences.is_empty() { Ok(()) } else { Err(Error::NotEqual(differences)) }
}
