"""The switches: every way a service goes wrong that Plimsoll guards against, on request.

Each takes the store and the query's parameters, starts its fault and returns what it started.
"""

import os
import threading
import time

from units import count, duration, size

TICK_SECONDS = 0.02
# A tick that comes late (a collection, a busy machine) is made up for, but not in one lump:
# a leak that pauses and then jumps would be a spike.
CATCH_UP_SECONDS = 0.2

# Whatever is put here is reachable for ever: that is what a leak is.
retained = []
descriptors = []

# What one retained record takes, measured with CPython 3.11: a dict, a text, a list and 32 floats of its own.
RECORD_BYTES = 1472


def drip(rate, total, take):
    """Calls take(amount) in a thread, on average `rate` per second, until `total` or until it returns False."""

    def run():
        taken, due, last = 0, 0.0, time.monotonic()
        while taken < total:
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            due += rate * min(now - last, CATCH_UP_SECONDS)
            last = now
            amount = int(min(due, total - taken))
            due -= amount
            taken += amount
            if take(amount) is False:
                return

    background(run)


def background(run):
    # A daemon, so that no fault keeps the process from ending.
    threading.Thread(target=run, daemon=True).start()


def soon(run):
    """Runs a fault that would take the answer with it, after the answer."""
    timer = threading.Timer(TICK_SECONDS, run)
    timer.daemon = True
    timer.start()


def record(number):
    return {"id": number, "title": f"report {number}", "samples": [number + i / 32 for i in range(32)]}


def leak(_store, query):
    """Python objects."""
    rate, total = size(query.get("rate", "30MiB")), size(query.get("total", "400MiB"))
    owed = 0

    def take(amount):
        nonlocal owed
        records, owed = divmod(owed + amount, RECORD_BYTES)
        retained.extend(record(len(retained) + i) for i in range(records))

    drip(rate, total, take)
    return {"rate_bytes": rate, "total_bytes": total}


def leak_buffers(_store, query):
    """Byte strings: few objects, much memory."""
    rate, total = size(query.get("rate", "30MiB")), size(query.get("total", "400MiB"))
    # Not zeroes, because memory that was never written is not resident.
    drip(rate, total, lambda amount: retained.append(b"\x01" * amount))
    return {"rate_bytes": rate, "total_bytes": total}


def leak_descriptors(_store, query):
    """Open files that nobody closes."""
    rate, total = count(query.get("rate", "200")), count(query.get("total", "100000"))

    def take(amount):
        try:
            descriptors.extend(os.open(__file__, os.O_RDONLY | os.O_CLOEXEC) for _ in range(amount))
        except OSError as error:
            print(f"fault: after {len(descriptors)} leaked descriptors: {error.strerror}", flush=True)
            return False

    drip(rate, total, take)
    return {"rate": rate, "total": total}


def spike(_store, query):
    """Much memory at once, kept for `for`."""
    bytes_wanted = size(query.get("size", "600MiB"))
    over = max(duration(query.get("over", "2s")), TICK_SECONDS)
    keep = duration(query.get("for", "10s"))
    held = []
    drip(bytes_wanted / over, bytes_wanted, lambda amount: held.append(b"\x01" * amount))
    release = threading.Timer(over + keep, held.clear)
    release.daemon = True
    release.start()
    return {"size_bytes": bytes_wanted, "over_seconds": over, "for_seconds": keep}


def hang(store, _query):
    """The lock that every request needs is never given back. SIGTERM then waits for those requests for ever."""
    soon(store.lock.acquire)
    return {}


def crash(_store, query):
    """An abort, or `code=` to exit with."""
    code = count(query["code"]) if "code" in query else None
    soon(os.abort if code is None else lambda: os._exit(code))
    return {"code": code}


SWITCHES = {
    "/leak": leak,
    "/leak-buffers": leak_buffers,
    "/leak-fds": leak_descriptors,
    "/spike": spike,
    "/hang": hang,
    "/crash": crash,
}
