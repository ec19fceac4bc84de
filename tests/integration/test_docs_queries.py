"""The examples of docs/queries.md: each question is asked, in both stores, and answers what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
import xxhash

from eventmill.cli.query import query
from eventmill.core.config import QueryConfig
from eventmill.core.schema import EVENT
from eventmill.lake.table import Lake
from eventmill.query.service import KINDS, SQL, QueryService
from eventmill.sinks.realtime.store import RealtimeStore
from realtime_events import DAY_MS

PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
EXAMPLES = re.findall(r"```http\nPOST /v1/query/(\w+)\n\n(.*?)```\n\n```json\n(.*?)```", PAGE, re.DOTALL)
#: A day after the last event.
NOW = 1_793_880_000_000


def rows() -> list[dict[str, Any]]:
    """The page's events with all columns of an event."""
    (lines,) = re.findall(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)
    found = []
    for place, line in enumerate(lines.splitlines()):
        given = json.loads(line)
        at = datetime.fromisoformat(given["at"])
        row: dict[str, Any] = dict.fromkeys(EVENT.names)
        row |= {"event_id": xxhash.xxh3_128_digest(str(place).encode()), "type": "track", "flags": 0, "context": "{}"}
        row |= {"event": given["event"], "device_id": given["device"], "user_id": given["user"]}
        row |= {"timestamp": at, "received_at": at, "session_id": given["session"], "platform": given["platform"]}
        found.append(row | {"properties": json.dumps(given.get("properties", {}))})
    return found


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[QueryService]]:
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a service moves the process; this puts it back in the end
        store, lake = RealtimeStore(folder / "realtime"), Lake(folder / "lake")
        table = pa.Table.from_pylist(rows(), EVENT)
        store.insert(table.append_column("log_offset", pa.array(range(table.num_rows), pa.uint64())), "token")
        lake.append(table, group="lake", ranges={0: (0, 1)})
        made = [
            QueryService(store, source, QueryConfig(), window_ms=DAY_MS, clock=lambda: NOW)
            for source in (lambda: None, lake.source_sql)
        ]
        yield made
        for service in made:
            service.close()
        store.close()


@pytest.mark.parametrize(("kind", "body", "answer"), EXAMPLES)
def test_an_example_answers_what_the_page_says(services: list[QueryService], kind: str, body: str, answer: str) -> None:
    said = json.loads(answer)
    for service in services:
        found = service.ask(kind, json.loads(body))
        assert {key: found[key] for key in ("columns", "rows")} == {key: said[key] for key in ("columns", "rows")}
        assert found["meta"].get("cursor") == said["meta"].get("cursor")
        assert found["meta"].keys() == said["meta"].keys()


def test_each_kind_has_an_example_and_a_command() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == {*KINDS, SQL}
    with click.Context(query) as context:
        assert set(query.list_commands(context)) == {*KINDS, SQL, "saved"}
    for kind in (*KINDS, SQL):
        assert f"$ eventmill query {kind} " in PAGE
