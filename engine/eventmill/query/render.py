"""Answers: a table and what is known about it, as JSON, as an Arrow stream, or as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
import pyarrow as pa

from eventmill.core.ids import format_event_id
from eventmill.net.messages import Response

ARROW: Final = "application/vnd.apache.arrow.stream"
CSV: Final = "text/csv"
META: Final = b"eventmill.meta"
#: What makes a spreadsheet take a text for a formula (OWASP, "CSV Injection"), the full-width twins included.
_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave. ``meta`` has stores, boundary, estimated_rows, elapsed_ms and cached."""

    table: pa.Table
    meta: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """``{"columns", "rows", "meta"}`` of plain values.

        Times are ISO 8601 in UTC, 16-byte values (event ids) UUIDs, decimals text, not-a-number null.
        """
        columns = [_values(column) for column in self.table.columns]
        rows = [list(row) for row in zip(*columns, strict=True)]
        return {"columns": self.table.column_names, "rows": rows, "meta": self.meta}

    def as_csv(self) -> str:
        """The columns and rows as RFC 4180 has them: null is nothing, lists and maps are JSON.

        A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers are as they are.
        """
        answer = self.as_dict()
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\r\n")
        writer.writerow([_cell(name) for name in answer["columns"]])
        writer.writerows([_cell(value) for value in row] for row in answer["rows"])
        return sink.getvalue()

    def response(self, accept: str) -> Response:
        """JSON; for a client that asks for it an Arrow stream (``meta`` as JSON in the schema's metadata), or CSV."""
        if CSV in accept:
            return Response(200, self.as_csv().encode("utf-8", "replace"), f"{CSV}; charset=utf-8; header=present")
        if ARROW not in accept:
            return Response.json(200, self.as_dict())
        table = self.table.replace_schema_metadata({META: orjson.dumps(self.meta)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(200, sink.getvalue().to_pybytes(), ARROW)


def _cell(value: Any) -> str:
    """A value of a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return orjson.dumps(value).decode()
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def iso(at_ms: int) -> str:
    """``2026-11-23T04:00:00Z``, with a fraction only where there is one."""
    moment = datetime.fromtimestamp(at_ms // 1_000, UTC).replace(microsecond=at_ms % 1_000 * 1_000)
    return _plain(moment)  # type: ignore[no-any-return]


def typed(table: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """The table with what Arrow's types do not say of ClickHouse's (``kinds``: column to type).

    ``DateTime`` comes as a plain number of seconds, and 128-bit integers as 16 bytes like an event id.
    """
    for position, name in enumerate(table.column_names):
        kind = kinds.get(name, "").removeprefix("Nullable(")
        column = table.column(position)
        if kind.startswith("DateTime") and pa.types.is_integer(column.type):
            table = table.set_column(position, name, column.cast(pa.int64()).cast(pa.timestamp("s", tz="UTC")))
        elif kind.startswith(("Int128", "UInt128")) and column.type == pa.binary(16):
            signed = kind.startswith("I")
            numbers = [
                None if value is None else str(int.from_bytes(value, "little", signed=signed))
                for value in column.to_pylist()
            ]
            table = table.set_column(position, name, pa.array(numbers, pa.string()))
    return table


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            values: list[Any] = column.to_pylist()
        except UnicodeDecodeError:
            # ClickHouse's strings are bytes: what cuts or builds them may leave something else than UTF-8.
            values = [_plain(value) for value in column.cast(pa.binary()).to_pylist()]
        return values
    values = column.to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values
    convert: Callable[[Any], Any] = _event_id if kind == pa.binary(16) else _plain
    return [None if value is None else convert(value) for value in values]


def _event_id(value: bytes) -> str:
    return format_event_id(value)


def _plain(value: Any) -> Any:
    """A value that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, datetime):
        fine = value.microsecond % 1_000
        fraction = "auto" if not value.microsecond else "microseconds" if fine else "milliseconds"
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=fraction) + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return _event_id(value) if len(value) == 16 else value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value)
