"""The lake's catalog on another server instead of in a file: PostgreSQL, and Iceberg's own REST catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventmill.core.config import LakeConfig
from eventmill.core.errors import ConfigError, StoreError, StoreUnavailable
from eventmill.lake.compact import compact
from eventmill.lake.maintain import maintain
from eventmill.lake.table import Lake
from lake_events import GAP_MS, GROUP, batch, row
from testbed.postgres import Postgres
from testbed.rest_catalog import RestCatalog

SECRET = "password"


@pytest.fixture(params=["postgres", pytest.param("rest_catalog", marks=pytest.mark.soak)])
def server(request: pytest.FixtureRequest) -> Postgres | RestCatalog:
    return request.getfixturevalue(request.param)


def test_a_catalog_on_another_server_keeps_every_promise(server: Postgres | RestCatalog, tmp_path: Path) -> None:
    settings = LakeConfig(catalog=server.url)
    lake = Lake(tmp_path / "lake", settings=settings)
    other = Lake(tmp_path / "lake", settings=settings)

    def overtake(point: str) -> None:
        if point == "before commit":
            other.append(batch([row(0)]), group=GROUP, ranges={0: (0, 1)})

    zombie = Lake(tmp_path / "lake", settings=settings, checkpoint=overtake)
    zombie.append(batch([row(0)]), group=GROUP, ranges={0: (0, 1)})
    for number in range(1, 3):
        rows = batch([row(number), row(number, received_at=1 << 41)])
        lake.append(rows, group=GROUP, ranges={0: (number, number + 1)})
    other.append(batch([row(9)]), group=GROUP, ranges={0: (2, 3)})
    assert (other.committed_offset(), compact(other, gap_ms=GAP_MS, now_ms=0).duplicates) == (3, 2)
    assert lake.load().scan().to_arrow().num_rows == 3
    assert maintain(lake, now_ms=0, snapshots_kept=1, grace_ms=0).files_removed > 5
    assert lake.load().scan().to_arrow().num_rows == 3
    assert not (tmp_path / "lake" / "catalog.sqlite").exists()

    server.kill()
    with pytest.raises(StoreUnavailable) as raised:
        lake.append(batch([row(4)]), group=GROUP, ranges={0: (3, 4)})
    assert SECRET not in str(raised.value)
    with pytest.raises(StoreError, match=r"//127.0.0.1:\d+\S* cannot be opened") as raised:
        Lake(tmp_path / "lake", settings=settings)
    assert SECRET not in str(raised.value)
    server.start()
    lake.append(batch([row(4)]), group=GROUP, ranges={0: (3, 4)})
    assert Lake(tmp_path / "lake", settings=settings).load().scan().to_arrow().num_rows == 4
    assert SECRET not in repr(settings)


def test_a_wrong_password_is_not_repeated(postgres: Postgres, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened") as raised:
        Lake(tmp_path / "lake", settings=LakeConfig(catalog=postgres.url.replace("-password", "-guess")))
    assert "guess" not in str(raised.value)


def test_another_catalog_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'mysql://db/x' is neither postgresql://"):
        Lake(tmp_path / "lake", settings=LakeConfig(catalog="mysql://me:secret@db/x"))
