"""ClickHouse's HTTP interface (https://clickhouse.com/docs/interfaces/http) over the embedded engine, as a process of its own.

No package registry has a ClickHouse server of this decade, but the engine is here: chdb. This process gives it the server's
face, as far as a client needs it: the query from the URL and the body, parameters, settings, compression either way, data
behind ``FORMAT`` and for ``input(…)``, external tables, ``readonly``, query ids, passwords, and errors with their code.

``python -m testbed.clickhouse_http FOLDER PORT PASSWORD``
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow as pa

#: Of the URL, besides settings.
_RESERVED: Final = frozenset(
    [
        "query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id", "quota_key",
        "wait_end_of_query", "buffer_size", "compress", "decompress", "user", "password", "client_protocol_version",
        "enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    ]
)  # fmt: skip
_INSERTED: Final = re.compile(rb"\s*INSERT\s+INTO\b.*?\bFORMAT\s+(\w+)\s*\n", re.IGNORECASE | re.DOTALL)
_INPUT: Final = re.compile(r"\binput\('((?:[^'\\]|\\.)*)'\)")
_NOT_FOUND: Final = frozenset(["60", "81"])
_ALONE: Final = re.compile(
    r"\s*(CREATE|DROP|ALTER|INSERT|KILL|EXCHANGE|RENAME|SYSTEM|OPTIMIZE|SET|USE)\b", re.IGNORECASE
)


class Engine:
    """The engine in a folder. ``running`` has the query ids of what runs now."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = str(folder)
        self._keep = chdb.connect(self._path)
        self._changed = threading.Condition()
        self._running: list[str] = []

    def answer(self, statement: bytes, given: Mapping[str, str], tables: Mapping[str, bytes]) -> tuple[bytes, int]:
        """What the statement gives in its format, and how many rows it read."""
        with self._connected(given) as connection, tempfile.TemporaryDirectory() as scratch:
            for name, data in tables.items():
                _make_external(connection, name, data, given, Path(scratch))
            parameters = {name.removeprefix("param_"): value for name, value in given.items() if name[:6] == "param_"}
            text = self._processes(_with_data(statement, Path(scratch)))
            if killed := re.match(r"\s*KILL QUERY WHERE startsWith\(query_id, '([^']*)'\) SYNC", text):
                self._await(killed[1])
                return b"", 0
            with self._noted(given.get("query_id", "")):
                found = connection.query(text, given.get("default_format", "TabSeparated"), params=parameters or None)
            return bytes(found.bytes() or b""), int(found.rows_read())

    @contextmanager
    def _connected(self, given: Mapping[str, str]) -> Iterator[Any]:
        connection = chdb.connect(self._path)
        try:
            if database := given.get("database"):
                connection.query(f"USE `{database}`")
            settings = {
                name: value for name, value in given.items()
                if name not in _RESERVED and not name.startswith("param_") and not name.endswith(("_format", "_structure"))
            }  # fmt: skip
            settings |= {name: given[name] for name in given if name.startswith(("output_format_", "input_format_"))}
            for name, value in sorted(settings.items(), key=lambda item: item[0] == "readonly"):
                connection.query(
                    f"SET {name} = '{value.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'"
                )
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _noted(self, query_id: str) -> Iterator[None]:
        with self._changed:
            self._running.append(query_id)
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(query_id)
                self._changed.notify_all()

    def _await(self, start: str) -> None:
        """As a KILL that comes too late to stop anything: it returns when they have ended."""
        with self._changed:
            self._changed.wait_for(lambda: not any(each.startswith(start) for each in self._running))

    def _processes(self, text: str) -> str:
        listed = ", ".join(f"'{each}'" for each in self._running) or "''"
        return text.replace("system.processes", f"(SELECT arrayJoin([{listed}]) AS query_id)")


def _with_data(statement: bytes, scratch: Path) -> str:
    """The statement with what follows its FORMAT put into a file that it reads."""
    found = _INSERTED.match(statement)
    if found is None or found.end() == len(statement):
        return statement.decode()
    file, kind = scratch / "data", found[1].decode()
    file.write_bytes(statement[found.end() :])
    head = statement[: found.start(1)].decode().rstrip().removesuffix("FORMAT").rstrip()
    if _INPUT.search(head):
        return _INPUT.sub(lambda one: f"file('{file}', '{kind}', '{one[1]}')", head)
    return f"{head} FROM INFILE '{file}' FORMAT {kind}"


def _make_external(connection: Any, name: str, data: bytes, given: Mapping[str, str], scratch: Path) -> None:
    structure, kind = given[f"{name}_structure"], given[f"{name}_format"]
    file = scratch / name
    file.write_bytes(data)
    connection.query(f"CREATE TEMPORARY TABLE {name} ({structure})")
    quoted = structure.replace("'", "\\'")
    connection.query(f"INSERT INTO {name} SELECT * FROM file('{file}', '{kind}', '{quoted}')")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    engine: Engine
    password: str

    def do_GET(self) -> None:
        """Ping, or a query that only reads."""
        self._serve(only_reads=True)

    def do_POST(self) -> None:
        """A query."""
        self._serve(only_reads=False)

    def _serve(self, *, only_reads: bool) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if not self._chunked else self._chunks()
        if url.path == "/ping":
            return self._reply(200, b"Ok.\n", {})
        given = dict(parse_qsl(url.query, keep_blank_values=True))
        if not self._known(given):
            refusal = b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)\n"
            return self._reply(403, refusal, {"X-ClickHouse-Exception-Code": "516"})
        body, tables = self._parts(_inflated(body, self.headers.get("Content-Encoding", "")), given)
        text = given.get("query", "").encode()
        statement = text + (b"\n" if text and body else b"") + body
        if only_reads and "readonly" not in given:
            given["readonly"] = "2"
        started = time.monotonic()
        try:
            answer, rows = self.engine.answer(statement, given, tables)
        except Exception as error:
            message = str(error)
            code = found[1] if (found := re.search(r"Code: (\d+)", message)) else "1002"
            self._reply(404 if code in _NOT_FOUND else 500, message.encode(), {"X-ClickHouse-Exception-Code": code})
            return None
        summary = {"read_rows": str(rows), "elapsed_ns": str(int((time.monotonic() - started) * 1e9))}
        headers = {"X-ClickHouse-Summary": json.dumps(summary), "X-ClickHouse-Query-Id": given.get("query_id", "")}
        if not _ALONE.match(statement.decode("utf-8", "replace")[:64]):
            headers["X-ClickHouse-Format"] = given.get("default_format", "TabSeparated")
        if given.get("enable_http_compression") == "1" and "zstd" in self.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], answer = "zstd", pa.Codec("zstd").compress(answer, asbytes=True)
        return self._reply(200, answer, headers)

    @property
    def _chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "")

    def _chunks(self) -> bytes:
        found = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(found)

    def _known(self, given: Mapping[str, str]) -> bool:
        sent = self.headers.get("Authorization", "")
        if sent.startswith("Basic "):
            return base64.b64decode(sent[6:]).decode().partition(":")[2] == self.password
        return given.get("password", self.headers.get("X-ClickHouse-Key", "")) == self.password

    def _parts(self, body: bytes, given: dict[str, str]) -> tuple[bytes, dict[str, bytes]]:
        """The body without a form round it; the form's files, its other fields go to the parameters."""
        kind = self.headers.get("Content-Type", "")
        if "multipart/form-data" not in kind:
            return body, {}
        tables: dict[str, bytes] = {}
        for part in body.split(b"--" + kind.partition("boundary=")[2].strip('"').encode())[1:-1]:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb' name="([^"]*)"', head)
            assert name is not None
            if b"filename=" in head:
                tables[name[1].decode()] = content.removesuffix(b"\r\n")
            else:
                given[name[1].decode()] = content.removesuffix(b"\r\n").decode()
        return b"", tables

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name that it has
        """Say nothing."""


def _inflated(body: bytes, encoding: str) -> bytes:
    if not encoding or not body:
        return body
    with pa.CompressedInputStream(pa.BufferReader(body), encoding) as stream:
        inflated: bytes = stream.read()
    return inflated


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main(folder: str, port: str, password: str) -> None:
    """Serve until the process ends."""
    os.chdir("/")
    handler = type("Bound", (Handler,), {"engine": Engine(Path(folder)), "password": password})
    _Server(("127.0.0.1", int(port)), handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
