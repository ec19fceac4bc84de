"""A lake in a bucket that Trino reads, too, by the lake's own catalog."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2
from tests.needs import had

from eventmill.core.config import LakeConfig, TrinoConfig
from testbed.postgres import Postgres
from testbed.s3 import S3
from testbed.trino import Trino, lake_catalog


@dataclass
class Bucket:
    """Where three lakes lie (the keys of ``[lake]``), and who reads them there: as ``iceberg``, ``other`` and ``served``."""

    lake: dict[str, str]
    other: dict[str, str]
    served: dict[str, str]
    trino: Trino

    @property
    def settings(self) -> LakeConfig:
        """The section of the first."""
        return LakeConfig(**self.lake)

    def config(self, **more: int) -> TrinoConfig:
        """The settings of the query service."""
        return TrinoConfig(url=self.trino.url, **more)


@contextlib.contextmanager
def bucket(s3: S3) -> Iterator[Bucket]:
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(had(Postgres))
        with contextlib.closing(psycopg2.connect(postgres.url)) as connection:
            connection.autocommit = True
            for name in ("other", "served"):
                connection.cursor().execute(f"CREATE DATABASE {name}")
        databases = {"iceberg": "postgres", "other": "other", "served": "served"}
        catalogs = {name: lake_catalog(postgres, s3, database) for name, database in databases.items()}
        trino = stack.enter_context(had(lambda: Trino(catalogs)))
        lakes = [
            {
                "catalog": postgres.url.replace("/postgres", f"/{database}"),
                "warehouse": f"s3://{s3.bucket}/{uuid.uuid4().hex}",
                "endpoint": s3.endpoint,
                "access_key_id": s3.access_key_id,
                "secret_access_key": s3.secret_access_key,
            }
            for database in databases.values()
        ]
        yield Bucket(*lakes, trino)
