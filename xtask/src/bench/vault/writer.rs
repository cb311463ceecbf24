//! The application: commits at a steady rate, and says what each commit took.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};

/// Commits are due at fixed times; one that is late is measured from when it was due to begin, as a user would.
const WRITE: &str = r#"
import sqlite3, sys, time, os, json
path, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
db = sqlite3.connect(path, isolation_level=None, timeout=5)
db.execute("PRAGMA synchronous=NORMAL")
took, peak, begin = [], 0, time.time()
due, count = begin, 0
while True:
    now = time.time()
    if now - begin >= seconds:
        break
    if now < due:
        time.sleep(due - now)
    start = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t(body, at) VALUES (randomblob(900), ?)", (time.time(),))
    db.execute("COMMIT")
    took.append(time.perf_counter() - start)
    count += 1
    due = begin + count / rate
    if count % 16 == 0:
        peak = max(peak, os.stat(path + "-wal").st_size)
took.sort()
start = time.perf_counter()
try:
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
except sqlite3.OperationalError:
    busy = 1
print(json.dumps({"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1],
    "commits": len(took), "wal_peak": peak, "truncate": time.perf_counter() - start, "busy": busy}))
"#;

const NEWEST: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("SELECT max(at) FROM t").fetchone()[0], db.execute("SELECT count(*) FROM t").fetchone()[0], db.execute("PRAGMA integrity_check").fetchone()[0])
"#;

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Written {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) commits: u64,
    pub(super) wal_peak: u64,
    pub(super) truncate: f64,
    pub(super) busy: u64,
}

pub(super) fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(script);
    command
}

pub(super) fn start(database: &Path, rate: u32, seconds: u32) -> Result<Child> {
    let mut command = python(WRITE);
    command.arg(database).arg(rate.to_string()).arg(seconds.to_string()).stdout(Stdio::piped());
    command.spawn().map_err(Error::file("start", Path::new("python3")))
}

pub(super) fn wait(child: Child) -> Result<Written> {
    let output = child.wait_with_output().map_err(Error::file("wait for", Path::new("python3")))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::Check(format!("the writer said nothing that can be read: {error}")))
}

/// When the newest row was written, how many there are, and whether the file is sound.
pub(super) fn newest(database: &Path) -> Result<(Duration, u64, bool)> {
    let text = crate::shell::output(python(NEWEST).arg(database))?;
    let mut fields = text.split_whitespace();
    let at = fields.next().and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    let count = fields.next().and_then(|it| it.parse().ok()).unwrap_or(0);
    Ok((Duration::from_secs_f64(at.max(0.0)), count, fields.next() == Some("ok")))
}
