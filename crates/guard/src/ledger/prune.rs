//! Retention: what is summed up, and what is thrown away, a little at a time.

use jiff::Timestamp;
use rusqlite::{Connection, params};

const DAY_MS: i64 = 24 * 3600 * 1000;
const HOUR_SECONDS: i64 = 3600;
/// Minutes of an hour may come this much after its end.
const HOUR_SLACK_SECONDS: i64 = 120;
const HOUR_COUNTER: &str = "hour";
/// Rows that one step may delete: a few milliseconds, and the most that a clock that ran ahead for a moment can cost.
const STEP_ROWS: i64 = 500;

/// Limits by age and by number; whichever comes first.
struct Retention {
    table: &'static str,
    /// The column with the row's age.
    column: &'static str,
    /// Of the column's unit, in milliseconds.
    unit_ms: i64,
    days: i64,
    rows: i64,
}

/// At some 500 bytes an event, 40 kB an incident and 70 bytes a sample this is at most 700 MB, and 20 MB for a service
/// that behaves.
const RETENTION: [Retention; 4] = [
    Retention { table: "events", column: "time_ms", unit_ms: 1, days: 30, rows: 200_000 },
    Retention { table: "incidents", column: "opened_ms", unit_ms: 1, days: 365, rows: 10_000 },
    Retention { table: "samples_1m", column: "began", unit_ms: 1000, days: 7, rows: 1_000_000 },
    Retention { table: "samples_1h", column: "began", unit_ms: 1000, days: 365, rows: 500_000 },
];

/// One small step for each table. Returns whether a table is still over its number of rows.
pub(super) fn step(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    let mut more = false;
    for retention in &RETENTION {
        more |= retention.step(connection, now)?;
    }
    Ok(more)
}

impl Retention {
    /// Looks at the oldest rows only. Rows are in the order in which they came, whatever the clock did.
    fn step(&self, connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
        let Self { table, column, unit_ms, days, rows } = *self;
        let oldest_kept = (now.as_millisecond() - days * DAY_MS) / unit_ms;
        let last: i64 =
            connection
                .query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get(0))?;
        let mut delete = connection.prepare_cached(&format!(
            "DELETE FROM {table} WHERE id IN (
                 SELECT id FROM (SELECT id, {column} AS age FROM {table} ORDER BY id LIMIT {STEP_ROWS})
                 WHERE age < ? OR id <= ?)"
        ))?;
        delete.execute(params![oldest_kept, last - rows])?;
        let first: i64 =
            connection
                .query_row(&format!("SELECT coalesce(min(id), 0) FROM {table}"), [], |row| row.get(0))?;
        Ok(last - first + 1 > rows)
    }
}

/// Sums up the hours that are over since this was last done.
pub(super) fn sum_up_hours(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let until = (now.as_second() - HOUR_SLACK_SECONDS).div_euclid(HOUR_SECONDS) * HOUR_SECONDS;
    let from: i64 = connection.query_row(
        "SELECT coalesce((SELECT next FROM counters WHERE name = ?), 0)",
        [HOUR_COUNTER],
        |row| row.get(0),
    )?;
    // Ahead of us only when the clock was set back: then wait no longer than it would have taken.
    if from == until || (from > until && from <= until + HOUR_SECONDS) {
        return Ok(());
    }
    connection.execute(
        "INSERT OR REPLACE INTO samples_1h (began, instance, memory_min, memory_avg, memory_max, memory_count,
             descriptors_min, descriptors_avg, descriptors_max, descriptors_count)
         SELECT began / 3600 * 3600 AS hour, instance, min(memory_min),
             sum(memory_avg * memory_count) / sum(memory_count), max(memory_max), sum(memory_count),
             min(descriptors_min), sum(descriptors_avg * descriptors_count) / nullif(sum(descriptors_count), 0),
             max(descriptors_max), sum(descriptors_count)
         FROM samples_1m WHERE began >= ? AND began < ? GROUP BY instance, hour ORDER BY hour",
        params![from, until],
    )?;
    connection.execute(
        "INSERT OR REPLACE INTO counters (name, next) VALUES (?, ?)",
        params![HOUR_COUNTER, until],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::schema;

    fn ledger() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection, 0).unwrap();
        connection
    }

    fn count(connection: &Connection, table: &str) -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn old_events_go_in_small_steps_and_young_ones_stay() {
        let connection = ledger();
        let now = Timestamp::from_second(100 * 86_400).unwrap();
        let add = |n: i64, day: i64| {
            connection
                .execute(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                     INSERT INTO events (time_ms, service, record) SELECT ?, 'a', '{}' FROM n",
                    params![n, day * DAY_MS],
                )
                .unwrap();
        };
        add(700, 60);
        add(10, 99);
        assert!(!step(&connection, now).unwrap());
        assert_eq!(count(&connection, "events"), 210);
        step(&connection, now).unwrap();
        assert_eq!(count(&connection, "events"), 10);
        step(&connection, now).unwrap();
        assert_eq!(count(&connection, "events"), 10);
    }

    #[test]
    fn too_many_events_go_whatever_their_age() {
        let connection = ledger();
        connection
            .execute("INSERT INTO events VALUES (1, 0, 'a', '{}'), (200010, 0, 'a', '{}')", [])
            .unwrap();
        assert!(!step(&connection, Timestamp::UNIX_EPOCH).unwrap());
        assert_eq!(count(&connection, "events"), 1);
    }

    #[test]
    fn an_hour_is_summed_up_once_it_is_over() {
        let connection = ledger();
        let insert =
            "INSERT INTO samples_1m (began, instance, memory_min, memory_avg, memory_max, memory_count,
            descriptors_min, descriptors_avg, descriptors_max, descriptors_count) VALUES ";
        let rows =
            "(3600, 'a.1', 10, 20, 30, 1, NULL, NULL, NULL, 0), (3660, 'a.1', 5, 40, 90, 3, 7, 8, 9, 2),
            (7200, 'a.1', 1, 1, 1, 1, 1, 1, 1, 1)";
        connection.execute(&format!("{insert}{rows}"), []).unwrap();
        sum_up_hours(&connection, Timestamp::from_second(7210).unwrap()).unwrap();
        assert_eq!(count(&connection, "samples_1h"), 0, "its last minutes may still come");
        for _ in 0..2 {
            sum_up_hours(&connection, Timestamp::from_second(7330).unwrap()).unwrap();
        }
        let row: [i64; 6] = connection
            .query_row(
                "SELECT began, memory_min, memory_avg, memory_max, memory_count, descriptors_avg FROM samples_1h",
                [],
                |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]),
            )
            .unwrap();
        assert_eq!(row, [3600, 5, 35, 90, 4, 8]);
    }
}
