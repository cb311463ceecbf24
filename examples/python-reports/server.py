"""A small reports API with nothing but Python: POST and GET reports, kept in SQLite.

It knows nothing of Plimsoll: it reads PORT, answers /health and finishes its requests on SIGTERM.
"""

import json
import os
import re
import signal
import socket
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import faults
from store import Store
from units import count

BODY_BYTES_MAX = 64 * 1024
LIST_DEFAULT, LIST_MAX = 20, 200


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Server(ThreadingHTTPServer):
    # Threads are waited for when the server closes: that is what lets requests in flight finish.
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address, store):
        super().__init__(address, Handler)
        self.store = store
        self.stopping = False
        self._idle = set()
        self._idle_lock = threading.Lock()

    def idle(self, connection):
        """Remembers a connection that waits for a request, and ends it where no further one is wanted."""
        with self._idle_lock:
            self._idle.add(connection)
            if self.stopping:
                hang_up(connection)

    def busy(self, connection):
        with self._idle_lock:
            self._idle.discard(connection)

    def stop(self):
        with self._idle_lock:
            self.stopping = True
            for connection in self._idle:
                hang_up(connection)
        self.shutdown()


def hang_up(connection):
    """What was already received is still read, then the connection ends."""
    try:
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # its client was faster


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def handle_one_request(self):
        self.server.idle(self.connection)
        super().handle_one_request()

    def parse_request(self):
        self.server.busy(self.connection)
        return super().parse_request()

    def finish(self):
        self.server.busy(self.connection)
        super().finish()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        try:
            status, body = self.route()
        except Refused as refused:
            status, body = refused.status, {"error": str(refused)}
        except ValueError as error:
            status, body = 400, {"error": str(error)}
        except sqlite3.Error as error:
            status, body = 503, {"error": f"the database does not answer: {error}"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        # After a refusal a part of the body may be unread: the connection cannot carry another request.
        if self.server.stopping or (status >= 400 and self.command == "POST"):
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def route(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        call = f"{self.command} {url.path}"
        store = self.server.store
        if call == "GET /health":
            store.check()
            return 200, {"status": "ok"}
        if call == "POST /reports":
            return self.create(store)
        if call == "GET /reports":
            limit = min(count(query.get("limit", str(LIST_DEFAULT))), LIST_MAX)
            return 200, {"reports": store.newest(limit)}
        if one := re.fullmatch(r"GET /reports/([0-9]{1,15})", call):
            return 200, store.get(int(one[1])) or self.missing(call)
        if url.path in faults.SWITCHES:
            return self.start_fault(url.path, query)
        return self.missing(call)

    def create(self, store):
        draft = self.read_json()
        title, body = (draft.get(key) if isinstance(draft, dict) else None for key in ("title", "body"))
        if not isinstance(title, str) or not isinstance(body, str):
            raise Refused(422, "a report needs a title and a body, both text")
        key = self.headers.get("Idempotency-Key") or self.headers.get("X-Request-Id")
        return 201, {"id": store.add(title, body, key)}

    def read_json(self):
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "a report comes with its Content-Length")
        length = count(self.headers.get("Content-Length", "0"))
        if length > BODY_BYTES_MAX:
            raise Refused(413, f"a report has at most {BODY_BYTES_MAX} bytes")
        try:
            return json.loads(self.rfile.read(length))
        except ValueError:
            raise Refused(400, "the body is not JSON") from None

    def start_fault(self, path, query):
        if self.command != "POST":
            raise Refused(405, "a switch is a POST")
        started = faults.SWITCHES[path](self.server.store, query)
        print(f"fault: {path} {json.dumps(started)}", flush=True)
        return 202, started

    def missing(self, call):
        raise Refused(404, f"nothing at {call}")

    def log_message(self, *_):
        pass  # quiet under load


def main():
    store = Store(os.environ.get("DATABASE", "reports.db"))
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "3000"))), store)

    def stop(_signal, _frame):
        # Of its own, because the main thread is the one that serves and cannot wait for itself.
        threading.Thread(target=server.stop).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    print("stopping: finishing requests in flight", flush=True)
    server.server_close()
    store.close()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
