"""The reports, in SQLite: one connection and one lock for all threads."""

import sqlite3
import threading

SCHEMA = """
CREATE TABLE IF NOT EXISTS reports (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, body TEXT NOT NULL, request_key TEXT
)
"""


class Store:
    def __init__(self, path):
        self.lock = threading.Lock()
        # Statements commit by themselves; the lock is what makes one connection safe for many threads.
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = wal")
        self._database.execute("PRAGMA synchronous = normal")
        self._database.execute(SCHEMA)

    def add(self, title, body, request_key):
        insert = "INSERT INTO reports (title, body, request_key) VALUES (?, ?, ?)"
        with self.lock:
            return self._database.execute(insert, (title, body, request_key)).lastrowid

    def get(self, report_id):
        rows = self._rows("SELECT * FROM reports WHERE id = ?", report_id)
        return rows[0] if rows else None

    def newest(self, limit):
        return self._rows("SELECT * FROM reports ORDER BY id DESC LIMIT ?", limit)

    def check(self):
        """Raises where the database does not answer, and waits where its lock is never given back."""
        self._rows("SELECT id FROM reports LIMIT ?", 1)

    def close(self):
        with self.lock:
            self._database.close()

    def _rows(self, select, argument):
        with self.lock:
            return [dict(row) for row in self._database.execute(select, (argument,))]
