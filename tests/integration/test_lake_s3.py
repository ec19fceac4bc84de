"""The lake in a bucket, on a real S3 server: the same promises as in a folder, and what an absent server means."""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from eventmill.core.config import LakeConfig
from eventmill.core.errors import ConfigError, StateError, StoreError, StoreUnavailable
from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain, referenced
from eventmill.lake.table import Lake
from lake_events import DAY_MS, GAP_MS, GROUP, START_MS, batch, event_id, row, sessions_by_duckdb
from serving import Serving, eventmill, eventually
from testbed.process import free_port
from testbed.s3 import S3

pytestmark = pytest.mark.soak  # a fresh machine builds the server first


@pytest.fixture
def settings(s3: S3, monkeypatch: pytest.MonkeyPatch) -> LakeConfig:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the surroundings")  # given settings go before it
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the surroundings")
    return LakeConfig(
        warehouse=f"s3://{s3.bucket}/{uuid.uuid4().hex}", endpoint=s3.endpoint,
        access_key_id=s3.access_key_id, secret_access_key=s3.secret_access_key,
    )  # fmt: skip


@pytest.fixture
def lake(settings: LakeConfig, tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", settings=settings)


def prefix(settings: LakeConfig) -> str:
    return settings.warehouse.rsplit("/", 1)[1]


def fill(lake: Lake, appends: int) -> None:
    first = lake.committed_offset()
    for number in range(first, first + appends):
        rows = [row(number * 3 + i, event=f"event {i}", device_id=f"d{number % 2}") for i in range(3)]
        rows.append(row(number * 3, event="event 0", device_id=f"d{number % 2}", received_at=START_MS + DAY_MS))
        rows.append(row(10_000 + number, timestamp=START_MS - 2 * DAY_MS + number * GAP_MS, device_id="late"))
        lake.append(batch(rows), group=GROUP, ranges={0: (number, number + 1)})


def stored(lake: Lake) -> list[dict]:
    rows = lake.load().scan().to_arrow()
    names = ["event_id", "device_id", "session_id"]
    times = [int(moment.timestamp() * 1000) for moment in rows.column("timestamp").to_pylist()]
    return [
        one | {"timestamp": at} for one, at in zip(rows.select(names).to_pylist(), times, strict=True)
    ]  # fmt: skip


def test_appends_compaction_and_clean_up_keep_every_row_once_and_leave_no_orphan(
    lake: Lake, settings: LakeConfig, s3: S3
) -> None:
    fill(lake, 4)
    lake.append(batch([row(0)]), group=GROUP, ranges={0: (2, 3)})  # stored already
    assert lake.committed_offset() == 4
    assert len(stored(lake)) == 20
    report = compact(lake, gap_ms=GAP_MS, now_ms=0)
    assert (report.rows_read, report.duplicates) == (20, 4)
    fill(lake, 1)
    rows = stored(lake)
    assert sorted(one["event_id"] for one in rows) == sorted(
        [event_id(number) for number in [*range(15), *range(10_000, 10_005), 12]]
    )
    compact(lake, gap_ms=GAP_MS, now_ms=0)
    rows = stored(lake)
    exact = sessions_by_duckdb(rows)
    assert {one["event_id"]: one["session_id"] for one in rows} == exact
    assert lake.watermark() == START_MS + DAY_MS
    place = lake.storage.path(lake.data_location("2026-01-01/appended-lost.parquet"))
    with lake.storage.write(place) as file:
        file.write(b"what a killed append left")
    assert maintain(lake, now_ms=0, snapshots_kept=1, grace_ms=1_000).files_removed == 0
    assert maintain(lake, now_ms=1_000, snapshots_kept=1, grace_ms=1_000).files_removed > 20
    assert {f"s3://{s3.bucket}/{path}" for path in s3.files(prefix(settings))} == referenced(lake)
    assert stored(lake) == rows
    (found,) = lake.find(event_id(3))
    assert found["file"].startswith(settings.warehouse)
    assert sum(hour.rows for hour in lake.counts_by_hour()) == len(rows)


def test_two_writers_of_one_range_store_it_once(lake: Lake, settings: LakeConfig) -> None:
    other = Lake(lake.folder, settings=settings)

    def overtake(point: str) -> None:
        if point == "before commit":
            other.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})

    zombie = Lake(lake.folder, settings=settings, checkpoint=overtake)
    zombie.append(batch([row(1)]), group=GROUP, ranges={0: (0, 1)})
    assert len(stored(lake)) == 1


def test_what_is_wrong_is_said_at_the_start_without_a_key(
    settings: LakeConfig, lake: Lake, tmp_path: Path, s3: S3
) -> None:
    def refused(error: type[Exception], match: str, **wrong: str) -> None:
        given = {"warehouse": f"s3://{s3.bucket}/{uuid.uuid4().hex}", **wrong}
        with pytest.raises(error, match=match) as raised:
            Lake(tmp_path / uuid.uuid4().hex, settings=replace(settings, **given))
        assert settings.secret_access_key not in str(raised.value)

    refused(StoreError, "refuses the credentials; check lake.access_key_id", secret_access_key="guess")
    refused(StoreError, "refuses the credentials", access_key_id="nobody")
    refused(StoreError, "there is no bucket elsewhere", warehouse="s3://elsewhere/x")
    refused(StoreError, "check lake.endpoint", endpoint=f"http://127.0.0.1:{free_port()}")
    refused(ConfigError, "is not s3://BUCKET/PREFIX", warehouse="gs://lake")
    refused(ConfigError, "set both, or neither", secret_access_key="")
    refused(StateError, "a lake that this catalog does not know", warehouse=settings.warehouse)
    with pytest.raises(StateError, match=r"set lake\.warehouse as it was"):
        Lake(lake.folder)
    assert settings.secret_access_key not in repr(settings)


def test_keys_of_the_surroundings_will_do(
    settings: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings.secret_access_key)
    lake = Lake(tmp_path / "lake", settings=replace(settings, access_key_id="", secret_access_key=""))
    fill(lake, 1)
    assert len(stored(lake)) == 5


def test_serve_refuses_wrong_keys_by_a_message(s3: S3, tmp_path: Path) -> None:
    wrong = s3.environ("wrong") | {"EVENTMILL_LAKE__SECRET_ACCESS_KEY": "a-wrong-guess"}
    done = eventmill("serve", "--data", str(tmp_path), "--port", "0", **wrong)
    assert done.returncode == 2
    assert b"refuses the credentials; check lake.access_key_id" in done.stderr
    assert b"a-wrong-guess" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_append_to_an_absent_server_says_that_waiting_helps(lake: Lake, s3: S3) -> None:
    fill(lake, 1)
    s3.kill()
    with pytest.raises(StoreUnavailable, match=r"check lake\.endpoint"):
        lake.append(batch([row(99)]), group=GROUP, ranges={0: (1, 2)})
    with pytest.raises(StoreUnavailable):
        compact(lake, gap_ms=GAP_MS, now_ms=0)
    s3.start()
    lake.append(batch([row(99)]), group=GROUP, ranges={0: (1, 2)})
    assert len(stored(lake)) == 6


EVENTS = 24_000


def test_serve_lags_while_the_server_is_away_and_loses_nothing(s3: S3, tmp_path: Path) -> None:
    """S3 is killed under load, and so is ``serve``; then the oracle judges, and the lake is compacted."""
    environ = {**s3.environ(uuid.uuid4().hex), "EVENTMILL_LAKE__BATCH_INTERVAL": "500ms"}
    port, truth = free_port(), tmp_path / "truth.parquet"
    server = Serving(tmp_path / "data", "--port", str(port), **environ)
    generator = subprocess.Popen(
        [
            sys.executable, "-m", "eventmill", "generate", "--events", str(EVENTS), "--rate", "8000", "--seed", "5",
            "--url", server.url, "--truth", str(truth), "--give-up", "300s", "--json",
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:

        def received(share: float) -> None:
            eventually(lambda: server.engine("GET", "/v1/status")["ledger"]["received"] >= EVENTS * share)

        received(0.2)
        eventually(lambda: (server.engine("GET", "/v1/pipeline")["lake"] or {"rows": 0})["rows"])
        s3.kill()
        received(0.5)
        eventually(lambda: server.engine("GET", "/v1/status")["lag"]["lake"] > EVENTS / 10)
        assert server.sql("SELECT count() > 0 FROM events") == [[1]]  # the real-time store goes on
        s3.start()
        received(0.7)
        server.kill()
        server = Serving(tmp_path / "data", "--port", str(port), **environ)
        output, _ = generator.communicate()
        server.flush()
        verdicts = server.engine("POST", f"/v1/judge?truth={truth}")
        rows = server.sql("SELECT count() FROM lake.events")
        hot = server.sql("SELECT event, count() FROM events GROUP BY 1 ORDER BY 1")
        report = server.engine("POST", "/v1/compact")
        assert report["files_written"] < report["files_read"]
        assert server.sql("SELECT count() FROM lake.events") == rows
        assert server.sql("SELECT event, count() FROM lake.events GROUP BY 1 ORDER BY 1") == hot
        assert server.engine("GET", "/v1/audit")["balanced"]
        assert server.stop() == 0
    finally:
        server.kill()
        generator.kill()
    assert orjson.loads(output)["unknown"] == 0
    for verdict in verdicts.values():
        assert (verdict["lost"], verdict["doubled"], verdict["good"]) == (0, 0, True), verdict
        assert verdict["stored"] == verdict["unique"] == verdict["acked"]
    assert s3.secret_access_key not in (tmp_path / "data" / "messages.txt").read_text()
