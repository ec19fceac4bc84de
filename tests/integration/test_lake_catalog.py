"""The lake's catalog in PostgreSQL instead of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eventmill.core.config import LakeConfig
from eventmill.core.errors import ConfigError, StoreError, StoreUnavailable
from eventmill.lake.compact import compact
from eventmill.lake.table import Lake
from lake_events import GAP_MS, GROUP, batch, row
from testbed.postgres import Postgres


def test_the_catalog_in_postgresql_keeps_the_lake_of_a_folder(postgres: Postgres, tmp_path: Path) -> None:
    settings = LakeConfig(catalog=postgres.url)
    lake = Lake(tmp_path / "lake", settings=settings)
    other = Lake(tmp_path / "lake", settings=settings)
    for number in range(3):
        rows = batch([row(number), row(number, received_at=1 << 41)])
        lake.append(rows, group=GROUP, from_offset=number, to_offset=number + 1)
    other.append(batch([row(9)]), group=GROUP, from_offset=2, to_offset=3)
    assert (other.committed_offset(), compact(other, gap_ms=GAP_MS, now_ms=0).duplicates) == (3, 3)
    assert lake.load().scan().to_arrow().num_rows == 3
    assert not (tmp_path / "lake" / "catalog.sqlite").exists()

    postgres.kill()
    with pytest.raises(StoreUnavailable) as raised:
        lake.append(batch([row(4)]), group=GROUP, from_offset=3, to_offset=4)
    assert postgres.password not in str(raised.value)
    with pytest.raises(StoreError, match=r"postgresql://127.0.0.1:\d+/postgres cannot be opened") as raised:
        Lake(tmp_path / "lake", settings=settings)
    assert postgres.password not in str(raised.value)
    postgres.start()
    lake.append(batch([row(4)]), group=GROUP, from_offset=3, to_offset=4)
    assert Lake(tmp_path / "lake", settings=settings).load().scan().to_arrow().num_rows == 4
    assert postgres.password not in repr(settings)

    with pytest.raises(StoreError) as raised:
        Lake(tmp_path / "lake", settings=replace(settings, catalog=postgres.url.replace("-password", "-guess")))
    assert "guess" not in str(raised.value)


def test_another_catalog_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mysql://db/x' is not postgresql://"):
        Lake(tmp_path / "lake", settings=LakeConfig(catalog="mysql://me:secret@db/x"))
