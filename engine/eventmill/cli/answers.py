"""A server's answers to questions, fetched and printed."""

from __future__ import annotations

import http.client
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventmill.core.errors import ConfigError, StoreError

_TIMEOUT_S: Final = 120.0
_ARROW: Final = "application/vnd.apache.arrow.stream"
_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 60
#: Columns of the terminal that retention's first two, and each of the others, take.
_GRID_HEAD: Final = 26
_GRID_CELL: Final = 9
#: What fits a terminal, by kind; --json has all.
_SHOWN: Final = {
    "timeline": ("timestamp", "event", "platform", "app_version", "properties"),
    "sessions": (
        "time",
        "breakdown",
        "sessions",
        "bounce_rate",
        "events_per_session",
        "p50_ms",
        "p95_ms",
    ),
}
_TIMES: Final = frozenset(["time", "timestamp", "cohort"])
#: The least width of a column of text.
_LEAST: Final = 8
_SHARES: Final = frozenset(["conversion", "step_conversion", "share", "bounce_rate"])


def ask(url: str, key: str, kind: str, body: dict[str, Any], *, arrow: bool = False) -> bytes:
    """The answer's body, JSON or Arrow. Raises ``StoreError`` with the server's own words."""
    return fetch(url, key, f"/v1/query/{kind}", body, **({"Accept": _ARROW} if arrow else {}))


def fetch(
    url: str, key: str, path: str, body: dict[str, Any] | None = None, *, method: str = "POST", **headers: str
) -> bytes:
    """What a server answers to a GET, or to ``body`` sent by ``method``. Raises ``StoreError`` with the server's own words."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--url {url!r} is no address; write for example http://127.0.0.1:8080")
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = make(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        if body is None:
            connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request(method, parts.path.rstrip("/") + path, orjson.dumps(body), headers)
        response = connection.getresponse()
        found = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise StoreError(
            f"{url} does not answer ({error}); does `eventmill serve` run there? --url says where"
        ) from error
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise StoreError(_said(found) or f"{url} answered {response.status} {response.reason}")
    return found


def _said(body: bytes) -> str:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(answer.get("error", "")) if isinstance(answer, dict) else ""


#: Each column of values, and what is said of it beside its label.
_COLUMNS_OF_TRENDS: Final = {"value": "", "previous": " the period before"}


def print_answer(kind: str, answer: dict[str, Any], out: Console | None = None) -> None:
    """Tables, sparklines, and a line about where the answer comes from."""
    out = out or Console()
    columns, rows, meta = answer["columns"], answer["rows"], answer["meta"]
    series = _series(columns, rows) if kind == "trends" and rows else ()
    if kind in _SHOWN:
        chosen = [columns.index(name) for name in _SHOWN[kind] if name in columns]
        columns, rows = [columns[place] for place in chosen], [[row[place] for place in chosen] for row in rows]
    if kind == "retention" and rows:
        out.print(_grid(rows, out.width))
    else:
        out.print(_table(columns, rows) if rows else "nothing found")
    # Below the table: of a long one the end is what stands on the screen.
    for label, values in series:
        out.print(Text(f"{sparkline(values)}  {label}"), soft_wrap=True)
    if meta.get("cursor"):
        out.print(Text(f"there is more: --cursor {meta['cursor']}"), soft_wrap=True)
    stores = " and ".join(meta["stores"]) or "no store"
    boundary = f", boundary {meta['boundary']}" if meta.get("boundary") and len(meta["stores"]) > 1 else ""
    told = f"{len(rows):,} rows from {stores}{boundary}; about {meta['estimated_rows']:,} read in {meta['elapsed_ms']:,.0f} ms"
    out.print(Text(told, style="dim"), soft_wrap=True)


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value, from zero up; neighbours share one where there are too many."""
    if len(values) > _SPARK:
        width = -(-len(values) // _SPARK)
        parts = [[v for v in values[i : i + width] if v is not None] for i in range(0, len(values), width)]
        values = [sum(part) / len(part) if part else None for part in parts]
    known = [value for value in values if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else _BARS[round((value - low) * scale)] for value in values)


def _series(columns: list[str], rows: list[list[Any]]) -> Iterable[tuple[str, list[float | None]]]:
    """Each label's values from the answer's first bucket to its last; null where it has none."""
    moments = sorted({datetime.fromisoformat(row[0]) for row in rows})
    step = min((b - a for a, b in itertools.pairwise(moments)), default=timedelta(1))
    count = (moments[-1] - moments[0]) // step + 1
    labels = sum(name.startswith("breakdown") for name in columns)
    shown = [(columns.index(name), more) for name, more in _COLUMNS_OF_TRENDS.items() if name in columns]
    found: dict[Any, list[float | None]] = {}
    for row in rows:
        place = (datetime.fromisoformat(row[0]) - moments[0]) // step
        for column, more in shown:
            found.setdefault((*row[1 : 1 + labels], more), [None] * count)[place] = row[column]
    return [(f"{' / '.join(map(plain, label))}{more}", values) for (*label, more), values in found.items()]


def _table(columns: list[str], rows: list[list[Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = [[_cell(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    for place, name in enumerate(columns):
        numeric = any(isinstance(row[place], (int, float)) and not isinstance(row[place], bool) for row in rows)
        whole = numeric or name in _TIMES
        heading = plain(name.removesuffix("_ms").replace("_", " "))
        if whole:
            # A heading may break between words, a number or a time may not.
            longest = max(len(text) for text in (*heading.split(), *(row[place] for row in shown)))
            heading = "\n".join(textwrap.wrap(heading, longest))
        table.add_column(
            Text(heading), justify="right" if numeric else "left", overflow="fold", min_width=None if whole else _LEAST,
            no_wrap=whole,
        )  # fmt: skip
    for cells in shown:
        table.add_row(*map(Text, cells))
    return table


def _grid(rows: list[list[Any]], width: int) -> Table:
    """Retention: a line for each cohort, a column for each period after it as far as they fit."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("cohort")
    table.add_column("size", justify="right")
    ages = min(max(row[1] for row in rows), max((width - _GRID_HEAD) // _GRID_CELL, 1))
    for age in range(1, ages + 1):
        table.add_column(f"+{age}", justify="right")
    lines: dict[str, list[str]] = {}
    for cohort, age, count, share in rows:
        line = lines.setdefault(cohort, [])
        line.append(f"{count:,}" if age == 0 else _cell("share", share))
    for cohort, line in lines.items():
        table.add_row(cohort[:10], *line[: ages + 1])
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _moment(value) if name in _TIMES else plain(value)
    if name in _SHARES:
        return f"{value:.1%}"
    if name.endswith("_ms") and not name.startswith("elapsed"):
        return _length(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _moment(value: Any) -> str:
    """A time in UTC without what says nothing."""
    text = plain(value).replace("T", " ").removesuffix("Z")
    return text.removesuffix(":00")


def _length(ms: float) -> str:
    """A length of time as people read it."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms:.0f} ms"


def plain(value: Any) -> str:
    """Text that cannot steer a terminal: what an event carries is anybody's."""
    text = value if isinstance(value, str) else "–" if value is None else orjson.dumps(value).decode()
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
